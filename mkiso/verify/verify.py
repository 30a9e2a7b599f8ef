"""Is a finished disc what it must be? Every check, in their order; those of the pages that a browser shows are here.

They have no script, and their links lead nowhere but to the disc (IHE PDI).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from posixpath import dirname, normpath
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from mkiso.checks import Check
from mkiso.log import printable
from mkiso.verify import dicomdir, instances
from mkiso.verify.disc import DiscRead
from mkiso.verify.image import DESCRIPTOR, MAGIC, image_medium
from mkiso.verify.medium import (
    INDEX,
    README,
    WEB,
    Extent,
    Findings,
    Medium,
    UnreadableDisc,
    WrongPassword,
    archive_medium,
    directory_medium,
)

PAGE, PICTURE, DOCUMENT = ".HTM", ".JPG", ".PDF"
JPEG_BEGIN, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
PDF, PDF_BEGIN = b"%PDF-", 1024
# What the institution's logo may be: no SVG, which may hold script.
LOGOS = {".PNG": (b"\x89PNG\r\n\x1a\n",), ".GIF": (b"GIF87a", b"GIF89a")}
NONE = "'none'"
Examined = TypeVar("Examined")
ODD = re.compile(r"[\0-\x20\x7f\\]")
ARCHIVE = b"PK"
MOST_FAULTS, LONGEST_FAULT = 3, 200  # that are said of one check, and characters of each


def index_page(disc: DiscRead) -> Findings:
    if disc.medium.find(INDEX) is None:
        yield f"there is no {INDEX} at the root"
    return INDEX


def web_content(disc: DiscRead) -> Findings:
    names = disc.medium.below(WEB)
    for name in names:
        with disc.medium.opened(name) as extent:
            if fault := _fault_of(PurePosixPath(name).suffix.upper(), extent):
                yield f"{name} {fault}"
    return f"{len(names)} files"


def _fault_of(kind: str, extent: Extent) -> str | None:
    begin = extent.read(PDF_BEGIN)
    if kind == PICTURE:
        end = extent.read(len(JPEG_END), extent.size - len(JPEG_END))
        return None if begin.startswith(JPEG_BEGIN) and end == JPEG_END else "is no whole JPEG"
    if kind == DOCUMENT:
        return None if PDF in begin else "is no PDF"
    if kind in LOGOS:
        return None if begin.startswith(LOGOS[kind]) else f"is no {kind[1:]}"
    return None if kind == PAGE else "is neither a page nor a picture nor a PDF"


def well_formed(disc: DiscRead) -> Findings:
    for page in disc.pages:
        if page.fault:
            yield f"{page.name} is no XHTML: {page.fault}"
    return f"{len(disc.pages)} pages"


def no_script(disc: DiscRead) -> Findings:
    for page in disc.pages:
        yield from (f"{page.name} has {what}" for what in page.active)
    return "no script, no style sheet"


def policies(disc: DiscRead) -> Findings:
    for page in disc.pages:
        if not page.fault and not any(map(_forbids_script, page.policies)):
            yield f"{page.name} has no Content-Security-Policy that forbids script"
    return "each page forbids script"


def _forbids_script(policy: str) -> bool:
    directives: dict[str, list[str]] = {}
    for directive in policy.lower().split(";"):
        name, *sources = directive.split() or [""]
        directives.setdefault(name, sources)
    return all(
        directives.get(name, directives.get("script-src", directives.get("default-src"))) == [NONE]
        for name in ("script-src", "script-src-elem", "script-src-attr")
    )


def links(disc: DiscRead) -> Findings:
    count = 0
    for page in disc.pages:
        for link in page.links:
            count += 1
            if fault := _fault_of_link(disc, page.name, link):
                yield f"{page.name}: {link[:80]} {fault}"
    return f"{count} links"


def _fault_of_link(disc: DiscRead, page: str, link: str) -> str | None:
    try:
        parts = urlsplit(link)
    except ValueError:
        return "is no link"
    path = unquote(parts.path, errors="surrogateescape")
    if ODD.search(link) or parts.scheme or parts.netloc or parts.query or path.startswith("/"):
        return "leads out of the disc, or is written oddly"
    if not path:
        return None
    target = normpath(f"{dirname(page)}/{path}").lstrip("/")
    if disc.is_viewers(target.partition("/")[0]):
        return None if disc.medium.find(target) else "leads to no file of the viewer"
    if path != path.lower() and target != README:
        return "is not in lower case"
    return None if _is_there(disc, target) else "leads to nothing on the disc"


def _is_there(disc: DiscRead, target: str) -> bool:
    """In its own case, but where the whole medium knows capitals alone."""
    return target in disc.medium.files or (disc.is_in_capitals and target.upper() in disc.medium.files)


OF_PAGES = (
    ("INDEX.HTM", index_page),
    ("web content", web_content),
    ("XHTML", well_formed),
    ("links", links),
    ("no script", no_script),
    ("Content-Security-Policy", policies),
)


def verify(path: Path, password: str | None = None) -> list[Check]:
    """Every check of an ISO image, a ZIP, or a directory; those of a DICOMDIR where one can be read.

    Raises WrongPassword where a ZIP has another password, where it has one and none is given, and the other way round;
    UnreadableDisc where the path is none of these, or so damaged that it has no files.
    """
    try:
        with _medium_of(path, password) as medium:
            if password is not None and medium.kind != "ZIP":
                raise WrongPassword("it is not protected: only a ZIP can have a password")
            return list(_checks(DiscRead(medium)))
    except OSError as error:
        raise UnreadableDisc(error.strerror or str(error)) from error


def _checks(disc: DiscRead) -> Iterator[Check]:
    if disc.is_legacy:
        yield from (judged(name, look, disc) for name, look in instances.OF_LEGACY)
        return
    directory = judged("DICOMDIR", is_read, disc)
    yield directory
    if directory.ok:
        yield from (judged(name, look, disc.directory) for name, look in dicomdir.CHECKS)
        yield judged("PATIENT", instances.patients, disc)
        yield from (judged(name, look, disc.directory) for name, look in dicomdir.CHECKS_BY_TYPE)
        yield from (judged(name, look, disc) for name, look in instances.OF_INSTANCES)
    yield from (judged(name, look, disc) for name, look in (*instances.OF_MEDIUM, *OF_PAGES))


def is_read(disc: DiscRead) -> Findings:
    """That the DICOMDIR is there and can be read: without, no other check of it is made."""
    directory = disc.directory
    yield from ()
    return f"{len(directory.entries)} records, {len(directory.leaves)} of them of files"


def judged(name: str, look: Callable[[Examined], Findings], examined: Examined) -> Check:
    """A check made: that something cannot be read is wrong with it, too."""
    faults: list[str] = []
    count, found = 0, ""
    findings = look(examined)
    try:
        while True:
            faults.append(next(findings))
            count += 1
            del faults[MOST_FAULTS:]
    except StopIteration as end:
        found = end.value
    except (UnreadableDisc, OSError) as error:
        faults, count = [*faults[: MOST_FAULTS - 1], str(error)], count + 1
    return Check(name, not count, printable(_in_one_line(faults, count) if count else found))


def _in_one_line(faults: Iterable[str], count: int) -> str:
    shortened = (one if len(one) <= LONGEST_FAULT else f"{one[:LONGEST_FAULT]}…" for one in faults)
    return "; ".join(shortened) + (f" … and {count - MOST_FAULTS} more" if count > MOST_FAULTS else "")


def _medium_of(path: Path, password: str | None) -> AbstractContextManager[Medium]:
    if path.is_dir():
        return directory_medium(path)
    if not path.is_file():
        raise UnreadableDisc("it is neither a file nor a directory" if path.exists() else "there is no such file")
    with path.open("rb") as file:
        head = file.read(len(ARCHIVE))
        file.seek(DESCRIPTOR)
        if file.read(len(MAGIC)) == MAGIC:
            return image_medium(path)
    if head == ARCHIVE:
        return archive_medium(path, password)
    raise UnreadableDisc("it is neither an ISO image nor a ZIP nor a directory")
