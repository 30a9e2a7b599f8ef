"""One job's row in the ledger while it runs: its phases and their seconds, its progress, and how it ended."""

from __future__ import annotations

import errno
import logging
import time
from types import TracebackType
from typing import Any, Self

from mkiso.cancellation import LEFT
from mkiso.errors import Cancelled, DiskFull, Internal, MkisoError
from mkiso.ledger.ledger import Ledger
from mkiso.log import log_once

PROGRESS_INTERVAL = 0.5
log = logging.getLogger("mkiso.job")


class JobRecord:
    """A context manager: whatever ends the block ends the row, as done only after `complete`."""

    def __init__(self, ledger: Ledger, job_id: str) -> None:
        self.job_id = job_id
        self._ledger = ledger
        self._seconds: dict[str, float] = {}
        self._phase = "queued"
        self._phase_began = self._began = time.monotonic()
        self._progress_written = 0.0
        self._received = 0
        self._complete = False

    def enter(self, state: str, **fields: Any) -> None:
        """Go on to the next state; `fields` are columns of the row."""
        self._close_phase()
        self._phase = state
        self._ledger.update(self.job_id, state=state, seconds=self._seconds, **fields)

    def note(self, **fields: Any) -> None:
        """Write columns of the row."""
        self._ledger.update(self.job_id, **fields)

    def progress(self, received: int) -> None:
        """Note how many expected instances are there: never fewer than before, at most twice a second."""
        self._received = max(self._received, received)
        if time.monotonic() - self._progress_written >= PROGRESS_INTERVAL:
            self._progress_written = time.monotonic()
            self._ledger.update(self.job_id, received=self._received)

    def complete(self) -> None:
        """All that was asked for has been done."""
        self._complete = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._close_phase()
        ended = None if self._complete else as_mkiso_error(error or GeneratorExit(), self.job_id)
        state = "done" if ended is None else "cancelled" if isinstance(ended, Cancelled) else "failed"
        told = {"code": ended.code, "detail": ended.detail} if ended else None
        try:
            self._ledger.finish(self.job_id, state, told, received=self._received, seconds=self._seconds)
        except Internal:
            if error is None:
                raise
            log.exception("the ledger did not take a job's end")
        _log_end(self.job_id, state, ended, error, time.monotonic() - self._began, self._received)

    def _close_phase(self) -> None:
        moment = time.monotonic()
        self._seconds[self._phase] = round(self._seconds.get(self._phase, 0) + moment - self._phase_began, 3)
        self._phase_began = moment


def as_mkiso_error(error: BaseException, job_id: str) -> MkisoError:
    """The error that a caller is told, whatever was raised; an internal one names the job."""
    if isinstance(error, Internal) and job_id not in error.detail:
        error.detail += f" This was job {job_id}."
    if isinstance(error, MkisoError):
        return error
    if isinstance(error, GeneratorExit):
        return Cancelled(LEFT)
    if isinstance(error, KeyboardInterrupt):
        return Cancelled("The command was interrupted.")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("The disk of storage.work_dir or storage.ledger is full. Make room.")
    return Internal(f"Job {job_id} failed for a reason that the service's log tells. Ask the administrator.")


def _log_end(
    job_id: str,
    state: str,
    ended: MkisoError | None,
    raised: BaseException | None,
    seconds: float,
    received: int,
) -> None:
    code, seconds = ended and ended.code, round(seconds, 3)
    fields = {"job": job_id, "state": state, "code": code, "count": received, "seconds": seconds}
    if raised is not None and isinstance(ended, Internal):
        log_once(log, "job ended", raised, **fields)
    else:
        log.info("job ended", extra={"fields": fields})
