"""A client's connection: its request is to come in time, and what it is sent is to be taken."""

from __future__ import annotations

import array
import errno
import fcntl
import math
import select
import socket
import struct
import termios
import time
from contextlib import suppress

READ_LIMIT = 10.0
PATIENCE = 30.0
TICK = 1.0
LINGER = 1.0


class Client(socket.socket):
    """The socket that gunicorn reads a request from and writes the answer to.

    A request that is not there by `deadline` (monotonic), and an answer of which no byte was taken
    for `patience` seconds, end as if the client had left; so no client holds a thread for good.
    """

    deadline = math.inf
    patience = PATIENCE

    def recv(self, size: int, flags: int = 0) -> bytes:
        if self.gettimeout() is not None or self.deadline == math.inf:
            return super().recv(size, flags)
        try:
            if (left := self.deadline - time.monotonic()) <= 0:
                raise TimeoutError
            self.settimeout(left)
            return super().recv(size, flags)
        except TimeoutError:
            raise ConnectionResetError(errno.ECONNRESET, "the request did not come in time") from None
        finally:
            self.setblocking(True)

    def sendall(self, data: bytes, flags: int = 0) -> None:  # type: ignore[override]
        if self.gettimeout() is not None:
            super().sendall(data, flags)
            return
        rest, waiting, taken = memoryview(data), 0, time.monotonic()
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", *divmod(int(TICK * 10**6), 10**6)))
        while rest:
            try:
                rest = rest[self.send(rest, flags) :]
                taken = time.monotonic()
            except BlockingIOError:
                # The system tells of room only when much has been taken: a slow reader shows here.
                before, waiting = waiting, self._waiting()
                if waiting != before:
                    taken = time.monotonic()
                elif time.monotonic() - taken >= self.patience:
                    break_connection(self)
                    raise BrokenPipeError(errno.EPIPE, "the client takes nothing") from None

    def _waiting(self) -> int:
        """How many bytes were sent and not taken yet (tcp(7), unix(7): SIOCOUTQ)."""
        count = array.array("i", [0])
        fcntl.ioctl(self, termios.TIOCOUTQ, count)
        return count[0]

    def part(self) -> None:
        """End the connection so that the answer arrives, also where the client is still sending (RFC 9112 9.6)."""
        with suppress(OSError):
            self.shutdown(socket.SHUT_WR)
            self.settimeout(LINGER)
            until = time.monotonic() + LINGER
            sending = _has(self, select.POLLIN)
            while sending and time.monotonic() < until:
                sending = bool(self.recv(1 << 16))
        break_connection(self)


def has_left(client: socket.socket) -> bool:
    """Whether the client has closed its end, however much it had sent before."""
    return _has(client, select.POLLRDHUP)


def has_sent(client: socket.socket, seconds: float) -> bool:
    """Whether a client sends something, or leaves, within so many seconds; it takes no file descriptor."""
    return _has(client, select.POLLIN, seconds)


def break_connection(client: socket.socket) -> None:
    """End a send that waits for its reader."""
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)


def _has(client: socket.socket, event: int, seconds: float = 0) -> bool:
    """Whether poll tells that event, a hang-up or an error, within so many seconds."""
    poll = select.poll()
    try:
        poll.register(client, event)
    except ValueError:  # it is closed
        return True
    return bool(poll.poll(seconds * 1000))
