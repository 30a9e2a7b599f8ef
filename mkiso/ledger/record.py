"""One job's row in the ledger while it runs: its phases and their seconds, its progress, and how it ended."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from mkiso.cancellation import LEFT, Cancellation
from mkiso.errors import Cancelled, ConfigurationError, DiskFull, Internal, MkisoError
from mkiso.exhaustion import exhausted, lack
from mkiso.ledger.ledger import now
from mkiso.ledger.pulse import Pulse, Row
from mkiso.log import log_once

log = logging.getLogger("mkiso.job")


class JobRecord:
    """A context manager: whatever ends the block ends the row, if it was opened, as done only after `complete`.

    But for its opening, nothing of it fails or holds a job because the ledger is away (see `Pulse`).
    """

    def __init__(self, pulse: Pulse, job_id: str, cancellation: Cancellation) -> None:
        self.job_id = job_id
        self._pulse = pulse
        self._row = Row(job_id, cancellation)
        self._is_open = False
        self._asked: dict[str, Any] = {}
        self._seconds: dict[str, float] = {}
        self._phase = "queued"
        self._phase_began = self._began = time.monotonic()
        self._received = 0
        self._complete = False

    def open(self, kind: str, accessions: tuple[str, ...], **fields: Any) -> None:
        """Open the row; JobExists, LedgerUnavailable or DiskFull where that cannot be done."""
        self._pulse.ledger.open_job(self.job_id, kind, accessions, **fields)
        self._asked = {"kind": kind, "accession": accessions, "requester": fields.get("requester")}
        self._is_open = True
        self._pulse.watch(self._row)

    def enter(self, state: str, **fields: Any) -> None:
        """Go on to the next state; `fields` are columns of the row."""
        self._close_phase()
        self._phase = state
        self._pulse.write(self._row, state=state, seconds=dict(self._seconds), **fields)

    def note(self, **fields: Any) -> None:
        """Columns of the row, to be written soon."""
        self._pulse.note(self._row, **fields)

    def progress(self, received: int, size: int = 0) -> None:
        """Note how many expected instances are there, and their bytes: never fewer than before."""
        if received > self._received:
            self._received = received
            self.note(received=received, bytes=size)

    def hand_out(self, rows: Iterable[Mapping[str, str | int]]) -> None:
        """Note the instances that leave the house, and what became of each: `Instance.row`."""
        self._pulse.note(self._row, rows)

    def complete(self) -> None:
        """All that was asked for has been done."""
        self._complete = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if not self._is_open:
            return
        self._close_phase()
        ended = None if self._complete else as_mkiso_error(error or GeneratorExit(), self.job_id)
        state = "done" if ended is None else "cancelled" if isinstance(ended, Cancelled) else "failed"
        told = {"code": ended.code, "detail": ended.detail} if ended else None
        if not self._pulse.end(self._row, state=state, error=told, finished_at=now(), seconds=dict(self._seconds)):
            fields = {"job": self.job_id, "state": state}
            log.error("the ledger has not taken a job's end yet; it is tried again", extra={"fields": fields})
        self._log_end(state, ended, error)

    def _log_end(self, state: str, ended: MkisoError | None, raised: BaseException | None) -> None:
        """Who asked for what, and what it came to; nothing that the ledger knows of the patient."""
        fields = {
            "job": self.job_id,
            **self._asked,
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


class Unrecorded(JobRecord):
    """The record of what is no job: nothing of it comes into the ledger."""

    def open(self, *_told: Any, **_fields: Any) -> None:
        """Nothing is opened, and so nothing ended."""

    def enter(self, *_told: Any, **_fields: Any) -> None:
        """No row has this state."""

    def note(self, **_fields: Any) -> None:
        """No row has these columns."""


def as_mkiso_error(error: BaseException, job_id: str) -> MkisoError:
    """The error that a caller is told, whatever was raised; an internal one names the job."""
    if isinstance(error, Internal) and job_id not in error.detail:
        error.detail += f" This was job {job_id}."
    if isinstance(error, MkisoError) and not isinstance(error, ConfigurationError):
        return error
    if isinstance(error, GeneratorExit):
        return Cancelled(LEFT)
    if isinstance(error, KeyboardInterrupt):
        return Cancelled("The command was interrupted.")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("The disk of storage.work_dir or storage.ledger is full. Make room.")
    if what := lack(error):
        return exhausted(what)
    return Internal(f"Job {job_id} failed for a reason that the service's log tells. Ask the administrator.")
