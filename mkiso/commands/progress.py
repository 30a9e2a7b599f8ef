"""A job's progress on a terminal, from its row in the ledger."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mkiso.errors import DiskFull, JobNotFound, LedgerUnavailable
from mkiso.ledger.ledger import Ledger

TICK = 0.2
WIDTH = 30


class Progress:
    """One line on standard error that is drawn again; nothing where that is no terminal."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._written = 0
        self._drawn = 0.0

    def wrote(self, count: int, size: int) -> None:
        """Note that `count` further of `size` bytes were written."""
        self._written += count
        if time.monotonic() - self._drawn >= TICK or self._written == size:
            self.draw("writing", self._written, size, "bytes")

    def job(self, job: dict[str, Any]) -> None:
        if not self._written:
            done = job["files_sent"] if job["state"] == "sending" else job["received"]
            self.draw(job["state"], done, job["expected"] or 0, "instances")

    def draw(self, what: str, done: int, total: int, unit: str) -> None:
        if not self._shown:
            return
        self._drawn = time.monotonic()
        filled = WIDTH * done // total if total else 0
        bar = "#" * filled + "." * (WIDTH - filled)
        sys.stderr.write(f"\r\033[K{what:<10} [{bar}] {done}/{total or '?'} {unit}")
        sys.stderr.flush()

    def end(self) -> None:
        if self._shown:
            sys.stderr.write("\n")


@contextmanager
def shown_progress(ledger: Ledger, job_id: str) -> Iterator[Progress]:
    """Show how a job of this process goes on, until the block ends."""
    progress = Progress(sys.stderr.isatty())
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(TICK):
            with suppress(JobNotFound, LedgerUnavailable, DiskFull):
                progress.job(ledger.job(job_id))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield progress
    finally:
        ended.set()
        watcher.join()
        progress.end()
