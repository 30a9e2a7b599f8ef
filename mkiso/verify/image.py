"""An ISO image as a medium (ECMA-119), by its Rock Ridge names, and whether its other two trees hold the same files.

pycdlib reads it, by its public calls, but for two bounds that need what is private in it: `BoundedImage`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, NamedTuple

from pycdlib import PyCdlib
from pycdlib.dr import DirectoryRecord

from mkiso.verify.medium import MOST_FILES, Extent, Medium, UnreadableDisc, is_ours, is_plain, lying

SECTOR = 2048
DESCRIPTOR = 16 * SECTOR  # ECMA-119 8.4
LARGEST_DIRECTORY, LARGEST_DIRECTORIES, LARGEST_PATH_TABLE = 1 << 26, 1 << 28, 1 << 20
LEAST, LEAST_READ = 1 << 24, 512
EMPTY_FILES = 10_000
MAGIC = b"\1CD001\1"
ISO, JOLIET, ROCK_RIDGE = "ISO 9660", "Joliet", "Rock Ridge"
Place = tuple[int, int]  # where a file begins, and its size, in bytes
Naming = Callable[[DirectoryRecord], str]


@dataclass
class _Names:
    """One of the trees: each file's place by its name."""

    files: dict[str, Place] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    strangers: list[str] = field(default_factory=list)


class _Volume(NamedTuple):
    """What an image says: its volume's name, how many bytes it should have, and the names of each tree."""

    volume_id: str
    size: int
    trees: dict[str, _Names]


class _BoundedFile(BufferedReader):
    """A file of which directories are read up to a size, and in all, whatever the image says of them."""

    def __init__(self, path: Path) -> None:
        super().__init__(FileIO(path))
        self._left = min(LARGEST_DIRECTORIES, LEAST + 2 * os.fstat(self.fileno()).st_size)

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= LARGEST_DIRECTORY:
            raise UnreadableDisc("a directory is too large")
        self._left -= max(size, LEAST_READ)
        if self._left < 0:
            raise UnreadableDisc("its directories are too large, or overlap")
        return super().read(size)


class BoundedImage(PyCdlib):
    """An image of which no more records are kept than it can have files: each but the empty ones has a sector.

    pycdlib makes an object of a kilobyte or two of each record of 34 bytes, all of them while it opens an image, and
    no public call lets anybody count them until then. So these two private methods are bounded, and nothing else
    that is private is used. Where a newer pycdlib has them no more, tests/unit/test_verify.py says so.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._records_left = 2 * min(MOST_FILES, EMPTY_FILES + size // SECTOR)

    def _parse_path_table(self, ptr_size: int, extent: int) -> Any:
        if ptr_size > LARGEST_PATH_TABLE:
            raise UnreadableDisc("a path table is too large")
        return super()._parse_path_table(ptr_size, extent)

    def _iter_directory_records(self, *given: Any) -> Generator[Any, None, None]:
        for one in super()._iter_directory_records(*given):
            self._records_left -= 1
            if self._records_left < 0:
                raise UnreadableDisc("its directories have too many records")
            yield one


@contextmanager
def image_medium(path: Path) -> Iterator[Medium]:
    """An image's files. Raises UnreadableDisc where its directories are damaged."""
    with _BoundedFile(path) as file:
        descriptor = file.fileno()
        size = os.fstat(descriptor).st_size
        if size < DESCRIPTOR + SECTOR:
            raise UnreadableDisc("it is cut short in its volume descriptors")
        volume = _read(file, size)
        names = volume.trees.get(ROCK_RIDGE) or volume.trees.get(JOLIET) or volume.trees[ISO]
        _refuse_overlaps(names)

        def opened(name: str) -> nullcontext[Extent]:
            return nullcontext(lying(descriptor, *names.files[name]))

        yield Medium(
            "ISO image",
            {name: length for name, (_begin, length) in names.files.items()},
            frozenset(names.folders),
            opened,
            tuple(names.strangers),
            partial(_damages, volume, size),
            volume.volume_id,
        )


