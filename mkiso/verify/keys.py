"""The directory records' types, where each may stand, and the keys that each must have (PS3.3 F.4, F.5)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

from mkiso.verify.directory import PATIENT_ID, SERIES, STUDY, Entry

PATIENT_NAME, ACCESSION, STUDY_DESCRIPTION = 0x00100010, 0x00080050, 0x00081030
STUDY_DATE, STUDY_TIME, STUDY_ID = 0x00080020, 0x00080030, 0x00200010
CONTENT_DATE, CONTENT_TIME = 0x00080023, 0x00080033
MODALITY, SERIES_NUMBER, INSTANCE_NUMBER = 0x00080060, 0x00200011, 0x00200013
COMPLETION, VERIFICATION, VERIFIED_AT, CONCEPT = 0x0040A491, 0x0040A493, 0x0040A030, 0x0040A043
LABEL, DESCRIPTION, CREATOR = 0x00700080, 0x00700081, 0x00700084
CREATION_DATE, CREATION_TIME = 0x00700082, 0x00700083
MIME_TYPE = 0x00420012
VERIFIED = "VERIFIED"

# Keys of type 1 have a value; those of type 2 are there.
CONTENT = (CONTENT_DATE, CONTENT_TIME)
LABELLED = ((INSTANCE_NUMBER, *CONTENT, LABEL), (DESCRIPTION, CREATOR))
Keys = tuple[tuple[int, ...], tuple[int, ...]]
BRANCHES: dict[str, Keys] = {
    "PATIENT": ((PATIENT_ID,), (PATIENT_NAME,)),
    "STUDY": ((STUDY_DATE, STUDY_TIME, STUDY_ID, STUDY), (STUDY_DESCRIPTION, ACCESSION)),
    "SERIES": ((MODALITY, SERIES, SERIES_NUMBER), ()),
}
DOCUMENTS: dict[str, Keys] = {
    "SR DOCUMENT": ((INSTANCE_NUMBER, COMPLETION, VERIFICATION, *CONTENT, CONCEPT), ()),
    "KEY OBJECT DOC": ((INSTANCE_NUMBER, *CONTENT, CONCEPT), ()),
    "PRESENTATION": ((INSTANCE_NUMBER, CREATION_DATE, CREATION_TIME, LABEL), (DESCRIPTION, CREATOR)),
}
OTHERS: dict[str, Keys] = {
    "RT DOSE": ((INSTANCE_NUMBER, 0x3004000A), ()),
    "RT STRUCTURE SET": ((INSTANCE_NUMBER, 0x30060002), (0x30060008, 0x30060009)),
    "RT PLAN": ((INSTANCE_NUMBER, 0x300A0002), (0x300A0006, 0x300A0007)),
    "RT TREAT RECORD": ((INSTANCE_NUMBER,), (0x30080250, 0x30080251)),
    "WAVEFORM": ((INSTANCE_NUMBER, *CONTENT), ()),
    "SPECTROSCOPY": ((INSTANCE_NUMBER, *CONTENT), ()),
    "RAW DATA": (CONTENT, (INSTANCE_NUMBER,)),
    "REGISTRATION": LABELLED,
    "FIDUCIAL": LABELLED,
    "VALUE MAP": LABELLED,
    "ENCAP DOC": ((INSTANCE_NUMBER, MIME_TYPE), (*CONTENT, 0x00420010, CONCEPT)),
    "STEREOMETRIC": ((), ()),
    "PLAN": ((), ()),
    "MEASUREMENT": LABELLED,
    "SURFACE": LABELLED,
    "SURFACE SCAN": (CONTENT, ()),
    "TRACT": LABELLED,
    "ASSESSMENT": ((INSTANCE_NUMBER,), ()),
    "RADIOTHERAPY": ((INSTANCE_NUMBER,), ()),
    "ANNOTATION": LABELLED,
}
IMAGES: dict[str, Keys] = {"IMAGE": ((INSTANCE_NUMBER,), ())}
LEAVES = IMAGES | DOCUMENTS | OTHERS
KEYS = BRANCHES | LEAVES
ABOVE = {"PATIENT": "", "STUDY": "PATIENT", "SERIES": "STUDY"}
BELOW_SERIES = "SERIES"

TIME = re.compile(r"(?:[01]\d|2[0-3])(?:[0-5]\d(?:(?:[0-5]\d|60)(?:\.\d{1,6})?)?)?")
DAY = re.compile(r"\d{8}")


def faults(entry: Entry) -> Iterator[str]:
    """What a record's keys lack."""
    valued, there = KEYS[entry.type]
    for tag in valued:
        if not entry.record.value(tag):
            yield f"{entry.label} has no {_name(tag)}"
    for tag in there:
        if tag not in entry.record.elements:
            yield f"{entry.label} lacks {_name(tag)}"
    if entry.type == "STUDY":
        yield from _faults_of_time(entry)
    if entry.record.text(VERIFICATION) == VERIFIED and not entry.record.value(VERIFIED_AT):
        yield f"{entry.label} is verified, and does not say when"


def _faults_of_time(entry: Entry) -> Iterator[str]:
    day, time = entry.record.text(STUDY_DATE), entry.record.text(STUDY_TIME)
    if day and not is_day(day):
        yield f"{entry.label} has the date {day}"
    if time and not TIME.fullmatch(time):
        yield f"{entry.label} has the time {time}"


def is_day(text: str) -> bool:
    """Whether it is a day of VR DA (PS3.5 6.2)."""
    try:
        return bool(DAY.fullmatch(text) and date(int(text[:4]), int(text[4:6]), int(text[6:])))
    except ValueError:
        return False


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
