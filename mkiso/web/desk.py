"""The front desk's page: look up, see whose studies these are, tick, and start a disc or a relay of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

from flask import Blueprint, Response, current_app, g, jsonify, make_response, render_template, request

from mkiso.accession import BETWEEN, parse_list, parse_one, parse_uids, pasted_list
from mkiso.disc.product import CAPACITIES
from mkiso.errors import BadRequest, InvalidAccession, MissingAccession, MkisoError, TooManyAccessions
from mkiso.ledger.schema import ledger_time
from mkiso.retrieve.search import PatientQuery
from mkiso.retrieve.studies import Series
from mkiso.web.answers import (
    MOST_SERIES,
    Asked,
    argument,
    asked_for,
    choose_job_id,
    live_jobs,
    prefers_json,
    required_uids,
    service_status,
)
from mkiso.web.following import Shared
from mkiso.web.found import LookedUp, bytes_an_image, ticked
from mkiso.web.guards import installation, refuse_embedding, requester
from mkiso.web.orders import begun, disc_order

RECENT = timedelta(hours=1)
MOST_RECENT = 50
NUMBERS, STUDIES, SERIES = "accession_numbers", "study_uids", "series_uids"
OF_PATIENT = PatientQuery.FIELDS
TODAY = "today"
MODALITIES = ("CT", "MR", "CR", "DX", "US", "MG", "XA", "RF", "NM", "PT", "IO", "ES", "OT")
FEWEST_LETTERS = 3
MOST_SHOWN = 10_000  # of a form, whose size is limited anyway
blueprint = Blueprint("desk", __name__)
blueprint.before_request(refuse_embedding)


@blueprint.get("/")
def start() -> Response:
    if prefers_json():
        return jsonify(status=service_status(), jobs=_followed().get())
    asked, found, failed, opened = _asked(), None, None, {}
    try:
        if asked and request.method == "GET":
            found = look_up(asked)
            opened = _series(found.study_uids) if argument("open") else {}
    except MkisoError as error:
        failed = error
    shown: dict[str, Any] = {"asked": asked, "found": found, "failed": failed, "opened": opened}
    lists = {"recent": recent_jobs(), "modalities": MODALITIES, "most_series": MOST_SERIES}
    page = render_template("start.html", fault=_fault(asked, failed), me=requester(), **lists, **shown)
    return make_response(page, failed.http_status if failed else 200)


@blueprint.get("/series")
def series() -> Response:
    """The series of a study, to be put below its line."""
    uids = required_uids(STUDIES, 1)
    return make_response(render_template("series.html", opened=_series(uids)))


@blueprint.post("/jobs")
def make() -> Response:
    """Start what a form of ours asks for; where it is under way already, ask first."""
    choose_job_id()
    order, destination = disc_order(*_wanted()), argument("destination")
    if destination is not None:
        installation().config.destination(destination)
    return begun(order, destination)


def recent_jobs() -> list[dict[str, Any]]:
    """The last hour's jobs of everybody."""
    since = ledger_time(datetime.now(UTC) - RECENT)
    return installation().ledger.list_jobs(since=since, limit=MOST_RECENT)


def look_up(asked: Mapping[str, str]) -> LookedUp:
    """Ask the archive; a query counts among the jobs, and ends with the connection of who asked.

    Raises BadRequest, and what the archive's answers raise.
    """
    most = installation().config.retrieve.max_accessions
    numbers = pasted_list(asked[NUMBERS], most) if NUMBERS in asked else ()
    uids = parse_uids(asked.get(STUDIES), STUDIES, most)
    query = PatientQuery.of(asked) if any(name in asked for name in OF_PATIENT) else None
    if query and (numbers or uids):
        raise BadRequest("Ask for a patient, or for accession numbers and studies; not for both at once.")
    mixed, query_id = installation().config.patients.allow_mixed, choose_job_id()
    with live_jobs().watching(query_id, request.environ.get("gunicorn.socket")) as cancellation:
        if query:
            result = installation().search(query, cancellation, query_id)
            return LookedUp({"": result.studies}, mixed, search=True, is_cut=result.is_cut)
        found = installation().look_up(numbers, cancellation, query_id) if numbers else {}
        if uids:
            found = {**found, "": installation().look_up_studies(uids, cancellation, query_id)}
    return LookedUp(found, mixed)


