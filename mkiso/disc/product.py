"""A disc as it is made, an ISO or a ZIP: as many bytes as were told, or an error; and the medium that it fits on.

The ISO is genisoimage's (ECMA-119, Joliet, Rock Ridge). That ends with status 0 where it left an unreadable file out.
With -quiet it says nothing unless something is wrong, so that any word of it is an error. The ZIP is of `zip`.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Literal

from mkiso.clock import Checkpoint
from mkiso.config import Media
from mkiso.dicom.instances import Instance
from mkiso.errors import DiscTooLarge, Internal
from mkiso.process import Child, read_log, run, spawned

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


def medium(size: int) -> str | None:
    """The smallest medium that holds so many bytes; None beyond all of them."""
    return next((name for name, capacity in CAPACITIES.items() if size <= capacity), None)


def require_max_size(size: int, media: Media) -> None:
    """Raise DiscTooLarge above `media.max_size`."""
    if media.max_size is not None and size > media.max_size:
        raise DiscTooLarge(
            f"The disc would have {size} bytes, and media.max_size allows {media.max_size}. Ask for fewer studies.",
            size=size,
            limit=media.max_size,
        )


def faulty(complaints: str) -> Internal:
    """What a disc's maker complains of holds paths of the host: it is for the log."""
    error = Internal("The disc could not be mastered. The service's log says which file is at fault.")
    error.add_note(complaints)
    return error


class Product:
    """A disc that is being made; its first bytes are there already. Raises Internal where there are none."""

    def __init__(self, size: int, chunks: Iterator[bytes]) -> None:
        self.size = size
        self._chunks = chunks
        self._first = next(chunks, b"")
        if not self._first:
            raise self._wrong(0)

    def chunks(self) -> Iterator[bytes]:
        """The disc's bytes, never more than its size.

        Whoever passes them on keeps the last chunk back until this has ended: it raises what went wrong
        while they were made, and Internal where they are not as many as were told.
        """
        given = 0
        for chunk in chain((self._first,), self._chunks):
            given += len(chunk)
            if given > self.size:
                raise self._wrong(given)
            yield chunk
        if given != self.size:
            raise self._wrong(given)

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
        yield Product(image_size(genisoimage, media, grafts, checkpoint), _written(child, log, checkpoint))


def _faulty(rc: int, complaints: str) -> Internal:
    return faulty(f"genisoimage ended with status {rc}: {complaints.strip()}")
