"""Is a finished disc what it must be? Every check, in the order in which they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from mkiso.checks import Check
from mkiso.verify import fileset, instances, legacy, medium, webcontent
from mkiso.verify.archive import archive_tree
from mkiso.verify.disc import Disc
from mkiso.verify.image import DESCRIPTOR, MAGIC, image_tree
from mkiso.verify.report import Findings, judged
from mkiso.verify.trees import Tree, Unreadable, directory_tree

Look = Callable[[Disc], Findings]

ARCHIVE = b"PK"
OF_LEGACY: tuple[tuple[str, Look], ...] = legacy.CHECKS
OF_FILES: tuple[tuple[str, Look], ...] = (*medium.CHECKS, *webcontent.CHECKS)
OF_DIRECTORY: tuple[tuple[str, Look], ...] = (
    *fileset.CHECKS,
    *instances.CHECKS,
    ("volume ID", medium.volume_id),
)


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
