"""One job's way to be stopped from outside: by an operator, a client that left, or a stopping service."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mkiso.errors import Cancelled

# The reasons that more than one place gives.
LEFT = "The client went away before it had everything. Ask again."
STOPPED = "The job was cancelled on request."


class Cancellation:
    """Set once, from any thread; the job asks `check` wherever it waits."""

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

    def check(self) -> None:
        """Raise Cancelled where the job is to stop."""
        if self._reason is not None:
            raise Cancelled(self._reason)
