"""A file's bytes, or what they inflate to, as windows of bounded size: what is skipped is not kept, however large."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

KEPT = 1024  # bytes of a value that is kept; no UID and no Patient ID is longer
AHEAD = KEPT + 16  # a window holds a header and such a value behind any place that is asked for
FIRST, FURTHER = 1 << 12, 1 << 16  # what follows a value that was skipped, and what follows without a gap
COMPRESSED = 1 << 14
# A deflated file of 1 MB may be 1 GB of zeros, or of elements without a value: 100 s of walking. Real
# ones that shrink so well are segmentations, nearly all of them one value that is skipped: 1 s for each GB.
MOST_INFLATED = 1 << 32
MOST_WALKED = 1 << 28


class Unwalkable(Exception):
    """This is no whole file: it ends too early, or makes no sense."""


def unasked() -> None:
    """What is asked while a file is walked that nobody waits for."""


class Source(Protocol):
    """Bytes that are walked from the first to the last."""

    def at(self, position: int) -> tuple[bytes, int]:
        """A window, and where in it a position is; AHEAD bytes follow there, or all that there are.

        Raises Unwalkable where the position lies behind the end.
        """


def beginning(source: Source, position: int, most: int) -> bytes:
    """The first bytes from a position on, up to so many, or as many as can be read."""
    read = bytearray()
    with suppress(Unwalkable):
        while len(read) < most:
            window, at = source.at(position + len(read))
            if at == len(window):
                break
            read += window[at : at + most - len(read)]
    return bytes(read)


def inflated(data: bytes, most: int) -> bytes:
    """The first bytes, up to so many, that a deflated data set becomes, as far as it is one."""
    inflate, made = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
    with suppress(zlib.error):
        for at in range(0, len(data), COMPRESSED):
            if len(made) < most:
                made += inflate.decompress(data[at : at + COMPRESSED], most - len(made))
    return bytes(made)


class FileBytes:
    """An open file, as long as it was when it was opened, or a part of one."""

    def __init__(self, descriptor: int, size: int, begin: int = 0) -> None:
        self._descriptor, self._size, self._begin, self._base = descriptor, size, begin, 0
        self._window = os.pread(descriptor, min(FIRST, size), begin)

    def at(self, position: int) -> tuple[bytes, int]:
        at, there = position - self._base, len(self._window)
        if at < 0 or (there - at < AHEAD and self._base + there < self._size):
            self._read(position)
            return self._window, 0
        if at > there:
            raise Unwalkable
        return self._window, at

    def _read(self, position: int) -> None:
        behind = self._base + len(self._window)
        expected = min(FIRST if position > behind else FURTHER, self._size - position)
        if expected < 0:
            raise Unwalkable
        self._window = os.pread(self._descriptor, expected, self._begin + position) if expected else b""
        self._base = position
        if len(self._window) < expected:  # it was cut meanwhile
            raise Unwalkable


class Inflated:
    """What a deflated data set (PS3.5 A.5) inflates to, piece by piece and forwards only.

    Its end is reached only where the compression's own end is there; what follows that is not looked at.
    `check` is asked for each piece.
    """

    def __init__(self, file: Source, begin: int, check: Callable[[], None] = unasked) -> None:
        self._file, self._position, self._check = file, begin, check
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._compressed, self._window = b"", b""
        self._base = self._inflated = self._walked = 0

    def at(self, position: int) -> tuple[bytes, int]:
        at = position - self._base
        if at < 0:
            raise Unwalkable
        if len(self._window) - at < AHEAD and not self._inflate.eof:
            self._walked += FURTHER
            at = self._forward(position)
        if at > len(self._window) or self._walked > MOST_WALKED:
            raise Unwalkable
        return self._window, at

    def _forward(self, position: int) -> int:
        while (at := position - self._base) > len(self._window) - AHEAD and not self._inflate.eof:
            gone = min(at, len(self._window))
            self._base += gone
            self._window = self._window[gone:] + self._piece()
        return at

    def _piece(self) -> bytes:
        self._check()
        if not self._compressed:
            window, at = self._file.at(self._position)
            self._compressed = window[at : at + COMPRESSED]
            self._position += len(self._compressed)
        ended = not self._compressed
        try:
            piece = self._inflate.decompress(self._compressed, FURTHER)
        except zlib.error:
            raise Unwalkable from None
        self._compressed = self._inflate.unconsumed_tail
        self._inflated += len(piece)
        if self._inflated > MOST_INFLATED or (ended and not piece and not self._inflate.eof):
            raise Unwalkable
        return piece
