"""The keys that a directory record must have and an instance may lack (type 1: PS3.3 F.5.2, F.5.3, F.5.4).

dcmmkdir takes such an instance only where it may invent: a study of today, numbers that start again in
each chunk. So what it may have invented is taken out again, the instances' own values are put in, and
what then is still empty gets a value that nobody takes for true, of which it is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import count
from pathlib import Path

from pydicom.datadict import keyword_for_tag

from mkiso.disc.records import Record, flat
from mkiso.retrieve.encoding import INSTANCE_NUMBER, PATIENT_ID, SERIES_NUMBER
from mkiso.retrieve.keys import read_keys

STUDY_DATE, STUDY_TIME, STUDY_ID, ACCESSION = 0x00080020, 0x00080030, 0x00200010, 0x00080050
# A study's day and time are at best those of its series, of its acquisition, of its content.
DAYS = ((STUDY_DATE, STUDY_TIME), (0x00080021, 0x00080031), (0x00080022, 0x00080032), (0x00080023, 0x00080033))
NO_DAY, NO_TIME = b"19000101", b"000000"
DAY = re.compile(rb"[0-9]{8}")
TIME = re.compile(rb"(?:[01][0-9]|2[0-3])(?:[0-5][0-9](?:(?:[0-5][0-9]|60)(?:\.[0-9]{1,6})?)?)?")
KEYS = {"PATIENT": (), "STUDY": (STUDY_DATE, STUDY_TIME, STUDY_ID), "SERIES": (SERIES_NUMBER,)}
MAY_BE_EMPTY = "RAW DATA"  # PS3.3 F.5.28: InstanceNumber is of type 2 there
READ = [tag for pair in DAYS for tag in pair] + [PATIENT_ID, STUDY_ID, SERIES_NUMBER, INSTANCE_NUMBER]
LONGEST = 64

Own = Mapping[int, bytes]


@dataclass(frozen=True)
class Completed:
    """A key that instances leave empty, what the DICOMDIR says instead, and the first file that it is about."""

    file: str
    record: str
    key: str
    value: str


def own_values(file: Path) -> Own | None:
    """What an instance itself has of these keys; None where its header cannot be read."""
    keys = read_keys(file, READ)
    if keys is None:
        return None
    values = {tag: keys.value(tag) for tag in keys.elements}
    return {tag: value for tag, value in values.items() if len(value) <= LONGEST}


def take_out(record: Record) -> None:
    """Empty each key that dcmmkdir may have invented."""
    for tag in _keys(record):
        record.put(tag, b"")


def put_in(record: Record, own: Own) -> None:
    """Fill the empty keys of a record with an instance's own values."""
    for tag in _keys(record) if own else ():
        if _lacks(record, tag) and own.get(tag):
            record.put(tag, own[tag])


def complete(patients: Sequence[Record], owns: Mapping[str, Own]) -> Iterator[Completed]:
    """Give each key of type 1 that is still empty a value; `owns` are instances' own values, by file."""
    for patient in patients:
        for study in patient.below:
            yield from _days(study, [owns[leaf.file] for leaf in flat(study.below) if leaf.file in owns])
        yield from _numbers(patient.below, STUDY_ID)
        for study in patient.below:
            yield from _numbers(study.below, SERIES_NUMBER)
            for series in study.below:
                yield from _numbers([leaf for leaf in series.below if leaf.type != MAY_BE_EMPTY], INSTANCE_NUMBER)


def _keys(record: Record) -> Iterator[int]:
    return (tag for tag in KEYS.get(record.type, (INSTANCE_NUMBER,)) if tag in record.elements)


def _lacks(record: Record, tag: int) -> bool:
    return tag in record.elements and not record.value(tag)


def _days(study: Record, owns: Iterable[Own]) -> Iterator[Completed]:
    """StudyDate and StudyTime, of the same origin; StudyID from AccessionNumber, which has the same VR."""
    for tag, is_valid, separator in ((STUDY_DATE, _is_day, b"."), (STUDY_TIME, TIME.fullmatch, b":")):
        if tag in study.elements:
            value = study.value(tag).replace(separator, b"")  # as ACR-NEMA wrote them: 1997.04.24, 14:04:38
            study.put(tag, value if is_valid(value) else b"")
    told = [(own.get(day, b""), own.get(time, b"")) for day, time in DAYS for own in owns]
    if _lacks(study, STUDY_DATE):
        yield _completed(study, STUDY_DATE, next((day for day, _ in told if _is_day(day)), NO_DAY))
    if _lacks(study, STUDY_TIME):
        day = study.value(STUDY_DATE)
        yield _completed(study, STUDY_TIME, next((time for same, time in told if same == day and time), NO_TIME))
    if _lacks(study, STUDY_ID) and study.value(ACCESSION):
        yield _completed(study, STUDY_ID, study.value(ACCESSION))


def _is_day(value: bytes) -> bool:
    """Whether it is a day of the calendar (VR DA, PS3.5 6.2)."""
    try:
        return bool(DAY.fullmatch(value) and date.fromisoformat(value.decode()))
    except ValueError:
        return False


def _numbers(entity: Sequence[Record], tag: int) -> Iterator[Completed]:
    """The lowest numbers that none of the others has, in their order."""
    taken = {record.value(tag).lstrip(b"0") for record in entity}
    free = (number for number in (str(one).encode() for one in count(1)) if number not in taken)
    for record in entity:
        if _lacks(record, tag):
            yield _completed(record, tag, next(free))


def _completed(record: Record, tag: int, value: bytes) -> Completed:
    record.put(tag, value)
    file = next(one.file for one in flat([record]) if one.file)
    return Completed(file, record.type, keyword_for_tag(tag), value.decode("latin-1"))
