"""A running job's row in the ledger: its phases and their seconds, its progress, how it ended; and who writes it.

Jobs tell a thread of the process what is new, and go on: a ledger that is away, or hangs, holds none of them. A row is
always written whole, so that the newest write is right whatever was lost before it, and whoever took the job for dead
meanwhile. By the same thread a job hears that somebody cancelled it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy.exc import DBAPIError

from mkiso.errors import Cancelled, ConfigurationError, DiskFull, Internal, MkisoError
from mkiso.ledger.ledger import BEAT, Ledger
from mkiso.ledger.schema import now
from mkiso.log import log_once
from mkiso.waiting import INTERRUPTION, LEFT, Cancellation, exhausted, lack, start, stopped_by
from mkiso.workspace import means_full_disk

TICK = 0.25
PAUSE = 1.0
RETRY = 30.0
# Where hosts share a ledger, an attempt that has not reached it for so long stops sending: after ledger.SILENT seconds
# others take it for dead, and begin it anew.
FENCE = 90.0
CHUNK = 1000
SILENCED = "The ledger was away for so long that another host may send this. It is sent again."
log = logging.getLogger("mkiso.ledger")


def boot_time() -> float:
    """Seconds, those of a suspended host, too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class Row:
    """A running job's row as it is to be: what was changed, and how much of that is written."""

    job_id: str
    cancellation: Cancellation
    fields: dict[str, Any] = field(default_factory=lambda: {"state": "queued", "error": None, "finished_at": None})
    instances: list[Mapping[str, str | int]] = field(default_factory=list)
    changes: int = 0
    written: int = 0
    # Of a relay's attempt on a shared ledger: what is touched when that has the row, and when it last had it.
    leash: Path | None = None
    answered: float = 0.0

    @property
    def is_written(self) -> bool:
        return self.written == self.changes


class Writer:
    """The ledger's writer thread. It starts with the first job (and so after a worker's fork), or with `start`."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._rows: dict[str, Row] = {}
        self._news = threading.Condition()
        self._is_urgent = self._is_away = self._runs_without_jobs = False
        self._beat_due = 0.0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Finish what the dead leave in the ledger, also while no job runs here. Raises Busy."""
        with self._news:
            self._start_thread()
            self._runs_without_jobs = True
            self._news.notify_all()

    def watch(self, row: Row) -> None:
        """Write the row, and cancel its job on request, until it is finished. Raises Busy."""
        with self._news:
            self._start_thread()
            self._rows[row.job_id] = row
            self._news.notify_all()

    def beat_now(self) -> None:
        """Look for jobs whose process died, and finish them, now."""
        with self._news:
            self._beat_due, self._is_urgent = 0.0, True
            self._news.notify_all()

    def note(self, row: Row, instances: Iterable[Mapping[str, str | int]] = (), **fields: Any) -> None:
        """Have this written within TICK seconds."""
        with self._news:
            row.fields.update(fields)
            row.instances.extend(instances)
            row.changes += 1

    def hurry(self) -> None:
        """Have what was noted written now, beside whatever the job does."""
        with self._news:
            self._is_urgent = True
            self._news.notify_all()

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

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = start(threading.Thread(target=self._run, name="ledger writer", daemon=True))

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._rows or self._runs_without_jobs)
                self._is_urgent = False
            away = self._fails_to_look()
            self._fence()
            with self._news:
                self._is_away = away
                self._beat_due = 0.0 if away else self._beat_due
                self._news.notify_all()
                self._news.wait_for(lambda: self._is_urgent and not self._is_away, PAUSE if away else TICK)

    def _fails_to_look(self) -> bool:
        try:
            self._look()
        except MkisoError:
            return True  # the database has logged it
        except Exception:  # the boundary: the thread goes on
            log.exception("the ledger's writer failed")
            return True
        return False

    def _fence(self) -> None:
        with self._news:
            rows = list(self._rows.values())
        for row in rows:
            if row.leash and boot_time() - row.answered > FENCE:
                row.cancellation.cancel(SILENCED)

    def _look(self) -> None:
        with self._news:
            rows, beat = dict(self._rows), time.monotonic() >= self._beat_due
            if beat:
                self._beat_due = time.monotonic() + BEAT
        for row in rows.values():
            if beat or not row.is_written:
                self._write(row)
        if rows:
            for job_id, who in self.ledger.cancel_requested(rows).items():
                rows[job_id].cancellation.cancel(stopped_by(who))
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
            if row.leash:
                row.answered = boot_time()
                with suppress(OSError):
                    row.leash.touch()
            if row.fields["finished_at"] and row.is_written:
                del self._rows[row.job_id]
            self._news.notify_all()


