"""What can be read of an instance whose elements do not fit: its identity, its attributes for pages, its keys.

The walk (`walker`) proves, and stops where something is wrong. Archives hold such files all the same, and send them:
scanners write what others read and DCMTK refuses, such as a sequence with a length and a delimiter, elements without a
VR, pixels without an end. This reads as much of them as other readers do. Where an element may end in several places,
it ends where one follows that may come after it (PS3.5 7.1: in the ascending order of their tags): that is how a VR
that is none, a sequence whose length is wrong, and a delimiter too many are got over.

The keys are those of directory records (PS3.3 F.5). A file of nothing else is sound, and dcmmkdir makes of it what it
makes of any instance. Values are the bytes that the instance has: nothing is decoded, whatever its character set says.

What is read comes from strangers: no content of it raises anything, and a file costs a few megabytes of memory, however
large it is or inflates to: what is long is skipped.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.valuerep import STR_VR
from pydicom.values import convert_SQ

from mkiso.dicom import encoding
from mkiso.dicom.encoding import (
    BEFORE_META,
    HEADER,
    ITEM,
    ITEM_END,
    KEPT,
    LONG_HEADER,
    LONG_VRS,
    OF_DATA_SET,
    PREAMBLE,
    SEQUENCE_END,
    SHORT_VRS,
    Encoding,
    FileBytes,
    Source,
    Unwalkable,
    beginning,
    data_set_of,
    element,
    encoding_of,
    file_meta,
    item,
    no_checkpoint,
    value,
)
from mkiso.dicom.walker import ASKING, DEEPEST, UNDEFINED, walk_meta
from mkiso.waiting import Checkpoint

READ = 1 << 22  # bytes; identity is at the beginning, behind a few private groups at most
MOST_STEPS = 1 << 17  # a second; where all lengths are wrong, each sequence would be walked for each that is around it
LAST_OF_USE = 0x0020
VRS = LONG_VRS | SHORT_VRS
DELIMITING = frozenset({ITEM, ITEM_END, SEQUENCE_END})
# What dcmmkdir makes records of: of all the SOP classes that it knows, but for icons.
CONTENT = ("ContentDate", "ContentTime", "ContentLabel", "ContentDescription", "ContentCreatorName")
KEYWORDS = (
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID"),
    *("PatientName", "PatientID"),
    *("StudyDate", "StudyTime", "StudyDescription", "StudyInstanceUID", "StudyID", "AccessionNumber"),
    *("Modality", "SeriesInstanceUID", "SeriesNumber"),
    *("InstanceNumber", "ImageType", "ReferencedImageSequence", *CONTENT),
    *("CompletionFlag", "VerificationFlag", "VerifyingObserverSequence", "ConceptNameCodeSequence", "ContentSequence"),
    *("PresentationCreationDate", "PresentationCreationTime", "ReferencedSeriesSequence", "BlendingSequence"),
    *("DocumentTitle", "MIMETypeOfEncapsulatedDocument", "HL7InstanceIdentifier"),
    *("DoseSummationType", "DoseComment", "StructureSetLabel", "StructureSetDate", "StructureSetTime"),
    *("RTPlanLabel", "RTPlanDate", "RTPlanTime", "TreatmentDate", "TreatmentTime"),
    *("UserContentLabel", "UserContentLongLabel", "InstanceCreationDate", "InstanceCreationTime"),
    *("NumberOfFrames", "Rows", "Columns", "DataPointRows", "DataPointColumns", "ReferencedImageEvidenceSequence"),
)
KEYS = frozenset(map(Tag, KEYWORDS))
LAST_GROUP = 0x3010
LONGEST, LARGEST = 0xFFFE, 1 << 17  # bytes of a value, which a short VR may have, and of a sequence
MOST_PIECES = 64  # of READ bytes, that a file is looked at in
NO_LENGTH = b"\xff\xff\xff\xff"
PADDING = b"\0 "
NUMBERS = {"FD": 8, "FL": 4, "SL": 4, "SS": 2, "UL": 4, "US": 2}  # and the bytes of each


def salvaged(data: bytes, written: Encoding, checkpoint: Checkpoint = no_checkpoint) -> dict[int, bytes | None]:
    """The values of OF_DATA_SET; None for one that cannot be told, and may be there all the same.

    So one is that is there twice, and differs: where an element's end is not found, the next may be one of a sequence.
    `checkpoint` is called as it goes.
    """
    found: dict[int, bytes | None] = {}
    last = 0
    for tag, start, end in _spans(data, written, LAST_OF_USE, _steps(checkpoint)):
        if end > len(data):
            break
        last = max(last, tag)
        if tag in OF_DATA_SET:
            content = data[start:end]
            found[tag] = content if len(content) <= KEPT and found.get(tag, content) == content else None
    return found | {tag: None for tag in OF_DATA_SET if tag > last}


def _steps(checkpoint: Checkpoint = no_checkpoint) -> Iterator[int]:
    for step in range(MOST_STEPS):
        if not step % ASKING:
            checkpoint()
        yield step


def _spans(data: bytes, written: Encoding, last_group: int, steps: Iterator[int]) -> Iterator[tuple[int, int, int]]:
    """The tags of a data set's own elements up to this group, and where the value of each begins and ends.

    The last one may end behind the data.
    """
    reader, at = _Reader(data, written, steps), 0
    while at + HEADER <= len(data):
        try:
            tag, start, end = reader.element(at, 0)
        except Unwalkable:
            return
        if tag not in DELIMITING:
            if tag >> 16 > last_group:
                return
            yield tag, start, end
        at = end


class _Reader:
    """Tells where each element ends."""

    def __init__(self, data: bytes, written: Encoding, steps: Iterator[int]) -> None:
        self._data, self._encoding, self._steps = data, written, steps

    def element(self, at: int, depth: int) -> tuple[int, int, int]:
        """Its tag, and where its value begins and ends. Raises Unwalkable where it is too deep, or took too long."""
        self._step()
        raw, vr, length, start = self._encoding.element(self._data, at)
        tag = self._encoding.tag(raw)
        if tag in DELIMITING:
            return tag, at + HEADER, at + HEADER
        if length == UNDEFINED:
            return tag, start, self._end_of_sequence(start, depth)
        ends = self._ends(at, vr, start, length, depth)
        return tag, start, next((end for end in ends if self._is_followed(end, tag, depth)), start + length)

    def _step(self) -> None:
        if next(self._steps, None) is None:
            raise Unwalkable

    def _ends(self, at: int, vr: bytes, start: int, length: int, depth: int) -> Iterator[int]:
        """Where it may end: behind its items, as its length says, as that of a VR that is none."""
        first = self._data[start : start + HEADER]
        if len(first) == HEADER and self._encoding.tag(self._encoding.item_header(first, 0)[0]) == ITEM:
            yield self._end_of_sequence(start, depth)
        yield start + length
        if vr not in VRS and not self._encoding.is_implicit:
            yield at + HEADER + int.from_bytes(self._data[at + 6 : at + HEADER], self._encoding.order)
            yield at + LONG_HEADER + int.from_bytes(self._data[at + HEADER : at + LONG_HEADER], self._encoding.order)

    def _is_followed(self, at: int, tag: int, depth: int) -> bool:
        """Whether an element is there that may come after this one."""
        if at + HEADER > len(self._data):
            return at == len(self._data)
        raw, vr, _length, _start = self._encoding.element(self._data, at)
        following = self._encoding.tag(raw)
        if following == ITEM_END:
            return depth > 0
        known = self._encoding.is_implicit or vr in VRS or following >> 16 == tag >> 16
        return following > tag and following not in DELIMITING and known

    def _end_of_sequence(self, at: int, depth: int) -> int:
        """Behind its items and its delimiter, or where neither follows."""
        if depth > DEEPEST:
            raise Unwalkable
        while at + HEADER <= len(self._data):
            self._step()
            raw, length = self._encoding.item_header(self._data, at)
            tag = self._encoding.tag(raw)
            if tag not in DELIMITING:
                return at
            at += HEADER
            if tag == SEQUENCE_END:
                return at
            if tag == ITEM:
                at = self._end_of_item(at, depth + 1) if length == UNDEFINED else at + length
        return at

    def _end_of_item(self, at: int, depth: int) -> int:
        """Behind its delimiter, or where another item or the sequence's end follows."""
        within = _Reader(self._data, self._encoding.within_item(self._data[at + 4 : at + 6]), self._steps)
        while at + HEADER <= len(self._data):
            tag, _start, end = within.element(at, depth)
            if tag in {ITEM, SEQUENCE_END}:
                return at
            at = end
            if tag == ITEM_END:
                return at
        return at


