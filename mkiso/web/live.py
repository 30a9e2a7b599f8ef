"""The jobs that this process runs, watched by one thread: for a client that left, a stopping service.

A job's own thread may wait where it cannot ask, in a send to a client that does not read. The
ledger's writer hears of cancels: the ledger may hang, and this watch must not.

The pages that follow jobs, asking again: answered from what was just read, without the rest of the application.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

from mkiso import heaps
from mkiso.clock import LEFT, Cancellation
from mkiso.config import Server
from mkiso.errors import Busy, JobExists, Stopping
from mkiso.exhaustion import start
from mkiso.ledger.history import Glance, Seen
from mkiso.web.connection import has_left
from mkiso.web.guards import is_for_us, is_text

TICK = 0.25
THREADS_KEPT_FREE = 4  # of each worker, for what is no job
STOPPING = "The service is being stopped. Ask again when it is back."
log = logging.getLogger("mkiso.web")
Application = Any  # a WSGI application
PREFIX = "/jobs/"
COMMON = [
    ("Content-Type", "application/json"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Vary", "Accept"),
]


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


class Polls:
    """Before an application: a hundred open pages ask as often a second, for what few jobs have to tell.

    What is not known already, and whatever is no poll of a page of ours, is the application's.
    """

    def __init__(self, application: Application, glance: Glance, server: Server) -> None:
        self._application, self._glance, self._server = application, glance, server

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        query = unquote_to_bytes(environ["QUERY_STRING"])
        is_ours = is_poll(environ) and is_for_us(environ, self._server) and is_text(query)
        seen = self._glance.recent(environ["PATH_INFO"].removeprefix(PREFIX)) if is_ours else None
        if seen is None:
            return self._application(environ, start_response)  # type: ignore[no-any-return]
        body = json.dumps(seen.job, ensure_ascii=False, separators=(",", ":")).encode()
        start_response("200 OK", [*COMMON, *told_beside(seen).items(), ("Content-Length", str(len(body)))])
        return [body]


def told_beside(seen: Seen) -> dict[str, str]:
    """What the page wants to know that is not the JOB's."""
    return {"X-Job-Id": seen.job["id"], "X-Queue-Place": str(seen.place or "")}


def is_poll(environ: Mapping[str, Any]) -> bool:
    """Whether a page of ours asks how a job is."""
    return (
        environ["REQUEST_METHOD"] == "GET"
        and environ["PATH_INFO"].startswith(PREFIX)
        and environ.get("HTTP_ACCEPT") == "application/json"
        and environ.get("HTTP_SEC_FETCH_SITE", "same-origin") == "same-origin"
    )
