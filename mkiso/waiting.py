"""How a job waits: time as a waiting program counts it, how it is stopped from outside meanwhile, and for what.

Processes, threads, open files and memory the system may have none of just now, and will have again.
"""

from __future__ import annotations

import atexit
import errno
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from mkiso.errors import Busy, Cancelled

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
BEAT = 0.1
LONGEST_GAP = 0.25  # between two beats of a process that runs
# The reasons that more than one place gives.
LEFT = "The client went away before it had everything. Ask again."
STOPPED = "The job was cancelled on request."
Checkpoint = Callable[[], None]  # raises where a job must not go on


def stopped_by(who: str | None) -> str:
    """The reason of a cancel on request; None where an older version of the program took it, which remembers nobody."""
    return STOPPED if who is None else f"Cancelled by {who}."


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


class _Births:
    """Threads begin one after another, and none once Python ends.

    A daemon may start one at any time, and Python 3.11 takes away what a thread begins with, whether it has or not:
    the process of a job that was done would end with SIGSEGV. Whoever has started one knows that it has begun.
    """

    def __init__(self) -> None:
        self._begin()
        os.register_at_fork(after_in_child=self._begin)
        atexit.register(self.end)

    def _begin(self) -> None:
        self._lock, self._is_over = threading.Lock(), False

    def start(self, thread: threading.Thread) -> None:
        with self._lock:
            if self._is_over:
                raise Busy("This process ends.")
            thread.start()

    def end(self) -> None:
        """Wait for the one that begins, and let no other begin."""
        with self._lock:
            self._is_over = True


_births = _Births()


def start(thread: threading.Thread, checkpoint: Callable[[], object] = lambda: None) -> threading.Thread:
    """The thread, started as soon as there may be one more; raises as `awaited` does, and Busy while Python ends."""
    awaited(lambda: _births.start(thread), checkpoint)
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


class _RunningTime:
    """Seconds for which this process could run: a thread beats, and what lies between beats that are far apart counts
    as LONGEST_GAP, for then nothing ran here.

    Without that thread, of which there may be none left, whoever asks beats.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """No thread survives a fork, and nobody lets go of a lock there."""
        self._lock, self._beating, self._beat = threading.Lock(), False, time.monotonic()

    def seconds(self) -> float:
        with self._lock:
            moment = time.monotonic()
            self._seconds += min(max(0.0, moment - self._beat), LONGEST_GAP)
            self._beat = moment
            return self._seconds

    def keep_beating(self) -> None:
        with self._lock:
            is_first, self._beating = not self._beating, True
        if is_first:
            try:
                _births.start(threading.Thread(target=self._run, name="clock", daemon=True))
            except (RuntimeError, Busy):
                self._beating = False

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(BEAT):
            self.seconds()


_running = _RunningTime()


class Stopwatch:
    """Seconds for which this process could run since then: suspended, it has not waited, and calls nobody slow.

    However long a single look of whoever waits takes, it counts.
    """

    def __init__(self) -> None:
        _running.keep_beating()
        self._began = _running.seconds()

    def seconds(self) -> float:
        return _running.seconds() - self._began


class Cancellation:
    """How an operator, a client that left or a stopping service stops a job, which asks `checkpoint` where it waits.

    It is set once, from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: str | None = None
        self._callbacks: list[Callable[[], None]] = []

    def cancel(self, reason: str) -> None:
        """Stop the job; the first reason stands."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Have something done at the moment of the cancel, for a thread that waits where it cannot ask."""
        with self._lock:
            self._callbacks.append(callback)
            if self._reason is None:
                return
        callback()

    @property
    def reason(self) -> str | None:
        return self._reason

    def checkpoint(self) -> None:
        """Raise Cancelled where the job is to stop."""
        if self._reason is not None:
            raise Cancelled(self._reason)
