"""Accession numbers as a request gives them: parsed, checked, and never used before that."""

from __future__ import annotations

from mkiso.errors import EmptyAccession, InvalidAccession, MissingAccession, TooManyAccessions

LONGEST = 64
REFUSED = frozenset('*?\\,"=')


def parse_one(text: str | None, parameter: str = "accession_number") -> str:
    """One accession number (VR SH, PS3.5 6.2), without surrounding spaces.

    Raises MissingAccession where there is none, InvalidAccession where it is not 1 to 64 printable
    ASCII characters or holds one of `* ? \\ , " =`, which a DICOM query would not take literally.
    """
    accession = (text or "").strip(" ")
    if not accession:
        raise MissingAccession("Give an accession number.", error=f"missing {parameter}")
    if len(accession) > LONGEST:
        raise InvalidAccession(f"An accession number has at most {LONGEST} characters.")
    if not all(" " <= character <= "~" for character in accession):
        raise InvalidAccession("An accession number consists of printable ASCII characters.")
    if found := sorted(REFUSED.intersection(accession)):
        raise InvalidAccession(
            f'An accession number holds none of * ? \\ , " = (found {" ".join(found)}). Give one number as it is.'
        )
    return accession


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
