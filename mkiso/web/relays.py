"""Queued relays as people and programs see them: what waits, runs or needs a person, and what is done about it.

A page follows itself: its script asks for its JSON, and draws it anew where that has changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from flask import Blueprint, Response, current_app, jsonify, make_response, render_template, request

from mkiso.errors import RelayNotFound
from mkiso.ledger.relays import RELAY_STATES
from mkiso.ledger.schema import now
from mkiso.web.answers import UUID, argument, choice, limit, page_texts, prefers_json, require_state, see_other
from mkiso.web.following import JobView, Shared, shown_name
from mkiso.web.guards import installation, refuse_embedding, requester

FILTERS = ("state", "destination")
MOST_SHOWN, MOST_OVER, MOST_TRIES = 100, 10, 20
ENDED_BY = re.compile(r"(Cancelled|Forgotten) by (.+)\.", re.DOTALL)
blueprint = Blueprint("relays", __name__)
blueprint.before_request(refuse_embedding)


@dataclass(frozen=True)
class RelayView:
    """A RELAY, its destination's queue, and its attempt where one runs."""

    relay: Mapping[str, Any]
    queue: Mapping[str, Any] | None
    attempt: JobView | None

    @property
    def waits_for(self) -> str:
        """Why a relay that waits is not sent now: the end of a key of the texts."""
        if self.queue and self.queue["paused_by"] is not None:
            return "held"
        if self.queue and self.queue["is_away"]:
            return "away"
        return "next" if self.relay["error"] and self.relay["next_at"] > now() else "turn"

    @property
    def ended_by(self) -> str:
        """Who ended a relay that was cancelled, in words."""
        t, by = page_texts()["relays"], ENDED_BY.fullmatch((self.relay["error"] or {}).get("detail", ""))
        return t[f"{by[1].lower()}_by"].format(who=shown_name(by[2])) if by else t["cancelled"]


def overview(state: str | None = None, destination: str | None = None) -> dict[str, Any]:
    """What the page of all relays shows: RELAYs, how each destination's queue is, and the JOBs that send now.

    Only RELAYs in this state, to this destination, where they are given; then more of those that are over.
    """
    relays = installation().ledger.relays
    groups = (("quarantined",), ("running",), ("waiting",), ("done", "cancelled")) if state is None else ((state,),)
    found: list[dict[str, Any]] = []
    for states in groups:
        found += relays.page(states, destination, MOST_OVER if "done" in states and state is None else MOST_SHOWN)
    return {"relays": found, "destinations": _queues(), "jobs": _attempts(found)}


@blueprint.get("/relays")
def relays() -> Response:
    filters = {name: text for name in FILTERS if (text := argument(name))}
    require_state(filters.get("state"), RELAY_STATES)
    if prefers_json() and not filters:
        return jsonify(cast(Shared[dict[str, Any]], current_app.extensions["mkiso.relays"]).get())
    told = overview(**filters)
    if prefers_json():
        return jsonify(told)
    views = _views(told["relays"], told["destinations"], told["jobs"])
    of_state = {state: [one for one in views if one.relay["state"] == state] for state in RELAY_STATES}
    return make_response(render_template("relays.html", queues=told["destinations"], of_state=of_state, given=filters))


@blueprint.get("/relays/<relay_id>")
def relay(relay_id: str) -> Response:
    """The RELAY and the JOB that sends it now, or their page."""
    found = installation().ledger.relays.relay(known_relay_id(relay_id))
    if prefers_json():
        return jsonify(found | {"attempt": next(iter(_attempts([found])), None)})
    (view,) = _views([found], _queues(), _attempts([found]))
    ids = found["jobs"][-MOST_TRIES:]
    jobs = installation().ledger.history.jobs(ids)
    tries = [jobs[one][0] for one in reversed(ids) if one in jobs]
    return make_response(render_template("relay.html", view=view, tries=tries, count=len(found["jobs"])))


