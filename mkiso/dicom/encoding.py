"""Data sets as bytes (PS3.5 7.1): in which encoding their elements are written, and how a file's bytes are read.

A file, or what it inflates to, is read in windows of bounded size: what is skipped is not kept, however large.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import suppress
from struct import Struct
from typing import Literal, Protocol

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from mkiso import __version__
from mkiso.waiting import Checkpoint

KEPT = 1024  # bytes of a value that is kept; no UID and no Patient ID is longer
AHEAD = KEPT + 16  # a window holds a header and such a value behind any place that is asked for
FIRST, FURTHER = 1 << 12, 1 << 16  # what follows a value that was skipped, and what follows without a gap
COMPRESSED = 1 << 14
# A deflated file of 1 MB may be 1 GB of zeros, or of elements without a value: 100 s of walking. Real
# ones that shrink so well are segmentations, nearly all of them one value that is skipped: 1 s for each GB.
MOST_INFLATED = 1 << 32
MOST_WALKED = 1 << 28
HEADER, LONG_HEADER = 8, 12
ITEM, ITEM_END, SEQUENCE_END, PIXEL_DATA = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0x7FE00010
LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
NO_VR = b""
TRANSFER_SYNTAX, MEDIA_SOP_CLASS, MEDIA_SOP_INSTANCE = 0x00020010, 0x00020002, 0x00020003
CHARACTER_SET, SOP_CLASS, SOP_INSTANCE, MODALITY = 0x00080005, 0x00080016, 0x00080018, 0x00080060
PATIENT_ID, STUDY, SERIES = 0x00100020, 0x0020000D, 0x0020000E
SERIES_NUMBER, INSTANCE_NUMBER = 0x00200011, 0x00200013
PREFIX = b"DICM"  # PS3.10 7.1, behind 128 bytes
PREAMBLE = bytes(128) + PREFIX
BEFORE_META, META_LENGTH = len(PREAMBLE), 0x00020000
# 2.25 and a UUID of mkiso's own (PS3.5 B.2).
IMPLEMENTATION = "2.25.140055411852988176683907551369266825300"
_HEADER, _ITEM, _LONG = Struct("<HH2sH"), Struct("<HHL"), Struct("<L")
OF_META = (TRANSFER_SYNTAX, MEDIA_SOP_CLASS, MEDIA_SOP_INSTANCE)
OF_DATA_SET = (
    *(CHARACTER_SET, SOP_CLASS, SOP_INSTANCE, MODALITY, PATIENT_ID, STUDY, SERIES, SERIES_NUMBER, INSTANCE_NUMBER),
)


class Unwalkable(Exception):
    """This is no whole file: it ends too early, or makes no sense."""


def no_checkpoint() -> None:
    """The checkpoint of what nobody waits for."""


class Source(Protocol):
    """Bytes that are walked from the first to the last."""

    def at(self, position: int) -> tuple[bytes, int]:
        """A window, and where in it a position is; AHEAD bytes follow there, or all that there are.

        Raises Unwalkable where the position lies behind the end.
        """


def beginning(source: Source, position: int, most: int) -> bytes:
    """The first bytes from a position on, up to so many, or as many as can be read."""
    read = bytearray()
    with suppress(Unwalkable):
        while len(read) < most:
            window, at = source.at(position + len(read))
            if at == len(window):
                break
            read += window[at : at + most - len(read)]
    return bytes(read)


def inflated(data: bytes, most: int) -> bytes:
    """The first bytes, up to so many, that a deflated data set becomes, as far as it is one."""
    inflate, made = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
    with suppress(zlib.error):
        for at in range(0, len(data), COMPRESSED):
            if len(made) < most:
                made += inflate.decompress(data[at : at + COMPRESSED], most - len(made))
    return bytes(made)


class FileBytes:
    """So many bytes, of which `read` gives a number from a position on, or fewer where it was cut meanwhile."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._bytes, self._size, self._base = read, size, 0
        self._window = self._bytes(min(FIRST, size), 0)

    def at(self, position: int) -> tuple[bytes, int]:
        at, there = position - self._base, len(self._window)
        if at < 0 or (there - at < AHEAD and self._base + there < self._size):
            self._read(position)
            return self._window, 0
        if at > there:
            raise Unwalkable
        return self._window, at

    def _read(self, position: int) -> None:
        behind = self._base + len(self._window)
        expected = min(FIRST if position > behind else FURTHER, self._size - position)
        if expected < 0:
            raise Unwalkable
        self._window = self._bytes(expected, position) if expected else b""
        self._base = position
        if len(self._window) < expected:
            raise Unwalkable


class Inflated:
    """What a deflated data set (PS3.5 A.5) inflates to, piece by piece and forwards only.

    Its end is reached only where the compression's own end is there; what follows that is not looked at.
    `checkpoint` is called for each piece.
    """

    def __init__(self, file: Source, begin: int, checkpoint: Checkpoint = no_checkpoint) -> None:
        self._file, self._position, self._checkpoint = file, begin, checkpoint
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._compressed, self._window = b"", b""
        self._base = self._inflated = self._walked = 0

    def at(self, position: int) -> tuple[bytes, int]:
        at = position - self._base
        if at < 0:
            raise Unwalkable
        if len(self._window) - at < AHEAD and not self._inflate.eof:
            self._walked += FURTHER
            at = self._forward(position)
        if at > len(self._window) or self._walked > MOST_WALKED:
            raise Unwalkable
        return self._window, at

    def _forward(self, position: int) -> int:
        while (at := position - self._base) > len(self._window) - AHEAD and not self._inflate.eof:
            gone = min(at, len(self._window))
            self._base += gone
            self._window = self._window[gone:] + self._piece()
        return at

    def _piece(self) -> bytes:
        self._checkpoint()
        if not self._compressed:
            window, at = self._file.at(self._position)
            self._compressed = window[at : at + COMPRESSED]
            self._position += len(self._compressed)
        ended = not self._compressed
        try:
            piece = self._inflate.decompress(self._compressed, FURTHER)
        except zlib.error:
            raise Unwalkable from None
        self._compressed = self._inflate.unconsumed_tail
        self._inflated += len(piece)
        if self._inflated > MOST_INFLATED or (ended and not piece and not self._inflate.eof):
            raise Unwalkable
        return piece


