"""The DICOMDIR: its records as they are reached by their offsets, and the checks of them (PS3.3 F, PS3.10 8).

pydicom reads it, and nothing of mkiso's own codec: a judge that shared that with the maker would share its faults.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from io import BytesIO
from struct import Struct
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.filereader import data_element_generator
from pydicom.tag import Tag
from pydicom.uid import RE_VALID_UID, ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from mkiso.dicom.datasets import is_date
from mkiso.verify.medium import Findings, UnreadableDisc

META, PREAMBLE, PREFIX = 132, 128, b"DICM"  # PS3.10 7.1
META_GROUP, GROUP_LENGTH = 2, 12  # bytes of the first element, that tells how long the others of its group are
CHARACTER_SET, RECORDS, ITEM, LONG = 0x00080005, 0x00041220, 0xFFFEE000, Struct("<L")
A_RECORD = 8  # takes as much memory as so many elements
TORN = "the DICOMDIR is torn, or not of explicit little endian with lengths"
NEXT, LOWER = "OffsetOfTheNextDirectoryRecord", "OffsetOfReferencedLowerLevelDirectoryEntity"
FIRST = "OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity"
LAST = "OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity"
IDENTIFIERS = {"PATIENT": "PatientID", "STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID"}
VERIFIED = "VERIFIED"
USED = b"\xff\xff"
LONGEST_UID = 64
COMPONENT, LEVELS = re.compile(r"[A-Z0-9_]{1,8}"), 8  # PS3.10 8.2
TIME = re.compile(r"(?:[01]\d|2[0-3])(?:[0-5]\d(?:(?:[0-5]\d|60)(?:\.\d{1,6})?)?)?")
# The keys of each type of record (PS3.3 F.4, F.5): those of type 1 have a value; those of type 2 are there.
Keys = tuple[tuple[str, ...], tuple[str, ...]]
CONTENT = ("ContentDate", "ContentTime")
CREATED = ("ContentDescription", "ContentCreatorName")
LABELLED = (("InstanceNumber", *CONTENT, "ContentLabel"), CREATED)
BRANCHES: dict[str, Keys] = {
    "PATIENT": (("PatientID",), ("PatientName",)),
    "STUDY": (("StudyDate", "StudyTime", "StudyID", "StudyInstanceUID"), ("StudyDescription", "AccessionNumber")),
    "SERIES": (("Modality", "SeriesInstanceUID", "SeriesNumber"), ()),
}
IMAGE_KEYS: dict[str, Keys] = {"IMAGE": (("InstanceNumber",), ())}
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
KEYS = BRANCHES | IMAGE_KEYS | DOCUMENTS | OTHERS
ABOVE = {"PATIENT": "", "STUDY": "PATIENT", "SERIES": "STUDY"}
BELOW_SERIES = "SERIES"
tag_of = cache(Tag)


@dataclass(frozen=True, eq=False)
class Elements:
    """Values of elements as they were read, by their tags; whoever looks one up names it by its keyword."""

    values: Mapping[int, bytes]

    def has(self, keyword: str) -> bool:
        return tag_of(keyword) in self.values

    def value(self, keyword: str) -> bytes:
        """A value without its padding; empty where there is none."""
        return self.values.get(tag_of(keyword), b"").strip(b"\0 ")

    def text(self, keyword: str) -> str:
        return self.value(keyword).decode("latin-1")

    def number(self, keyword: str) -> int:
        """A value of VR UL; UnreadableDisc where there is none."""
        value = self.values.get(tag_of(keyword), b"")
        if len(value) < LONG.size:
            raise UnreadableDisc(TORN)
        return int(LONG.unpack_from(value)[0])


@dataclass(frozen=True, eq=False)
class Entry(Elements):
    """A directory record where it was reached first."""

    at: int
    above: Entry | None

    @cached_property
    def type(self) -> str:
        return self.text("DirectoryRecordType")

    @cached_property
    def file(self) -> str:
        """The file that it refers to, as a path below the file-set's root."""
        return self.text("ReferencedFileID").replace("\\", "/")

    @property
    def label(self) -> str:
        """How a person finds the record: its type, and its file or its offset."""
        return f"{self.type or 'record'} {self.file or f'at {self.at}'}"

    @property
    def identity(self) -> tuple[str, str]:
        """What it stands for: a patient, study, series or instance, and its identifier."""
        kind = self.type if self.type in IDENTIFIERS else "INSTANCE"
        return kind.lower(), self.text(IDENTIFIERS.get(kind, "ReferencedSOPInstanceUIDInFile"))

    def ancestor(self, kind: str) -> Entry | None:
        """The record of a type above it, where it is as near as it may be (PS3.3 F.4)."""
        entry, steps = self.above, len(IDENTIFIERS)
        while entry and entry.type != kind and steps:
            entry, steps = entry.above, steps - 1
        return entry if entry and entry.type == kind else None


