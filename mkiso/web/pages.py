"""The operator's pages: see, make, watch. They need no token, and never call `/api/`.

What the start page shows of a pasted list of accession numbers, before anything is moved.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Blueprint, Response, g, jsonify, make_response, render_template, request, send_file

from mkiso.accession import parse_list
from mkiso.dicom.datasets import page_name
from mkiso.errors import JobNotFound, MkisoError
from mkiso.job import Order
from mkiso.ledger.history import Seen
from mkiso.ledger.schema import ledger_time
from mkiso.retrieve.studies import Study, by_patient, count_patients
from mkiso.web.answers import (
    accession_list,
    argument,
    chosen_job_id,
    disc_page,
    known_job_id,
    live_jobs,
    ordered,
    prefers_json,
    relay_page,
    see_other,
)
from mkiso.web.guards import installation, refuse_embedding, requester
from mkiso.web.live import told_beside
from mkiso.web.words import Followed, download_url, planned, status_told

RECENT = timedelta(hours=1)
MOST_RECENT = 50
MOST_INSTANCES = 100
blueprint = Blueprint("pages", __name__)


@dataclass(frozen=True)
class Patient:
    """Whose studies were found, and the accession numbers that are this patient's alone."""

    patient_id: str
    name: str
    own: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """The studies by accession number; none for a number that the archive does not know."""

    studies: Mapping[str, list[Study]]
    allow_mixed: bool = False

    @property
    def known(self) -> list[str]:
        return [number for number, studies in self.studies.items() if studies]

    @property
    def has_unknown(self) -> bool:
        return len(self.known) < len(self.studies)

    @property
    def several_patients(self) -> bool:
        return not self.allow_mixed and count_patients(self._all()) > 1

    @property
    def can_start(self) -> bool:
        return bool(self.known) and not (self.has_unknown or self.several_patients)

    def patients(self) -> list[Patient]:
        """In the order of the list. A number whose studies the archive gives to several is nobody's own."""
        of_patient = by_patient(self._all())
        owners = {one: [patient for patient, theirs in of_patient if self._has(one, theirs)] for one in self.known}
        own = {id(patient): [one for one in owners if owners[one] == [patient]] for patient, _ in of_patient}
        return [Patient(one.patient_id, page_name(one.name), tuple(own[id(one)])) for one, _ in of_patient]

    def _has(self, accession: str, studies: list[Study]) -> bool:
        uids = {study.study_uid for study in studies}
        return any(study.study_uid in uids for study in self.studies[accession])

    def _all(self) -> list[Study]:
        return [study for studies in self.studies.values() for study in studies]


def pasted(text: str) -> tuple[str, ...]:
    """The accession numbers of a list as people paste it: between spaces, lines, tabs or commas."""
    return parse_list(",".join(re.findall(r"[^\s,]+", text)), installation().config.retrieve.max_accessions)


def look_up(accessions: tuple[str, ...]) -> Found:
    """Ask the archive; a query counts among the jobs, and ends with the connection of who asked."""
    query_id = chosen_job_id()
    cancellation = live_jobs().start(query_id, request.environ.get("gunicorn.socket"))
    try:
        studies = installation().look_up(accessions, cancellation, query_id)
    finally:
        live_jobs().stop(query_id)
    return Found(studies, installation().config.patients.allow_mixed)


blueprint.before_request(refuse_embedding)


@blueprint.get("/")
def start() -> Response:
    if prefers_json():
        return jsonify(status=status_told(), jobs=_recent())
    given, found, failed = argument("accession_numbers"), None, None
    try:
        accessions = pasted(given) if given is not None else ()
        found = look_up(accessions) if accessions and request.method == "GET" else None
    except MkisoError as error:
        failed = error
    page = render_template("start.html", given=given, found=found, failed=failed, recent=_recent(), me=requester())
    return make_response(page, failed.http_status if failed else 200)


@blueprint.post("/jobs")
def make() -> Response:
    """Start what a form of ours asks for; where it is under way already, ask first."""
    chosen_job_id()
    accessions, destination = accession_list("accession_numbers"), argument("destination")
    wanted = ordered(accessions) if destination is None else Order(accessions, requester(), job_id=g.job_id)
    if destination is not None:
        installation().config.destination(destination)
    running = installation().ledger.history.running(accessions)
    if running and argument("again") is None:
        return make_response(render_template("again.html", running=running, wanted=wanted, destination=destination))
    return disc_page(wanted) if destination is None else relay_page(wanted, destination)


@blueprint.get("/jobs/<job_id>")
def job(job_id: str) -> Response:
    """The JOB, or its page, which starts the download itself where its URL says what to make and nothing does yet."""
    known_job_id(job_id)
    if prefers_json():
        seen = _seen()
        response = jsonify(seen.job)
        response.headers.update(told_beside(seen))
        return response
    read = installation().ledger.history.jobs([g.job_id])
    seen = Seen(*read[g.job_id]) if read else planned_or_missing()
    followed = Followed(seen.job, seen.place, installation().config.destinations)
    page = {"followed": followed, "download": None if read else download_url(seen.job, request.args)}
    return make_response(render_template("job.html", **page, **_handed_out(seen.job)))


@blueprint.post("/jobs/<job_id>/cancel")
def cancel(job_id: str) -> Response:
    installation().ledger.request_cancel(known_job_id(job_id))
    return see_other("pages.job", job_id=g.job_id)


@blueprint.get("/logo")
def logo() -> Response:
    file = installation().config.server.logo_file
    if file is None or not file.is_file():
        raise JobNotFound("The configuration has no server.logo_file, or it is not there.", error="not found")
    return send_file(file, max_age=3600)


def planned_or_missing() -> Seen:
    """The job that the page's URL is about to start; JobNotFound where it says nothing of one."""
    if argument("accession_numbers") is None:
        raise JobNotFound("The ledger has no job of that id.")
    accessions = parse_list(argument("accession_numbers"), installation().config.retrieve.max_accessions)
    return Seen(planned(ordered(accessions)), None)


def _seen() -> Seen:
    try:
        return installation().glance.job(g.job_id)
    except JobNotFound:
        return planned_or_missing()


def _recent() -> list[dict[str, Any]]:
    """The last hour's jobs of everybody."""
    since = ledger_time(datetime.now(UTC) - RECENT)
    return installation().ledger.list_jobs(since=since, limit=MOST_RECENT)


def _handed_out(told: dict[str, Any]) -> dict[str, Any]:
    if not told["finished_at"]:
        return {"instances": [], "next": None}
    beyond = argument("beyond") or ""
    found = installation().ledger.history.instances(told["id"], beyond, MOST_INSTANCES + 1)
    more = found[MOST_INSTANCES - 1]["sop_instance_uid"] if len(found) > MOST_INSTANCES else None
    return {"instances": found[:MOST_INSTANCES], "next": more, "beyond": beyond}
