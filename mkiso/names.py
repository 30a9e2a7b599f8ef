"""Patients' names: as people read them, and as a file is named after them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from anyascii import anyascii
from pydicom.valuerep import PersonName

LONGEST_FILE_NAME = 120


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


def disc_file_name(patient_name: str, accessions: Sequence[str], ending: str = "iso") -> str:
    """`PATIENTNAME-ACCESSIONS.iso` of ASCII letters and digits, at most 120 characters, of each part at least half."""
    name, numbers = _letters_and_digits(_first_group(patient_name)), _letters_and_digits("".join(accessions))
    room = LONGEST_FILE_NAME - len(f"-.{ending}")
    name = name[: max(room // 2, room - len(numbers))]
    return f"{name}-{numbers[: room - len(name)]}.{ending}"


def _first_group(name: str) -> str:
    """The alphabetic, ideographic or phonetic group, whichever is the first that is not empty."""
    return next((group for group in name.split("=") if group.strip("^ ")), "")


def _letters_and_digits(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", anyascii(text)) or "UNKNOWN"


def _spaced(text: str) -> str:
    return " ".join(text.split())
