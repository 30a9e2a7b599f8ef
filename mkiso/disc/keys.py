"""The keys of directory records (PS3.3 F.5), read of instances that dcmmkdir cannot parse; and a file of nothing else.

Scanners write data sets that pydicom reads and DCMTK refuses: a sequence with a length and a delimiter, elements
without a VR, pixels without an end. A copy of the keys alone is sound, and dcmmkdir makes of it what it makes of
any instance. Values are the bytes that the instance has: nothing is decoded, whatever its character set says.
What is read comes from strangers: of a file only so many bytes, and no content of it raises anything.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.filereader import data_element_generator
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import STR_VR
from pydicom.values import convert_SQ

from mkiso.disc.records import BEFORE_META, element, file_meta, item, value
from mkiso.retrieve import encoding
from mkiso.retrieve.walker import walk_meta
from mkiso.retrieve.windows import FileBytes

# What dcmmkdir puts into the records of all the SOP classes that it knows, but for icons.
KEYS = frozenset(
    {
        *(encoding.CHARACTER_SET, encoding.SOP_CLASS, encoding.SOP_INSTANCE),
        *(0x00100010, encoding.PATIENT_ID),
        *(0x00080020, 0x00080030, 0x00200010, 0x00080050, 0x00081030, encoding.STUDY),
        *(0x00080060, encoding.SERIES, encoding.SERIES_NUMBER),
        *(encoding.INSTANCE_NUMBER, 0x00080008, 0x00080012, 0x00080013, 0x00080023, 0x00080033),
        *(0x00081115, 0x00081140, 0x00089092),  # what an image or a presentation state refers to
        *(0x00280008, 0x00280010, 0x00280011, 0x00289001, 0x00289002),  # spectroscopy
        *(0x0040A043, 0x0040A073, 0x0040A491, 0x0040A493, 0x0040A730),  # structured reports
        *(0x0040E001, 0x00420010, 0x00420012),  # encapsulated documents
        *(0x00700080, 0x00700081, 0x00700082, 0x00700083, 0x00700084, 0x00700402),  # presentation states
        *(0x30040006, 0x3004000A, 0x30060002, 0x30060008, 0x30060009, 0x30080250, 0x30080251),  # radiotherapy
        *(0x300A0002, 0x300A0006, 0x300A0007, 0x30100033, 0x30100034),
    }
)
BEHIND, DELIMITERS = 0x50000000, 0xFFFE0000  # from the first group that has none of them
LONGEST = 0xFFFE  # bytes of a value: what a short VR may have
MOST_READ, MOST_INFLATED = 1 << 18, 1 << 20  # of each byte that it reads, pydicom may make 50
NUMBERS = frozenset({"FD", "FL", "SL", "SS", "UL", "US"})


class Unclear(ValueError):
    """Two values of one key: two readers would see two instances."""


@dataclass(frozen=True)
class Keys:
    """The keys of one instance, each an element in explicit little endian, by tag; how its file is encoded."""

    transfer_syntax: str
    elements: dict[int, bytes]

    def value(self, tag: int) -> bytes:
        """Without its padding; empty where there is none."""
        return value(self.elements.get(tag, b""))

    def file(self) -> bytes:
        """A DICOM file (PS3.10 7.1) that has these keys and nothing else, in explicit little endian."""
        meta = file_meta(self.value(encoding.SOP_CLASS), self.value(encoding.SOP_INSTANCE))
        return bytes(BEFORE_META - 4) + b"DICM" + meta + b"".join(self.elements[tag] for tag in sorted(self.elements))


def read_keys(path: Path, wanted: Collection[int] = KEYS) -> Keys | None:
    """Those of the keys that an instance has; None where its file cannot be read, or has two of one."""
    try:
        with path.open("rb") as file:
            meta: dict[int, bytes] = {}
            start = walk_meta(FileBytes(file.fileno(), os.fstat(file.fileno()).st_size), BEFORE_META, meta)
            syntax = meta[encoding.TRANSFER_SYNTAX].strip(b"\0 ").decode("ascii")
            file.seek(start)
            return Keys(syntax, _elements(file, syntax, wanted))
    except Exception:  # whatever a stranger's header makes of pydicom: no disc fails for it
        return None


class _Bounded:
    """A file that seems to end where so many bytes of it were read; what is skipped does not count."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file, self._left = file, most
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


def _elements(file: BinaryIO, syntax: str, wanted: Collection[int]) -> dict[int, bytes]:
    """Those before the first thing that pydicom cannot read."""
    found: dict[int, bytes] = {}
    little = syntax != ExplicitVRBigEndian
    if syntax == DeflatedExplicitVRLittleEndian:
        file = BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(MOST_INFLATED), MOST_INFLATED))
    source = cast(BinaryIO, _Bounded(file, MOST_READ))
    elements = data_element_generator(
        source, syntax == ImplicitVRLittleEndian, little, _is_behind, LONGEST, specific_tags=list(map(BaseTag, wanted))
    )
    for one in _readable(elements):
        encoded = _encoded(one, little) if one.tag in wanted else None
        if encoded is not None and found.setdefault(one.tag, encoded) != encoded:
            raise Unclear
    return found


def _is_behind(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return BEHIND <= int(tag) < DELIMITERS


def _readable(elements: Iterator[RawDataElement | DataElement]) -> Iterator[RawDataElement | DataElement]:
    with suppress(Exception):  # as above: what comes before it was read well
        yield from elements


def _encoded(one: RawDataElement | DataElement | None, little: bool) -> bytes | None:
    """An element in explicit little endian; None where it is private, cut off, too long, or cannot be read."""
    with suppress(Exception):  # as above
        if one is not None and not one.tag.is_private:
            return _of_vr(one, dictionary_VR(one.tag), little)
    return None


def _of_vr(one: RawDataElement | DataElement, vr: str, little: bool) -> bytes | None:
    content = b"" if isinstance(one, DataElement) else one.value or b""
    if isinstance(one, RawDataElement) and not len(content) == one.length <= LONGEST:
        return None
    if vr == "SQ":
        return element(one.tag, b"SQ", b"".join(_items(one, little)))
    is_readable = isinstance(one, RawDataElement) and (vr in STR_VR or (little and vr in NUMBERS))
    return element(one.tag, vr.encode(), content) if is_readable else None


def _items(sequence: RawDataElement | DataElement, little: bool) -> Iterator[bytes]:
    """pydicom takes the delimiter behind an item with a length for an empty item: so none of these."""
    for one in _sequence(sequence, little):
        parts = [_encoded(one.get_item(tag), little) for tag in sorted(one.keys())]
        if content := b"".join(part for part in parts if part):
            yield item(content)


def _sequence(one: RawDataElement | DataElement, little: bool) -> Iterator[Dataset]:
    if isinstance(one, DataElement):
        return iter(one.value)
    of_unknown = one.VR == "UN"  # implicit little endian (PS3.5 6.2.2)
    return iter(convert_SQ(one.value or b"", one.is_implicit_VR or of_unknown, little or of_unknown))
