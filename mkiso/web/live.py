"""The jobs that this process runs, watched by one thread: for a client that left, a stopping service.

A job's own thread may wait where it cannot ask, in a send to a client that does not read. The
ledger's pulse hears of cancels: the ledger may hang, and this watch must not.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mkiso import heaps
from mkiso.cancellation import LEFT, Cancellation
from mkiso.errors import Busy, JobExists, Stopping
from mkiso.exhaustion import start
from mkiso.web.connection import has_left

TICK = 0.25
THREADS_KEPT_FREE = 4  # of each worker, for what is no job
STOPPING = "The service is being stopped. Ask again when it is back."
log = logging.getLogger("mkiso.web")


@dataclass(frozen=True)
class LiveJob:
    client: socket.socket | None
    cancellation: Cancellation = field(default_factory=Cancellation)


class LiveJobs:
    """The registry and its watcher, which starts with `keep_watch` or the first job (and so after a worker's fork)."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._jobs: dict[str, LiveJob] = {}
        self._changed = threading.Condition()
        self._watcher: threading.Thread | None = None
        self.is_stopping: Callable[[], bool] = lambda: False  # so that no job is begun
        self.must_stop: Callable[[], bool] = lambda: False  # so that none goes on

    def start(self, job_id: str, client: socket.socket | None) -> Cancellation:
        """Watch a job; `client` is the connection that waits for it, where its end is to end the job.

        Raises Stopping while the service stops, JobExists where a job of that id is watched already,
        Busy where `most` jobs are.
        """
        if self.is_stopping():
            raise Stopping(STOPPING)
        job = LiveJob(client)
        with self._changed:
            if job_id in self._jobs:
                raise JobExists(f"A job {job_id} is running. Choose another UUID, or none.")
            if len(self._jobs) >= self._most:
                raise Busy("As many jobs run and wait as the service takes. Ask again in a while.")
            self.keep_watch()
            self._jobs[job_id] = job
            self._changed.notify()
        return job.cancellation

    def keep_watch(self) -> None:
        """Have the watcher run; raises Busy where there may be no thread for it."""
        with self._changed:
            if self._watcher is None:
                self._watcher = start(threading.Thread(target=self._watch, name="watcher", daemon=True))

    def stop(self, job_id: str) -> None:
        with self._changed:
            self._jobs.pop(job_id, None)

    def cancel_all(self, reason: str = STOPPING) -> None:
        for job in self._snapshot().values():
            job.cancellation.cancel(reason)

    def _snapshot(self) -> dict[str, LiveJob]:
        with self._changed:
            return dict(self._jobs)

    def _watch(self) -> None:
        while True:
            if not self._jobs:
                heaps.trim()  # what many jobs needed at once is not kept
            with self._changed:
                self._changed.wait_for(lambda: self._jobs)
            try:
                self._look()
            except Exception:  # the boundary: the watch goes on
                log.exception("the watch over the jobs failed")
            time.sleep(TICK)

    def _look(self) -> None:
        if self.must_stop():
            self.cancel_all()
        for job in self._snapshot().values():
            if job.client is not None and has_left(job.client):
                job.cancellation.cancel(LEFT)
