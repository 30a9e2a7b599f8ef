"""A patient's studies by what somebody knows of the patient, or the studies of some days: C-FIND at STUDY level.

A person types a name as people write it, and archives match as they please (PS3.4 C.2.2.2.1): many tell capitals apart,
some look at one group of a name alone, and some take no notice of a key.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, ClassVar, Self

from mkiso.accession import shown, uid_fault
from mkiso.dcmtk.findscu import Finder
from mkiso.dicom.datasets import is_date, plain_date
from mkiso.errors import BadRequest
from mkiso.ledger.history import folded
from mkiso.retrieve.studies import Patient, Study, described, with_counts

MOST_FOUND = 200
MOST_LOOKED_INTO = 20  # of an archive that does not tell modalities and counts in its answers: two queries each
LEAST_LETTERS = 3
LONGEST_VALUE = 64
MOST_DAYS = 31
REFUSED = frozenset("*?\\=")
DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8}"
DAYS = re.compile(rf"(?P<only>{DAY})|(?=.*[0-9])(?P<since>{DAY})? ?- ?(?P<until>{DAY})?")
BETWEEN = re.compile(r"[\s,^=]+")  # the words of a name, as people write it and as DICOM does
MODALITY = re.compile(r"[A-Z0-9_ ]{0,16}")
log = logging.getLogger("mkiso.retrieve.search")


@dataclass(frozen=True)
class PatientQuery:
    """What somebody knows of a patient and of the studies: empty what is not known, dates as YYYYMMDD.

    A name is the beginning of each of its words, in any order, capitals and accents aside.
    """

    name: str = ""
    patient_id: str = ""
    birth_date: str = ""
    since: str = ""
    until: str = ""
    modality: str = ""

    # The names of the API, and of the fields of our own page, which has two for the dates of study.
    PARAMETERS: ClassVar = ("patient_name", "patient_id", "birth_date", "study_date", "modality")
    FIELDS: ClassVar = ("patient_name", "patient_id", "birth_date", "from", "to", "modality")

    @classmethod
    def of(cls, given: Mapping[str, str | None]) -> Self:
        """The query that a request's parameters make. Raises BadRequest, which tells what of it cannot be asked."""
        values = {one: _asked(one, given.get(one)) for one in dict.fromkeys(cls.PARAMETERS + cls.FIELDS)}
        since, until = _days(values["study_date"]) if values["study_date"] else (values["from"], values["to"])
        who = (values["patient_name"], values["patient_id"], values["birth_date"])
        query = cls(*who, since, until, values["modality"])
        if since and until and since > until:
            raise BadRequest("The first day of the dates of study is later than the last one. Exchange them.")
        if why := query._want():
            raise BadRequest(
                f"{why} Give a patient ID, a date of birth, {LEAST_LETTERS} letters of a name, or dates"
                f" of study from one day to another of at most {MOST_DAYS} days."
            )
        return query

    def _want(self) -> str:
        """What a search lacks that would find everybody; empty where it lacks nothing."""
        is_of_days = self.since and self.until and _length(self.since, self.until) <= MOST_DAYS
        if self.patient_id or self.birth_date or is_of_days or _letters(self.name) >= LEAST_LETTERS:
            return ""
        if self.since or self.until:
            return "These dates of study are too many days to look through."
        if self.name:
            return f"patient_name has fewer than {LEAST_LETTERS} letters."
        return "This says of no patient's studies, and of no few days'."

    def spellings(self) -> list[str]:
        """The name with our wildcard, as an archive that tells capitals apart may have it, the likeliest first."""
        words, is_dicom = _words(self.name), "^" in self.name
        typed = self.name if is_dicom else "?".join(words)  # a space there may be a ^, or one here
        turned = typed if is_dicom else "?".join((*words[-1:], *words[:-1]))
        likely = [typed] if typed != typed.lower() else []
        likely += [typed.upper(), turned.upper(), typed.title()]
        if (plain := folded(typed).upper()).isascii():
            likely.append(plain)
        else:  # the ideographic or phonetic group stands behind another (PS3.5 6.2.1)
            likely.append(f"*={typed}")
        return [f"{one}*" for one in dict.fromkeys(likely)]

    def keys(self) -> dict[str, str]:
        """What the archive is asked beside the name (PS3.4 C.6.2.1.2)."""
        keys = {
            "PatientID": self.patient_id,
            "PatientBirthDate": self.birth_date,
            "StudyDate": f"{self.since}-{self.until}" if self.since or self.until else "",
            "ModalitiesInStudy": self.modality,
        }
        return {key: value for key, value in keys.items() if value}

    def meets(self, study: Study) -> bool:
        """Whether the study is one that was asked for: archives match loosely, or leave a key out.

        One of which the archive tells no modality may have any.
        """
        day = plain_date(study.study_date)
        is_then = bool(day) and self.since <= day <= (self.until or day)
        has_it = not self.modality or not study.modalities or self.modality in study.modalities
        return any(map(self._is, study.patients)) and has_it and (is_then or not (self.since or self.until))

    def _is(self, patient: Patient) -> bool:
        of_name = _words(folded(patient.name))
        return (
            all(any(one.startswith(word) for one in of_name) for word in _words(folded(self.name)))
            and self.patient_id.casefold() in ("", patient.patient_id.strip().casefold())
            and self.birth_date in ("", plain_date(patient.birth_date))
        )


