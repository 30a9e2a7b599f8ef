"""gunicorn around the application: threads, a drain with a limit, and a sweep at every start.

A worker's heartbeat comes from its main thread, so that gunicorn's timeout does not cut a long job.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, cast

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from mkiso import heaps
from mkiso.checks import files
from mkiso.config import Config
from mkiso.disc.viewer import covering
from mkiso.errors import Busy, ConfigurationError, DiskFull, LedgerUnavailable
from mkiso.exhaustion import lack, start
from mkiso.installation import Installation
from mkiso.log import log_the_uncaught, set_up
from mkiso.web import create_app
from mkiso.web.listening import Listener, unnamed
from mkiso.web.live import LiveJobs
from mkiso.web.logger import Logger
from mkiso.web.worker import Worker

GRACE = 10
LONGEST_REQUEST_LINE = 8190
log = logging.getLogger("mkiso.web")


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
        installation.ledger.refuse_newer()
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
    installation.pulse.keep_beating()
    try:
        _prepare(installation)
    except Busy:
        raise  # it would be without a thread that nobody starts again: another try, in a new worker
    except Exception:  # the boundary: whatever is away now, the worker answers what it can
        log.exception("not all that a worker does at its start could be done")
    log.info("worker started", extra={"fields": {"pid": worker.pid}})


def _prepare(installation: Installation) -> None:
    """What is left to do in a ledger that is away its pulse does when it can."""
    for check in files(installation.config):
        if not check.ok:
            log.warning("away at the start", extra={"fields": {"check": check.name, "found": check.found}})
    installation.status.known()  # so that the first page knows it
    start(threading.Thread(target=_look_back, args=(installation,), name="history", daemon=True))
    with suppress(LedgerUnavailable, DiskFull):
        if swept := installation.clear_away():
            log.warning("cleared away after jobs whose process died", extra={"fields": {"count": len(swept)}})


def _look_back(installation: Installation) -> None:
    """What has ended before this start takes seconds to count: the first reader of /metrics need not wait for that.

    Then what ended long ago is forgotten, now and every day.
    """
    with suppress(LedgerUnavailable, DiskFull):
        installation.ledger.counting.totals()
    if days := installation.config.storage.keep_history:
        installation.ledger.retention.keep(days)


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
