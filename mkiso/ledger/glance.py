"""What the pages that follow jobs see: read from the ledger once for all of them."""

from __future__ import annotations

import threading
import time
from typing import Any, NamedTuple

from mkiso.errors import JobNotFound
from mkiso.ledger.history import History

AGE = 0.5
WATCHED = 5.0


class Seen(NamedTuple):
    """A JOB, and its place in the queue for a receiver, from 1, while it waits there."""

    job: dict[str, Any]
    place: int | None


class Glance:
    """JOBs as they were at most AGE seconds ago, of whatever was asked for in the last WATCHED seconds."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._seen: dict[str, Seen] = {}
        self._asked: dict[str, float] = {}
        self._asking = threading.Lock()
        self._read_at = 0.0
        self._reading = threading.Lock()

    def job(self, job_id: str) -> Seen:
        """Raises JobNotFound, LedgerUnavailable, DiskFull. Who has something to show does not wait for the ledger."""
        if recent := self.recent(job_id):
            return recent
        moment, seen = self._ask(job_id), self._seen.get(job_id)
        if self._reading.acquire(blocking=seen is None):
            try:
                self._read(moment, job_id)
                seen = self._seen.get(job_id)
            finally:
                self._reading.release()
        if seen is None:
            raise JobNotFound("The ledger has no job of that id.")
        return seen

    def recent(self, job_id: str) -> Seen | None:
        """The JOB where it was read less than AGE seconds ago; it will be read again with the others."""
        seen = self._seen.get(job_id)
        if seen is None:
            return None
        return seen if self._ask(job_id) - self._read_at < AGE else None

    def _ask(self, job_id: str) -> float:
        with self._asking:
            moment = self._asked[job_id] = time.monotonic()
        return moment

    def _read(self, moment: float, job_id: str) -> None:
        if self._read_at > moment and job_id in self._seen:
            return
        began = self._ask(job_id)  # who waited for a reading of others asks still
        with self._asking:
            self._asked = {one: asked for one, asked in self._asked.items() if began - asked < WATCHED}
            wanted = list(self._asked)
        found = self._history.jobs(wanted)
        self._seen, self._read_at = {one: Seen(*pair) for one, pair in found.items()}, began
