"""The receiver pool: one retrieval at a time on each receiver, whichever process asks.

A slot is a lock on a file, so that the system itself frees it when its holder dies, however it dies.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mkiso.clock import Stopwatch
from mkiso.config import Receiver
from mkiso.errors import Busy
from mkiso.locks import held

POLL = 0.02


def lock_file(work_dir: Path, receiver: Receiver) -> Path:
    return work_dir / f"receiver_{receiver.port}.lock"


@contextmanager
def receiver_slot(
    work_dir: Path, receivers: Sequence[Receiver], timeout: float, check: Callable[[], None]
) -> Iterator[Receiver]:
    """The first receiver that is free, held until the end of the block.

    Waits `timeout` seconds at most, asking `check` all the while; raises Busy after that.
    """
    waited = Stopwatch()
    with ExitStack() as slot:
        while (receiver := _first_free(work_dir, receivers, slot)) is None:
            check()
            if waited.seconds() >= timeout:
                raise Busy(f"No receiver came free in {timeout:g} s. Try again, or configure more receivers.")
            time.sleep(random.uniform(POLL, 3 * POLL))  # noqa: S311  (so that waiters do not march in step)
        yield receiver


def slot_is_taken(work_dir: Path, receiver: Receiver) -> bool:
    """Whether a job holds the receiver now."""
    with suppress(BlockingIOError), held(lock_file(work_dir, receiver)):
        return False
    return True


def taken(work_dir: Path, receivers: Sequence[Receiver]) -> int:
    """How many of the receivers jobs hold now."""
    return sum(slot_is_taken(work_dir, receiver) for receiver in receivers)


def _first_free(work_dir: Path, receivers: Sequence[Receiver], slot: ExitStack) -> Receiver | None:
    for receiver in receivers:
        with suppress(BlockingIOError):
            slot.enter_context(held(lock_file(work_dir, receiver)))
            return receiver
    return None
