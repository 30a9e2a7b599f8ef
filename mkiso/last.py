"""What a look found last: a thread looks, one at a time, whoever asks and however often."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from mkiso.exhaustion import lack

T = TypeVar("T")
log = logging.getLogger("mkiso.status")


class Last(Generic[T]):
    """Asking begins a look where the last one is more than `renewed` seconds old and none is under way.

    What was found is as old as its look's beginning; it is told until it is `oldest` seconds old.
    """

    def __init__(self, look: Callable[[], T], renewed: float, oldest: float) -> None:
        self._look, self.renewed, self.oldest = look, renewed, oldest
        self._found: tuple[T, float] | None = None
        self._beginning = threading.Lock()
        self._thread: threading.Thread | None = None

    def known(self, oldest: float | None = None) -> T | None:
        """What is known now, without waiting; None where nothing is, or nothing so young."""
        found = self._found
        if found is None or _age(found) > self.renewed:
            self._begin()
        return self._young(self.oldest if oldest is None else oldest)

    def awaited(self, seconds: float) -> T | None:
        """As `known`; where nothing is known, it waits so many seconds at most for the look under way."""
        known, thread = self.known(), self._thread
        if known is not None or thread is None:
            return known
        thread.join(seconds)
        return self._young(self.oldest)

    def _begin(self) -> None:
        with self._beginning:
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._renew, name="look", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # whoever asks next begins it
                    if not lack(error):
                        raise
                else:
                    self._thread = thread

    def _renew(self) -> None:
        began = time.monotonic()
        try:
            self._found = self._look(), began
        except Exception as error:  # the boundary: what is not known is told as such
            log.warning("the state of the service is not known", extra={"fields": {"error": type(error).__name__}})

    def _young(self, oldest: float) -> T | None:
        found = self._found
        return found[0] if found is not None and _age(found) <= oldest else None


def _age(found: tuple[object, float]) -> float:
    return time.monotonic() - found[1]