class JobRecord:
    """A context manager: whatever ends the block ends the row, if it was opened, as done only after `complete`.

    A block that is left before that, and without an error, was left by its client.
    But for its opening, nothing of it fails or holds a job because the ledger is away (see `Writer`).
    """

    def __init__(self, writer: Writer, job_id: str, cancellation: Cancellation) -> None:
        self.job_id = job_id
        self._writer = writer
        self._row = Row(job_id, cancellation)
        self._is_open = False
        self._opened: dict[str, Any] = {}
        self._seconds: dict[str, float] = {}
        self._phase = "queued"
        self._phase_began = self._began = time.monotonic()
        self._received = 0
        self._complete = False

    def open(self, kind: str, accessions: tuple[str, ...], **fields: Any) -> None:
        """Open the row; JobExists, LedgerUnavailable or DiskFull where that cannot be done."""
        self._writer.ledger.open_job(self.job_id, kind, accessions, **fields)
        self._go_on(kind, accessions, **fields)

    def _go_on(self, kind: str, accessions: tuple[str, ...], **fields: Any) -> None:
        self._opened = {"kind": kind, "accession": accessions, "requester": fields.get("requester")}
        self._is_open = True
        self._writer.watch(self._row)

    @property
    def leash(self) -> Path | None:
        """The file that is touched as long as the ledger has the row, where that is to hold the job's programs."""
        return self._row.leash

    def enter(self, state: str, **fields: Any) -> None:
        """Go on to the next state; `fields` are columns of the row. It is written while the job goes on."""
        self._close_phase()
        self._phase = state
        self._writer.note(self._row, state=state, seconds=dict(self._seconds), **fields)
        self._writer.hurry()

    def note(self, **fields: Any) -> None:
        """Columns of the row, to be written soon."""
        self._writer.note(self._row, **fields)

    def progress(self, received: int, size: int = 0) -> None:
        """Note how many expected instances are there, and their bytes: never fewer than before."""
        if received > self._received:
            self._received = received
            self.note(received=received, bytes=size)

    def hand_out(self, rows: Iterable[Mapping[str, str | int]], *, is_all: bool = False) -> None:
        """Note the instances that leave the house, and what became of each: `Instance.row`.

        Where that is all of them, it is written while the job cleans up.
        """
        self._writer.note(self._row, rows)
        if is_all:
            self._writer.hurry()

    def complete(self) -> None:
        """Say that the job has done all that it was to do."""
        self._complete = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if not self._is_open:
            return
        self._close_phase()
        ended = self._ended_by(error)
        state = "done" if ended is None else "cancelled" if isinstance(ended, Cancelled) else "failed"
        why = {"code": ended.code, "detail": ended.detail} if ended else None
        if not self._writer.end(self._row, state=state, error=why, finished_at=now(), seconds=dict(self._seconds)):
            fields = {"job": self.job_id, "state": state}
            log.error("the ledger has not taken a job's end yet; it is tried again", extra={"fields": fields})
        if isinstance(error, Internal) and ended not in (None, error):  # it names the job now
            self._log_end(state, ended, ended)
            raise ended from error
        self._log_end(state, ended, error)

    def _ended_by(self, error: BaseException | None) -> MkisoError | None:
        """What the row tells of the job's end; None where all was done."""
        if self._complete:
            return None
        if error is None:  # the block was left before all was done: nobody waited for the rest of a disc
            return Cancelled(LEFT)
        return as_mkiso_error(error, self.job_id)

    def _log_end(self, state: str, ended: MkisoError | None, raised: BaseException | None) -> None:
        """Who asked for what, and what it came to; nothing that the ledger knows of the patient."""
        fields = {
            "job": self.job_id,
            **self._opened,
            "state": state,
            "code": ended and ended.code,
            "received": self._received,
            "expected": self._row.fields.get("expected"),
            "bytes": self._row.fields.get("bytes"),
            "seconds": round(time.monotonic() - self._began, 3),
            "phases": dict(self._seconds),
        }
        if raised is not None and isinstance(ended, Internal):
            log_once(log, "job ended", raised, **fields)
        else:
            log.info("job ended", extra={"fields": fields})

    def _close_phase(self) -> None:
        moment = time.monotonic()
        self._seconds[self._phase] = round(self._seconds.get(self._phase, 0) + moment - self._phase_began, 3)
        self._phase_began = moment


class AttemptRecord(JobRecord):
    """The record of a queued relay's attempt, whose row was opened when it was claimed.

    Where hosts share the ledger, the file `leash` is touched each time it has the row: an attempt of which it had
    nothing for FENCE seconds is cancelled, and its sender is killed by its leash.
    """

    def __init__(self, writer: Writer, job_id: str, cancellation: Cancellation, leash: Path | None) -> None:
        super().__init__(writer, job_id, cancellation)
        if leash is not None:
            self._row.leash, self._row.answered = leash, boot_time()

    def open(self, kind: str, accessions: tuple[str, ...], **fields: Any) -> None:
        """Go on with the row that is there."""
        self._go_on(kind, accessions, **fields)


class Unrecorded(JobRecord):
    """The record of what is no job: nothing of it comes into the ledger."""

    def open(self, *_words: Any, **_fields: Any) -> None:
        """Nothing is opened, and so nothing ended."""

    def enter(self, *_words: Any, **_fields: Any) -> None:
        """No row has this state."""

    def note(self, **_fields: Any) -> None:
        """No row has these columns."""


def as_mkiso_error(error: BaseException, job_id: str) -> MkisoError:
    """The error that a caller gets, whatever was raised; an internal one names the job."""
    if isinstance(error, MkisoError) and not isinstance(error, ConfigurationError):
        is_nameless = isinstance(error, Internal) and job_id not in error.detail
        return error.with_detail(f"{error.detail} This was job {job_id}.") if is_nameless else error
    if isinstance(error, GeneratorExit):  # a disc that is closed before its end
        return Cancelled(LEFT)
    if isinstance(error, KeyboardInterrupt):
        return Cancelled(INTERRUPTION)
    if means_full_disk(error):
        return DiskFull("The disk of storage.work_dir or storage.ledger is full. Make room.")
    if what := lack(error):
        return exhausted(what)
    return Internal(f"Job {job_id} failed for a reason that the service's log tells. Ask the administrator.")
