"""The receiver pool: one retrieval at a time on each receiver, whichever process asks.

A slot is a lock on a file, so that the system itself frees it when its holder dies, however it dies.
"""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mkiso.config import Receiver
from mkiso.errors import Busy

POLL = 0.02


@contextmanager
def locked(directory: Path, operation: int = fcntl.LOCK_EX) -> Iterator[None]:
    """A lock on a directory; BlockingIOError where LOCK_NB finds it taken, FileNotFoundError where it is gone."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, operation)
        if not _is_named(descriptor, directory):
            raise FileNotFoundError(directory)
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


def lock_file(work_dir: Path, receiver: Receiver) -> Path:
    return work_dir / f"receiver_{receiver.port}.lock"


@contextmanager
def receiver_slot(
    work_dir: Path, receivers: Sequence[Receiver], timeout: float, check: Callable[[], None]
) -> Iterator[Receiver]:
    """The first receiver that is free, held until the end of the block.

    Waits `timeout` seconds at most, asking `check` all the while; raises Busy after that.
    """
    deadline = time.monotonic() + timeout
    with ExitStack() as slot:
        while (receiver := _first_free(work_dir, receivers, slot)) is None:
            check()
            if time.monotonic() >= deadline:
                raise Busy(f"No receiver came free in {timeout:g} s. Try again, or configure more receivers.")
            time.sleep(random.uniform(POLL, 3 * POLL))  # noqa: S311  (so that waiters do not march in step)
        yield receiver


def slot_is_taken(work_dir: Path, receiver: Receiver) -> bool:
    """Whether a job holds the receiver now."""
    with suppress(BlockingIOError), held(lock_file(work_dir, receiver)):
        return False
    return True


def _first_free(work_dir: Path, receivers: Sequence[Receiver], slot: ExitStack) -> Receiver | None:
    for receiver in receivers:
        with suppress(BlockingIOError):
            slot.enter_context(held(lock_file(work_dir, receiver)))
            return receiver
    return None