def _followed() -> Shared[list[dict[str, Any]]]:
    return cast(Shared[list[dict[str, Any]]], current_app.extensions["mkiso.recent"])


@blueprint.app_template_global()
def bytes_each(modalities: Collection[str]) -> int | str:
    """The bytes of an image of these modalities as far as the ledger has experience of them, else no text."""
    if "sizes" not in g:
        g.sizes = installation().ledger.sizes()
    return bytes_an_image(g.sizes, modalities) or ""


@blueprint.app_template_global()
def capacities() -> dict[str, int]:
    return CAPACITIES


def _series(study_uids: Sequence[str]) -> dict[str, list[Series]]:
    query_id = choose_job_id()
    with live_jobs().watching(query_id, request.environ.get("gunicorn.socket")) as cancellation:
        return installation().series_of(study_uids, cancellation, query_id)


def _asked() -> dict[str, str]:
    """What the URL asks to be looked up, without what is empty unless all of a form is; today as a date."""
    numbers = [text for name in (NUMBERS, "accession_number") if (text := argument(name)) is not None]
    asked = {NUMBERS: " ".join(numbers)} if numbers else {}
    if uids := argument(STUDIES):
        asked[STUDIES] = uids
    given = {name: text.strip() for name in OF_PATIENT if (text := argument(name)) is not None}
    filled = {name: date.today().isoformat() if text == TODAY else text for name, text in given.items() if text}
    return asked | (filled if filled or asked else given)


def _fault(asked: Mapping[str, str], failed: MkisoError | None) -> dict[str, Any] | None:
    """What is wrong with a field: its name, a key of the texts, and the values in that."""
    entries = [one for one in dict.fromkeys(text.rstrip(".") for text in BETWEEN.split(asked.get(NUMBERS, ""))) if one]
    if isinstance(failed, TooManyAccessions):
        most = installation().config.retrieve.max_accessions
        return {"field": NUMBERS, "text": "too_many", "values": {"count": len(entries), "most": most}}
    if isinstance(failed, InvalidAccession):
        return {"field": NUMBERS, "text": "bad_entry", "values": {"entry": next(filter(_is_wrong, entries), "")}}
    is_alone = not any(text for name, text in asked.items() if name != "patient_name")
    is_short = sum(map(str.isalnum, asked.get("patient_name", ""))) < FEWEST_LETTERS
    if failed and failed.code == BadRequest.code and is_alone and is_short:
        return {"field": "patient_name", "text": "short_name", "values": {}}
    return None


def _is_wrong(entry: str) -> bool:
    try:
        parse_one(entry)
    except InvalidAccession:
        return True
    return False


def _wanted() -> Asked:
    """What a form asks for: by what is ticked on our page, or by the parameters of every disc's URL."""
    offered, values = argument("offered"), request.values
    if offered is None:
        return asked_for()
    limits = {STUDIES: installation().config.retrieve.max_accessions, SERIES: MOST_SERIES}
    numbers = argument("looked_up")
    wanted = ticked(
        parse_list(numbers, limits[STUDIES]) if numbers else (),
        parse_uids(offered, "offered", MOST_SHOWN),
        parse_uids(",".join(values.getlist(STUDIES)), STUDIES, MOST_SHOWN),
        parse_uids(",".join(values.getlist(SERIES)), SERIES, MOST_SHOWN),
        [parse_uids(one, "opened", MOST_SHOWN) for one in values.getlist("opened")],
    )
    if not any(wanted):
        raise MissingAccession("Nothing is ticked. Go back, and tick what you want.")
    for name, most in limits.items():  # again, by what is left of them
        parse_uids(",".join(getattr(wanted, name)), name, most)
    return wanted
