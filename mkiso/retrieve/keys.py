"""Some attributes of an instance, read of whatever it is; and a file of nothing else.

The pages show them. They are the keys of directory records (PS3.3 F.5), too, where dcmmkdir cannot parse an instance:
Scanners write what others read and DCMTK refuses: a sequence with a length and a delimiter, elements without a VR,
pixels without an end. A copy of the keys alone is sound, and dcmmkdir makes of it what it makes of any instance.
Values are the bytes that the instance has: nothing is decoded, whatever its character set says. What is read comes
from strangers: no content of it raises anything, and a file costs a few megabytes of memory, however large it is or
inflates to: what is long is skipped.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian
from pydicom.valuerep import STR_VR
from pydicom.values import convert_SQ

from mkiso.retrieve import encoding
from mkiso.retrieve.encoding import BEFORE_META, LONG_HEADER, Encoding, element, file_meta, item, value
from mkiso.retrieve.salvage import READ, spans
from mkiso.retrieve.walker import ENCODINGS, walk_meta
from mkiso.retrieve.windows import FileBytes, Inflated, Source, Unwalkable, beginning

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
        return bytes(BEFORE_META - 4) + b"DICM" + file_meta(*identity) + keys


def read_keys(path: Path, wanted: Collection[int] = KEYS) -> Keys | None:
    """Those of the keys that an instance has; None where its file cannot be read, or has two of one."""
    try:
        with path.open("rb") as file:
            content = FileBytes(file.fileno(), os.fstat(file.fileno()).st_size)
            meta: dict[int, bytes] = {}
            start = walk_meta(content, BEFORE_META, meta)
            syntax = meta[encoding.TRANSFER_SYNTAX].strip(PADDING).decode("ascii")
            deflated = syntax == DeflatedExplicitVRLittleEndian
            source, at = (Inflated(content, start), 0) if deflated else (content, start)
            return _keys(meta, source, at, ENCODINGS.get(syntax, encoding.EXPLICIT_LITTLE), wanted)
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
        for tag, start, end in spans(data, written, last_group):
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
