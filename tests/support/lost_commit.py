"""A way to a database server on which the answer to one COMMIT is lost, or comes late."""

import re
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from tests.support.tools import LOCALHOST

# The server has done it, and the connection ends; it ends before the server has it; the server has it after `go_on`.
Loss = Literal["done", "not done", "late"]

COMMIT = re.compile(rb"(?<!AUTO)COMMIT")


class Way:
    """A proxy that passes everything on, but for the next COMMIT after `lose`."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._loss: Loss | None = None
        self.met, self.go_on = threading.Event(), threading.Event()
        self.listener = socket.create_server((LOCALHOST, 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self, loss: Loss) -> None:
        """`met` is set when it has come to that."""
        self.met.clear()
        self.go_on.clear()
        self._loss = loss

    def close(self) -> None:
        """Take no further connection."""
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection((LOCALHOST, self._to)) as server:
            while True:
                for one in select.select((client, server), (), ())[0]:
                    data = one.recv(1 << 16)
                    if not data or (one is client and COMMIT.search(data) and self._is_lost(data, server)):
                        return
                    (server if one is client else client).sendall(data)

    def _is_lost(self, data: bytes, server: socket.socket) -> bool:
        loss, self._loss = self._loss, None
        if loss:
            self.met.set()
        if loss == "done":
            server.sendall(data)
            server.recv(1 << 16)
        if loss == "late":
            assert self.go_on.wait(30)
        return loss in ("done", "not done")


@contextmanager
def losing(port: int) -> Iterator[Way]:
    way = Way(port)
    try:
        yield way
    finally:
        way.go_on.set()
        way.close()