@dataclass(frozen=True, eq=False)
class Directory(Elements):
    """A DICOMDIR: what stands before its records, these entity by entity, and what is wrong with their offsets."""

    entries: tuple[Entry, ...]
    lost: tuple[str, ...]

    @cached_property
    def leaves(self) -> tuple[Entry, ...]:
        """The records that refer to a file."""
        return tuple(entry for entry in self.entries if entry.file)

    def of(self, types: Iterable[str]) -> list[Entry]:
        return [entry for entry in self.entries if entry.type in types]


def read_dicomdir(data: bytes, most: int = sys.maxsize) -> Directory:
    """The directory in a DICOMDIR's bytes.

    Raises UnreadableDisc where it has none, or lengths that do not fit into each other, or more than so many elements,
    of which a record counts for A_RECORD besides.
    """
    try:
        head, records = _read(data, _Reader(most))
        entries, lost = _reached(head, records)
        return Directory(head.values, tuple(entries.values()), tuple(lost))
    except UnreadableDisc:
        raise
    except Exception as error:  # whatever a stranger's DICOMDIR makes of pydicom
        raise UnreadableDisc(TORN) from error


class _Reader:
    """What pydicom makes of elements, which may be so many in all."""

    def __init__(self, most: int) -> None:
        self._left = most

    def elements(self, content: bytes, begin: int = 0, *, items: bool = False) -> Iterator[RawDataElement]:
        """The elements, or the items, that fill a content from a place on to its end; UnreadableDisc."""
        file, end = BytesIO(content), begin
        file.seek(begin)

        def is_too_much(tag: int, vr: str | None, length: int) -> bool:
            nonlocal end
            begin, end = file.tell(), file.tell() + length
            self._left -= A_RECORD if items else 1
            if tag == CHARACTER_SET:  # whose names pydicom looks up at once, and raises of a NUL in one
                with file.getbuffer() as view:
                    view[begin:end] = bytes(view[begin:end]).replace(b"\0", b" ")
            return self._left < 0 or end > len(content) or (vr is None) != items

        # An item has no VR, as no element has in implicit little endian (PS3.5 7.1.3, 7.5).
        read: Iterator[Any] = data_element_generator(file, items, True, stop_when=is_too_much)
        yield from read
        if end != len(content):
            raise UnreadableDisc(TORN)


def _read(data: bytes, reader: _Reader) -> tuple[Elements, dict[int, dict[int, bytes]]]:
    """What stands before the records, and these by their offsets."""
    values: dict[int, bytes] = {}
    begin = end_of_meta = 0
    for one in reader.elements(data, META) if data[PREAMBLE:META] == PREFIX else ():
        values[int(one.tag)] = one.value or b""
        if one.tag == RECORDS:
            begin = one.value_tell
        if one.tag.group == META_GROUP:
            end_of_meta = one.value_tell + one.length
    head, records = Elements(values), {}
    if META + GROUP_LENGTH + head.number("FileMetaInformationGroupLength") != end_of_meta:
        raise UnreadableDisc(TORN)
    for item in reader.elements(values.pop(RECORDS), items=True):
        if item.tag != ITEM:
            raise UnreadableDisc(TORN)
        elements = reader.elements(item.value or b"")
        records[begin + item.value_tell - 8] = {int(one.tag): one.value or b"" for one in elements}
    return head, records


def _reached(head: Elements, records: Mapping[int, Mapping[int, bytes]]) -> tuple[dict[int, Entry], list[str]]:
    """Follow each offset once; what is wrong is noted, and the rest goes on."""
    entries: dict[int, Entry] = {}
    lost: list[str] = []

    def entity(offset: int, above: Entry | None) -> list[Entry]:
        """The records of a directory entity, from one to the next."""
        found: list[Entry] = []
        while offset:
            if offset not in records:
                lost.append(f"an offset is {offset}, where no record begins")
                break
            if offset in entries:
                lost.append(f"the record at {offset} is reached twice")
                break
            entries[offset] = Entry(records[offset], offset, above)
            found.append(entries[offset])
            offset = found[-1].number(NEXT)
        return found

    root, last = entity(head.number(FIRST), None), head.number(LAST)
    if last != (true := root[-1].at if root else 0):
        lost.append(f"the last record of the root is at {true}, and is said to be at {last}")
    todo = root[::-1]
    while todo:
        entry = todo.pop()
        todo += entity(entry.number(LOWER), entry)[::-1]
    lost += (f"the record at {offset} is never reached" for offset in sorted(records.keys() - entries.keys()))
    return entries, lost


