"""The front desk's page: look up, see whose studies these are, and start a disc or a relay of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Blueprint, Response, jsonify, make_response, render_template, request

from mkiso.accession import parse_list
from mkiso.dicom.datasets import page_name
from mkiso.errors import MkisoError
from mkiso.ledger.schema import ledger_time
from mkiso.retrieve.studies import Study, by_patient, count_patients
from mkiso.web.answers import argument, asked_for, choose_job_id, live_jobs, prefers_json, service_status
from mkiso.web.guards import installation, refuse_embedding, requester
from mkiso.web.orders import begun, disc_order

RECENT = timedelta(hours=1)
MOST_RECENT = 50
blueprint = Blueprint("desk", __name__)
blueprint.before_request(refuse_embedding)


@blueprint.get("/")
def start() -> Response:
    if prefers_json():
        return jsonify(status=service_status(), jobs=_recent())
    given, found, failed = argument("accession_numbers"), None, None
    try:
        accessions = pasted(given) if given is not None else ()
        if accessions and request.method == "GET":
            found = look_up(accessions)
    except MkisoError as error:
        failed = error
    page = render_template("start.html", given=given, found=found, failed=failed, recent=_recent(), me=requester())
    return make_response(page, failed.http_status if failed else 200)


@blueprint.post("/jobs")
def make() -> Response:
    """Start what a form of ours asks for; where it is under way already, ask first."""
    choose_job_id()
    order, destination = disc_order(*asked_for()), argument("destination")
    if destination is not None:
        installation().config.destination(destination)
    return begun(order, destination)


def _recent() -> list[dict[str, Any]]:
    """The last hour's jobs of everybody."""
    since = ledger_time(datetime.now(UTC) - RECENT)
    return installation().ledger.list_jobs(since=since, limit=MOST_RECENT)


@dataclass(frozen=True)
class PatientRow:
    """Whose studies were found, and the accession numbers that are this patient's alone."""

    patient_id: str
    name: str
    own: tuple[str, ...]


@dataclass(frozen=True)
class LookedUp:
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

    def patients(self) -> list[PatientRow]:
        """In the order of the list. A number whose studies the archive gives to several is nobody's own."""
        groups = by_patient(self._all())
        owners = {one: [patient for patient, theirs in groups if self._has(one, theirs)] for one in self.known}
        return [
            PatientRow(
                patient.patient_id,
                page_name(patient.name),
                tuple(number for number, found in owners.items() if found == [patient]),
            )
            for patient, _ in groups
        ]

    def _has(self, accession: str, studies: list[Study]) -> bool:
        uids = {study.study_uid for study in studies}
        return any(study.study_uid in uids for study in self.studies[accession])

    def _all(self) -> list[Study]:
        return [study for studies in self.studies.values() for study in studies]


def pasted(text: str) -> tuple[str, ...]:
    """The accession numbers of a list as people paste it: between spaces, lines, tabs or commas."""
    return parse_list(",".join(re.findall(r"[^\s,]+", text)), installation().config.retrieve.max_accessions)


def look_up(accessions: tuple[str, ...]) -> LookedUp:
    """Ask the archive; a query counts among the jobs, and ends with the connection of who asked."""
    query_id = choose_job_id()
    with live_jobs().watching(query_id, request.environ.get("gunicorn.socket")) as cancellation:
        studies = installation().look_up(accessions, cancellation, query_id)
    return LookedUp(studies, installation().config.patients.allow_mixed)
