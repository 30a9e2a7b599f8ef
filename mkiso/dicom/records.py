"""A DICOMDIR's records, read and written (PS3.3 F.3): explicit little endian, lengths instead of delimiters.

A record's elements are kept as the bytes they came in; only offsets are written anew.
"""

from __future__ import annotations

import hashlib
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from struct import Struct, error

from pydicom.uid import MediaStorageDirectoryStorage

from mkiso.dicom.encoding import (
    BEFORE_META,
    EXPLICIT_LITTLE,
    HEADER,
    META_LENGTH,
    PATIENT_ID,
    PREAMBLE,
    SERIES,
    STUDY,
    Unwalkable,
    element,
    file_meta,
    item,
    value,
)

NEXT, IN_USE, LOWER, TYPE = 0x00041400, 0x00041410, 0x00041420, 0x00041430
FILE_ID, SOP_INSTANCE, SYNTAX = 0x00041500, 0x00041511, 0x00041512
FILE_SET_ID, FIRST, LAST, CONSISTENT, RECORDS = 0x00041130, 0x00041200, 0x00041202, 0x00041212, 0x00041220
A_RECORD = 8  # takes as much memory as so many elements
IDENTIFIERS = {"PATIENT": PATIENT_ID, "STUDY": STUDY, "SERIES": SERIES}
_LONG = Struct("<L")


class Malformed(ValueError):
    """No DICOMDIR as dcmmkdir writes them."""


@dataclass
class Record:
    """A directory record: its elements, each whole, by tag and in their order, and the records below it."""

    elements: dict[int, bytes]
    below: list[Record] = field(default_factory=list)

    @property
    def type(self) -> str:
        return self.text(TYPE)

    @property
    def file(self) -> str:
        """The referenced file, as a path below the file-set's root."""
        return self.text(FILE_ID).replace("\\", "/")

    @property
    def identity(self) -> tuple[str, bytes]:
        """What it stands for: a patient, study, series or instance, and its identifier."""
        kind = self.type if self.type in IDENTIFIERS else "INSTANCE"
        return kind.lower(), self.value(IDENTIFIERS.get(kind, SOP_INSTANCE))

    def value(self, tag: int) -> bytes:
        """An element's value without its padding; empty where there is none."""
        return value(self.elements.get(tag, b""))

    def text(self, tag: int) -> str:
        return self.value(tag).decode("latin-1")

    def put(self, tag: int, value: bytes) -> None:
        """Give an element that is there another value of its VR."""
        self.elements[tag] = element(tag, self.elements[tag][4:6], value)


def number(element: bytes) -> int:
    """The value of an element of VR UL; struct.error where it is shorter."""
    return int(_LONG.unpack_from(element, 8)[0])


@dataclass(frozen=True)
class Content:
    """A DICOMDIR in parts, before any offset is followed: elements by tag, records by their offsets."""

    meta: dict[int, bytes]
    head: dict[int, bytes]
    records: dict[int, Record]


def read(data: bytes) -> list[Record]:
    """The records of the root directory entity, with all below them; Malformed where a record is reached not once."""
    content = taken_apart(data)
    try:
        return _linked(content.records, number(content.head[FIRST]))
    except (KeyError, error) as wrong:
        raise Malformed from wrong


def taken_apart(data: bytes, most: int = sys.maxsize) -> Content:
    """All that a DICOMDIR holds; Malformed where its lengths do not fit into each other.

    So, too, where it has more than so many elements, of which a record counts for A_RECORD besides.
    """
    try:
        meta = _elements(data, BEFORE_META, BEFORE_META + 12, most)
        start = BEFORE_META + 12 + number(meta[META_LENGTH])
        meta |= _elements(data, BEFORE_META + 12, start, most)
        head = _elements(data, start, len(data), most)
        end_of_head = start + sum(len(one) for one in head.values())
        records = dict(_items(data, end_of_head - len(head[RECORDS]) + 12, end_of_head, most))
    except (KeyError, Unwalkable, error) as wrong:
        raise Malformed from wrong
    return Content(meta, head, records)


def _elements(data: bytes, at: int, end: int, most: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while at < end:
        tag, _vr, length, start = EXPLICIT_LITTLE.element(data, at)
        if start + length > end or len(found) > most:
            raise Malformed
        found[EXPLICIT_LITTLE.tag(tag)] = data[at : start + length]
        at = start + length
    return found


def _items(data: bytes, at: int, end: int, most: int) -> Iterator[tuple[int, Record]]:
    """The records by their offsets."""
    while at < end:
        tag, length = EXPLICIT_LITTLE.item_header(data, at)
        begin, following = at + HEADER, at + HEADER + length
        if most < 0 or tag != EXPLICIT_LITTLE.item or following > end:
            raise Malformed
        record = Record(_elements(data, begin, following, most))
        most -= A_RECORD + len(record.elements)
        yield at, record
        at = following


def _linked(records: dict[int, Record], first: int) -> list[Record]:
    """Hang each record where the offsets say; what is reached is taken out, so that nothing is reached twice."""
    root: list[Record] = []
    entities = [(first, root)]
    while entities:
        offset, entity = entities.pop()
        while offset:
            record = records.pop(offset)
            entity.append(record)
            entities.append((number(record.elements[LOWER]), record.below))
            offset = number(record.elements[NEXT])
    if records:
        raise Malformed
    return root


def written(root: Sequence[Record], file_set_id: str) -> bytes:
    """A DICOMDIR with these records, always the same for the same ones: its UID is made from them."""
    head = _head(file_set_id, root, {}, 0)
    at = BEFORE_META + len(_meta(b"")) + len(head)
    offsets: dict[int, int] = {}
    for record in flat(root):
        offsets[id(record)] = at
        at += 8 + sum(map(len, record.elements.values()))
    _link(root, offsets)
    items = b"".join(item(b"".join(record.elements.values())) for record in flat(root))
    content = _head(file_set_id, root, offsets, len(items)) + items
    return PREAMBLE + _meta(content) + content


def flat(records: Sequence[Record]) -> Iterator[Record]:
    """These records, each followed by those below it."""
    for record in records:
        yield record
        yield from flat(record.below)


def _link(entity: Sequence[Record], offsets: dict[int, int]) -> None:
    for number, record in enumerate(entity, 1):
        following = offsets[id(entity[number])] if number < len(entity) else 0
        record.put(NEXT, _LONG.pack(following))
        record.put(LOWER, _LONG.pack(offsets[id(record.below[0])] if record.below else 0))
        _link(record.below, offsets)


def _head(file_set_id: str, root: Sequence[Record], offsets: dict[int, int], length: int) -> bytes:
    first, last = (offsets.get(id(root[at]), 0) if root else 0 for at in (0, -1))
    return b"".join(
        (
            element(FILE_SET_ID, b"CS", file_set_id.encode("ascii")),
            element(FIRST, b"UL", _LONG.pack(first)),
            element(LAST, b"UL", _LONG.pack(last)),
            element(CONSISTENT, b"US", bytes(2)),
            element(RECORDS, b"SQ", b"")[:8] + _LONG.pack(length),
        )
    )


def _meta(content: bytes) -> bytes:
    """That of a DICOMDIR, always of one length: a UUID that begins with c has 39 digits."""
    number = uuid.UUID(hex="c" + hashlib.sha256(content).hexdigest()[:31], version=5).int
    return file_meta(MediaStorageDirectoryStorage.encode(), f"2.25.{number}".encode())
