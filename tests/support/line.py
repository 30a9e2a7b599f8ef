"""A peer that answers on the line itself: its PDUs are as they should be, or whatever a test wants (PS3.8 9.3)."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from mkiso.dicom import get
from tests.support.tools import LOCALHOST

COMMAND, DATA, LAST = 1, 0, 2


@dataclass
class Line:
    """A connection that was taken; `contexts` are what the caller offered, by number: SOP class, transfer syntax."""

    connection: socket.socket
    contexts: dict[int, tuple[str, str]] = field(default_factory=dict)

    def pdu(self) -> tuple[int, bytes]:
        """The type and the content of the next."""
        kind, _, length = struct.unpack(">BBL", self._exactly(6))
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = self.connection.recv(count, socket.MSG_WAITALL) if count else b""
        if len(data) < count:
            raise ConnectionError("the caller has gone")
        return data

    def send(self, *data: bytes) -> None:
        self.connection.sendall(b"".join(data))

    def take(self, accepted: Callable[[str], bool] = lambda _sop: True) -> None:
        """Read the request, and accept these SOP classes as they are offered (PS3.8 9.3.3)."""
        _, request = self.pdu()
        for kind, data in get.items(request[68:]):
            if kind == get.CONTEXT:
                (_, sop), (_, syntax) = get.items(data[4:])
                self.contexts[data[0]] = sop.decode(), syntax.decode()
        answers = (
            get.item(get.ANSWER, bytes([number, 0, 0, 0]), get.item(get.TRANSFER, syntax.encode()))
            for number, (sop, syntax) in self.contexts.items()
            if accepted(sop)
        )
        user = get.item(get.USER, get.item(get.LENGTH, struct.pack(">L", 16384)))
        application = get.item(0x10, get.APPLICATION.encode())
        self.send(get.pdu(get.ACCEPT, request[:68] + application + b"".join(answers) + user))

    def asked(self) -> None:
        """Read the C-GET to the end of its identifier."""
        is_over = False
        while not is_over:
            _, body = self.pdu()
            is_over = body[5] == LAST | DATA

    def answered(self, context: int) -> get.Elements:
        """The command set of the response on this context."""
        data, header = b"", 0
        while header != COMMAND | LAST:
            kind, body = self.pdu()
            header = body[5]
            assert (kind, body[4], header & COMMAND) == (get.DATA, context, COMMAND)
            data += body[6:]
        return get.elements(data)

    def context(self, sop: str, syntax: str) -> int:
        return next(number for number, offered in self.contexts.items() if offered == (sop, syntax))


def pdata(context: int, header: int, data: bytes, length: int | None = None) -> bytes:
    """A P-DATA-TF of one fragment, whose length may be a lie."""
    stated = len(data) + 2 if length is None else length
    return get.pdu(get.DATA, struct.pack(">LBB", stated, context, header) + data)


def store(sop: str, uid: str, further: get.Fields | None = None) -> bytes:
    """The command set of a C-STORE whose data set follows (PS3.7 9.3.1.1)."""
    fields: get.Fields = {0x0002: get.padded(sop), 0x0100: get.STORE, 0x0110: 7, 0x0700: 0, 0x0800: 1}
    return get.message(fields | {0x1000: get.padded(uid)} | (further or {}))


def ended(status: int = 0, **counts: int) -> bytes:
    """The command set of a C-GET's response."""
    fields: get.Fields = {0x0002: get.padded(get.GET), 0x0100: get.GOT, 0x0120: 1, 0x0800: get.NO_DATA, 0x0900: status}
    return get.message(fields | {get.COUNTS[name]: count for name, count in counts.items()})


@contextmanager
def peer(port: int, answer: Callable[[Line], object]) -> Iterator[None]:
    """A listener on `port`: each caller is answered so, and hung up on behind it."""
    with socket.create_server((LOCALHOST, port)) as listener:
        threading.Thread(target=_serve, args=(listener, answer), daemon=True).start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _serve(listener: socket.socket, answer: Callable[[Line], object]) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_answered, args=(connection, answer), daemon=True).start()


def _answered(connection: socket.socket, answer: Callable[[Line], object]) -> None:
    with suppress(OSError), connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answer(Line(connection))
