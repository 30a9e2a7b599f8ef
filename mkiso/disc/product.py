"""A disc as it is made, an ISO or a ZIP: as many bytes as were told, or an error; and the medium that it fits on.

The ISO is genisoimage's (ECMA-119, Joliet, Rock Ridge). That ends with status 0 where it left an unreadable file out.
With -quiet it says nothing unless something is wrong, so that any word of it is an error.

The ZIP (PKWARE APPNOTE 6.3.10) is written while its files are read. Its members are stored as they are; size and CRC-32
stand before each, not behind it, where readers that begin at the front cannot find the member's end without them.
With a password each is encrypted (AES-256, WinZip's AE-2, which has no CRC-32 but a code of its own); its name is not.
"""

from __future__ import annotations

import fcntl
import os
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from errno import ELOOP
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal

from stream_zip import NO_COMPRESSION_32, NO_COMPRESSION_64, MemberFile, stream_zip

from mkiso.config import Media
from mkiso.dicom.instances import Instance
from mkiso.errors import DiscTooLarge, Internal
from mkiso.ledger.experience import Sizes
from mkiso.process import Child, Take, read_log, run, spawned
from mkiso.waiting import Checkpoint

Graft = tuple[str, Path]
Format = Literal["iso", "zip"]
CHUNK = 1 << 18
SECTOR = 2048
PIPE = 1 << 20
LARGEST_FILE = (1 << 32) - 1
SIZING_LIMIT = 600.0
END_LIMIT = 60.0
# A blank medium's bytes, of the smaller kind where there are two: CD-R of 80 minutes, with 75 sectors of 2048 bytes a
# second (ECMA-394), DVD+R of 2,295,104 sectors, DVD-R DL of 4,171,712 and BD-R of 12,219,392.
CAPACITIES = {"CD": 737_280_000, "DVD": 4_700_372_992, "DVD DL": 8_543_666_176, "BD": 25_025_314_816}
# In the old fields the largest values mean that the true ones are in ZIP64's (4.4.1.4).
LARGEST_OFFSET = (1 << 32) - 1
MOST_MEMBERS = (1 << 16) - 1
HEADER = 96  # a member takes less beside its name and its bytes, where it is encrypted, too
# Encrypted it takes more: salt, check of the password and authentication code, and a field in each of its headers.
ENCRYPTED = 16 + 2 + 10 + 2 * 11
FILE, DIRECTORY = stat.S_IFREG | 0o444, stat.S_IFDIR | 0o555
# What a member's header tells, its size and CRC-32, and its bytes.
SizedBytes = tuple[int, int, Iterable[bytes]]


def medium(size: int, made_as: Format = "iso") -> str | None:
    """The smallest medium that holds an image of so many bytes; None beyond all of them. A ZIP needs none."""
    if made_as == "zip":
        return None
    return next((name for name, capacity in CAPACITIES.items() if size <= capacity), None)


def require_max_size(size: int, media: Media) -> None:
    """Raise DiscTooLarge above `media.max_size`, which an image is to keep."""
    if media.max_size is not None and size > media.max_size:
        raise _too_large(f"The disc would have {size} bytes", size, media.max_size)


def require_likely_size(sizes: Sizes, counts: Mapping[str, int], media: Media) -> None:
    """Raise DiscTooLarge where so many instances of each modality would hardly fit into an image of `media.max_size`.

    What `sizes` holds for the least is compared, so that no ordinary disc that fits is refused, and what is told is the
    likely size.
    """
    least = sizes.least(counts)
    if media.max_size is not None and least > media.max_size:
        size = sizes.likely(counts) or least
        why = f"The disc would have about {size} bytes, as far as such images are known here; nothing was retrieved"
        raise _too_large(why, size, media.max_size)


def _too_large(what: str, size: int, limit: int) -> DiscTooLarge:
    remedy = "Tick fewer studies or series, or ask for a ZIP (format=zip), which has no limit."
    return DiscTooLarge(f"{what}. media.max_size allows {limit}. {remedy}", size=size, limit=limit)


def faulty(complaints: str) -> Internal:
    """What a disc's maker complains of holds paths of the host: it is for the log."""
    error = Internal("The disc could not be mastered. The service's log says which file is at fault.")
    error.add_note(complaints)
    return error


class Product:
    """A disc that is being made; its first bytes are there already. Raises Internal where there are none.

    `left` are its bytes that are still to come. `pour` has somebody take bytes as they are written, where that can be.
    """

    def __init__(self, size: int, chunks: Iterator[bytes], pour: Callable[[Take, int], int] | None = None) -> None:
        self.size = self.left = size
        self._chunks, self._pour = chunks, pour
        self._first = next(chunks, b"")
        if not self._first:
            raise self._wrong(0)

    def chunks(self, take: Take | None = None) -> Iterator[bytes]:
        """The disc's bytes, never more than its size; of those behind the second chunk and before the last one `take`
        is given what it takes, once the first two have been passed on.

        Whoever passes them on keeps the last chunk, behind which none is `left`, back until this has ended: it raises
        what went wrong while they were made, and Internal where they are not as many as were told.
        """
        for number, chunk in enumerate(chain((self._first,), self._chunks)):
            self.left -= len(chunk)
            if self.left < 0:
                raise self._wrong(self.size - self.left)
            yield chunk
            if number == 1 and take and self._pour:
                self.left -= self._pour(take, self.left - CHUNK)
        if self.left:
            raise self._wrong(self.size - self.left)

    def _wrong(self, given: int) -> Internal:
        return faulty(f"{given} bytes came instead of {self.size}")


