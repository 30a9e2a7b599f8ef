"""Accession numbers and UIDs as a request gives them: parsed, checked, and never used before that."""

from __future__ import annotations

import re

from mkiso.errors import BadRequest, EmptyAccession, InvalidAccession, MissingAccession, TooManyAccessions
from mkiso.log import printable

LONGEST = 64
MOST_SERIES = 1000  # of one request
REFUSED = frozenset('*?\\,"=')
LONGEST_UID, SHOWN = 64, 80
UID = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")
SURROUNDINGS = " .,;"  # of a list as people paste it
# Between its numbers: spaces of any kind and length, also none.
BETWEEN = re.compile(r"[\s,;\u200b\ufeff]+")


def parse_one(text: str | None, parameter: str = "accession_number") -> str:
    """One accession number (VR SH, PS3.5 6.2), without surrounding spaces.

    Raises MissingAccession where there is none, InvalidAccession where it is not 1 to 64 printable
    ASCII characters or holds one of `* ? \\ , " =`, which a DICOM query would not take literally.
    """
    accession = (text or "").strip(" ")
    if not accession:
        raise MissingAccession("Give an accession number.", error=f"missing {parameter}")
    if why := _fault(accession):
        raise InvalidAccession(f"{shown(accession)} is no accession number: {why}")
    return accession


def _fault(accession: str) -> str | None:
    if len(accession) > LONGEST:
        return f"it has {len(accession)} characters, and {LONGEST} are allowed."
    if not all(" " <= character <= "~" for character in accession):
        return "it consists of printable ASCII characters."
    if found := sorted(REFUSED.intersection(accession)):
        return f'it holds none of * ? \\ , " = (found {" ".join(found)}). Give the number as it is.'
    return None


def parse_list(text: str | None, limit: int, parameter: str = "accession_numbers") -> tuple[str, ...]:
    """The accession numbers of a list split at commas: repeats dropped, order kept, at most `limit`.

    Raises as parse_one, and EmptyAccession or TooManyAccessions.
    """
    if not (text or "").strip(" "):
        raise MissingAccession("Give an accession number, or several with commas.", error=f"missing {parameter}")
    parts = (text or "").split(",")
    if not all(part.strip(" ") for part in parts):
        raise EmptyAccession("The list has a comma with no accession number beside it; leave it out.")
    accessions = tuple(dict.fromkeys(parse_one(part, parameter) for part in parts))
    if len(accessions) > limit:
        raise TooManyAccessions(f"{len(accessions)} accession numbers; at most {limit} go into one request.")
    return accessions


def without_surroundings(text: str | None) -> str | None:
    """A list without the full stops, commas and semicolons around it, with which people paste one."""
    return (text or "").strip(SURROUNDINGS) or text


def pasted_list(text: str, limit: int) -> tuple[str, ...]:
    """The accession numbers of a list as people type and paste it, of which each may end with a full stop.

    Between them are spaces, tabs, lines, commas or semicolons, as many as there are. Raises as parse_list.
    """
    entries = (entry.rstrip(".") for entry in BETWEEN.split(text))
    return parse_list(",".join(filter(None, entries)), limit)


def parse_uids(text: str | None, parameter: str, limit: int) -> tuple[str, ...]:
    """The UIDs (PS3.5 9.1) of a list split at commas: repeats dropped, order kept, at most `limit`; none of no text.

    Raises BadRequest, whose detail names the parameter and what is wrong.
    """
    if not (text or "").strip(" "):
        return ()
    uids = tuple(dict.fromkeys(part.strip(" ") for part in (text or "").split(",")))
    for uid in uids:
        if why := uid_fault(uid):
            raise BadRequest(f"{parameter} is a list of UIDs with commas, and {shown(uid) or 'one of them'} {why}.")
    if len(uids) > limit:
        raise BadRequest(f"{parameter} has {len(uids)} UIDs; at most {limit} go into one request.")
    return uids


def uid_fault(uid: str) -> str | None:
    """Why it is no UID (PS3.5 9.1) to ask for, or to name a file after; None where it is one."""
    if UID.fullmatch(uid):
        return None
    if not uid:
        return "is empty"
    if len(uid) > LONGEST_UID:
        return f"has {len(uid)} characters, and {LONGEST_UID} are allowed"
    if wrong := "".join(dict.fromkeys(re.sub(r"[0-9.]", "", uid))):
        return f"has {wrong[:SHOWN]!a} in it, and only digits and full stops are allowed"
    return "has a full stop without a number before or behind it"


def shown(text: str) -> str:
    """The beginning of what somebody gave, as an error's text can hold it."""
    return printable(text[:SHOWN]) + ("…" if len(text) > SHOWN else "")
