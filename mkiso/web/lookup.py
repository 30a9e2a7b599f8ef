"""What the start page shows of a pasted list of accession numbers, before anything is moved."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from flask import request

from mkiso.accession import parse_list
from mkiso.names import page_name
from mkiso.retrieve.studies import Study, by_patient, count_patients
from mkiso.web.answers import chosen_job_id, installation, live_jobs


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
