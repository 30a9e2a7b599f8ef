"""Patients, studies and series (PS3.3 A.1.2) as pages name them, by the header of the first instance of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from mkiso.disc.headers import Header
from mkiso.disc.shown import Item, Patient, Series, Study
from mkiso.names import page_name
from mkiso.retrieve.instances import Instance

KEYWORDS = (
    *("PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyDescription", "AccessionNumber"),
    *("SeriesNumber", "SeriesDescription", "Modality"),
)


@dataclass(frozen=True)
class _Known:
    """A series: its first instance and what its header tells, and itself."""

    first: Instance
    header: Header
    series: Series


def series_of(instances: Iterable[Instance]) -> list[list[Instance]]:
    """Patient by patient, study by study, each where its first instance is."""
    patients: dict[str, dict[str, dict[str, list[Instance]]]] = {}
    for one in instances:
        studies = patients.setdefault(one.patient_id, {})
        studies.setdefault(one.study_uid, {}).setdefault(one.series_uid, []).append(one)
    return [series for studies in patients.values() for study in studies.values() for series in study.values()]


def patients_of(series: Iterable[tuple[Sequence[Instance], Sequence[Item]]]) -> tuple[Patient, ...]:
    """The patients of these series, in the order of `series_of`, with what is shown of each."""
    known = [_known(instances, items) for instances, items in series]
    return tuple(_patient(list(one)) for _, one in groupby(known, lambda one: one.first.patient_id))


def _known(instances: Sequence[Instance], items: Sequence[Item]) -> _Known:
    first, header = instances[0], Header(instances[0].path, KEYWORDS)
    number, modality, description = map(header.text, ("SeriesNumber", "Modality", "SeriesDescription"))
    return _Known(first, header, Series(number, modality, description, len(instances), tuple(items)))


def _patient(series: Sequence[_Known]) -> Patient:
    first, header = series[0].first, series[0].header
    studies = (_study(list(one)) for _, one in groupby(series, lambda one: one.first.study_uid))
    name, born, sex = page_name(header.text("PatientName")), header.date("PatientBirthDate"), header.text("PatientSex")
    return Patient(name, first.patient_id, born, sex, tuple(studies))


def _study(series: Sequence[_Known]) -> Study:
    header = series[0].header
    description, accession = map(header.text, ("StudyDescription", "AccessionNumber"))
    return Study(header.date("StudyDate"), description, accession, tuple(one.series for one in series))
