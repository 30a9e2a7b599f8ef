"""The API for programs: studies, and the ledger."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime

from flask import Blueprint, Response, g, jsonify, request

from mkiso.accession import parse_one
from mkiso.errors import BadRequest
from mkiso.ledger.ledger import STATES
from mkiso.ledger.schema import ledger_time
from mkiso.retrieve.studies import count_patients
from mkiso.web.answers import accession_list, argument, known_job_id, live_jobs
from mkiso.web.guards import installation

MOST_JOBS = 1000
blueprint = Blueprint("api", __name__, url_prefix="/api")


@blueprint.get("/studies")
def studies() -> Response:
    accessions = accession_list("accession_numbers")
    if request.method == "HEAD":
        return jsonify()
    query_id = str(uuid.uuid4())
    cancellation = live_jobs().start(query_id, request.environ.get("gunicorn.socket"))
    try:
        found = installation().studies(accessions, cancellation, query_id)
    finally:
        live_jobs().stop(query_id)
    return jsonify(studies=[study.public() for study in found], patients=count_patients(found))


@blueprint.get("/jobs")
def jobs() -> Response:
    accession = argument("accession_number")
    return jsonify(
        jobs=installation().ledger.list_jobs(
            accession=None if accession is None else parse_one(accession),
            state=_state(),
            since=_since(),
            limit=_limit(),
        )
    )


@blueprint.get("/jobs/<job_id>")
def job(job_id: str) -> Response:
    return jsonify(installation().ledger.job(known_job_id(job_id)))


@blueprint.post("/jobs/<job_id>/cancel")
def cancel(job_id: str) -> Response:
    job(job_id)
    return jsonify(installation().ledger.request_cancel(g.job_id))


def _state() -> str | None:
    state = argument("state")
    if state is not None and state not in STATES:
        raise BadRequest(f"state is one of {', '.join(STATES)}.")
    return state


def _since() -> str | None:
    text = argument("since")
    if text is None:
        return None
    try:
        since = datetime.fromisoformat(text.replace(" ", "+"))  # a + in a URL arrives as a space
        return ledger_time((since if since.tzinfo else since.replace(tzinfo=UTC)).astimezone(UTC))
    except (ValueError, OverflowError):
        raise BadRequest("since is a time such as 2026-01-31T08:00:00Z (RFC 3339).") from None


def _limit() -> int:
    text = argument("limit") or "100"
    if not (re.fullmatch(r"[0-9]{1,9}", text) and 1 <= int(text) <= MOST_JOBS):
        raise BadRequest(f"limit is a number from 1 to {MOST_JOBS}.")
    return int(text)
