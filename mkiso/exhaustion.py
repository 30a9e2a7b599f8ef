"""Processes, threads, open files and memory, of which the system may have none just now, and will have again."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from mkiso.clock import Stopwatch
from mkiso.errors import Busy

PATIENCE = 3.0
PAUSE = 0.05
NO_THREAD = "can't start new thread"
LACKS = {
    errno.EAGAIN: "processes or threads (TasksMax of the unit, or the limit of its user)",
    errno.EMFILE: "open files (LimitNOFILE of the unit)",
    errno.ENFILE: "open files (fs.file-max)",
    errno.ENOMEM: "memory (MemoryMax of the unit)",
    errno.ENOBUFS: "memory (MemoryMax of the unit)",
}
T = TypeVar("T")


def lack(error: BaseException) -> str | None:
    """What there is none of, where that is why this was raised; else None."""
    if isinstance(error, OSError):
        return LACKS.get(error.errno or 0)
    if isinstance(error, MemoryError):
        return LACKS[errno.ENOMEM]
    return LACKS[errno.EAGAIN] if isinstance(error, RuntimeError) and str(error) == NO_THREAD else None


def exhausted(what: str) -> Busy:
    """The error of a host that lacks `what`, as `lack` gives it."""
    return Busy(f"This host gives mkiso no more {what}. Ask again in a while; if it stays so, look what takes them.")


def awaited(begin: Callable[[], T], checkpoint: Callable[[], object] = lambda: None) -> T:
    """What `begin` gives, which is called again as long as the system lacks what it needs, asking `checkpoint`.

    Raises Busy after PATIENCE seconds, whatever else `begin` raises, and what `checkpoint` raises.
    """
    waited = None
    while True:
        try:
            return begin()
        except (OSError, RuntimeError, MemoryError) as error:
            if (what := lack(error)) is None:
                raise
            waited = waited or Stopwatch()
            if waited.seconds() > PATIENCE:
                raise exhausted(what) from error
        checkpoint()
        time.sleep(PAUSE)


def start(thread: threading.Thread, checkpoint: Callable[[], object] = lambda: None) -> threading.Thread:
    """The thread, started as soon as there may be one more; raises as `awaited` does."""
    awaited(thread.start, checkpoint)
    return thread


def pool_of(threads: int, checkpoint: Callable[[], object] = lambda: None) -> ThreadPoolExecutor:
    """A pool whose threads run already, so that no task finds that there may be none; raises as `awaited` does."""
    pool, all_run = ThreadPoolExecutor(threads), threading.Event()
    try:
        for _ in range(threads):
            awaited(lambda: pool.submit(all_run.wait), checkpoint)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        all_run.set()
    return pool
