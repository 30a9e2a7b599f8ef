"""README.TXT of a `pdi` disc: whose it is, how to open it, and what a program that checks discs looks up in it.

The lines `File-set ID: X` and `Volume ID: Y` are the same in every language. Only what is listed begins with exactly
two spaces: the viewer's entries at the root (`ascii_name`), each instance that the DICOMDIR does not name, and each
that is not well-formed, whose lines end with MALFORMED.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from anyascii import anyascii

import mkiso
from mkiso.browse.pages import readable_time
from mkiso.browse.shown import About, Patient
from mkiso.texts import texts

WIDTH = 76
HANGING = 4
LONGEST_VALUE = 400
MALFORMED = "(malformed)"


def readme(about: About, patients: Sequence[Patient]) -> bytes:
    """The file: ASCII, CRLF; of a patient the initials alone, never a name, an ID or a birth date."""
    said = texts(about.language)["readme"]
    return _file(
        _head(about, patients, said),
        _opening(about, said),
        _contents(about, said),
        _not_indexed(about, said),
        _malformed(about.malformed, said),
    )


def readme_of_malformed(language: str, malformed: Sequence[tuple[str, str]]) -> bytes:
    """A file that names these alone, for a layout that has no README.TXT else."""
    return _file(_malformed(malformed, texts(language)["readme"]))


def ascii_name(name: str) -> str:
    """A file's name as README.TXT lists it: transliterated, its spaces kept, in one line."""
    return re.sub(r"[^ -~]", "?", anyascii(name))


def initials(name: str) -> str:
    """`J. D.` of `John Doe`; `-` where no word of the name has a letter."""
    words = (re.sub(r"[^A-Za-z]", "", word) for word in anyascii(name).split())
    return " ".join(f"{word[0].upper()}." for word in words if word) or "-"


def _head(about: About, patients: Sequence[Patient], said: Mapping[str, str]) -> Iterator[str]:
    when = readable_time(about.made_at)
    yield from _titled(said["title"])
    yield from _facts(
        (said["institution"], about.institution),
        (said["contact"], about.contact),
        (said["patient"], ", ".join(initials(patient.name) for patient in patients)),
        (said["made"], said["made_by"].format(when=when, version=mkiso.__version__)),
        (said["profile"], about.profile or ""),
    )
    yield f"File-set ID: {_ascii(about.file_set_id)}"
    yield f"Volume ID: {_ascii(about.volume_id)}"
    yield from _remarks(about, said)


def _remarks(about: About, said: Mapping[str, str]) -> Iterator[str]:
    if about.volume_id != about.file_set_id:
        yield from _paragraph(said["volume_differs"])
    if about.decompressed:
        yield from _paragraph(said["decompressed"].format(count=about.decompressed))
    if about.left_compressed:
        yield from _paragraph(said["left_compressed"].format(count=about.left_compressed))


def _opening(about: About, said: Mapping[str, str]) -> Iterator[str]:
    yield from _titled(said["how_to_open"])
    yield from _point(said["on_a_computer"])
    yield from _point(said["on_a_phone"])
    yield from _point(said["to_import"])
    if about.viewer.start is not None:
        yield from _point(said["with_viewer"].format(name=ascii_name(about.viewer.start)))
    yield ""
    yield from _paragraph(said["not_for_diagnosis"])


def _contents(about: About, said: Mapping[str, str]) -> Iterator[str]:
    yield from _titled(said["what_is_here"])
    yield from _facts(
        ("DICOMDIR", said["dicomdir"]),
        ("IMAGES", said["images"]),
        ("OTHER", said["other"] if about.not_indexed else ""),
        ("INDEX.HTM", said["index"]),
        ("IHE_PDI", said["ihe_pdi"]),
        ("PHONE.HTM", said["phone"]),
    )
    if about.viewer.entries:
        yield said["viewer_files"]
        yield from (f"  {ascii_name(entry)}" for entry in about.viewer.entries)


def _not_indexed(about: About, said: Mapping[str, str]) -> Iterator[str]:
    if about.not_indexed:
        yield from _titled(said["not_indexed"])
        yield from _paragraph(said["not_indexed_why"])
        yield from (f"  {_ascii(one.file)}  {_ascii(one.sop_instance_uid)}" for one in about.not_indexed)


def _malformed(malformed: Sequence[tuple[str, str]], said: Mapping[str, str]) -> Iterator[str]:
    if malformed:
        yield from _titled(said["malformed"])
        yield from _paragraph(said["malformed_why"])
        yield from (f"  {_ascii(file)}  {_ascii(uid)}  {MALFORMED}" for file, uid in malformed)


def _file(*parts: Iterator[str]) -> bytes:
    lines = "\n\n".join("\n".join(part) for part in map(list, parts) if part)
    return f"{lines}\n".replace("\n", "\r\n").encode("ascii")


def _titled(title: str) -> Iterator[str]:
    yield title
    yield "-" * len(title)


def _facts(*facts: tuple[str, str]) -> Iterator[str]:
    for name, value in facts:
        if value:
            yield from _wrapped(f"{name}: {_ascii(value)}")


def _point(text: str) -> Iterator[str]:
    yield from _wrapped(f"- {text}")


def _paragraph(text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, WIDTH)


def _wrapped(text: str) -> list[str]:
    """What follows the first line hangs deeper than any line that a program looks up begins."""
    hanging = " " * HANGING
    return textwrap.wrap(text, WIDTH, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False)


def _ascii(text: str) -> str:
    """One line of ASCII, whatever the text holds."""
    return " ".join(ascii_name(re.sub(r"\s+", " ", text)).split())[:LONGEST_VALUE]
