"""A job's progress on a terminal: what its row in the ledger tells, and then the bytes as they are written."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from mkiso.errors import DiskFull, JobNotFound, LedgerUnavailable
from mkiso.exhaustion import start
from mkiso.ledger.ledger import Ledger

TICK = 0.2
INSTANCES = {"unit": " instances"}
BYTES = {"unit": "B", "unit_scale": True}
UNCOUNTED = {"bar_format": "{desc} [{elapsed}]"}
# Where the terminal is too narrow for a bar as well: how far, how long still, how fast.
NARROW, IN_SHORT = 70, {"bar_format": "{desc} {percentage:.0f}% {remaining} {rate_fmt}"}
COUNTS = {"retrieving": "received", "sending": "files_sent"}
# No thread that outlives a bar, and no lock that other processes would share.
tqdm.monitor_interval = 0
tqdm.set_lock(threading.RLock())


class Progress:
    """One line on standard error that is drawn again, and gone at the end; nothing where that is no terminal."""

    def __init__(self) -> None:
        self.is_shown = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._bar: tqdm[Any] = tqdm(disable=True)
        self._doing = ""

    def wrote(self, count: int, size: int) -> None:
        """Note that `count` further of `size` bytes were written."""
        if not self.is_shown:
            return
        with self._lock:
            if self._doing != "writing":
                self._begin("writing", "writing", total=size, **BYTES, **_shape())
            self._bar.update(count)

    def job(self, job: dict[str, Any]) -> None:
        """Show what its row tells, until the first byte is written."""
        total = job["expected"] if job["state"] in COUNTS else None
        count = job[COUNTS[job["state"]]] if total else 0
        doing = f"{job['state']} {total}"
        with self._lock:
            if self._doing == "writing":
                return
            if self._doing != doing:
                style = INSTANCES | _shape() if total else UNCOUNTED
                self._begin(doing, job["state"], total=total, initial=count, **style)
            self._bar.update(count - self._bar.n)
            self._bar.refresh()

    def end(self) -> None:
        with self._lock:
            self._bar.close()

    def _begin(self, doing: str, told: str, **style: Any) -> None:
        self._bar.close()
        self._doing = doing
        self._bar = tqdm(desc=told, leave=False, dynamic_ncols=True, **style)


def _shape() -> dict[str, str]:
    return IN_SHORT if 0 < os.get_terminal_size(sys.stderr.fileno()).columns < NARROW else {}


@contextmanager
def shown_progress(ledger: Ledger, job_id: str) -> Iterator[Progress]:
    """Show how a job of this process goes on, until the block ends."""
    progress = Progress()
    if not progress.is_shown:
        yield progress
        return
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(TICK):
            with suppress(JobNotFound, LedgerUnavailable, DiskFull):
                progress.job(ledger.job(job_id))

    watcher = start(threading.Thread(target=watch, daemon=True))
    try:
        with logging_redirect_tqdm():
            yield progress
    finally:
        ended.set()
        watcher.join()
        progress.end()
