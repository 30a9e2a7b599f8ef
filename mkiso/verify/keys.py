"""The directory records' types, where each may stand, and the keys that each must have (PS3.3 F.4, F.5)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from functools import cache

from pydicom.tag import Tag

from mkiso.verify.directory import Entry

VERIFIED = "VERIFIED"

# Keys of type 1 have a value; those of type 2 are there.
CONTENT = ("ContentDate", "ContentTime")
CREATED = ("ContentDescription", "ContentCreatorName")
LABELLED = (("InstanceNumber", *CONTENT, "ContentLabel"), CREATED)
Keys = tuple[tuple[str, ...], tuple[str, ...]]
BRANCHES: dict[str, Keys] = {
    "PATIENT": (("PatientID",), ("PatientName",)),
    "STUDY": (("StudyDate", "StudyTime", "StudyID", "StudyInstanceUID"), ("StudyDescription", "AccessionNumber")),
    "SERIES": (("Modality", "SeriesInstanceUID", "SeriesNumber"), ()),
}
DOCUMENTS: dict[str, Keys] = {
    "SR DOCUMENT": (("InstanceNumber", "CompletionFlag", "VerificationFlag", *CONTENT, "ConceptNameCodeSequence"), ()),
    "KEY OBJECT DOC": (("InstanceNumber", *CONTENT, "ConceptNameCodeSequence"), ()),
    "PRESENTATION": (
        ("InstanceNumber", "PresentationCreationDate", "PresentationCreationTime", "ContentLabel"),
        CREATED,
    ),
}
OTHERS: dict[str, Keys] = {
    "RT DOSE": (("InstanceNumber", "DoseSummationType"), ()),
    "RT STRUCTURE SET": (("InstanceNumber", "StructureSetLabel"), ("StructureSetDate", "StructureSetTime")),
    "RT PLAN": (("InstanceNumber", "RTPlanLabel"), ("RTPlanDate", "RTPlanTime")),
    "RT TREAT RECORD": (("InstanceNumber",), ("TreatmentDate", "TreatmentTime")),
    "WAVEFORM": (("InstanceNumber", *CONTENT), ()),
    "SPECTROSCOPY": (("InstanceNumber", *CONTENT), ()),
    "RAW DATA": (CONTENT, ("InstanceNumber",)),
    "REGISTRATION": LABELLED,
    "FIDUCIAL": LABELLED,
    "VALUE MAP": LABELLED,
    "ENCAP DOC": (
        ("InstanceNumber", "MIMETypeOfEncapsulatedDocument"),
        (*CONTENT, "DocumentTitle", "ConceptNameCodeSequence"),
    ),
    "STEREOMETRIC": ((), ()),
    "PLAN": ((), ()),
    "MEASUREMENT": LABELLED,
    "SURFACE": LABELLED,
    "SURFACE SCAN": (CONTENT, ()),
    "TRACT": LABELLED,
    "ASSESSMENT": (("InstanceNumber",), ()),
    "RADIOTHERAPY": (("InstanceNumber",), ()),
    "ANNOTATION": LABELLED,
}
IMAGES: dict[str, Keys] = {"IMAGE": (("InstanceNumber",), ())}
KEYS = BRANCHES | IMAGES | DOCUMENTS | OTHERS
ABOVE = {"PATIENT": "", "STUDY": "PATIENT", "SERIES": "STUDY"}
BELOW_SERIES = "SERIES"

TIME = re.compile(r"(?:[01]\d|2[0-3])(?:[0-5]\d(?:(?:[0-5]\d|60)(?:\.\d{1,6})?)?)?")
DAY = re.compile(r"\d{8}")
_tag = cache(Tag)


def faults(entry: Entry) -> Iterator[str]:
    """What a record's keys lack."""
    valued, there = KEYS[entry.type]
    for keyword in valued:
        if not entry.record.value(_tag(keyword)):
            yield f"{entry.label} has no {_tag(keyword)}"
    for keyword in there:
        if _tag(keyword) not in entry.record.elements:
            yield f"{entry.label} lacks {_tag(keyword)}"
    if entry.type == "STUDY":
        yield from _faults_of_time(entry)
    if entry.record.text(_tag("VerificationFlag")) == VERIFIED and not entry.record.value(_tag("VerificationDateTime")):
        yield f"{entry.label} is verified, and does not say when"


def _faults_of_time(entry: Entry) -> Iterator[str]:
    day, time = (entry.record.text(_tag(one)) for one in ("StudyDate", "StudyTime"))
    if day and not is_day(day):
        yield f"{entry.label} has the date {day}"
    if time and not TIME.fullmatch(time):
        yield f"{entry.label} has the time {time}"


def is_day(text: str) -> bool:
    """Whether it is a day of VR DA (PS3.5 6.2)."""
    try:
        return bool(DAY.fullmatch(text) and date.fromisoformat(text))
    except ValueError:
        return False
