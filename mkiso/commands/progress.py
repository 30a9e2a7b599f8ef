"""A job's progress on a terminal: what its row in the ledger tells, and then the bytes as they are written."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from mkiso.errors import DiskFull, JobNotFound, LedgerUnavailable
from mkiso.ledger.ledger import Ledger

TICK = 0.2
INSTANCES = {"unit": " instances"}
BYTES = {"unit": "B", "unit_scale": True}
UNCOUNTED = {"bar_format": "{desc} [{elapsed}]"}
tqdm.monitor_interval = 0  # no thread that outlives a bar


class Progress:
    """One line on standard error that is drawn again, and gone at the end; nothing where that is no terminal."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bar: tqdm[Any] | None = None
        self._doing = ""

    def wrote(self, count: int, size: int) -> None:
        """Note that `count` further of `size` bytes were written."""
        with self._lock:
            self._shown("writing", size, BYTES).update(count)

    def job(self, job: dict[str, Any]) -> None:
        """Show what its row tells, until the first byte is written."""
        state, total = job["state"], job["expected"]
        with self._lock:
            if self._doing == "writing":
                return
            bar = self._shown(state, total, INSTANCES if total else UNCOUNTED)
            bar.total = total
            bar.update((job["files_sent"] if state == "sending" else job["received"]) - bar.n)
            bar.refresh()

    def end(self) -> None:
        with self._lock:
            if self._bar is not None:
                self._bar.close()

    def _shown(self, doing: str, total: int | None, style: dict[str, Any]) -> tqdm[Any]:
        """The bar of what is being done; a new one where that is something new, or can be counted by now."""
        if self._bar is None or doing != self._doing or (total and not self._bar.total):
            if self._bar is not None:
                self._bar.close()
            self._bar = tqdm(total=total, desc=doing, leave=False, disable=None, dynamic_ncols=True, **style)
            self._doing = doing
        return self._bar


@contextmanager
def shown_progress(ledger: Ledger, job_id: str) -> Iterator[Progress]:
    """Show how a job of this process goes on, until the block ends."""
    progress = Progress()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(TICK):
            with suppress(JobNotFound, LedgerUnavailable, DiskFull):
                progress.job(ledger.job(job_id))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        with logging_redirect_tqdm() if sys.stderr.isatty() else nullcontext():
            yield progress
    finally:
        ended.set()
        watcher.join()
        progress.end()
