"""Files as scanners and workstations really write them, and the standard does not have them.

Each function of ODD is given a sound file (explicit little endian, as `stage.encoded` makes it) and gives the
same instance in an odd encoding. Where it can be, what is odd stands before the Patient ID and the UIDs of
study and series: a reader who stops there has not seen them.
"""

import struct
import zlib
from collections.abc import Callable
from functools import partial

from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit

Odd = Callable[[bytes], bytes]

META_LENGTH, SYNTAX, PIXEL_DATA = 0x00020000, 0x00020010, 0x7FE00010
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
IMAGES, MODEL, CREATOR, PRIVATE = 0x00081140, 0x00081090, 0x00090010, 0x00091001
UNDEFINED = 0xFFFFFFFF
BEFORE_META, BEHIND_META = 132, 0x00030000
LONG_VRS = (b"OB", b"OW", b"SQ", b"UN", b"UT")


def element(number: int, vr: bytes, value: bytes = b"", length: int | None = None) -> bytes:
    """An element of an explicit VR, in the long form or the short one; `length` is what it says of its value."""
    told = len(value) if length is None else length
    return _tag(number) + vr + (struct.pack("<HL", 0, told) if vr in LONG_VRS else struct.pack("<H", told)) + value


def bare(number: int, value: bytes = b"", length: int | None = None) -> bytes:
    """An element without a VR, an item, a delimiter; `length` as above."""
    return _tag(number) + struct.pack("<L", len(value) if length is None else length) + value


def elements(file: bytes) -> dict[int, bytes]:
    """A sound file's elements, each whole, those of the file meta information too."""
    found, at = {}, BEFORE_META
    while at < len(file):
        group, number, vr, length = struct.unpack_from("<HH2sH", file, at)
        size = 12 + struct.unpack_from("<L", file, at + 8)[0] if vr in LONG_VRS else 8 + length
        found[group << 16 | number] = file[at : at + size]
        at += size
    return found


def changed(file: bytes, changes: dict[int, bytes]) -> bytes:
    """The file with these elements in their places, whatever their bytes are; the length of its meta as it must be."""
    return joined(elements(file) | changes)


def joined(parts: dict[int, bytes]) -> bytes:
    """A file of these elements."""
    meta = b"".join(parts[one] for one in sorted(parts) if META_LENGTH < one < BEHIND_META)
    length = element(META_LENGTH, b"UL", struct.pack("<L", len(meta)))
    return bytes(128) + b"DICM" + length + meta + b"".join(parts[one] for one in sorted(parts) if one >= BEHIND_META)


def deflated(file: bytes) -> bytes:
    """The same data set in the transfer syntax that compresses it (PS3.5 A.5)."""
    begin = BEFORE_META + 12 + struct.unpack_from("<L", file, BEFORE_META + 8)[0]
    syntax = element(SYNTAX, b"UI", DeflatedExplicitVRLittleEndian.encode())
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data_set = deflate.compress(file[begin:]) + deflate.flush()
    return changed(file[:begin], {SYNTAX: syntax}) + data_set + b"\0" * (len(data_set) % 2)


def referenced(length: int | None = None) -> bytes:
    """An item of a Referenced Image Sequence."""
    sop = element(0x00081150, b"UI", b"1.2.840.10008.5.1.4.1.1.2\0") + element(0x00081155, b"UI", b"1.2.3.4\0")
    return bare(ITEM, sop, length)


def sequence_with_length_and_delimiter(file: bytes) -> bytes:
    """Philips."""
    return changed(file, {IMAGES: element(IMAGES, b"SQ", referenced()) + bare(SEQUENCE_END)})


def item_with_length_and_delimiter(file: bytes) -> bytes:
    """GE."""
    items = (referenced() + bare(ITEM_END)) * 2
    return changed(file, {IMAGES: element(IMAGES, b"SQ", items + bare(SEQUENCE_END), UNDEFINED)})


def item_with_length_and_delimiter_in_a_sequence_with_length(file: bytes) -> bytes:
    items = (referenced() + bare(ITEM_END)) * 2
    return changed(file, {IMAGES: element(IMAGES, b"SQ", items)})


def vr_in_short_form(vr: bytes, file: bytes) -> bytes:
    """A VR that is none, with a length of 16 bits."""
    return changed(file, {MODEL: element(MODEL, vr, b"MODEL1")})


def vr_in_long_form(vr: bytes, file: bytes) -> bytes:
    """A VR that is none, two bytes of zeros, a length of 32 bits."""
    return changed(file, {MODEL: _tag(MODEL) + vr + struct.pack("<HL", 0, 6) + b"MODEL1"})


def elements_without_vr(file: bytes) -> bytes:
    """Private ones, in an explicit data set; the second has six bytes, and so `06 00` in the place of its VR."""
    private = {CREATOR: bare(CREATOR, b"MKISO TESTS "), PRIVATE: bare(PRIVATE, b"123456")}
    return changed(file, private)


def sequence_too_short(file: bytes) -> bytes:
    """Its length ends in the middle of its item, and of an element."""
    return changed(file, {IMAGES: element(IMAGES, b"SQ", referenced(), len(referenced()) - 6)})


def sequence_too_long(file: bytes) -> bytes:
    """Its length goes beyond its items, into the next element."""
    return changed(file, {IMAGES: element(IMAGES, b"SQ", referenced(), len(referenced()) + 10)})


def item_too_long(file: bytes) -> bytes:
    """Longer than the sequence that it is in."""
    sequence = element(IMAGES, b"SQ", referenced(len(referenced()) + 100))
    return changed(file, {IMAGES: sequence})


def pixels_without_delimiter(file: bytes) -> bytes:
    """Encapsulated, and the file ends behind the last fragment."""
    fragments = bare(ITEM) + bare(ITEM, b"\xff\xd8\xff\xe0pixels\xff\xd9")
    pixels = element(PIXEL_DATA, b"OB", fragments, UNDEFINED)
    return changed(file, {SYNTAX: element(SYNTAX, b"UI", JPEGBaseline8Bit.encode()), PIXEL_DATA: pixels})


def pixels_too_short(file: bytes) -> bytes:
    """The file ends before their length does."""
    return file[:-100]


ODD: dict[str, Odd] = {
    "a sequence with a length and a delimiter": sequence_with_length_and_delimiter,
    "an item with a length and a delimiter": item_with_length_and_delimiter,
    "both with a length, the item with a delimiter": item_with_length_and_delimiter_in_a_sequence_with_length,
    "a VR of two spaces": partial(vr_in_short_form, b"  "),
    "a VR of two spaces, in the long form": partial(vr_in_long_form, b"  "),
    "a VR of 06 00": partial(vr_in_short_form, b"\6\0"),
    "a VR of 06 00, in the long form": partial(vr_in_long_form, b"\6\0"),
    "a VR of question marks": partial(vr_in_short_form, b"??"),
    "a VR of question marks, in the long form": partial(vr_in_long_form, b"??"),
    "elements without a VR": elements_without_vr,
    "a sequence that is longer than its length": sequence_too_short,
    "a sequence that is shorter than its length": sequence_too_long,
    "an item that is longer than its sequence": item_too_long,
    "encapsulated pixels without the last delimiter": pixels_without_delimiter,
    "pixels that are shorter than their length": pixels_too_short,
}


def _tag(number: int) -> bytes:
    return struct.pack("<HH", number >> 16, number & 0xFFFF)
