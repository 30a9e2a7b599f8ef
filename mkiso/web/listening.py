"""The socket of `server.bind`: taken before gunicorn starts, and from nobody.

gunicorn would remove whatever socket has its path when it starts, and again when it stops.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import cast

from gunicorn.util import parse_address

from mkiso.addresses import advice, bind_error, host_name, is_loopback
from mkiso.config import Server
from mkiso.errors import ConfigurationError
from mkiso.workspace import held

BACKLOG = 2048
PATIENCE = 3.0  # the workers of a service that was killed go on for a second
TICK = 0.1
ANSWER_LIMIT = 2.0
Address = str | tuple[str, int]


class Listener:
    """A socket that listens; ConfigurationError where that cannot be, `already running` beside another mkiso."""

    def __init__(self, bind: str) -> None:
        self._address = cast(Address, parse_address(bind))
        deadline = time.monotonic() + PATIENCE
        while (opened := _opened(self._address)) is None:
            if time.monotonic() > deadline:
                raise _taken(bind, self._address)
            time.sleep(TICK)
        self.fileno = opened.detach()
        self._file = os.stat(self._address) if isinstance(self._address, str) else None

    def remove(self) -> None:
        """Remove the socket's file, unless another one has its name by now."""
        if isinstance(self._address, str) and self._file is not None:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(self._address), self._file):
                    os.unlink(self._address)


def unnamed(server: Server) -> str | None:
    """What to do where another host can reach the service, and has no name to ask for; None where it has."""
    address = cast(Address, parse_address(server.bind))
    if server.hosts or isinstance(address, str) or is_loopback(host_name(address[0])):
        return None
    return "Browsers of other hosts are refused: server.hosts has no name for them"


def occupant(bind: str) -> str:
    """Who listens at an address, `nobody` or `a mkiso`; nothing is left there by the question.

    Raises ConfigurationError where a service could not listen.
    """
    address = cast(Address, parse_address(bind))
    if _is_mkiso(address):
        return "a mkiso"
    try:
        if isinstance(address, str):
            _require_place(Path(address))
        elif error := bind_error(*address):
            raise error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _taken(bind, address) from None
        raise _unusable(error, address) from None
    return "nobody"


def _require_place(path: Path) -> None:
    """Raise OSError unless a socket could be made there, in the place of one at which nobody listens."""
    with suppress(FileNotFoundError, ConnectionRefusedError):
        _connected(str(path)).close()
        raise OSError(errno.EADDRINUSE, "Somebody listens")
    if path.exists() and not path.is_socket():
        raise FileExistsError(errno.EEXIST, f"{path} is there, and is no socket")
    if not os.access(path.parent, os.F_OK):
        raise FileNotFoundError(errno.ENOENT, f"There is no directory {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EPERM, f"This user may not write to {path.parent}")


def _opened(address: Address) -> socket.socket | None:
    """A socket that listens there; None where something else does."""
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
        with suppress(FileNotFoundError, ConnectionRefusedError):
            _connected(str(path)).close()
            raise OSError(errno.EADDRINUSE, "somebody listens")
        if path.is_socket():
            path.unlink()
        opened, before = socket.socket(socket.AF_UNIX), os.umask(0)  # for nginx, which is another user
        try:
            opened.bind(str(path))
            opened.listen(BACKLOG)
        finally:
            os.umask(before)
        return opened


def _connected(address: Address) -> socket.socket:
    if not isinstance(address, str):
        return socket.create_connection(address, ANSWER_LIMIT)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(ANSWER_LIMIT)
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


def _unusable(error: OSError, address: Address) -> ConfigurationError:
    do = (
        f"{error.strerror}. Make its directory, or choose another address."
        if isinstance(address, str)
        else advice(error)
    )
    return ConfigurationError(f"server.bind: nothing can listen there: {do}")


def _taken(bind: str, address: Address) -> ConfigurationError:
    if _is_mkiso(address):
        return ConfigurationError(
            f"A mkiso serves at {bind}. Stop it first, or choose another server.bind.", error="already running"
        )
    return ConfigurationError(
        f"server.bind: {bind} is taken, and no mkiso answers there. Stop what has it, or choose another address."
    )


def _is_mkiso(address: Address) -> bool:
    """Whether it has the fixed answer to a request that asks for nothing (contract, "Errors")."""
    with suppress(OSError), closing(_connected(address)) as connection:
        connection.sendall(b"GET /mkiso.php HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n")
        return b"missing_accession" in b"".join(iter(lambda: connection.recv(4096), b""))
    return False
