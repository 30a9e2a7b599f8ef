"""Time as a program that waits counts it."""

from __future__ import annotations

import time

LONGEST_LOOK = 0.25


class Stopwatch:
    """Seconds for which this process could look: a long gap between two looks counts as a short one.

    A process that was suspended has not waited, and calls nobody slow. Look every LONGEST_LOOK seconds.
    """

    def __init__(self) -> None:
        self._looked = time.monotonic()
        self._seconds = 0.0

    def seconds(self) -> float:
        moment = time.monotonic()
        self._seconds += min(moment - self._looked, LONGEST_LOOK)
        self._looked = moment
        return self._seconds
