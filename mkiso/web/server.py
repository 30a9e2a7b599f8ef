"""`mkiso serve`: the socket of `server.bind`, and what the master and its workers do at their start and at their end.

Jobs that run at a SIGTERM have `server.drain_timeout` seconds; then they are cancelled, and have GRACE seconds to end
their children and to remove their directories. SIGINT and SIGQUIT cancel them at once.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mkiso.addresses import advice, bind_error, host_name, is_loopback
from mkiso.checks import files
from mkiso.config import Config, Server
from mkiso.disc.layout import covering
from mkiso.errors import Busy, ConfigurationError, DiskFull, LedgerUnavailable
from mkiso.installation import Installation
from mkiso.log import log_the_uncaught, set_up
from mkiso.waiting import start
from mkiso.web.gunicorn import GunicornApplication, Master, Worker
from mkiso.web.live import LiveJobs
from mkiso.workspace import held

log = logging.getLogger("mkiso.web")
GRACE = 10
LONGEST_REQUEST_LINE = 8190
BACKLOG = 2048
PATIENCE = 3.0  # the workers of a service that was killed go on for a second
TICK = 0.1
Address = str | tuple[str, int]  # the path of a socket, or a host and a port


def serve(config: Config) -> None:
    """Run the service until it is told to stop. Raises ConfigurationError before it listens."""
    set_up()
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
    listener = Listener(config.server.bind)
    GunicornApplication(config, _settings(config.server, listener), listener.remove).run()


def _settings(server: Server, listener: Listener) -> dict[str, Any]:
    """gunicorn's settings, but for those that mkiso's own parts of it are."""
    return {
        "bind": f"fd://{listener.fileno}",
        "workers": server.workers,
        "threads": server.threads,
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


def _when_ready(master: Master) -> None:
    log.info("ready", extra={"fields": {"bind": master.addresses()}})


def _on_exit(_master: Master) -> None:
    log.info("stopped")


def _worker_int(worker: Worker) -> None:
    _parts(worker)[1].cancel_all()


def _parts(worker: Worker) -> tuple[Installation, LiveJobs]:
    installation, live, _ = worker.application.extensions["mkiso"]
    return installation, live


def _post_worker_init(worker: Worker) -> None:
    """In a worker that has started: clear away after one that was killed, and learn when to stop."""
    installation, live = _parts(worker)
    live.is_stopping = worker.is_stopping
    live.must_stop = _drain_limit(worker.is_stopping, installation.config.server.drain_timeout)
    live.keep_watch()
    installation.writer.start()
    try:
        _prepare(installation)
        worker.application.extensions["mkiso.pickup"].start()
    except Busy:
        raise  # it would be without a thread that nobody starts again: another try, in a new worker
    except Exception:  # the boundary: whatever is away now, the worker answers what it can
        log.exception("not all that a worker does at its start could be done")
    log.info("worker started", extra={"fields": {"pid": os.getpid()}})


def _prepare(installation: Installation) -> None:
    """What is left to do in a ledger that is away, the thread that writes it does when it can."""
    for check in files(installation.config):
        if not check.ok:
            log.warning("away at the start", extra={"fields": {"check": check.name, "found": check.found}})
    installation.status.known()  # so that the first page knows it
    if days := installation.config.storage.keep_history:
        start(threading.Thread(target=installation.ledger.retention.keep, args=(days,), name="history", daemon=True))
    with suppress(LedgerUnavailable, DiskFull):
        if swept := installation.clear_away():
            log.warning("cleared away after jobs whose process died", extra={"fields": {"count": len(swept)}})


def _drain_limit(is_stopping: Callable[[], bool], seconds: float) -> Callable[[], bool]:
    """Whether it has been stopping for more than so many seconds, as often as that is asked."""
    since: list[float] = []

    def has_passed() -> bool:
        if is_stopping() and not since:
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] > seconds

    return has_passed


class Listener:
    """A socket that listens, and the lock of its address, by which others know that it is a mkiso that does.

    Raises ConfigurationError where nothing can listen there, `already running` beside another mkiso.
    """

    def __init__(self, bind: str) -> None:
        self._address = _address(bind)
        deadline = time.monotonic() + PATIENCE
        while (opened := _opened(self._address)) is None:
            if time.monotonic() > deadline:
                raise _taken(bind, self._address)
            time.sleep(TICK)
        self.fileno = opened.detach()
        self._lock = socket.socket(socket.AF_UNIX)
        with suppress(OSError):  # the workers of a service that is being stopped may have it still
            self._lock.bind(_lock_name(self._address))
            self._lock.listen()
        self._file = os.stat(self._address) if isinstance(self._address, str) else None

    def remove(self) -> None:
        """Remove the socket's file, unless another one has its name by now."""
        if isinstance(self._address, str) and self._file is not None:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(self._address), self._file):
                    os.unlink(self._address)


