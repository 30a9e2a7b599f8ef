"""glibc's heaps, from which C and Python allocate (mallopt(3), malloc_trim(3)), where there is glibc."""

from __future__ import annotations

import ctypes
from contextlib import suppress

M_ARENA_MAX = -8  # malloc.h
HEAPS = 2
LIBRARY = ctypes.CDLL(None)


def share() -> None:
    """Have all threads, also of processes forked from this one, allocate from two heaps.

    By default there are eight for each core, and each keeps what its longest answer ever needed.
    """
    with suppress(AttributeError):
        LIBRARY.mallopt(M_ARENA_MAX, HEAPS)


def trim() -> None:
    """Give what is free in them back to the system; takes milliseconds."""
    with suppress(AttributeError):
        LIBRARY.malloc_trim(0)
