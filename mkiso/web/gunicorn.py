"""All that touches gunicorn's insides: they may move with any version, and setup.cfg bounds it for that.

A worker with threads, whose clients cannot hold it, and whose own errors read as the service's; its heartbeat comes
from its main thread, so that gunicorn's timeout does not cut a long job. A master that nothing ends but a signal.
gunicorn's words as events, and a line for each request. What each of them overrides, it says why; what it uses beside
that are the attributes of gunicorn's worker (`alive`, `booted`, `cfg`, `nr_conns`, `pid`, `ppid`, `wsgi`), connection
(`data_ready`, `initialized`, `sock`) and master (`LISTENERS`, `app`, `pid`, `systemd`), its `_DEFER`, and its errors.
tests/unit/test_gunicorn.py fails where a version has other ones.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from http import HTTPStatus
from typing import Any, cast

from flask import Flask, Response
from gunicorn import glogging
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.http import errors
from gunicorn.workers import base, gthread, workertmp

from mkiso.config import Config
from mkiso.errors import BadRequest, Busy, MkisoError
from mkiso.ledger.record import as_mkiso_error
from mkiso.log import log_once
from mkiso.waiting import lack, pool_of
from mkiso.web import create_app
from mkiso.web.answers import error_answer
from mkiso.web.following import is_poll
from mkiso.web.guards import requester_in
from mkiso.web.live import TAKEN, THREADS_KEPT_FREE, Client, has_sent

log = logging.getLogger("mkiso.web")
READ_LIMIT = 10.0
HESITATION = 0.02
START_PAUSE = 1.0
LAST_WAIT = 1.0
STOPPING = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
TOO_LARGE = {
    errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    errors.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
}


class Logger(glogging.Logger):
    def setup(self, cfg: Any) -> None:
        """gunicorn's warnings and errors go where all events go; the rest of what it says the service says itself."""
        self.cfg = cfg
        self.error_log.setLevel(logging.WARNING)
        self.error_log.propagate = True

    def access(self, resp: Any, req: Any, environ: Mapping[str, Any], request_time: timedelta) -> None:
        """A request when its answer's last byte was handed to the system, or its client had left.

        The path is as it was sent, percent-encoded; the query is left out.
        """
        if is_poll(environ) and resp.status_code == HTTPStatus.OK:  # once a second for each page
            return
        fields = {
            "method": req.method,
            "path": req.path,
            "status": resp.status_code,
            "seconds": round(request_time.total_seconds(), 3),
            "bytes": resp.sent + environ.get(TAKEN, 0),
            "job": dict(resp.headers).get("X-Job-Id"),
            "requester": requester_in(environ),
        }
        log.info("request", extra={"fields": fields})


class Heartbeat(workertmp.WorkerTmp):
    """By its time the master sees that the worker lives: in memory, whatever disk is full or cannot be written."""

    def __init__(self, _cfg: object) -> None:
        self._tmp = os.fdopen(os.memfd_create("mkiso-worker"), "w+b", 0)


base.WorkerTmp = Heartbeat  # type: ignore