def meta(directory: Directory) -> Findings:
    """PS3.10 7.1, 8.6."""
    if directory.values.get(tag_of("FileMetaInformationVersion")) != b"\0\1":
        yield "the version is not 00 01"
    for keyword, name, expected in (
        ("MediaStorageSOPClassUID", "SOP class", MediaStorageDirectoryStorage),
        ("TransferSyntaxUID", "transfer syntax", ExplicitVRLittleEndian),
    ):
        if (text := directory.text(keyword)) != expected:
            yield f"the {name} is {text or None}"
    for keyword, name in (
        ("MediaStorageSOPInstanceUID", "SOP Instance UID"),
        ("ImplementationClassUID", "Implementation Class UID"),
    ):
        if not is_uid(text := directory.text(keyword)):
            yield f"the {name} is {text or None}"
    return directory.text("MediaStorageSOPInstanceUID")


def is_uid(text: str) -> bool:
    """PS3.5 9.1."""
    return len(text) <= LONGEST_UID and bool(re.fullmatch(RE_VALID_UID, text))


def offsets(directory: Directory) -> Findings:
    """PS3.3 F.3.2.1, F.3.2.2."""
    if directory.values.get(tag_of("FileSetConsistencyFlag")) != b"\0\0":
        yield "the File-set Consistency Flag is missing, or tells of inconsistencies"
    yield from directory.lost
    for entry in directory.entries:
        if entry.value("RecordInUseFlag") != USED:
            yield f"{entry.label} is not in use"
    return "each record is reached once"


def types(directory: Directory) -> Findings:
    """PS3.3 F.4."""
    with_records_below = {entry.above.at for entry in directory.entries if entry.above}
    for entry in directory.entries:
        above = entry.above.type if entry.above else ""
        if entry.type not in KEYS:
            yield f"{entry.label}: its type is retired or unknown"
        elif above != ABOVE.get(entry.type, BELOW_SERIES):
            yield f"{entry.label} stands below {above or 'the root'}"
        elif entry.type in BRANCHES and entry.at not in with_records_below:
            yield f"{entry.label} has nothing below it"
    counts = Counter(entry.type for entry in directory.entries)
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def with_keys(directory: Directory, kinds: Iterable[str]) -> Findings:
    """That each record of these types has its keys."""
    entries = directory.of(kinds)
    for entry in entries:
        yield from _lacking(entry)
    return f"{len(entries)} with their keys"


def _lacking(entry: Entry) -> Iterator[str]:
    valued, there = KEYS[entry.type]
    yield from (f"{entry.label} has no {tag_of(keyword)}" for keyword in valued if not entry.value(keyword))
    yield from (f"{entry.label} lacks {tag_of(keyword)}" for keyword in there if not entry.has(keyword))
    if entry.type == "STUDY":
        day, time = entry.text("StudyDate"), entry.text("StudyTime")
        if day and not is_date(day):
            yield f"{entry.label} has the date {day}"
        if time and not TIME.fullmatch(time):
            yield f"{entry.label} has the time {time}"
    if entry.text("VerificationFlag") == VERIFIED and not entry.value("VerificationDateTime"):
        yield f"{entry.label} is verified, and does not say when"


def unique(directory: Directory) -> Findings:
    """That no patient, study, series or instance has two records; each that comes again is told as often as it does."""
    seen: set[tuple[str, str]] = set()
    for entry in directory.entries:
        if entry.identity in seen:
            yield "the {} {} is there twice".format(*entry.identity)
        seen.add(entry.identity)
    return f"{len(directory.entries)} patients, studies, series and instances"


def file_ids(directory: Directory) -> Findings:
    """PS3.10 8.2, 8.5."""
    for entry in directory.entries:
        components = entry.text("ReferencedFileID").split("\\")
        if entry.type in BRANCHES:
            if components != [""]:
                yield f"{entry.label} refers to a file"
        elif len(components) > LEVELS or not all(map(COMPONENT.fullmatch, components)):
            yield f"{entry.label}: its file ID is not well formed"
    return f"{len(directory.leaves)} file IDs"


# Those of all records, and behind the one of PATIENT records those of the others.
CHECKS = (("file meta information", meta), ("records", offsets), ("record types", types))
CHECKS_BY_TYPE = (
    ("STUDY", partial(with_keys, kinds=("STUDY",))),
    ("SERIES", partial(with_keys, kinds=("SERIES",))),
    ("IMAGE", partial(with_keys, kinds=IMAGE_KEYS)),
    ("SR, KO, PR", partial(with_keys, kinds=DOCUMENTS)),
    ("other records", partial(with_keys, kinds=OTHERS)),
    ("unique identifiers", unique),
    ("file IDs", file_ids),
)