class Unclear(ValueError):
    """Two values of one key: two readers would see two instances."""


@dataclass(frozen=True)
class Keys:
    """Of one instance the file meta information's values, and its keys: elements in explicit little endian, by tag."""

    meta: Mapping[int, bytes]
    elements: Mapping[int, bytes]
    filled: frozenset[int] = frozenset()  # of those that were wanted, which it has, also where they cannot be told

    @property
    def transfer_syntax(self) -> bytes:
        """Which the file is in, not the keys."""
        return self.meta[encoding.TRANSFER_SYNTAX].strip(PADDING)

    def value(self, tag: int) -> bytes:
        """Without its padding; empty where there is none."""
        return value(self.elements.get(tag, b""))

    def file(self) -> bytes:
        """A DICOM file (PS3.10 7.1) that has these keys and nothing else, in explicit little endian."""
        identity = (self.meta.get(tag, b"") for tag in (encoding.MEDIA_SOP_CLASS, encoding.MEDIA_SOP_INSTANCE))
        keys = b"".join(self.elements[tag] for tag in sorted(self.elements))
        return PREAMBLE + file_meta(*identity) + keys


def read_keys(path: Path, wanted: Collection[int] = KEYS) -> Keys | None:
    """Those of the keys that an instance has; None where its file cannot be read, or has two of one."""
    try:
        with path.open("rb") as file:
            content = FileBytes(partial(os.pread, file.fileno()), os.fstat(file.fileno()).st_size)
            meta: dict[int, bytes] = {}
            start = walk_meta(content, BEFORE_META, meta)
            syntax = meta[encoding.TRANSFER_SYNTAX].strip(PADDING).decode("ascii")
            return _keys(meta, *data_set_of(content, start, syntax), encoding_of(syntax), wanted)
    except (OSError, Unwalkable, KeyError, UnicodeDecodeError, Unclear):
        return None