class Worker(gthread.ThreadWorker):
    @property
    def application(self) -> Flask:
        return cast(Flask, self.wsgi)

    def is_stopping(self) -> bool:
        """Whether the worker was told to stop, or lost its master."""
        return not self.alive or os.getppid() != self.ppid

    def init_process(self) -> None:
        """Start, and run to the end. What ends it otherwise is an event; gunicorn would print it beside that.

        A worker that could not start is started again after a pause. One that was told to stop since it was forked
        hears it here, and ends when it has started.
        """
        for number in STOPPING:
            signal.signal(number, self._stop_at_once)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        try:
            super().init_process()
        except Exception as error:  # the boundary
            if isinstance(error, Busy):
                log.warning("the worker cannot start now", extra={"fields": {"detail": error.detail}})
            else:
                log.exception("the worker failed")
            if not self.booted:
                time.sleep(START_PAUSE)
            sys.exit(1)

    def _stop_at_once(self, _signal: int, _frame: object) -> None:
        self.alive = False

    def get_thread_pool(self) -> ThreadPoolExecutor:
        """All threads from the start: gunicorn would lose a connection, and the worker, for which none is to be had."""
        return pool_of(self.cfg.threads)

    def accept(self, listener: Any) -> None:
        """Take a connection; who has as many as there may be jobs lets a worker with more room be first.

        One for which there is no file descriptor or memory waits: gunicorn would end the worker, and its jobs.
        """
        if self.nr_conns >= self.cfg.threads - THREADS_KEPT_FREE:
            time.sleep(HESITATION)
        try:
            super().accept(listener)
        except OSError as error:
            if not lack(error):
                raise
            time.sleep(HESITATION)

    def set_accept_enabled(self, enabled: bool | None) -> None:
        """Accept connections or not; a worker that stops goes on while jobs of it run, to tell that the service stops.

        gunicorn's own would leave them waiting at a socket that still listens, and break them in the end.
        """
        super().set_accept_enabled(enabled or not self.alive)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Cancel the jobs and end. gunicorn's own would first wait for a lock that the interrupted thread may hold."""
        base.Worker.handle_quit(self, sig, frame)

    def handle(self, conn: Any) -> Any:
        """A connection's turn in a thread: none before its first byte, and all the waiting for its end in it.

        A stopping worker waits for the first byte here: gunicorn would drop the connection.

        gunicorn waits for the first byte in the thread, and for a client's goodbye in the one thread
        that accepts connections and keeps the worker alive.
        """
        if not isinstance(conn.sock, Client):
            conn.sock = Client(fileno=conn.sock.detach())
        if not (conn.initialized or conn.data_ready or has_sent(conn.sock, 0 if self.alive else LAST_WAIT)):
            return gthread._DEFER  # type: ignore[attr-defined]
        conn.sock.deadline = time.monotonic() + READ_LIMIT
        keep = super().handle(conn)
        if not keep:
            conn.sock.part()
        return keep

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """What went wrong before the application had the request, or behind its back, in the contract's JSON.

        gunicorn would log what it read, in which there may be a token.
        """
        if req is None or isinstance(exc, errors.ParseException):
            status = TOO_LARGE.get(type(exc), HTTPStatus.BAD_REQUEST)
            detail = "This is no request as HTTP has it, or it is too large. Send the parameters of the URL alone."
            answer: MkisoError = BadRequest(detail, error=status.phrase.lower())
            fields = {"status": int(status), "reason": type(exc).__name__, "address": addr[0] if addr else None}
            log.warning("request refused", extra={"fields": fields})
        else:
            answer = as_mkiso_error(exc, "(none)")
            status = HTTPStatus(answer.http_status)
            log_once(log, "request failed", exc, path=getattr(req, "path", None))
        with suppress(OSError):
            client.sendall(_raw_answer(status, json.dumps(answer.answer_fields(None))))


def _raw_answer(status: HTTPStatus, body: str) -> bytes:
    lines = (
        f"HTTP/1.1 {int(status)} {status.phrase}",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
    )
    return "\r\n".join((*lines, "", body)).encode("ascii")


class Master(Arbiter):
    """gunicorn's master, which nothing ends but a signal: what the system has none of, it will have again."""

    # No process ends with that: a worker that could not start is started again, and does not end the service.
    WORKER_BOOT_ERROR = APP_LOAD_ERROR = -1
    _lacks: str | None = None

    def spawn_worker(self) -> int:
        """Start a worker; where the system has no room for one, the master's loop tries again in a second.

        What tells it to stop waits until it can hear that: with the master's handlers, which it has until then, it
        would not, and the master would wait for it as long as for a job.
        """
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            pid = super().spawn_worker()
        except (OSError, MemoryError) as error:
            if os.getpid() != self.pid:  # in the worker
                os._exit(1)
            self._note_lack(lack(error) or str(error))
            return 0
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        self._note_lack(None)
        return pid

    def _note_lack(self, lacks: str | None) -> None:
        if lacks != self._lacks:
            event = "no worker can be started now; it is tried again" if lacks else "workers can be started again"
            log.log(logging.ERROR if lacks else logging.INFO, event, extra={"fields": {"lacks": lacks}})
        self._lacks = lacks

    def addresses(self) -> str:
        """Where the service listens."""
        return " ".join(map(str, self.LISTENERS))

    def handle_usr2(self) -> None:
        """Another master beside this one is not for mkiso: it would find the address taken."""

    def stop(self, graceful: bool = True) -> None:
        """Stop listening first, and then the workers."""
        if self.LISTENERS:  # it is called twice where it is to be quick
            log.info("stopping", extra={"fields": {"graceful": graceful}})
        cast(GunicornApplication, self.app).stop_listening()
        self.systemd = True  # gunicorn leaves the file of a socket alone that systemd made
        super().stop(graceful)


class GunicornApplication(BaseApplication):
    """gunicorn in the foreground; `stop_listening` is called before its workers are stopped.

    A setting that this version does not know ends the start: gunicorn tells it, and exits with 1.
    """

    def __init__(self, config: Config, settings: Mapping[str, Any], stop_listening: Callable[[], None]) -> None:
        self._config, self._settings = config, settings
        self.stop_listening = stop_listening
        super().__init__()

    def load_config(self) -> None:
        for name, value in {"worker_class": Worker, "logger_class": Logger, **self._settings}.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        app = create_app(self._config)
        app.register_error_handler(errors.ParseException, _refuse_body)
        return app

    def run(self) -> None:
        Master(self).run()


def _refuse_body(_error: Exception) -> Response:
    return error_answer(BadRequest("The request's body is not as HTTP has it."))
