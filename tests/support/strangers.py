"""Peers that reach a receiver's port and are nobody's archive: the upper layer by hand (PS3.8 9.3)."""

import socket
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from threading import Event, Thread
from typing import Self

from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from tests.support.tools import LOCALHOST

CONTEXT, COMMAND, LAST = 1, 1, 2
PART = 1 << 16
FOREIGN_STUDY = b"1.2.3.666"
MANY = 5_000_000


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    """An explicit one, of a VR with a short length."""
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def uid(group: int, number: int, value: bytes) -> bytes:
    return element(group, number, b"UI", value + b"\0" * (len(value) % 2))


CLASS = CTImageStorage.encode()
STUDY = uid(0x0020, 0x000D, FOREIGN_STUDY)
HEAD = uid(0x0008, 0x0016, CLASS) + uid(0x0008, 0x0018, b"1.2.3.667")
UNDEFINED = b"\xff\xff\xff\xff"
EMPTY = struct.pack("<HH2s2x", 0x0009, 0x1001, b"SQ") + UNDEFINED + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


class Stranger:
    """An association that anybody can have."""

    def __init__(self, port: int, syntax: str = ExplicitVRLittleEndian) -> None:
        self.socket = socket.create_connection((LOCALHOST, port), timeout=30)
        self._send(1, _association(syntax.encode()))
        self.socket.recv(1 << 12)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def begin(self, sop_instance_uid: bytes) -> None:
        """A C-STORE request, whose data set is to follow (PS3.7 9.3.1)."""
        self._value(COMMAND | LAST, _store_request(sop_instance_uid))

    def send(self, data: bytes, last: bool = False) -> None:
        for at in range(0, len(data), PART):
            self._value(LAST if last and at + PART >= len(data) else 0, data[at : at + PART])

    def store(self, data: bytes, sop_instance_uid: bytes = b"1.2.3.667") -> None:
        """A C-STORE to its end; what the receiver answers is taken."""
        self.begin(sop_instance_uid)
        self.send(data, last=True)
        self.socket.recv(1 << 12)

    def is_over(self) -> bool:
        """Whether the receiver has hung up."""
        return hung_up(self.socket)

    def _value(self, control: int, data: bytes) -> None:
        self._send(4, struct.pack(">LBB", len(data) + 2, CONTEXT, control) + data)

    def _send(self, kind: int, content: bytes) -> None:
        self.socket.sendall(struct.pack(">BBL", kind, 0, len(content)) + content)


def hung_up(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return not connection.recv(1 << 12)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def _association(syntax: bytes) -> bytes:
    context = _item(0x30, CLASS) + _item(0x40, syntax)
    items = _item(0x10, b"1.2.840.10008.3.1.1.1") + _item(0x20, bytes([CONTEXT, 0, 0, 0]) + context)
    user = _item(0x51, struct.pack(">L", 1 << 14)) + _item(0x52, b"1.2.3.4")
    return struct.pack(">H2x16s16s32x", 1, b"ANY".ljust(16), b"STRANGER".ljust(16)) + items + _item(0x50, user)


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(content)) + content


def _store_request(sop_instance_uid: bytes) -> bytes:
    numbers = ((0x0100, 1), (0x0110, 1), (0x0700, 0), (0x0800, 1))
    values = {0x0002: CLASS, 0x1000: sop_instance_uid} | {tag: struct.pack("<H", number) for tag, number in numbers}
    padded = {tag: value + b"\0" * (len(value) % 2) for tag, value in sorted(values.items())}
    command = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in padded.items())
    return struct.pack("<HHLL", 0, 0, 4, len(command)) + command


@contextmanager
def idle_associations(port: int, count: int) -> Iterator[list[Stranger]]:
    """Associations over which nothing is sent."""
    with ExitStack() as held:
        yield [held.enter_context(Stranger(port)) for _ in range(count)]


@contextmanager
def endless_objects(port: int) -> Iterator[None]:
    """One foreign instance after the other, each of which grows until somebody ends it."""
    over = Event()

    def send() -> None:
        pixels = STUDY + struct.pack("<HH2s2xL", 0x7FE0, 0x0010, b"OB", 0xFFFFFFF0)
        while not over.is_set():
            with suppress(OSError), Stranger(port) as stranger:
                stranger.begin(b"1.2.3.667")
                stranger.send(HEAD + pixels)
                while not over.is_set():
                    stranger.send(bytes(PART))

    sender = Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()


@cache
def of_many_steps() -> bytes:
    """A deflated data set of 100 kB that tells its study behind millions of empty sequences: ten million steps."""
    press = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = press.compress(HEAD) + press.compress(EMPTY * MANY) + press.compress(STUDY) + press.flush()
    return data + b"\0" * (len(data) % 2)


DEFLATED = DeflatedExplicitVRLittleEndian
