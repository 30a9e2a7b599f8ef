"""A wire that remembers: a TCP forwarder that keeps every byte that passed it, either way."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.tools import LOCALHOST

BLOCK = 1 << 16


class Wire:
    """What passed, a stream for each direction of each connection."""

    def __init__(self) -> None:
        self.streams: list[bytearray] = []

    @property
    def size(self) -> int:
        return sum(map(len, self.streams))

    def carried(self, text: bytes) -> bool:
        return any(text in stream for stream in self.streams)

    def is_tls(self) -> bool:
        """Whether every stream began with a TLS record of a handshake (RFC 8446 5.1)."""
        return all(stream[:2] == b"\x16\x03" for stream in self.streams if stream)

    def carry(self, source: socket.socket, to: socket.socket) -> None:
        self.streams.append(passed := bytearray())
        with suppress(OSError):
            while block := source.recv(BLOCK):
                passed.extend(block)
                to.sendall(block)
        with suppress(OSError):
            to.shutdown(socket.SHUT_WR)


@contextmanager
def wire(port: int, to: int) -> Iterator[Wire]:
    """A listener on `port` that passes everything to the port `to`."""
    seen = Wire()
    with socket.create_server((LOCALHOST, port)) as listener:
        threading.Thread(target=_serve, args=(listener, to, seen), daemon=True).start()
        try:
            yield seen
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _serve(listener: socket.socket, to: int, seen: Wire) -> None:
    with suppress(OSError):
        while True:
            _join(listener.accept()[0], to, seen)


def _join(caller: socket.socket, to: int, seen: Wire) -> None:
    try:
        called = socket.create_connection((LOCALHOST, to))
    except OSError:
        caller.close()
        return
    for ends in ((caller, called), (called, caller)):
        ends[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=seen.carry, args=ends, daemon=True).start()
