"""gunicorn's worker with threads, whose clients cannot hold it, and whose own errors read as the service's."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from gunicorn import util
from gunicorn.http import errors as http
from gunicorn.workers import base, gthread, workertmp

from mkiso.errors import BadRequest, Busy, MkisoError
from mkiso.exhaustion import lack, pool_of
from mkiso.ledger.record import as_mkiso_error
from mkiso.log import log_once
from mkiso.web.connection import READ_LIMIT, Client, has_sent
from mkiso.web.live import THREADS_KEPT_FREE

HESITATION = 0.02
START_PAUSE = 1.0
LAST_WAIT = 1.0
TOO_LARGE = {
    http.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    http.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
}
log = logging.getLogger("mkiso.web")


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
            util.write_nonblock(client, _answer(status, json.dumps(told.told(None))))


def _answer(status: HTTPStatus, body: str) -> bytes:
    lines = (
        f"HTTP/1.1 {int(status)} {status.phrase}",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
    )
    return "\r\n".join((*lines, "", body)).encode("ascii")