def _read(file: _BoundedFile, size: int) -> _Volume:
    image = BoundedImage(size)
    try:
        image.open_fp(file)
        volume_id = image.pvd.volume_identifier.decode("utf-8", "replace").rstrip("\0 ")
        return _Volume(volume_id, image.pvd.space_size * image.logical_block_size, dict(_trees(image)))
    except UnreadableDisc:
        raise
    except Exception as error:  # whatever a stranger's image makes of pycdlib
        raise UnreadableDisc(f"its directories cannot be read ({error or type(error).__name__})") from error


def _trees(image: PyCdlib) -> Iterator[tuple[str, _Names]]:
    block = image.logical_block_size
    root: Any = image.get_record(iso_path="/")
    yield ISO, _walked(root, block, _iso_name)
    if image.has_joliet():
        joliet: Any = image.get_record(joliet_path="/")
        yield JOLIET, _walked(joliet, block, _joliet_name)
    if image.has_rock_ridge():
        yield ROCK_RIDGE, _walked(root, block, _rock_ridge_name)


def _iso_name(record: DirectoryRecord) -> str:
    """Without the version, and the dot of an extension that is empty (ECMA-119 7.5.1)."""
    return record.file_identifier().decode("latin-1").partition(";")[0].removesuffix(".")


def _joliet_name(record: DirectoryRecord) -> str:
    return record.file_identifier().decode("utf-16-be", "replace").partition(";")[0]


def _rock_ridge_name(record: DirectoryRecord) -> str:
    if record.rock_ridge is None:
        return _iso_name(record)
    return record.rock_ridge.name().decode("utf-8", "surrogateescape")


def _walked(root: DirectoryRecord, block: int, named: Naming) -> _Names:
    """Every directory once; a relocated one where Rock Ridge says that it is (RRIP 4.1.5)."""
    names, seen, todo = _Names(), {root.extent_location()}, [("", root)]
    while todo:
        folder, directory = todo.pop()
        for record in directory.children:
            target = None if record.is_dot() or record.is_dotdot() else _target(record, named)
            if target is None:
                continue
            name = f"{folder}/{named(record)}" if folder else named(record)
            if not is_plain(name) or name in names.files or (target.is_dir() and target.extent_location() in seen):
                names.strangers.append(f"{name} is no name for every system, or is there twice")
            elif target.is_symlink():
                names.strangers.append(f"{name} is a link")
            elif target.is_dir():
                seen.add(target.extent_location())
                names.folders.add(name)
                todo.append((name, target))
            else:
                names.files[name] = (target.extent_location() * block, max(0, target.get_data_length()))
    return names


def _target(record: DirectoryRecord, named: Naming) -> DirectoryRecord | None:
    """What a record stands for; None where it stands elsewhere, too."""
    if named is not _rock_ridge_name or record.rock_ridge is None:
        return record
    if record.rock_ridge.relocated_record():
        return None
    if record.rock_ridge.child_link_record_exists():
        moved: DirectoryRecord | None = record.rock_ridge.cl_to_moved_dr
        return moved
    return record


def _refuse_overlaps(names: _Names) -> None:
    """Two names may have one place, as links and equal files have; but none begins within another."""
    end, before, last = 0, "", (0, 0)
    for place, name in sorted((place, name) for name, place in names.files.items() if place[1]):
        if place[0] < end and place != last:
            raise UnreadableDisc(f"its files overlap: {name} begins within {before}")
        end, before, last = max(end, sum(place)), name, place


def _damages(volume: _Volume, size: int) -> Iterator[str]:
    if size < volume.size:
        yield f"it is cut short: {size} bytes of {volume.size}"
    trees = volume.trees
    yield from (f"it has no {name} names" for name in (JOLIET, ROCK_RIDGE) if name not in trees)
    first, *others = (_ours(names) for names in trees.values())
    differing = sorted({name for other in others for name, _ in first.items() ^ other.items()})
    yield from (f"{', '.join(trees)} differ about {name}" for name in differing)
    first_places, *places = (_places(names) for names in trees.values())
    if any(other != first_places for other in places):
        yield f"{', '.join(trees)} do not hold the same files"


def _places(names: _Names) -> Counter[Place]:
    """Those of the viewer's files, too, whose names each tree shortens in its own way; an empty file has none."""
    return Counter(place for place in names.files.values() if place[1])


def _ours(names: _Names) -> dict[str, Place]:
    return {name.upper(): place for name, place in names.files.items() if is_ours(name) and place[1]}
