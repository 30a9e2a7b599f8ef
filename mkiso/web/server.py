"""gunicorn around the application: threads, a drain with a limit, and a sweep at every start.

A worker's heartbeat comes from its main thread, so that gunicorn's timeout does not cut a long job.

gunicorn's words as events, and a line for each request.

gunicorn's worker with threads, whose clients cannot hold it, and whose own errors read as the service's.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import Any, cast

from gunicorn import glogging, util
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.http import errors as http
from gunicorn.workers import base, gthread, workertmp

from mkiso import heaps
from mkiso.checks import files
from mkiso.config import Config
from mkiso.disc.layout import covering
from mkiso.errors import BadRequest, Busy, ConfigurationError, DiskFull, LedgerUnavailable, MkisoError
from mkiso.exhaustion import lack, pool_of, start
from mkiso.installation import Installation
from mkiso.ledger.record import as_mkiso_error
from mkiso.log import log_once, log_the_uncaught, set_up
from mkiso.web import create_app
from mkiso.web.connection import READ_LIMIT, Client, has_sent
from mkiso.web.guards import asker
from mkiso.web.listening import Listener, unnamed
from mkiso.web.live import THREADS_KEPT_FREE, LiveJobs, is_poll

log = logging.getLogger("mkiso.web")
HESITATION = 0.02
START_PAUSE = 1.0
LAST_WAIT = 1.0
TOO_LARGE = {
    http.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    http.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
}
GRACE = 10
LONGEST_REQUEST_LINE = 8190


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
            "bytes": resp.sent,
            "job": dict(resp.headers).get("X-Job-Id"),
            "requester": asker(environ),
        }
        log.info("request", extra={"fields": fields})


class Heartbeat(workertmp.WorkerTmp):
    """By its time the master sees that the worker lives: in memory, whatever disk is full or cannot be written."""

    def __init__(self, _cfg: object) -> None:
        self._tmp = os.fdopen(os.memfd_create("mkiso-worker"), "w+b", 0)


base.WorkerTmp = Heartbeat  # type: ignore


class Worker(gthread.ThreadWorker):
    def init_process(self) -> None:
        """Start, and run to the end. What ends it otherwise is an event; gunicorn would print it beside that.

        A worker that could not start is started again after a pause.
        """
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
        if req is None or isinstance(exc, http.ParseException):
            status = TOO_LARGE.get(type(exc), HTTPStatus.BAD_REQUEST)
            detail = "This is no request as HTTP has it, or it is too large. Send the parameters of the URL alone."
            told: MkisoError = BadRequest(detail, error=status.phrase.lower())
            fields = {"status": int(status), "reason": type(exc).__name__, "address": addr[0] if addr else None}
            log.warning("request refused", extra={"fields": fields})
        else:
            told = as_mkiso_error(exc, "(none)")
            status = HTTPStatus(told.http_status)
            log_once(log, "request failed", exc, path=getattr(req, "path", None))
        with suppress(OSError):
            util.write_nonblock(client, _answer(status, json.dumps(told.answer(None))))


def _answer(status: HTTPStatus, body: str) -> bytes:
    lines = (
        f"HTTP/1.1 {int(status)} {status.phrase}",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
    )
    return "\r\n".join((*lines, "", body)).encode("ascii")


class Server(BaseApplication):
    """gunicorn in the foreground with the configuration's settings; SIGTERM drains it.

    Jobs that run at a SIGTERM have `server.drain_timeout` seconds; then they are cancelled, and have GRACE
    seconds to end their children and to remove their directories. SIGINT and SIGQUIT cancel them at once.
    """

    def __init__(self, config: Config, listener: Listener) -> None:
        self._config = config
        self.listener = listener
        super().__init__()

    def load_config(self) -> None:
        server = self._config.server
        settings = {
            "bind": f"fd://{self.listener.fileno}",
            "workers": server.workers,
            "threads": server.threads,
            "worker_class": Worker,
            "logger_class": Logger,
            "graceful_timeout": math.ceil(server.drain_timeout) + GRACE,
            "limit_request_line": LONGEST_REQUEST_LINE,
            "forwarder_headers": "",  # by default SCRIPT_NAME and PATH_INFO of loopback change the path
            "control_socket_disable": True,
            "sendfile": False,  # it goes past the limits of Client, and is not counted
            "proc_name": "mkiso",
            "when_ready": _when_ready,
            "post_worker_init": _post_worker_init,
            "worker_int": _worker_int,
            "on_exit": _on_exit,
        }
        for name, value in settings.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Any:
        return create_app(self._config)

    def run(self) -> None:
        _Arbiter(self).run()


class _Arbiter(Arbiter):
    """gunicorn's master, which nothing ends but a signal: what the system has none of, it will have again."""

    # No process ends with that: a worker that could not start is started again, and does not end the service.
    WORKER_BOOT_ERROR = APP_LOAD_ERROR = -1
    _lacks: str | None = None

    def spawn_worker(self) -> int:
        """Start a worker; where the system has no room for one, the master's loop tries again in a second."""
        try:
            pid = super().spawn_worker()
        except (OSError, MemoryError) as error:
            if os.getpid() != self.pid:  # in the worker
                os._exit(1)
            self._note_lack(lack(error) or str(error))
            return 0
        self._note_lack(None)
        return pid

    def _note_lack(self, lacks: str | None) -> None:
        if lacks != self._lacks:
            event = "no worker can be started now; it is tried again" if lacks else "workers can be started again"
            log.log(logging.ERROR if lacks else logging.INFO, event, extra={"fields": {"lacks": lacks}})
        self._lacks = lacks

    def handle_usr2(self) -> None:
        """Another master beside this one is not for mkiso: it would find the address taken."""

    def stop(self, graceful: bool = True) -> None:
        """Stop listening first, and then the workers."""
        if self.LISTENERS:  # it is called twice where it is to be quick
            log.info("stopping", extra={"fields": {"graceful": graceful}})
        cast(Server, self.app).listener.remove()
        self.systemd = True  # gunicorn leaves the file of a socket alone that systemd made
        super().stop(graceful)