@blueprint.get("/api/relays")
def relays_as_data() -> Response:
    state, service = argument("state"), installation()
    require_state(state, RELAY_STATES)
    states = RELAY_STATES if state is None else (state,)
    return jsonify(relays=service.ledger.relays.page(states, argument("destination"), limit()), destinations=_queues())


@blueprint.get("/api/relays/<relay_id>")
def relay_as_data(relay_id: str) -> Response:
    return jsonify(installation().ledger.relays.relay(known_relay_id(relay_id)))


@blueprint.post("/relays/<relay_id>/again")
@blueprint.post("/api/relays/<relay_id>/again", endpoint="again_as_data")
def again(relay_id: str) -> Response:
    """Have a relay that waits, or was given up, tried now."""
    installation().ledger.relays.again(known_relay_id(relay_id), installation().config.relay.give_up)
    current_app.extensions["mkiso.pickup"].wake()
    return _changed(relay_id)


@blueprint.post("/relays/<relay_id>/cancel")
@blueprint.post("/api/relays/<relay_id>/cancel", endpoint="cancel_as_data")
def cancel(relay_id: str) -> Response:
    """End a relay that waits or was given up, or have its attempt stop."""
    installation().cancel_relay(known_relay_id(relay_id), requester())
    return _changed(relay_id)


@blueprint.post("/relays/<relay_id>/forget")
@blueprint.post("/api/relays/<relay_id>/forget", endpoint="forget_as_data")
def forget(relay_id: str) -> Response:
    """End a relay that was given up; any other stays as it is."""
    installation().ledger.relays.forget(known_relay_id(relay_id), requester())
    return _changed(relay_id)


@blueprint.post("/relays/to/<path:name>/pause")
@blueprint.post("/api/destinations/<path:name>/pause", endpoint="pause_as_data")
def pause(name: str) -> Response:
    """Have nothing more sent to a destination."""
    installation().config.destination(name)
    installation().ledger.relays.pause(name, requester())
    return _changed_queue(name)


@blueprint.post("/relays/to/<path:name>/resume")
@blueprint.post("/api/destinations/<path:name>/resume", endpoint="resume_as_data")
def resume(name: str) -> Response:
    """Have what waits for a destination sent, whether it was paused or away."""
    installation().config.destination(name)
    installation().ledger.relays.resume(name)
    current_app.extensions["mkiso.pickup"].wake()
    return _changed_queue(name)


def known_relay_id(text: str) -> str:
    """The id in a URL's path. Raises RelayNotFound where it is none."""
    if not UUID.fullmatch(text):
        raise RelayNotFound("A relay's id is a UUID, and this is none.")
    return text.lower()


def _changed(relay_id: str) -> Response:
    """A program has the RELAY; a person goes on with the page on which the button was."""
    if request.path.startswith("/api/"):
        return relay_as_data(relay_id)
    if choice("list", ("0", "1"), "0") == "1":
        return see_other("relays.relays")
    return see_other("relays.relay", relay_id=known_relay_id(relay_id))


def _changed_queue(name: str) -> Response:
    if request.path.startswith("/api/"):
        return jsonify(next(one for one in _queues() if one["destination"] == name))
    return see_other("relays.relays")


def _queues() -> list[dict[str, Any]]:
    return installation().ledger.relays.queues(installation().config.destinations)


def _attempts(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The JOBs that send these RELAYs now."""
    ids = [one["job_id"] for one in found if one["state"] == "running"]
    return [job for job, _place in installation().ledger.history.jobs(ids).values()]


def _views(found: list[dict[str, Any]], queues: list[dict[str, Any]], jobs: list[dict[str, Any]]) -> list[RelayView]:
    of, known = {one["destination"]: one for one in queues}, installation().config.destinations
    attempts = {job["id"]: JobView(job, None, known) for job in jobs}
    return [RelayView(one, of.get(one["destination"]), attempts.get(one["job_id"])) for one in found]
