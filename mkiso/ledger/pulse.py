"""A thread that writes the rows of its process's running jobs, and hears of their cancels.

Jobs tell it what is new and go on: a ledger that is away, or hangs, holds none of them. A row is
always written whole, so that the newest write is right whatever was lost before it, and whoever
took the job for dead meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import DBAPIError

from mkiso.cancellation import STOPPED, Cancellation
from mkiso.errors import MkisoError
from mkiso.exhaustion import start
from mkiso.ledger.database import LIMIT
from mkiso.ledger.ledger import BEAT, Ledger

TICK = 0.25
PAUSE = 1.0
RETRY = 30.0
CHUNK = 1000
log = logging.getLogger("mkiso.ledger")


@dataclass
class Row:
    """A running job's row as it is to be: what was changed, and how much of that is written."""

    job_id: str
    cancellation: Cancellation
    fields: dict[str, Any] = field(default_factory=lambda: {"state": "queued", "error": None, "finished_at": None})
    instances: list[Mapping[str, str | int]] = field(default_factory=list)
    changes: int = 0
    written: int = 0

    @property
    def is_written(self) -> bool:
        return self.written == self.changes


class Pulse:
    """The thread starts with the first job (and so after a worker's fork), or with `keep_beating`."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._rows: dict[str, Row] = {}
        self._news = threading.Condition()
        self._is_urgent = self._is_away = self._keeps_beating = False
        self._beat_due = 0.0
        self._thread: threading.Thread | None = None

    def keep_beating(self) -> None:
        """Finish what the dead leave in the ledger, also while no job runs here."""
        with self._news:
            self._start()
            self._keeps_beating = True
            self._news.notify_all()

    def watch(self, row: Row) -> None:
        """Write the row, and cancel its job on request, until it is finished."""
        with self._news:
            self._start()
            self._rows[row.job_id] = row
            self._news.notify_all()

    def beat_now(self) -> None:
        """Somebody died."""
        with self._news:
            self._beat_due, self._is_urgent = 0.0, True
            self._news.notify_all()

    def note(self, row: Row, instances: Iterable[Mapping[str, str | int]] = (), **fields: Any) -> None:
        """Have this written within TICK seconds."""
        with self._news:
            row.fields.update(fields)
            row.instances.extend(instances)
            row.changes += 1

    def write(self, row: Row, **fields: Any) -> None:
        """Have this written now, and wait for the first try, unless the job is cancelled."""
        self.note(row, **fields)
        self._wait(row, LIMIT, lambda: self._is_away or row.cancellation.reason)

    def end(self, row: Row, **fields: Any) -> bool:
        """Have this written, and wait RETRY seconds for it, unless the job is cancelled; whether it is written."""
        self.note(row, **fields)
        self._wait(row, RETRY, lambda: self._is_away and row.cancellation.reason)
        return row.is_written

    def _wait(self, row: Row, seconds: float, is_enough: Callable[[], object]) -> None:
        deadline = time.monotonic() + seconds
        with self._news:
            self._is_urgent = True
            self._news.notify_all()
            while not (row.is_written or is_enough()) and time.monotonic() < deadline:
                self._news.wait(TICK)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = start(threading.Thread(target=self._run, name="pulse", daemon=True))

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._rows or self._keeps_beating)
                self._is_urgent = False
            away = self._fails_to_look()
            with self._news:
                self._is_away = away
                self._beat_due = 0.0 if away else self._beat_due
                self._news.notify_all()
                self._news.wait_for(lambda: self._is_urgent and not self._is_away, PAUSE if away else TICK)

    def _fails_to_look(self) -> bool:
        try:
            self._look()
        except MkisoError:
            return True  # the database has told it
        except Exception:  # the boundary: the pulse goes on
            log.exception("the pulse failed")
            return True
        return False

    def _look(self) -> None:
        with self._news:
            rows, beat = dict(self._rows), time.monotonic() >= self._beat_due
            if beat:
                self._beat_due = time.monotonic() + BEAT
        for row in rows.values():
            if beat or not row.is_written:
                self._write(row)
        if rows:
            for job_id in self.ledger.cancel_requested(rows):
                rows[job_id].cancellation.cancel(STOPPED)
        if beat:
            self.ledger.abandon()

    def _write(self, row: Row) -> None:
        with self._news:
            changes, fields = row.changes, dict(row.fields)
        try:
            while chunk := row.instances[:CHUNK]:
                self.ledger.hand_out(row.job_id, chunk)
                with self._news:
                    del row.instances[: len(chunk)]
            self.ledger.update(row.job_id, **fields)
        except DBAPIError as error:  # the database answers, and will never take this
            fields = {"job": row.job_id, "error": type(error.orig).__name__}
            log.error("the ledger refuses what a job tells", extra={"fields": fields})
            with self._news:
                if refused := row.instances[:CHUNK]:
                    del row.instances[: len(refused)]
                    return
        with self._news:
            row.written = changes
            if row.fields["finished_at"] and row.is_written:
                del self._rows[row.job_id]
            self._news.notify_all()
