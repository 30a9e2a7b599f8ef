"""A disc's files, wherever they lie: what every check looks at, and a directory as such a tree.

Names come from strangers: what could lead out of the disc, or lies there twice, is a fault and no file.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

DEEPEST = 64  # folders in folders
MOST_FILES = 250_000  # each has its names in memory; a disc of 100 GB of CT images has fewer


class Unreadable(Exception):
    """It cannot be read as a disc, or as a file of one; the text says why."""


@dataclass(frozen=True)
class Extent:
    """A file's bytes, and their `place`: what has the same one is the same file under another name."""

    size: int
    place: tuple[int, ...]
    piece: Callable[[int, int], bytes]

    def read(self, length: int, at: int = 0) -> bytes:
        """At most so many of its bytes, fewer at its end."""
        return self.piece(max(0, min(length, self.size - at)), at)


def lying(descriptor: int, begin: int, size: int, *place: int) -> Extent:
    """A file whose bytes lie within an open one."""
    return Extent(size, place or (begin, size), lambda length, at: os.pread(descriptor, length, begin + at))


@dataclass(frozen=True)
class Tree:
    """A disc's files with their sizes, by their names below its root, and what is wrong with the medium itself.

    `damages` are those of what it is made of, `strangers` names that a disc must not have. `packed` are the bytes of a
    medium whose files may unpack to more.
    """

    kind: str
    files: Mapping[str, int]
    folders: frozenset[str]
    opened: Callable[[str], AbstractContextManager[Extent]]
    strangers: tuple[str, ...] = ()
    damages: Callable[[], Iterable[str]] = field(default=tuple)
    volume_id: str | None = None
    packed: int = sys.maxsize

    @cached_property
    def _folded(self) -> dict[str, str]:
        return {name.upper(): name for name in self.files}

    def find(self, name: str) -> str | None:
        """The file of this name: in whatever case, since ISO 9660 knows capitals alone (ECMA-119 7.4.1)."""
        return name if name in self.files else self._folded.get(name.upper())

    def below(self, folder: str) -> list[str]:
        """The files of a folder of the root, and of those in it."""
        return [name for name in self.files if name.upper().startswith(f"{folder.upper()}/")]

    def roots(self) -> list[str]:
        """What lies at the root."""
        return list(dict.fromkeys(name.partition("/")[0] for name in (*self.files, *sorted(self.folders))))


def is_plain(name: str) -> bool:
    """Whether a name leads to a place within the disc, on any system."""
    parts = name.split("/")
    return not (set(parts) & {"", ".", ".."} or set(name) & set("\\\0") or name[1:2] == ":" or len(parts) > DEEPEST)


@contextmanager
def directory_tree(root: Path) -> Iterator[Tree]:
    """A mounted or unpacked disc; no link is followed. Raises Unreadable, and OSError where a folder cannot be read."""
    files: dict[str, int] = {}
    folders: list[str] = []
    strangers: list[str] = []
    todo = [""]
    while todo:
        folder = todo.pop()
        with os.scandir(root / folder) as entries:
            found = sorted(islice(entries, MOST_FILES + 1), key=lambda one: one.name)
            if len(files) + len(folders) + len(strangers) + len(found) > MOST_FILES:
                raise Unreadable(f"it has more than {MOST_FILES} files and folders")
            for entry in found:
                name = f"{folder}/{entry.name}" if folder else entry.name
                mode = entry.stat(follow_symlinks=False)
                if not is_plain(name):
                    strangers.append(f"{name} is no name for every system")
                elif stat.S_ISDIR(mode.st_mode):
                    todo.append(name)
                    folders.append(name)
                elif stat.S_ISREG(mode.st_mode):
                    files[name] = mode.st_size
                else:
                    strangers.append(f"{name} is neither a file nor a folder")
    yield Tree("directory", files, frozenset(folders), lambda name: _opened(root / name), tuple(strangers))


@contextmanager
def _opened(path: Path) -> Iterator[Extent]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise Unreadable(f"{path.name} is no file any more")
        yield lying(descriptor, 0, state.st_size, state.st_dev, state.st_ino)
    finally:
        os.close(descriptor)
