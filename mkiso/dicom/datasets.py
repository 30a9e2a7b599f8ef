"""Data sets that strangers made: answers, headers, reports. Whatever is in them, pydicom's objections end here.

pydicom reads a value when it is asked for, and what it then raises is by the value: ValueError for a NUL in the name
of a character set, LookupError, TypeError, AttributeError, struct.error, NotImplementedError, RecursionError, others.

Dates and patients' names are here, too: as people read them, and as a file is named after a patient.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from anyascii import anyascii
from pydicom import DataElement, Dataset, dcmread
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.valuerep import PersonName

CHARACTER_SET, UTF8 = 0x00080005, "ISO_IR 192"
PADDING = " \0"
# Behind each of these the first character set is valid again (PS3.5 6.1.2.5.3).
DELIMITERS = set(map(ord, "\n\r\t\f\\"))
OF_NAMES = DELIMITERS | set(map(ord, "^="))
REPLACEMENT = "\ufffd"
CONTROLS = re.compile("[\0-\x08\x0b\x0e-\x1f\x7f]")
# The Specific Character Set, explicit or implicit, and the length of its value.
NAMED = re.compile(rb"\x08\0\x05\0(?:CS(..)|(..)\0\0)", re.DOTALL)
LONGEST_FILE_NAME = 120
DIGITS, DATE = re.compile(r"[0-9]{8}"), re.compile(r"([0-9]{4})\.?([0-9]{2})\.?([0-9]{2})")


class Unreadable(ValueError):
    """What should be a data set is none."""


def read(file: Path | BinaryIO) -> Dataset:
    """The data set in a file, all of which gets into memory: one that is small, or a child's.

    OSError says that the file could not be read; whatever is in it raises nothing but Unreadable.
    """
    content = file.read_bytes() if isinstance(file, Path) else file.read()
    try:
        with suppress(Exception):  # as above
            return dcmread(BytesIO(content))
        return dcmread(_without_nul(BytesIO(content)))
    except Exception as error:  # as above
        raise Unreadable(f"{type(error).__name__} in its data set") from error


def texts(dataset: Dataset, keywords: Iterable[str]) -> dict[str, str]:
    """Values of text of a data set that was just read, several values with their backslashes; empty where none is."""
    names = _character_set(dataset)
    return {keyword: _text(dataset, keyword, names) for keyword in keywords}


def values(dataset: Dataset, keyword: str) -> list[str]:
    """The values of an attribute as pydicom shows them, numbers too; as `texts` where it objects."""
    try:
        value = dataset.get(keyword)
        several = value if isinstance(value, list) or hasattr(value, "append") else [value]
        return [readable(str(one)) for one in several if one is not None]
    except Exception:  # as above
        return _text(dataset, keyword, _character_set(dataset)).split("\\")


def first_item(dataset: Dataset, keyword: str) -> Dataset:
    """The first item of a sequence; empty where there is none."""
    try:
        item = dataset[keyword][0]
    except Exception:  # as above
        item = None
    return item if isinstance(item, Dataset) else Dataset()


def decoded(value: bytes, character_set: str, delimiters: set[int] = DELIMITERS) -> str:
    """A text, its padding trimmed, by the Specific Character Set (PS3.5 6.1.2): in the default one where that fails."""
    if value.isascii() and b"\x1b" not in value:
        return readable(value.decode("ascii").strip(PADDING))
    names = [name.strip(PADDING) for name in character_set.split("\\")]
    try:
        text = decode_bytes(value, convert_encodings(names), delimiters).strip(PADDING)
    except Exception:  # as above
        text = ""
    # pydicom marks what it could not decode, and reads nothing at all in the encodings that Python has besides.
    if not text or (REPLACEMENT in text and REPLACEMENT.encode() not in value):
        text = value.decode("latin-1")
    return readable(text.strip(PADDING))


def readable(text: str) -> str:
    """A text that pages, databases and files can hold: no control characters but those of lines, no half surrogates."""
    return CONTROLS.sub(REPLACEMENT, text).encode("utf-8", "replace").decode("utf-8")


def write_in_utf8(source: Path, target: Path) -> None:
    """The data set with its texts in UTF-8: what this module does as a program. Raises as `read`."""
    dataset, written = read(source), BytesIO()
    try:
        dataset.decode()
        dataset.walk(_says_nothing_of_characters)
        dataset.SpecificCharacterSet = UTF8
        dataset.save_as(written)
    except Exception as error:  # as above; of a torn sequence it says OSError, too
        raise Unreadable(f"{type(error).__name__} in its texts") from error
    target.write_bytes(written.getbuffer())


def _says_nothing_of_characters(dataset: Dataset, element: DataElement) -> None:
    """An item has the character set of what is around it (PS3.3 C.12.1.1.2)."""
    if element.tag == CHARACTER_SET:
        del dataset[element.tag]


def _text(dataset: Dataset, keyword: str, character_set: str) -> str:
    return decoded(_raw(dataset, keyword), character_set, OF_NAMES if keyword.endswith("Name") else DELIMITERS)


def _raw(dataset: Dataset, keyword: str | int) -> bytes:
    """A value as it was sent; empty where there is none, or pydicom has read it already."""
    element = dataset.get_item(keyword, keep_deferred=True)
    value = None if element is None else element.value
    return value if isinstance(value, bytes) else b""


def _character_set(dataset: Dataset) -> str:
    """pydicom has read it with the data set; several values have backslashes between them."""
    try:
        value = dataset.get(CHARACTER_SET).value
        return value if isinstance(value, str) else "\\".join(map(str, value))
    except Exception:  # as above
        return ""


def _without_nul(content: BytesIO) -> BytesIO:
    """With spaces for NULs in the names of character sets: pydicom looks these up, NULs and all, when it reads."""
    with content.getbuffer() as view:
        for found in NAMED.finditer(view):
            begin, length = found.end(), int.from_bytes(found[1] or found[2], "little")
            view[begin : begin + length] = bytes(view[begin : begin + length]).replace(b"\0", b" ")
    return content


def plain_date(text: str) -> str:
    """The eight digits of a date (VR DA, PS3.5 6.2), also where ACR-NEMA had dots in it; empty without them."""
    found = DATE.fullmatch(text.strip())
    return "".join(found.groups()) if found else ""


def is_date(text: str) -> bool:
    """Whether these are the eight digits of a day of the calendar (VR DA, PS3.5 6.2)."""
    try:
        return bool(DIGITS.fullmatch(text) and date.fromisoformat(text))
    except ValueError:
        return False


def readable_date(text: str) -> str:
    """A date (VR DA, PS3.5 6.2) as `2024-03-01`; what is none as it is."""
    return date.fromisoformat(text.strip()).isoformat() if is_date(text.strip()) else text


def display_name(name: str) -> str:
    """A DICOM person name (VR PN, PS3.5 6.2.1) as prefix, given, middle, family, suffix: `DOE^JOHN` is `JOHN DOE`.

    Its alphabetic group; where that is empty, the ideographic or the phonetic one, whose order stays.
    """
    groups = PersonName(name)
    parts = (
        groups.name_prefix,
        groups.given_name,
        groups.middle_name,
        groups.family_name,
        groups.name_suffix,
    )
    shown = _spaced(" ".join(parts))
    others = (_spaced(group.replace("^", " ")) for group in (groups.ideographic, groups.phonetic))
    return shown or next(filter(None, others), "")


def page_name(name: str) -> str:
    """The name as a page shows it: the ideographic group, where there is one, beside the alphabetic one."""
    ideographic = _spaced(PersonName(name).ideographic.replace("^", " "))
    shown = display_name(name)
    return f"{shown} ({ideographic})" if ideographic and ideographic != shown else shown


def plain_name(name: str) -> str:
    """A DICOM person name to compare: without the spaces and delimiters that mean nothing (PS3.5 6.2.1)."""
    groups = ("^".join(part.strip() for part in group.split("^")).rstrip("^") for group in name.split("="))
    return "=".join(groups).rstrip("=")


def single_file_name(accession: str, ending: str = "iso") -> str:
    """The name of the disc of one accession number: that number as it was given."""
    return f"{accession}.{ending}"


def disc_file_name(patient_name: str, accessions: Sequence[str], ending: str = "iso", days: Iterable[str] = ()) -> str:
    """`PATIENTNAME-ACCESSIONS.iso` of ASCII letters and digits, at most 120 characters, of each part at least half.

    `PATIENTNAME-YYYYMMDD.iso` where there is no accession number, of the newest of these days (VR DA), where there is
    one.
    """
    newest = max(map(plain_date, days), default="")
    if not (accessions or newest):
        return f"{_letters_and_digits(_first_group(patient_name))[: LONGEST_FILE_NAME - len(ending) - 1]}.{ending}"
    name, numbers = _letters_and_digits(_first_group(patient_name)), _letters_and_digits("".join(accessions) or newest)
    room = LONGEST_FILE_NAME - len(f"-.{ending}")
    name = name[: max(room // 2, room - len(numbers))]
    return f"{name}-{numbers[: room - len(name)]}.{ending}"


def _first_group(name: str) -> str:
    """The alphabetic, ideographic or phonetic group, whichever is the first that is not empty."""
    return next((group for group in name.split("=") if group.strip("^ ")), "")


def _letters_and_digits(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", anyascii(text)) or "UNKNOWN"


def _spaced(text: str) -> str:
    return " ".join(readable(text).split())


if __name__ == "__main__":  # a child (dcmtk/dsr2html), which may take what no worker may
    try:
        write_in_utf8(Path(sys.argv[1]), Path(sys.argv[2]))
    except Unreadable:
        sys.exit(1)
