"""A way to a port that can be shut: what is sent into it waits there, and is lost only with its sender."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

from tests.support.tools import LOCALHOST


class Valve:
    """It lets so many bytes through in each direction of a connection, and shuts until `open`."""

    def __init__(self, target: int, let_through: int) -> None:
        self._listener = socket.create_server((LOCALHOST, 0))
        self._target, self._let_through, self._opened = target, let_through, Event()
        self.port = self._listener.getsockname()[1]
        Thread(target=self._accept, daemon=True).start()

    def open(self) -> None:
        self._opened.set()

    def close(self) -> None:
        self.open()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sender, _ = self._listener.accept()
                receiver = socket.create_connection((LOCALHOST, self._target))
                for one, other in ((sender, receiver), (receiver, sender)):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
                passed += len(data)
                if passed > self._let_through:
                    self._opened.wait()
        with suppress(OSError):
            other.shutdown(socket.SHUT_WR)


@contextmanager
def valve(target: int, let_through: int) -> Iterator[Valve]:
    made = Valve(target, let_through)
    try:
        yield made
    finally:
        made.close()
