"""The checks of the DICOMDIR itself (PS3.10 8.6, PS3.3 F).

The directory records' types, where each may stand, and the keys that each must have (PS3.3 F.4, F.5).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache, partial

from pydicom.tag import Tag
from pydicom.uid import RE_VALID_UID, ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from mkiso.dicom.datasets import is_date
from mkiso.dicom.encoding import value
from mkiso.dicom.records import IN_USE
from mkiso.verify.archive import IMAGES, OTHER
from mkiso.verify.directory import Entry, doubled
from mkiso.verify.disc import Disc, Findings

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
IMAGE_KEYS: dict[str, Keys] = {"IMAGE": (("InstanceNumber",), ())}
KEYS = BRANCHES | IMAGE_KEYS | DOCUMENTS | OTHERS
ABOVE = {"PATIENT": "", "STUDY": "PATIENT", "SERIES": "STUDY"}
BELOW_SERIES = "SERIES"
TIME = re.compile(r"(?:[01]\d|2[0-3])(?:[0-5]\d(?:(?:[0-5]\d|60)(?:\.\d{1,6})?)?)?")
_tag = cache(Tag)
VERSION, SOP_CLASS, SOP_INSTANCE, SYNTAX, IMPLEMENTATION = 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012
USED = 0xFFFF
LONGEST_UID = 64


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
    if day and not is_date(day):
        yield f"{entry.label} has the date {day}"
    if time and not TIME.fullmatch(time):
        yield f"{entry.label} has the time {time}"


def directory(disc: Disc) -> Findings:
    """That it is there and can be read: without, no other check of it is made."""
    yield from ()  # what is wrong with it is raised
    return f"{len(disc.directory.entries)} records, {len(disc.directory.leaves)} of them of files"


def meta(disc: Disc) -> Findings:
    """PS3.10 7.1, 8.6."""
    found = disc.directory.content.meta
    text = {tag: value(one).decode("latin-1") for tag, one in found.items()}
    if found.get(VERSION, b"")[12:] != b"\0\1":
        yield "the version is not 00 01"
    if text.get(SOP_CLASS) != MediaStorageDirectoryStorage:
        yield f"the SOP class is {text.get(SOP_CLASS)}"
    if text.get(SYNTAX) != ExplicitVRLittleEndian:
        yield f"the transfer syntax is {text.get(SYNTAX)}"
    for tag, name in ((SOP_INSTANCE, "SOP Instance UID"), (IMPLEMENTATION, "Implementation Class UID")):
        if not is_uid(text.get(tag, "")):
            yield f"the {name} is {text.get(tag)}"
    return text.get(SOP_INSTANCE, "")


def is_uid(text: str) -> bool:
    """PS3.5 9.1."""
    return len(text) <= LONGEST_UID and bool(re.fullmatch(RE_VALID_UID, text))


def offsets(disc: Disc) -> Findings:
    """PS3.3 F.3.2.1, F.3.2.2."""
    yield from disc.directory.lost
    for entry in disc.directory.entries:
        if int.from_bytes(entry.record.value(IN_USE), "little") != USED:
            yield f"{entry.label} is not in use"
    return "each record is reached once"


def types(disc: Disc) -> Findings:
    """PS3.3 F.4."""
    above_others = {entry.above.offset for entry in disc.directory.entries if entry.above}
    for entry in disc.directory.entries:
        above = entry.above.type if entry.above else ""
        if entry.type not in KEYS:
            yield f"{entry.label}: its type is retired or unknown"
        elif above != ABOVE.get(entry.type, BELOW_SERIES):
            yield f"{entry.label} stands below {above or 'the root'}"
        elif entry.type in BRANCHES and entry.offset not in above_others:
            yield f"{entry.label} has nothing below it"
    counts = Counter(entry.type for entry in disc.directory.entries)
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def patients(disc: Disc) -> Findings:
    """A disc of nothing but what no DICOMDIR can name has none."""
    if not any(disc.directory.of("PATIENT")) and (disc.tree.below(IMAGES) or not disc.tree.below(OTHER)):
        yield "there is no PATIENT record"
    return (yield from of_types(disc, ("PATIENT",)))


def of_types(disc: Disc, kinds: Iterable[str]) -> Findings:
    """That each record has its keys."""
    entries = list(disc.directory.of(*kinds))
    for entry in entries:
        yield from faults(entry)
    return f"{len(entries)} with their keys"


def unique(disc: Disc) -> Findings:
    identities = [entry.record.identity for entry in disc.directory.entries]
    for kind, uid in doubled(identities):
        yield f"the {kind} {uid.decode('latin-1')} is there twice"
    return f"{len(identities)} patients, studies, series and instances"


CHECKS = (
    ("file meta information", meta),
    ("records", offsets),
    ("record types", types),
    ("PATIENT", patients),
    ("STUDY", partial(of_types, kinds=("STUDY",))),
    ("SERIES", partial(of_types, kinds=("SERIES",))),
    ("IMAGE", partial(of_types, kinds=IMAGES)),
    ("SR, KO, PR", partial(of_types, kinds=DOCUMENTS)),
    ("other records", partial(of_types, kinds=OTHERS)),
    ("unique identifiers", unique),
)
