"""The jobs that this process runs, and the connections of those who wait for them.

One thread watches for clients that left and for a service that stops: a job's own thread may wait where it cannot
ask, in a send to a client that does not read. The thread that writes the ledger hears of cancels: the ledger may
hang, and this watch must not.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import math
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from mkiso.errors import Busy, JobExists, Stopping
from mkiso.waiting import LEFT, Cancellation, start

TICK = 0.25
THREADS_KEPT_FREE = 4  # of each worker, for what is no job
STOPPING = "The service is being stopped. Ask again when it is back."
PATIENCE = 30.0
LINGER = 1.0
TAKEN = "mkiso.taken"  # in a request's environ: how many bytes of the answer the client took past gunicorn
UNSUPPORTED = (errno.EINVAL, errno.ENOSYS)
GLIBC = ctypes.CDLL(None)
log = logging.getLogger("mkiso.web")


class Client(socket.socket):
    """The socket that gunicorn reads a request from and writes the answer to.

    A request that is not there by `deadline` (monotonic), and an answer for which there was no room for `patience`
    seconds, end as if the client had left; so no client holds a thread for good.
    """

    deadline = math.inf
    patience = PATIENCE

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Raises ConnectionResetError at the deadline."""
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
        """Each part has the whole patience, so that a slow reader is not cut off. Raises BrokenPipeError."""
        rest = memoryview(data)
        self.settimeout(self.patience)
        try:
            while rest:
                rest = rest[self.send(rest, flags) :]
        except TimeoutError:
            raise self._cut_off() from None
        finally:
            self.setblocking(True)

    @property
    def takes_pipes(self) -> bool:
        """Whether `take` saves time: over TCP its small pieces cost more than the copies do (docs/benchmarks.md)."""
        return self.family == socket.AF_UNIX

    def take(self, pipe: int, most: int) -> int:
        """Send up to `most` bytes of a pipe that has some, which this process never sees (splice(2)); how many.

        None at the pipe's end, and where the system cannot. Raises OSError, BrokenPipeError as sendall does.
        """
        self.setblocking(False)
        try:
            while True:
                try:
                    return os.splice(pipe, self.fileno(), most, flags=os.SPLICE_F_NONBLOCK)
                except BlockingIOError:
                    if not _polled(self, select.POLLOUT, self.patience):
                        raise self._cut_off() from None
        except OSError as error:
            if error.errno in UNSUPPORTED:
                return 0
            raise
        finally:
            self.setblocking(True)

    def _cut_off(self) -> BrokenPipeError:
        break_connection(self)
        return BrokenPipeError(errno.EPIPE, "the client takes nothing")

    def part(self) -> None:
        """End the connection so that the answer arrives, also where the client is still sending (RFC 9112 9.6)."""
        with suppress(OSError):
            self.shutdown(socket.SHUT_WR)
            self.settimeout(LINGER)
            until = time.monotonic() + LINGER
            sending = has_sent(self)
            while sending and time.monotonic() < until:
                sending = bool(self.recv(1 << 16))
        break_connection(self)


def has_left(client: socket.socket) -> bool:
    """Whether the client has closed its end, however much it had sent before."""
    return _polled(client, select.POLLRDHUP)


def has_sent(client: socket.socket, seconds: float = 0) -> bool:
    """Whether a client sends something, or leaves, within so many seconds; it takes no file descriptor."""
    return _polled(client, select.POLLIN, seconds)


def _polled(client: socket.socket, event: int, seconds: float = 0) -> bool:
    """Whether poll(2) tells that event, a hang-up or an error, within so many seconds."""
    poll = select.poll()
    try:
        poll.register(client, event)
    except ValueError:  # it is closed
        return True
    return bool(poll.poll(seconds * 1000))


def break_connection(client: socket.socket) -> None:
    """End a send that waits for its reader."""
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class LiveJob:
    client: socket.socket | None
    is_queued: bool = False
    cancellation: Cancellation = field(default_factory=Cancellation)


class LiveJobs:
    """The registry and its watcher, which starts with `keep_watch` or the first job (and so after a worker's fork)."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._jobs: dict[str, LiveJob] = {}
        self._changed = threading.Condition()
        self._watcher: threading.Thread | None = None
        self.is_stopping: Callable[[], bool] = lambda: False  # so that no job is begun
        self.must_stop: Callable[[], bool] = lambda: False  # so that none goes on

    @contextmanager
    def watching(
        self, job_id: str, client: socket.socket | None = None, *, is_queued: bool = False
    ) -> Iterator[Cancellation]:
        """Watch a job until the end of the block; raises as `start` does."""
        cancellation = self.start(job_id, client, is_queued=is_queued)
        try:
            yield cancellation
        finally:
            self.stop(job_id)

    def start(self, job_id: str, client: socket.socket | None = None, *, is_queued: bool = False) -> Cancellation:
        """Watch a job; `client` is the connection that waits for it, where its end is to end the job.

        Raises Stopping while the service stops, JobExists where a job of that id is watched already,
        Busy where `most` jobs are, queued relays left out.
        """
        if self.is_stopping():
            raise Stopping(STOPPING)
        job = LiveJob(client, is_queued)
        with self._changed:
            if job_id in self._jobs:
                raise JobExists(f"A job {job_id} is running. Choose another UUID, or none.")
            if not is_queued and sum(not one.is_queued for one in self._jobs.values()) >= self._most:
                raise Busy("As many jobs run and wait as the service takes. Ask again in a while.")
            self.keep_watch()
            self._jobs[job_id] = job
            self._changed.notify()
        return job.cancellation

    def keep_watch(self) -> None:
        """Have the watcher run; raises Busy where there may be no thread for it."""
        with self._changed:
            if self._watcher is None:
                self._watcher = start(threading.Thread(target=self._watch, name="watcher", daemon=True))

    def stop(self, job_id: str) -> None:
        """Watch a job no longer, where it is watched."""
        with self._changed:
            self._jobs.pop(job_id, None)

    def cancel_all(self) -> None:
        """Cancel every job because the service stops."""
        for job in self._snapshot():
            job.cancellation.cancel(STOPPING)

    def _snapshot(self) -> list[LiveJob]:
        with self._changed:
            return list(self._jobs.values())

    def _watch(self) -> None:
        while True:
            if not self._jobs:
                _give_free_memory_back()
            with self._changed:
                self._changed.wait_for(lambda: self._jobs)
            try:
                self._look()
            except Exception:  # the boundary: the watch goes on
                log.exception("the watch over the jobs failed")
            time.sleep(TICK)

    def _look(self) -> None:
        if self.must_stop():
            self.cancel_all()
        for job in self._snapshot():
            if job.client is not None and has_left(job.client):
                job.cancellation.cancel(LEFT)


def _give_free_memory_back() -> None:
    """What many jobs needed at once is not kept (malloc_trim(3)); takes milliseconds.

    MALLOC_TRIM_THRESHOLD_ would do the same, and have each piece of a disc asked of the system: 27 ms more for 100 MB.
    """
    with suppress(AttributeError):  # another library than glibc
        GLIBC.malloc_trim(0)