def _keys(meta: Mapping[int, bytes], source: Source, at: int, written: Encoding, wanted: Collection[int]) -> Keys:
    found, filled = dict[int, bytes](), set[int]()
    for tag, content in _elements(source, at, written, max(wanted) >> 16):
        if tag in wanted:
            one = None if content is None else _encoded(tag, content, written.is_implicit, written.order == "little")
            if content != b"":
                filled.add(tag)
            if one is not None and found.setdefault(tag, one) != one:
                raise Unclear
    return Keys(meta, found, frozenset(filled))


def _elements(source: Source, at: int, written: Encoding, last_group: int) -> Iterator[tuple[int, bytes | None]]:
    """Those of the data set itself, up to this group; None for a value that is longer than READ, and skipped."""
    for _ in range(MOST_PIECES):
        data, whole, end = beginning(source, at, READ), 0, 0
        for tag, start, end in _spans(data, written, last_group, _steps()):
            if end <= len(data):
                yield tag, data[start:end]
                whole = end
            elif not whole or end - start > READ:
                yield tag, None
                whole = 0 if data.startswith(NO_LENGTH, start - len(NO_LENGTH)) else end
        if not whole or end <= len(data) - LONG_HEADER:
            return
        at += whole


def _encoded(tag: int, content: bytes, is_implicit: bool, is_little: bool) -> bytes | None:
    """An element in explicit little endian; None where it is private, too long, or cannot be read."""
    with suppress(Exception):  # whatever a stranger's sequence makes of pydicom: no disc fails for it
        vr = dictionary_VR(tag)
        if vr == "SQ" and len(content) <= LARGEST:
            return element(tag, b"SQ", b"".join(_items(convert_SQ(content, is_implicit, is_little), is_little)))
        if len(content) <= LONGEST and vr in NUMBERS:
            return element(tag, vr.encode(), content if is_little else _turned(content, NUMBERS[vr]))
        if len(content) <= LONGEST and vr in STR_VR:
            return element(tag, vr.encode(), content)
    return None


def _turned(numbers: bytes, size: int) -> bytes:
    """Big endian ones in little endian."""
    return b"".join(numbers[at : at + size][::-1] for at in range(0, len(numbers), size))


def _items(sequence: Iterable[Dataset], is_little: bool) -> Iterator[bytes]:
    """pydicom takes the delimiter behind an item with a length for an empty item: so none of these."""
    for one in sequence:
        parts = [_within_item(one.get_item(tag), is_little) for tag in sorted(one.keys())]
        if content := b"".join(part for part in parts if part):
            yield item(content)


def _within_item(one: RawDataElement | DataElement | None, is_little: bool) -> bytes | None:
    if isinstance(one, DataElement):  # of undefined length
        return element(one.tag, b"SQ", b"".join(_items(one.value, is_little))) if one.VR == "SQ" else None
    if one is None or len(content := one.value or b"") != one.length:
        return None
    is_unknown = one.VR == "UN"  # a sequence in it is implicit, in little endian (PS3.5 6.2.2)
    return _encoded(one.tag, content, one.is_implicit_VR or is_unknown, is_little or is_unknown)
