"""Data sets that strangers made: answers, headers, reports. Whatever is in them, pydicom's objections end here.

pydicom reads a value when it is asked for, and what it then raises is by the value: ValueError for a NUL in the name
of a character set, LookupError, TypeError, AttributeError, struct.error, NotImplementedError, RecursionError, others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.charset import convert_encodings, decode_bytes

CHARACTER_SET = 0x00080005
PADDING = " \0"
# Behind each of these the first character set is valid again (PS3.5 6.1.2.5.3).
DELIMITERS = set(map(ord, "\n\r\t\f\\"))
OF_NAMES = DELIMITERS | set(map(ord, "^="))
# The Specific Character Set, explicit or implicit, and the length of its value.
NAMED = re.compile(rb"\x08\0\x05\0(?:CS(..)|(..)\0\0)", re.DOTALL)
HEAD = 1 << 20


class Unreadable(ValueError):
    """What should be a data set is none."""


def read(source: Path | bytes) -> Dataset:
    """The data set in a DICOM file, or in the bytes of one.

    Raises OSError where there is no such file; whatever is in it, nothing but Unreadable.
    """
    return _read(source.read_bytes() if isinstance(source, Path) else source)


def read_header(path: Path, tags: list[int] | list[str]) -> Dataset:
    """These attributes of an instance, which pydicom skips its way to. Raises as `read`."""
    with path.open("rb") as file:
        try:
            return dcmread(file, stop_before_pixels=True, specific_tags=tags)
        except Exception:  # as above
            file.seek(0)
            return _read(file.read(HEAD), tags)


def raw(dataset: Dataset, keyword: str | int) -> bytes:
    """A value as it was sent; empty where there is none, or where it is no bytes."""
    element = dataset.get_item(keyword)
    value = None if element is None else element.value
    return value if isinstance(value, bytes) else b""


def decoded(value: bytes, character_set: str, delimiters: set[int] = DELIMITERS) -> str:
    """A text, its padding trimmed, by the Specific Character Set (PS3.5 6.1.2): in the default one where that fails."""
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii").strip(PADDING)
    names = [name.strip(PADDING) for name in character_set.split("\\")]
    try:
        text = decode_bytes(value, convert_encodings(names), delimiters)
    except Exception:  # as above
        text = value.decode("latin-1")
    return text.strip(PADDING)


def texts(dataset: Dataset, keywords: Iterable[str]) -> dict[str, str]:
    """Values of text of a data set that was just read, several values with their backslashes; empty where none is."""
    names = _character_set(dataset)
    return {
        keyword: decoded(raw(dataset, keyword), names, OF_NAMES if keyword.endswith("Name") else DELIMITERS)
        for keyword in keywords
    }


def _character_set(dataset: Dataset) -> str:
    """pydicom has read it already; several values have backslashes between them."""
    try:
        value = dataset.get(CHARACTER_SET).value
        return value if isinstance(value, str) else "\\".join(map(str, value))
    except Exception:  # as above
        return ""


def _read(content: bytes, tags: list[int] | list[str] | None = None) -> Dataset:
    for one in (content, _without_nul(content)):
        try:
            return dcmread(BytesIO(one), stop_before_pixels=tags is not None, specific_tags=tags)
        except Exception as error:  # as above
            objection = error
    raise Unreadable(f"{type(objection).__name__} while it was read") from objection


def _without_nul(content: bytes) -> bytes:
    """With spaces for NULs in the names of character sets: pydicom looks these up, NULs and all, when it reads."""
    cured = bytearray(content)
    for found in NAMED.finditer(content):
        begin, length = found.end(), int.from_bytes(found[1] or found[2], "little")
        cured[begin : begin + length] = content[begin : begin + length].replace(b"\0", b" ")
    return bytes(cured)
