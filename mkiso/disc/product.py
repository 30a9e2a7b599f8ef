"""A disc while it is made: what a layout is given and what it makes, and the bytes of the ISO or ZIP made of that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from mkiso.clock import Checkpoint
from mkiso.config import Config, Media
from mkiso.errors import DiscTooLarge, Internal
from mkiso.workspace import Workspace

Graft = tuple[str, Path]
Format = Literal["iso", "zip"]
CHUNK = 1 << 18
# A blank medium's bytes, of the smaller kind where there are two: CD-R of 80 minutes, with 75 sectors of 2048 bytes a
# second (ECMA-394), DVD+R of 2,295,104 sectors, DVD-R DL of 4,171,712 and BD-R of 12,219,392.
CAPACITIES = {"CD": 737_280_000, "DVD": 4_700_372_992, "DVD DL": 8_543_666_176, "BD": 25_025_314_816}


@dataclass(frozen=True)
class Setting:
    """Of one job, what a layout needs beside the instances; `checkpoint` is called all the while.

    Where `media.uncompressed` is set, so many instances were decompressed, and so many could not be.
    """

    config: Config
    workspace: Workspace
    format: Format
    checkpoint: Checkpoint
    decompressed: int = 0
    left_compressed: int = 0

    @property
    def stage(self) -> Path:
        return self.workspace.disc


@dataclass(frozen=True)
class Tree:
    """What lies where on the disc, beside the viewer's files; how many instances its DICOMDIR cannot name."""

    grafts: list[Graft]
    not_indexed: int | None = None


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