def _asked(parameter: str, text: str | None) -> str:
    """A parameter's value as a query may hold it. Raises BadRequest."""
    value = " ".join((text or "").split())
    if found := sorted(REFUSED.intersection(value)):
        raise BadRequest(
            f"{parameter} holds none of * ? \\ = (found {' '.join(found)}). The beginning of a name is enough as it is."
        )
    if not value.isprintable() or len(value) > LONGEST_VALUE:
        raise BadRequest(f"{parameter} has at most {LONGEST_VALUE} characters, all printable. Type it anew.")
    if parameter in ("birth_date", "from", "to") and value:
        return _day(parameter, value)
    if parameter == "modality" and not MODALITY.fullmatch(value.upper()):
        raise BadRequest(f"modality is a code such as CT or MR, and {shown(value)} is none.")
    return value.upper() if parameter == "modality" else value


def _day(parameter: str, text: str) -> str:
    """A day as YYYYMMDD. Raises BadRequest."""
    day = text.replace("-", "") if re.fullmatch(DAY, text) else text
    if not is_date(day):
        raise BadRequest(f"{parameter} is a day such as 2026-01-31, and {shown(text)} is none.")
    return day


def _days(text: str) -> tuple[str, str]:
    """The first and the last day of study_date, empty where it is open. Raises BadRequest."""
    found = DAYS.fullmatch(text)
    if not found:
        raise BadRequest(
            f"study_date is a day, or two such as 20260101-20260131, the first or the last one, and {shown(text)} is"
            " neither."
        )
    only, since, until = (_day("study_date", part) if part else "" for part in found.groups())
    return only or since, only or until


def _length(since: str, until: str) -> int:
    """How many days these are, both counted."""
    return (date.fromisoformat(until) - date.fromisoformat(since)).days + 1


def _words(name: str) -> list[str]:
    return [word for word in BETWEEN.split(name) if word]


def _letters(name: str) -> int:
    """How many letters of an alphabet a name is worth: an ideograph is two."""
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in name if one.isalnum())


@dataclass(frozen=True)
class SearchResult:
    """The studies that were found, the newest first, without their instances; whether the archive had more."""

    studies: list[Study]
    is_cut: bool

    def public(self) -> list[dict[str, Any]]:
        """The studies as `/api/studies` shows them, with the archive's own counts, where it has any."""
        return [one.public() | {"series": one.counted_series, "instances": one.counted} for one in self.studies]


def search(finder: Finder, query: PatientQuery) -> SearchResult:
    """What the archive finds at STUDY level: asked once, and further only as long as it knows nobody of the name.

    Where it does not tell the modalities of a study or counts nothing, it is asked for the series of the newest ones.
    """
    is_cut = False
    for name in query.spellings() if query.name else [""]:
        answers, is_cut = finder.search(MOST_FOUND, PatientName=name, **query.keys())
        usable = [one for one in answers if uid_fault(one["StudyInstanceUID"]) is None]
        if len(usable) < len(answers):
            log.warning(
                "studies without a usable UID are not shown", extra={"fields": {"count": len(answers) - len(usable)}}
            )
        met = [study for study in described(usable) if query.meets(study)]
        if met:
            newest_first = sorted(met, key=lambda study: study.study_date, reverse=True)
            looked_into = [with_counts(finder, study) for study in newest_first[:MOST_LOOKED_INTO]]
            found = [study for study in looked_into if query.meets(study)] + newest_first[MOST_LOOKED_INTO:]
            return SearchResult(found, is_cut)
    return SearchResult([], is_cut)
