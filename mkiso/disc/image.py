"""genisoimage: the size of a disc image, and its bytes as they come (ECMA-119, Joliet, Rock Ridge).

It ends with status 0 where it left an unreadable file out. With -quiet it says nothing unless
something is wrong, so that any word of it is an error.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mkiso.config import Media
from mkiso.disc.layouts import Graft
from mkiso.errors import DiscTooLarge, Internal
from mkiso.process import Child, run, said, spawned
from mkiso.retrieve.instances import Instance

SECTOR = 2048
CHUNK = 1 << 19
PIPE = 1 << 20
LARGEST_FILE = (1 << 32) - 1
SIZING_LIMIT = 600.0
END_LIMIT = 60.0

Check = Callable[[], None]


def master_argv(
    genisoimage: Path, media: Media, grafts: Sequence[Graft], options: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The viewer's files at the root, taken in without a copy, and what a layout grafts."""
    viewer = [("", media.viewer_dir.resolve())] if media.viewer_dir else []
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
        *(f"{_escaped('/' + name)}={_escaped(str(path))}" for name, path in [*viewer, *grafts]),
    )


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace("=", "\\=")


def require_small_files(instances: Sequence[Instance]) -> None:
    """Raise DiscTooLarge for an instance of 4 GiB or more, which ISO 9660 cannot hold (ECMA-119 9.1.4)."""
    for instance in instances:
        if instance.bytes > LARGEST_FILE:
            raise DiscTooLarge(
                f"The instance {instance.sop_instance_uid} has {instance.bytes} bytes; a disc takes files below"
                " 4 GiB. Send the study to another archive instead.",
                size=instance.bytes,
                limit=LARGEST_FILE,
            )


def image_size(genisoimage: Path, media: Media, grafts: Sequence[Graft], check: Check = lambda: None) -> int:
    """The exact number of bytes that the image will have.

    Raises DiscTooLarge above `media.max_size`, Internal where genisoimage found fault with a file, and
    whatever `check` raises, which is asked all the while.
    """
    result = run(master_argv(genisoimage, media, grafts, ("-print-size",)), timeout=SIZING_LIMIT, check=check)
    if result.rc != 0 or result.stderr.strip():
        raise _faulty(result.rc, result.stderr)
    size = int(result.stdout) * SECTOR
    if media.max_size is not None and size > media.max_size:
        raise DiscTooLarge(
            f"The disc would have {size} bytes, and media.max_size allows {media.max_size}. Ask for fewer studies.",
            size=size,
            limit=media.max_size,
        )
    return size


class Image:
    """An image that is being written by genisoimage; its first bytes are there already."""

    def __init__(self, child: Child, size: int, log: Path, check: Check) -> None:
        self.size = size
        self._child = child
        self._log = log
        self._check = check
        self._first = child.read(CHUNK, check)
        if not self._first:
            self._verify(0)

    def chunks(self) -> Iterator[bytes]:
        """The image's bytes, never more than its size; `check` is asked while they are waited for.

        Whoever passes them on keeps the last chunk back until this has ended: it raises Internal where
        genisoimage left something out, or gives another number of bytes than it said.
        """
        chunk, given = self._first, len(self._first)
        while chunk:
            if given > self.size:
                raise _faulty(self._child.rc, f"more than the {self.size} bytes came that it had told")
            yield chunk
            chunk = self._child.read(CHUNK, self._check)
            given += len(chunk)
        self._verify(given)

    def _verify(self, given: int) -> None:
        rc, complaints = self._child.wait(END_LIMIT, self._check), said(self._log)
        if rc != 0 or complaints.strip():
            raise _faulty(rc, complaints)
        if given != self.size:
            raise _faulty(rc, f"{given} bytes came instead of {self.size}")


@contextmanager
def mastering(
    genisoimage: Path, media: Media, grafts: Sequence[Graft], directory: Path, check: Check
) -> Iterator[Image]:
    """genisoimage running, ended with the block; its size is asked for while it starts. Raises as image_size."""
    log = directory / "genisoimage.log"
    with spawned(master_argv(genisoimage, media, grafts), cwd=directory, log=log, piped=True) as child:
        with suppress(OSError):  # above the system's limit for users; only speed is lost
            fcntl.fcntl(child.stdout, fcntl.F_SETPIPE_SZ, PIPE)
        yield Image(child, image_size(genisoimage, media, grafts, check), log, check)


def _faulty(rc: int | None, complaints: str) -> Internal:
    """What genisoimage says holds paths of the host: it is for the log."""
    error = Internal("The disc could not be mastered. The service's log says which file is at fault.")
    error.add_note(f"genisoimage ended with status {rc}: {complaints.strip()}")
    return error
