"""Locks on files and directories: the system itself frees them when their holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, operation: int = fcntl.LOCK_EX) -> Iterator[None]:
    """A lock on what is there; BlockingIOError where LOCK_NB finds it taken, FileNotFoundError where it is gone."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, operation)
        if not _is_named(descriptor, path):
            raise FileNotFoundError(path)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def held(file: Path) -> Iterator[None]:
    """A lock on a file that is made where it is absent; BlockingIOError where it is taken.

    A cleaner of old temporary files may remove it: what is locked must be the file that has the name.
    """
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.utime(descriptor)
            if _is_named(descriptor, file):
                yield
                return
        finally:
            os.close(descriptor)


def _is_named(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False
