"""A disc's tree as a ZIP archive, written while it is read (PKWARE APPNOTE 6.3.10).

Its members are stored as they are. Size and CRC-32 stand before each, not behind it, where readers that
begin at the front cannot find the member's end without them.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from errno import ELOOP
from pathlib import Path

from stream_zip import NO_COMPRESSION_32, NO_COMPRESSION_64, MemberFile, stream_zip

from mkiso.clock import Checkpoint
from mkiso.config import Media
from mkiso.disc.product import CHUNK, Graft, Product, faulty, require_max_size, with_viewer

# In the old fields the largest values mean that the true ones are in ZIP64's (4.4.1.4).
LARGEST_OFFSET = (1 << 32) - 1
MOST_MEMBERS = (1 << 16) - 1
HEADER = 64  # a member's local header takes less, without its name
FILE, DIRECTORY = stat.S_IFREG | 0o444, stat.S_IFDIR | 0o555


@dataclass(frozen=True)
class Member:
    """A file for the archive as it was found, or an empty directory."""

    name: str
    path: Path
    mode: int
    size: int = 0
    changed_at: int = 0


# What a member's header tells, its size and CRC-32, and its bytes.
SizedBytes = tuple[int, int, Iterable[bytes]]


@contextmanager
def zipping(media: Media, grafts: Sequence[Graft], checkpoint: Checkpoint) -> Iterator[Product]:
    """The archive of the viewer's files and what a layout grafts; `checkpoint` is called while its files are read.

    Raises DiscTooLarge above `media.max_size`, Internal where a file cannot be read, has changed since it was
    found, or would lie where another does.
    """
    now = datetime.now()  # local, for so do unpackers take it
    try:
        members = found(with_viewer(media, grafts))
        size = archive_size(members, now)
    except (OSError, ValueError) as error:
        raise faulty(f"{error} {error.args}") from error
    require_max_size(size, media)
    with closing(_archive(members, now, checkpoint)) as chunks:
        yield Product(size, chunks)


def found(grafts: Iterable[Graft]) -> list[Member]:
    """The files of an archive, symbolic links followed, and its empty directories. Raises OSError."""
    members = [member for name, path in grafts for member in _below(name, path)]
    names = [member.name for member in members]
    folders = {name[:end] for name in names for end, letter in enumerate(name) if letter == "/"}
    if doubled := [name for name, count in Counter(names).items() if count > 1 or name in folders]:
        raise FileExistsError(f"several files are to be at {doubled[0]}")
    return members


def _below(name: str, path: Path, above: tuple[tuple[int, int], ...] = ()) -> Iterator[Member]:
    state = path.stat()
    if stat.S_ISREG(state.st_mode):
        if not os.access(path, os.R_OK):
            raise PermissionError(f"{path} cannot be read")
        yield Member(name, path, FILE, state.st_size, state.st_mtime_ns)
        return
    this = (state.st_dev, state.st_ino)
    if this in above:
        raise OSError(ELOOP, os.strerror(ELOOP), str(path))
    entries = sorted(os.listdir(path))
    if name and not entries:
        yield Member(f"{name}/", path, DIRECTORY)
    for entry in entries:
        yield from _below(f"{name}/{entry}" if name else entry, path / entry, (*above, this))


def archive_size(members: Sequence[Member], now: datetime) -> int:
    """The exact number of bytes that the archive will have: by the library's own account, without the content."""
    hollow = stream_zip(_entries(members, now, lambda _member: (0, 0, ())), CHUNK, extended_timestamps=False)
    return sum(map(len, hollow)) + sum(member.size for member in members)


def _archive(members: Sequence[Member], now: datetime, checkpoint: Checkpoint) -> Generator[bytes]:
    """The archive's bytes; the library raises ValueErrors where a member is not what its header tells."""
    at: Member | None = None

    def content(member: Member) -> SizedBytes:
        nonlocal at
        at = member
        return member.size, _crc(member, checkpoint), _chunks(member)

    try:
        yield from stream_zip(_entries(members, now, content), CHUNK, extended_timestamps=False)
    except (OSError, ValueError) as error:
        raise faulty(f"{at and at.path}: {error!r}") from error


def _entries(members: Sequence[Member], now: datetime, content: Callable[[Member], SizedBytes]) -> Iterator[MemberFile]:
    end = 0
    for number, member in enumerate(members, start=1):
        end += HEADER + len(member.name.encode()) + member.size
        is_large = end >= LARGEST_OFFSET or number >= MOST_MEMBERS
        size, crc, chunks = content(member)
        kind = NO_COMPRESSION_64 if is_large else NO_COMPRESSION_32
        yield member.name, now, member.mode, kind(size, crc), chunks


def _crc(member: Member, checkpoint: Checkpoint) -> int:
    crc = 0
    for chunk in _chunks(member):
        checkpoint()
        crc = zlib.crc32(chunk, crc)
    return crc


def _chunks(member: Member) -> Iterator[bytes]:
    """The bytes of a file that is still the one that was found; of a directory there are none."""
    if member.mode == DIRECTORY:
        return
    with member.path.open("rb", buffering=0) as file:
        state = os.fstat(file.fileno())
        if (state.st_size, state.st_mtime_ns) != (member.size, member.changed_at):
            raise ValueError("it has changed")
        while chunk := file.read(CHUNK):
            yield chunk