def serve(config: Config) -> None:
    """Run the service until it is told to stop. Raises ConfigurationError before it listens."""
    set_up()
    heaps.share()
    log_the_uncaught()
    installation = Installation(config)
    if why := covering(config.media, config.media.layout):
        raise ConfigurationError(why)
    with suppress(LedgerUnavailable, DiskFull):
        installation.ledger.refuse_other_versions()
    installation.ledger.close()  # the workers have connections of their own
    installation.sweep()
    if why := unnamed(config.server):
        log.warning("asked by nobody", extra={"fields": {"bind": config.server.bind, "found": why}})
    Server(config, Listener(config.server.bind)).run()


def _when_ready(arbiter: Any) -> None:
    log.info("ready", extra={"fields": {"bind": " ".join(str(one) for one in arbiter.LISTENERS)}})


def _on_exit(_arbiter: Any) -> None:
    log.info("stopped")


def _post_worker_init(worker: Any) -> None:
    """In a worker that has started: clear away after one that was killed, and learn when to stop."""
    installation, live = _extension(worker)
    live.is_stopping = partial(_is_stopping, worker)
    live.must_stop = _drain_limit(live.is_stopping, installation.config.server.drain_timeout)
    live.keep_watch()
    installation.writer.start()
    try:
        _prepare(installation)
    except Busy:
        raise  # it would be without a thread that nobody starts again: another try, in a new worker
    except Exception:  # the boundary: whatever is away now, the worker answers what it can
        log.exception("not all that a worker does at its start could be done")
    log.info("worker started", extra={"fields": {"pid": worker.pid}})


def _prepare(installation: Installation) -> None:
    """What is left to do in a ledger that is away its writer does when it can."""
    for check in files(installation.config):
        if not check.ok:
            log.warning("away at the start", extra={"fields": {"check": check.name, "found": check.found}})
    installation.status.known()  # so that the first page knows it
    if days := installation.config.storage.keep_history:
        start(threading.Thread(target=installation.ledger.retention.keep, args=(days,), name="history", daemon=True))
    with suppress(LedgerUnavailable, DiskFull):
        if swept := installation.clear_away():
            log.warning("cleared away after jobs whose process died", extra={"fields": {"count": len(swept)}})


def _is_stopping(worker: Any) -> bool:
    """Whether the worker was told to stop, or lost its master."""
    return not worker.alive or os.getppid() != worker.ppid


def _drain_limit(is_stopping: Callable[[], bool], seconds: float) -> Callable[[], bool]:
    """Whether that was so for more than so many seconds."""
    told: list[float] = []

    def passed() -> bool:
        if is_stopping():
            told.append(time.monotonic())
        return bool(told) and time.monotonic() - told[0] > seconds

    return passed


def _worker_int(worker: Any) -> None:
    _extension(worker)[1].cancel_all()


def _extension(worker: Any) -> tuple[Installation, LiveJobs]:
    installation, live = worker.wsgi.extensions["mkiso"]
    return installation, live
