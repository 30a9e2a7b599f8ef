"""genisoimage: the size of a disc image, and its bytes as they come (ECMA-119, Joliet, Rock Ridge).

It ends with status 0 where it left an unreadable file out. With -quiet it says nothing unless
something is wrong, so that any word of it is an error.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mkiso.clock import Checkpoint
from mkiso.config import Media
from mkiso.dicom.instances import Instance
from mkiso.disc.layout import with_viewer
from mkiso.disc.product import CHUNK, Graft, Product, faulty, require_max_size
from mkiso.errors import DiscTooLarge, Internal
from mkiso.process import Child, run, said, spawned

SECTOR = 2048
PIPE = 1 << 20
LARGEST_FILE = (1 << 32) - 1
SIZING_LIMIT = 600.0
END_LIMIT = 60.0


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
    rc, complaints = child.wait(END_LIMIT, checkpoint), said(log)
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