def with_viewer(media: Media, grafts: Sequence[Graft]) -> list[Graft]:
    """What a layout grafts, and the viewer's files at the root, taken in without a copy."""
    return [*([("", media.viewer_dir.resolve())] if media.viewer_dir else []), *grafts]


def master_argv(
    genisoimage: Path, media: Media, grafts: Sequence[Graft], options: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """What lies at the root, and what is grafted beside it: see `with_viewer`."""
    return (
        str(genisoimage),
        "-quiet",
        "-r",
        "-J",
        "-f",
        "-input-charset",
        "utf-8",
        "-V",
        media.volume_id,
        *options,
        "-graft-points",
        *(f"{_escaped('/' + name)}={_escaped(str(path))}" for name, path in with_viewer(media, grafts)),
    )


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace("=", "\\=")


def require_small_files(instances: Sequence[Instance]) -> None:
    """Raise DiscTooLarge for an instance of 4 GiB or more, which ISO 9660 cannot hold (ECMA-119 9.1.4)."""
    for instance in instances:
        if instance.bytes > LARGEST_FILE:
            raise DiscTooLarge(
                f"The instance {instance.sop_instance_uid} has {instance.bytes} bytes; an ISO takes files below"
                " 4 GiB. Ask for a ZIP (format=zip) instead.",
                size=instance.bytes,
                limit=LARGEST_FILE,
            )


def image_size(genisoimage: Path, media: Media, grafts: Sequence[Graft], checkpoint: Checkpoint = lambda: None) -> int:
    """The exact number of bytes that the image will have.

    Raises DiscTooLarge above `media.max_size`, Internal where genisoimage found fault with a file, and
    whatever `checkpoint` raises, which is called all the while.
    """
    result = run(master_argv(genisoimage, media, grafts, ("-print-size",)), timeout=SIZING_LIMIT, checkpoint=checkpoint)
    if result.rc != 0 or result.stderr.strip():
        raise _faulty(result.rc, result.stderr)
    size = int(result.stdout) * SECTOR
    require_max_size(size, media)
    return size


def _written(child: Child, log: Path, checkpoint: Checkpoint) -> Iterator[bytes]:
    """The image's bytes, `checkpoint` called between them. Raises Internal where genisoimage left something out."""
    while chunk := child.read(CHUNK, checkpoint):
        yield chunk
    rc, complaints = child.wait(END_LIMIT, checkpoint), read_log(log)
    if rc != 0 or complaints.strip():
        raise _faulty(rc, complaints)


@contextmanager
def mastering(
    genisoimage: Path, media: Media, grafts: Sequence[Graft], directory: Path, checkpoint: Checkpoint
) -> Iterator[Product]:
    """genisoimage running, ended with the block; its size is asked for while it starts. Raises as image_size."""
    log = directory / "genisoimage.log"
    with spawned(master_argv(genisoimage, media, grafts), cwd=directory, log=log, piped=True) as child:
        with suppress(OSError):  # above the system's limit for users; only speed is lost
            fcntl.fcntl(child.stdout, fcntl.F_SETPIPE_SZ, PIPE)
        size = image_size(genisoimage, media, grafts, checkpoint)
        yield Product(size, _written(child, log, checkpoint), partial(child.pour, checkpoint=checkpoint))


def _faulty(rc: int, complaints: str) -> Internal:
    return faulty(f"genisoimage ended with status {rc}: {complaints.strip()}")


@dataclass(frozen=True)
class Member:
    """A file for the archive as it was found, or an empty directory."""

    name: str
    path: Path
    mode: int
    size: int = 0
    changed_at: int = 0


@contextmanager
def zipping(
    media: Media, grafts: Sequence[Graft], checkpoint: Checkpoint, password: str | None = None
) -> Iterator[Product]:
    """The archive of the viewer's files and what a layout grafts; `checkpoint` is called while its files are read.

    Raises Internal where a file cannot be read, has changed since it was found, or would lie where another does.
    """
    now = datetime.now()  # local, for so do unpackers take it
    try:
        members = found(with_viewer(media, grafts))
        size = archive_size(members, now) + (0 if password is None else ENCRYPTED * len(members))
    except (OSError, ValueError) as error:
        raise faulty(f"{error} {error.args}") from error
    with closing(_archive(members, now, checkpoint, password)) as chunks:
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
    """The exact number of bytes that a plain archive will have: by the library's own account, without the content."""
    hollow = stream_zip(_entries(members, now, lambda _member: (0, 0, ())), CHUNK, extended_timestamps=False)
    return sum(map(len, hollow)) + sum(member.size for member in members)


def _archive(
    members: Sequence[Member], now: datetime, checkpoint: Checkpoint, password: str | None
) -> Generator[bytes]:
    """The archive's bytes; the library raises ValueErrors where a member is not what its header tells."""
    at: Member | None = None

    def content(member: Member) -> SizedBytes:
        nonlocal at
        at = member
        return member.size, _crc(member, checkpoint), _chunks(member)

    try:
        entries = _entries(members, now, content)
        yield from stream_zip(entries, CHUNK, extended_timestamps=False, password=password)
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
