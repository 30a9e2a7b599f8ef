"""A line that is long: what goes through its port takes half a round trip each way, and shares 1 Gb/s.

Each connection is a process of its own, so that the line itself is no bottleneck; the line is what they share. Only the
connection's own handshake takes no time, which is that of nobody's image.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes import c_double
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from queue import SimpleQueue

from tests.support.tools import LOCALHOST, wait_until

RATE = 125e6  # bytes a second
BLOCK = 1 << 16
UNDER_WAY = 1 << 8  # blocks that a direction holds at most: more than the line has under way at 40 ms
FORK = get_context("fork")


class _Direction:
    """Bytes from one end to the other: read as they come, and written when they have arrived."""

    def __init__(self, one: socket.socket, other: socket.socket, free: Synchronized, delay: float) -> None:
        self._one, self._other, self._free, self._delay = one, other, free, delay
        self._blocks: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
        self._room = threading.Semaphore(UNDER_WAY)
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._take, self._give)]

    def _take(self) -> None:
        with suppress(OSError):
            while block := self._one.recv(BLOCK):
                with self._free:
                    self._free.value = max(self._free.value, time.monotonic()) + len(block) / RATE
                    due = self._free.value + self._delay
                self._room.acquire()
                self._blocks.put((due, block))
        self._blocks.put((time.monotonic() + self._delay, b""))

    def _give(self) -> None:
        with suppress(OSError):
            while True:
                due, block = self._blocks.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not block:
                    break
                self._other.sendall(block)
                self._room.release()
        with suppress(OSError):
            self._other.shutdown(socket.SHUT_WR)


def _serve(port: int, to: int, delay: float) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    directions = [FORK.Value(c_double, 0.0) for _ in range(2)]
    with socket.create_server((LOCALHOST, port), backlog=64) as listener:
        while True:
            caller, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _carry(caller, to, directions, delay)
                os._exit(0)
            caller.close()


def _carry(caller: socket.socket, to: int, free: list[Synchronized], delay: float) -> None:
    with suppress(OSError):
        called = socket.create_connection((LOCALHOST, to))
        ends = caller, called
        for end in ends:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        directions = [
            _Direction(one, other, way, delay) for one, other, way in zip(ends, ends[::-1], free, strict=True)
        ]
        threads = [thread for direction in directions for thread in direction.threads]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


@contextmanager
def line(port: int, to: int, round_trip: float) -> Iterator[None]:
    """A line from a port to another, with a round trip of so many seconds."""
    process = FORK.Process(target=_in_a_group, args=(port, to, round_trip / 2))
    process.start()
    try:
        wait_until(lambda: _listens(port), 10, lambda: "the line does not listen")
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid or sys.maxsize, signal.SIGKILL)
        process.join()


def _in_a_group(port: int, to: int, delay: float) -> None:
    os.setpgid(0, 0)
    _serve(port, to, delay)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_server((LOCALHOST, port)):
        return False
    return True
