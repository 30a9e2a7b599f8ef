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
from mkiso.browse.shown import WEB, About, Part, ShownPatient
from mkiso.dicom.datasets import readable_date
from mkiso.texts import texts

WIDTH = 76
HANGING = 4
LONGEST_VALUE = 400
MALFORMED = "(malformed)"
WRITTEN_AGAIN = re.compile(r" \([^()]*\)$")


def readme(about: About, patients: Sequence[ShownPatient]) -> bytes:
    """The file: ASCII, CRLF; of a patient the initials alone, never a name, an ID or a birth date."""
    phrases = texts(about.language)["readme"]
    return _file(
        _head(about, patients, phrases),
        _parts(about.parts, phrases),
        _opening(about, phrases),
        _contents(about, phrases),
        _not_indexed(about, phrases),
        _malformed(about.malformed, phrases),
    )


def short_readme(language: str, parts: Sequence[Part], malformed: Sequence[tuple[str, str]]) -> bytes:
    """A file that tells of these alone, for a layout that has no README.TXT else."""
    phrases = texts(language)["readme"]
    return _file(_parts(parts, phrases), _malformed(malformed, phrases))


def ascii_name(name: str) -> str:
    """A file's name as README.TXT lists it: transliterated, its spaces kept, in one line."""
    return re.sub(r"[^ -~]", "?", anyascii(name))


def initials(name: str) -> str:
    """`J. D.` of `John Doe`; `-` where no word of the name has a letter.

    Of `TARO YAMADA (山田 太郎)`, a name that is written twice (`datasets.page_name`), those of the first.
    """
    name = WRITTEN_AGAIN.sub("", name) or name
    words = (re.sub(r"[^A-Za-z]", "", word) for word in anyascii(name).split())
    return " ".join(f"{word[0].upper()}." for word in words if word) or "-"


def _head(about: About, patients: Sequence[ShownPatient], phrases: Mapping[str, str]) -> Iterator[str]:
    when = readable_time(about.made_at)
    yield from _titled(phrases["title"])
    yield from _facts(
        (phrases["institution"], about.institution),
        (phrases["contact"], about.contact),
        (phrases["patient"], ", ".join(initials(patient.name) for patient in patients)),
        (phrases["made"], phrases["made_by"].format(when=when, version=mkiso.__version__)),
        (phrases["profile"], about.profile or ""),
    )
    yield f"File-set ID: {_ascii(about.file_set_id)}"
    yield f"Volume ID: {_ascii(about.volume_id)}"
    yield from _remarks(about, phrases)


def _remarks(about: About, phrases: Mapping[str, str]) -> Iterator[str]:
    if about.volume_id != about.file_set_id:
        yield from _paragraph(phrases["volume_differs"])
    if about.decompressed:
        yield from _paragraph(phrases["decompressed"].format(count=about.decompressed))
    if about.left_compressed:
        yield from _paragraph(phrases["left_compressed"].format(count=about.left_compressed))


def _parts(parts: Sequence[Part], phrases: Mapping[str, str]) -> Iterator[str]:
    if parts:
        yield from _titled(phrases["parts"])
        yield from _paragraph(phrases["parts_why"])
        for part in parts:
            study = " ".join(filter(None, (readable_date(part.date), part.description))) or phrases["study"]
            yield from _point(_ascii(phrases["part"].format(study=study, series=part.series, of=part.of)))


def _opening(about: About, phrases: Mapping[str, str]) -> Iterator[str]:
    yield from _titled(phrases["how_to_open"])
    yield from _point(phrases["on_a_computer"])
    yield from _point(phrases["on_a_phone"])
    yield from _point(phrases["to_import"])
    for key, name in (("with_viewer", about.viewer.program), ("viewer_in_browser", about.viewer.in_browser)):
        if name is not None:
            yield from _point(phrases[key].format(name=ascii_name(name)))
    yield ""
    yield from _paragraph(phrases["not_for_diagnosis"])


def _contents(about: About, phrases: Mapping[str, str]) -> Iterator[str]:
    yield from _titled(phrases["what_is_here"])
    yield from _facts(
        ("DICOMDIR", phrases["dicomdir"]),
        ("IMAGES", phrases["images"]),
        ("OTHER", phrases["other"] if about.not_indexed else ""),
        ("INDEX.HTM", phrases["index"]),
        (WEB, phrases["ihe_pdi"]),
        ("PHONE.HTM", phrases["phone"]),
    )
    if about.viewer.entries:
        yield phrases["viewer_files"]
        yield from (f"  {ascii_name(entry)}" for entry in about.viewer.entries)


def _not_indexed(about: About, phrases: Mapping[str, str]) -> Iterator[str]:
    if about.not_indexed:
        yield from _titled(phrases["not_indexed"])
        yield from _paragraph(phrases["not_indexed_why"])
        yield from (f"  {_ascii(one.file)}  {_ascii(one.sop_instance_uid)}" for one in about.not_indexed)


def _malformed(malformed: Sequence[tuple[str, str]], phrases: Mapping[str, str]) -> Iterator[str]:
    if malformed:
        yield from _titled(phrases["malformed"])
        yield from _paragraph(phrases["malformed_why"])
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
