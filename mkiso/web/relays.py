"""Queued relays: what programs ask of them."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from mkiso.errors import RelayNotFound
from mkiso.web.answers import UUID
from mkiso.web.guards import installation, requester

blueprint = Blueprint("relays", __name__)


@blueprint.get("/api/relays/<relay_id>")
def relay_as_data(relay_id: str) -> Response:
    return jsonify(installation().ledger.relays.relay(known_relay_id(relay_id)))


@blueprint.post("/api/relays/<relay_id>/cancel")
def cancel(relay_id: str) -> Response:
    """End a relay that waits or was given up, or have its attempt stop."""
    installation().cancel_relay(known_relay_id(relay_id), requester())
    return relay_as_data(relay_id)


def known_relay_id(text: str) -> str:
    """The id in a URL's path. Raises RelayNotFound where it is none."""
    if not UUID.fullmatch(text):
        raise RelayNotFound("A relay's id is a UUID, and this is none.")
    return text.lower()
