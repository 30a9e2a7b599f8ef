"""A peer that takes no more associations for now: some are rejected, the others reach the real one behind it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tests.support.tools import LOCALHOST

# Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 9.3.4).
Rejection = tuple[int, int, int]
NO_REASON: Rejection = (2, 1, 1)
CONGESTION: Rejection = (2, 3, 1)
LOCAL_LIMIT: Rejection = (2, 3, 2)
LOCAL_LIMIT_FOR_GOOD: Rejection = (1, 3, 2)
CALLED_AE_TITLE: Rejection = (1, 1, 7)
# What an association is asked for, as its A-ASSOCIATE-RQ proposes it (movescu proposes the C-FIND, too).
ANYTHING = b""
MOVE, GET, STORE = b"1.2.840.10008.5.1.4.1.2.2.2", b"1.2.840.10008.5.1.4.1.2.2.3", b"1.2.840.10008.5.1.4.1.1."
FOR_EVER = float("inf")
BLOCK = 1 << 16


@dataclass
class Door:
    """In front of the port `behind`: of those who ask for `service`, some are rejected `after` the first so many."""

    behind: int
    service: bytes
    after: int
    times: float
    rejection: Rejection
    asked: int = 0
    rejected: int = 0

    def serve(self, caller: socket.socket) -> None:
        request = _associate_rq(caller)
        self.asked += self.service in request
        if self.service in request and self.asked > self.after and self.rejected < self.times:
            self.rejected += 1
            caller.sendall(bytes((3, 0, 0, 0, 0, 4, 0, *self.rejection)))
            caller.recv(1)  # who was rejected closes the connection (PS3.8 9.2.3)
            caller.close()
            return
        peer = socket.create_connection((LOCALHOST, self.behind))
        for end in (caller, peer):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.sendall(request)
        threading.Thread(target=_carry, args=(peer, caller), daemon=True).start()
        _carry(caller, peer)


def _associate_rq(caller: socket.socket) -> bytes:
    head = caller.recv(6, socket.MSG_WAITALL)
    return head + caller.recv(int.from_bytes(head[2:], "big"), socket.MSG_WAITALL)


def _carry(source: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(BLOCK):
            to.sendall(block)
    with suppress(OSError):
        to.shutdown(socket.SHUT_WR)


@contextmanager
def busy(
    port: int,
    behind: int = 0,
    *,
    service: bytes = ANYTHING,
    after: int = 0,
    times: float = FOR_EVER,
    rejection: Rejection = LOCAL_LIMIT,
) -> Iterator[Door]:
    """A listener on `port`; by default it rejects every association, for ever."""
    door = Door(behind, service, after, times, rejection)
    with socket.create_server((LOCALHOST, port), backlog=64) as listener:
        threading.Thread(target=_serve, args=(listener, door), daemon=True).start()
        try:
            yield door
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _serve(listener: socket.socket, door: Door) -> None:
    with suppress(OSError):
        while True:
            caller, _ = listener.accept()
            threading.Thread(target=_answered, args=(caller, door), daemon=True).start()


def _answered(caller: socket.socket, door: Door) -> None:
    with suppress(OSError):
        door.serve(caller)