def unnamed(server: Server) -> str | None:
    """What to do where another host can reach the service, and has no name to ask for; None where it has."""
    address = _address(server.bind)
    if server.hosts or isinstance(address, str) or is_loopback(host_name(address[0])):
        return None
    return "Browsers of other hosts are refused: server.hosts has no name for them"


def occupant(bind: str) -> str:
    """Who listens at an address, `nobody` or `a mkiso`; nothing is left there by the question.

    Raises ConfigurationError where a service could not listen.
    """
    address = _address(bind)
    try:
        if isinstance(address, str):
            _require_place(Path(address))
        elif error := bind_error(*address):
            raise error
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES) and _has_listener(_lock_name(address)):
            return "a mkiso"
        raise (_taken(bind, address) if error.errno == errno.EADDRINUSE else _unusable(error, address)) from None
    return "nobody"


def _address(bind: str) -> Address:
    """What `server.bind` says: `unix:/PATH`, or HOST:PORT."""
    if bind.startswith("unix:"):
        return bind.removeprefix("unix:")
    host, _, port = bind.rpartition(":")
    return host.strip("[]").lower(), int(port)


def _lock_name(address: Address) -> str:
    """The abstract name (unix(7)) that the mkiso at an address holds: no file, and free when its last process is dead.

    It only tells who listens: of a stranger who takes it no service is kept from starting.
    """
    return f"\0{address}" if isinstance(address, str) else f"\0mkiso:{address[1]}"


def _has_listener(name: str) -> bool:
    """Whether somebody listens at a socket, by its path or its abstract name."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.setblocking(False)
        try:
            connection.connect(name)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except BlockingIOError:  # whoever listens is too busy to take it
            return True
    return True


def _require_place(path: Path) -> None:
    """Raise OSError unless a socket could be made there, in the place of one at which nobody listens."""
    if _has_listener(str(path)):
        raise OSError(errno.EADDRINUSE, "Somebody listens")
    if path.exists() and not path.is_socket():
        raise FileExistsError(errno.EEXIST, f"{path} is there, and is no socket")
    if not os.access(path.parent, os.F_OK):
        raise FileNotFoundError(errno.ENOENT, f"There is no directory {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"This user may not write to {path.parent}")


def _opened(address: Address) -> socket.socket | None:
    """A socket that listens there; None where something else does. Raises ConfigurationError where nothing can."""
    try:
        return _at_path(Path(address)) if isinstance(address, str) else _at_port(*address)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EAGAIN):
            return None
        raise _unusable(error, address) from error


def _at_port(host: str, port: int) -> socket.socket:
    if ":" in host:
        return socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    return socket.create_server((host, port), backlog=BACKLOG)


def _at_path(path: Path) -> socket.socket:
    """A socket that nobody listens at is replaced, by one process at a time."""
    with held(path.with_name(f"{path.name}.lock")):
        if _has_listener(str(path)):
            raise OSError(errno.EADDRINUSE, "Somebody listens")
        if path.is_socket():
            path.unlink()
        opened, before = socket.socket(socket.AF_UNIX), os.umask(0)  # for nginx, which is another user
        try:
            opened.bind(str(path))
            opened.listen(BACKLOG)
        finally:
            os.umask(before)
        return opened


def _unusable(error: OSError, address: Address) -> ConfigurationError:
    path_advice = f"{error.strerror}. Make its directory, or choose another address."
    return ConfigurationError(
        f"server.bind: nothing can listen there: {path_advice if isinstance(address, str) else advice(error)}"
    )


def _taken(bind: str, address: Address) -> ConfigurationError:
    if _has_listener(_lock_name(address)):
        return ConfigurationError(
            f"A mkiso serves at {bind}. Stop it first, or choose another server.bind.", error="already running"
        )
    return ConfigurationError(
        f"server.bind: {bind} is taken, and no mkiso answers there. Stop what has it, or choose another address."
    )
