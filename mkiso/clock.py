"""Time as a program that waits counts it, and one job's way to be stopped from outside while it does."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from mkiso.errors import Cancelled

BEAT = 0.1
LONGEST_GAP = 0.25  # between two beats of a process that runs
# The reasons that more than one place gives.
LEFT = "The client went away before it had everything. Ask again."
STOPPED = "The job was cancelled on request."
Checkpoint = Callable[[], None]  # raises where a job must not go on


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
                threading.Thread(target=self._run, name="clock", daemon=True).start()
            except RuntimeError:
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
