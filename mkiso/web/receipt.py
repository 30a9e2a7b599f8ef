"""What is handed over with a job: the receipt, the sheet that is printed, and who collected it."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flask import request

from mkiso.browse.choice import Kind, kind_of_class
from mkiso.browse.readme import initials
from mkiso.dicom.datasets import readable_date
from mkiso.errors import MkisoError
from mkiso.retrieve.studies import Study
from mkiso.web.answers import live_jobs
from mkiso.web.guards import installation

RELATIONS = ("patient", "relative", "doctor", "other")
LONGEST = {"by": 200, "given_by": 200, "note": 1000}  # in characters
FIELDS = ("by", "relation", "given_by", "note")
REPORTS = (Kind.REPORT, Kind.DOCUMENT)


@dataclass
class Contents:
    """What was handed out, counted. What nobody knows to be something else is an image."""

    images: int = 0
    reports: int = 0
    others: int = 0
    series: set[str] = field(default_factory=set)

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row of `History.handed_out`."""
        kind = kind_of_class(row["sop_class_uid"])
        self.series.add(row["series_uid"])
        if kind in REPORTS:
            self.reports += row["count"]
        elif kind is Kind.OTHER:
            self.others += row["count"]
        else:
            self.images += row["count"]


def contents_of(rows: Iterable[Mapping[str, Any]]) -> Contents:
    """All of `History.handed_out` together."""
    contents = Contents()
    for row in rows:
        contents.add(row)
    return contents


@dataclass(frozen=True)
class Line:
    """A study on the sheet; empty is what the archive does not tell now."""

    contents: Contents
    date: str = ""
    description: str = ""
    modalities: str = ""


@dataclass(frozen=True)
class Sheet:
    """What the sheet says beside the JOB: the studies by date, and of the patient what the archive knows."""

    lines: Sequence[Line]
    birth_date: str
    initials: str

    @property
    def is_told(self) -> bool:
        """Whether the archive told of each study."""
        return all(line.date or line.description for line in self.lines)

    @property
    def dates(self) -> list[str]:
        return sorted({line.date for line in self.lines if line.date})


def sheet_of(job: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> Sheet:
    """The sheet of a job that is done. What the archive has of another patient by now is not told."""
    counted: dict[str, Contents] = defaultdict(Contents)
    for row in rows:
        counted[row["study_uid"]].add(row)
    known = {uid: study for uid, study in _asked(job["studies"]).items() if study.patient_id == job["patient_id"]}
    lines = [_line(counted[uid], known.get(uid)) for uid in job["studies"]]
    births = {study.birth_date for study in known.values() if study.birth_date}
    return Sheet(
        sorted(lines, key=lambda line: line.date),
        readable_date(births.pop()) if len(births) == 1 else "",
        initials(job["patient_name"] or ""),
    )


def _line(contents: Contents, study: Study | None) -> Line:
    if study is None:
        return Line(contents)
    return Line(contents, readable_date(study.study_date), study.description, ", ".join(study.modalities))


def _asked(study_uids: Sequence[str]) -> dict[str, Study]:
    """The studies as the archive has them now; none where it does not tell."""
    status, query_id = installation().status.known(), str(uuid.uuid4())
    if status is not None and not status.pacs:
        return {}
    try:
        with live_jobs().watching(query_id, request.environ.get("gunicorn.socket")) as cancellation:
            found = installation().look_up_studies(study_uids, cancellation, query_id)
    except MkisoError:
        return {}
    return {study.study_uid: study for study in found}


def faults(given: Mapping[str, str]) -> dict[str, str]:
    """What is wrong with who collected it, by the form's field: a key of the texts."""
    found = {name: "too_long" for name, most in LONGEST.items() if len(given[name]) > most}
    found |= {name: f"{name}_missing" for name in ("by", "given_by") if not given[name]}
    return found if given["relation"] in RELATIONS else found | {"relation": "relation_missing"}
