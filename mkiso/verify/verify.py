"""Is a finished disc what it must be? Every check, in the order in which they are told.

The checks of what a browser shows: pages without script, whose links lead nowhere but to the disc (IHE PDI).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path, PurePosixPath
from posixpath import dirname, normpath
from urllib.parse import unquote, urlsplit

from mkiso.checks import Check
from mkiso.verify import fileset, instances
from mkiso.verify.archive import INDEX, WEB, Extent, Tree, Unreadable, archive_tree, directory_tree
from mkiso.verify.disc import Disc, Findings, judged
from mkiso.verify.image import DESCRIPTOR, MAGIC, image_tree

PAGE, PICTURE, DOCUMENT = ".HTM", ".JPG", ".PDF"
JPEG_BEGIN, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
PDF, PDF_BEGIN = b"%PDF-", 1024
NONE = "'none'"
ODD = re.compile(r"[\0-\x20\x7f\\]")
Look = Callable[[Disc], Findings]
ARCHIVE = b"PK"
OF_LEGACY: tuple[tuple[str, Look], ...] = instances.OF_LEGACY
OF_DIRECTORY: tuple[tuple[str, Look], ...] = (
    *fileset.CHECKS,
    *instances.OF_INSTANCES,
    ("volume ID", instances.volume_id),
)


def index_page(disc: Disc) -> Findings:
    if disc.tree.find(INDEX) is None:
        yield f"there is no {INDEX} at the root"
    return INDEX


def web_content(disc: Disc) -> Findings:
    names = disc.tree.below(WEB)
    for name in names:
        with disc.tree.opened(name) as extent:
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
    return None if kind == PAGE else "is neither a page nor a JPEG nor a PDF"


def well_formed(disc: Disc) -> Findings:
    for page in disc.pages:
        if page.fault:
            yield f"{page.name} is no XHTML: {page.fault}"
    return f"{len(disc.pages)} pages"


def no_script(disc: Disc) -> Findings:
    for page in disc.pages:
        yield from (f"{page.name} has {what}" for what in page.active)
    return "no script, no style sheet"


def policies(disc: Disc) -> Findings:
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


def links(disc: Disc) -> Findings:
    count = 0
    for page in disc.pages:
        for link in page.links:
            count += 1
            if fault := _fault_of_link(disc, page.name, link):
                yield f"{page.name}: {link[:80]} {fault}"
    return f"{count} links"


def _fault_of_link(disc: Disc, page: str, link: str) -> str | None:
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
        return None if disc.tree.find(target) else "leads to no file of the viewer"
    if path != path.lower():
        return "is not in lower case"
    return None if _is_there(disc, target) else "leads to nothing on the disc"


def _is_there(disc: Disc, target: str) -> bool:
    """In its own case, but where the whole medium knows capitals alone."""
    return target in disc.tree.files or (disc.is_in_capitals and target.upper() in disc.tree.files)


CHECKS = (
    ("INDEX.HTM", index_page),
    ("web content", web_content),
    ("XHTML", well_formed),
    ("links", links),
    ("no script", no_script),
    ("Content-Security-Policy", policies),
)
OF_FILES: tuple[tuple[str, Look], ...] = (*instances.OF_MEDIUM, *CHECKS)


def verify(path: Path) -> list[Check]:
    """Every check of an ISO image, a ZIP, or a directory; those of a DICOMDIR where one can be read.

    Raises Unreadable where the path is none of these, or so damaged that it has no files.
    """
    try:
        with _tree_of(path) as tree:
            return list(_checks(Disc(tree)))
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error


def _checks(disc: Disc) -> Iterator[Check]:
    if disc.is_legacy:
        yield from (judged(name, partial(look, disc)) for name, look in OF_LEGACY)
        return
    directory = judged("DICOMDIR", partial(fileset.directory, disc))
    yield directory
    for name, look in (*(OF_DIRECTORY if directory.ok else ()), *OF_FILES):
        yield judged(name, partial(look, disc))


def _tree_of(path: Path) -> AbstractContextManager[Tree]:
    if path.is_dir():
        return directory_tree(path)
    if not path.is_file():
        raise Unreadable("it is neither a file nor a directory" if path.exists() else "there is no such file")
    with path.open("rb") as file:
        head = file.read(len(ARCHIVE))
        file.seek(DESCRIPTOR)
        if file.read(len(MAGIC)) == MAGIC:
            return image_tree(path)
    if head == ARCHIVE:
        return archive_tree(path)
    raise Unreadable("it is neither an ISO image nor a ZIP nor a directory")