class Encoding:
    """A byte order, and whether the VR is explicit.

    A tag is read as one number, in which little endian has the group below the element.
    """

    def __init__(self, order: str, implicit: bool) -> None:
        self.order: Literal["little", "big"] = "little" if order == "<" else "big"
        self.is_implicit = implicit
        self.header = Struct(f"{order}L0sL" if implicit else f"{order}L2sH").unpack_from
        self.length = Struct(f"{order}L").unpack_from
        self.item_header = Struct(f"{order}LL").unpack_from
        self.short = frozenset({NO_VR}) if implicit else SHORT_VRS
        self.long = frozenset() if implicit else LONG_VRS
        self.item, self.item_end, self.sequence_end, self.pixel_data = map(
            self.tag, (ITEM, ITEM_END, SEQUENCE_END, PIXEL_DATA)
        )
        self.delimiter = Struct(f"{order}L").pack(self.sequence_end)
        self.of_meta = {self.tag(tag): tag for tag in OF_META}
        self.of_item = {self.item_end: ITEM_END}
        self.of_data_set = self.of_item | {self.tag(tag): tag for tag in OF_DATA_SET}
        self.implicit = self if implicit else Encoding(order, implicit=True)

    def tag(self, tag: int) -> int:
        """A tag as it is read for one as it is told (PS3.6), and the other way round."""
        return (tag & 0xFFFF) << 16 | tag >> 16 if self.order == "little" else tag

    def element(self, window: bytes, at: int) -> tuple[int, bytes, int, int]:
        """Tag, VR, length and value's place of any element. A VR that cannot be one means an implicit one."""
        tag, vr, length = self.header(window, at)
        if vr in self.long:
            if len(window) < at + LONG_HEADER:
                raise Unwalkable
            return tag, vr, self.length(window, at + HEADER)[0], at + LONG_HEADER
        if vr in self.short or b"AA" <= vr <= b"ZZ":
            return tag, vr, length, at + HEADER
        return tag, NO_VR, self.length(window, at + 4)[0], at + HEADER

    def within_item(self, vr: bytes) -> Encoding:
        """That of an item whose first element has these bytes for a VR: a sequence may be implicit (PS3.5 6.2.2)."""
        return self if vr.isalpha() and vr.isupper() else self.implicit


EXPLICIT_LITTLE, EXPLICIT_BIG = Encoding("<", implicit=False), Encoding(">", implicit=False)
IMPLICIT_LITTLE = EXPLICIT_LITTLE.implicit
ENCODINGS = {"1.2.840.10008.1.2": IMPLICIT_LITTLE, "1.2.840.10008.1.2.2": EXPLICIT_BIG}


def encoding_of(transfer_syntax: str) -> Encoding:
    """That of the data set; all others are explicit little endian, private ones most likely too (PS3.5 A.4)."""
    return ENCODINGS.get(transfer_syntax, EXPLICIT_LITTLE)


def data_set_of(
    file: Source, begin: int, transfer_syntax: str, checkpoint: Checkpoint = no_checkpoint
) -> tuple[Source, int]:
    """Where to read the data set that begins there in a file, and from which position on."""
    if transfer_syntax == DeflatedExplicitVRLittleEndian:
        return Inflated(file, begin, checkpoint), 0
    return file, begin


def value(element: bytes) -> bytes:
    """What an element holds, without its padding."""
    return element[12 if element[4:6] in LONG_VRS else 8 :].strip(b"\0 ")


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    """An element in its encoding, padded to an even length (PS3.5 6.2, 7.1.2)."""
    value += (b"\0" if vr in {b"UI", b"OB"} else b" ") * (len(value) % 2)
    if vr in LONG_VRS:
        return _HEADER.pack(tag >> 16, tag & 0xFFFF, vr, 0) + _LONG.pack(len(value)) + value
    return _HEADER.pack(tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def item(elements: bytes) -> bytes:
    """An item of a sequence, with its length (PS3.5 7.5)."""
    return _ITEM.pack(ITEM >> 16, ITEM & 0xFFFF, len(elements)) + elements


def file_meta(sop_class: bytes, sop_instance: bytes) -> bytes:
    """The file meta information of an instance in explicit little endian (PS3.10 7.1)."""
    meta = b"".join(
        (
            element(0x00020001, b"OB", b"\0\1"),
            element(0x00020002, b"UI", sop_class),
            element(0x00020003, b"UI", sop_instance),
            element(0x00020010, b"UI", ExplicitVRLittleEndian.encode()),
            element(0x00020012, b"UI", IMPLEMENTATION.encode()),
            element(0x00020013, b"SH", f"MKISO_{__version__}"[:16].encode()),
        )
    )
    return element(META_LENGTH, b"UL", _LONG.pack(len(meta))) + meta
