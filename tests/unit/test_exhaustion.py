"""What the system has none of just now is waited for, for a while, by whoever needs it."""

import errno
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from gunicorn.arbiter import Arbiter

from mkiso import waiting
from mkiso.errors import Busy, Cancelled, Internal
from mkiso.installation import Cached
from mkiso.ledger.ledger import Ledger
from mkiso.ledger.record import Row, Writer
from mkiso.process import run
from mkiso.waiting import Cancellation, awaited, pool_of
from mkiso.web.gunicorn import Heartbeat, Master, Worker
from mkiso.web.live import LiveJobs

NO_THREAD = RuntimeError("can't start new thread")
LACKS = [
    (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "processes or threads"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
    (OSError(errno.EMFILE, "Too many open files"), "open files"),
    (OSError(errno.ENFILE, "Too many open files in system"), "open files"),
    (NO_THREAD, "processes or threads"),
    (MemoryError(), "memory"),
]
Wait = Callable[[Callable[[], object]], None]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PAUSE", 0.001)
    monkeypatch.setattr(waiting, "PATIENCE", 0.05)


def failing(times: float, error: Exception, then: Callable[..., object]) -> Callable[..., object]:
    """As `then`, once it has raised so many times."""
    left = [times]

    def begin(*words: object, **named: object) -> object:
        if left[0] > 0:
            left[0] -= 1
            raise error
        return then(*words, **named)

    return begin


@contextmanager
def threads(count: int) -> Iterator[None]:
    """While the block runs, so many more can be started."""
    start, left = threading.Thread.start, [count]

    def begin(thread: threading.Thread) -> None:
        if thread.name == "clock":
            return start(thread)
        left[0] -= 1
        if left[0] < 0:
            raise NO_THREAD
        return start(thread)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(threading.Thread, "start", begin)
        yield


@pytest.mark.parametrize(("error", "named"), LACKS)
def test_what_there_is_none_of_is_waited_for_and_then_told(
    error: Exception, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patient:
        patient.setattr(waiting, "PATIENCE", 30)
        assert awaited(failing(3, error, lambda: "begun")) == "begun"
    with pytest.raises(Busy) as told:
        awaited(failing(float("inf"), error, lambda: None))
    assert named in told.value.detail


def test_whoever_waits_for_it_can_be_cancelled() -> None:
    cancellation = Cancellation()
    cancellation.cancel("On request.")
    with pytest.raises(Cancelled):
        awaited(failing(float("inf"), NO_THREAD, lambda: None), cancellation.checkpoint)


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "no file"), RuntimeError("anything else")])
def test_what_waiting_does_not_mend_is_raised_at_once(error: Exception) -> None:
    begin = failing(1, error, lambda: None)
    with pytest.raises(type(error)):
        awaited(begin)


def test_a_program_for_which_there_is_no_process_is_started_a_little_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", failing(3, LACKS[0][0], subprocess.Popen))
    assert run(("/bin/echo", "here"), timeout=10).stdout == "here\n"


def test_a_program_that_is_not_there_is_not_waited_for() -> None:
    with pytest.raises(Internal):
        run(("/nonexistent",), timeout=10)


def test_the_threads_of_a_pool_all_run_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", failing(2, NO_THREAD, threading.Thread.start))
    with pool_of(4) as pool, threads(0):
        together = threading.Barrier(4)
        assert sorted(one.result(10) for one in [pool.submit(together.wait, 10) for _ in range(4)]) == [0, 1, 2, 3]


def test_a_pool_without_threads_leaves_none_behind(eventually: Wait) -> None:
    names = {one.name for one in threading.enumerate()} | {"clock"}
    with threads(2), pytest.raises(Busy):
        pool_of(4)
    eventually(lambda: {one.name for one in threading.enumerate()} <= names)


def test_a_watch_that_could_not_begin_begins_with_the_next_job(
    eventually: Wait,
) -> None:
    live = LiveJobs(most=1)
    with threads(0), pytest.raises(Busy):
        live.start("J", None)
    live.must_stop = lambda: True
    job = live.start("J", None)
    eventually(lambda: job.reason)
    live.stop("J")


def test_a_writer_that_could_not_begin_begins_with_the_next_job(
    tmp_path: Path,
) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/jobs.db", lambda: "W", lambda: {"J"})
    writer = Writer(ledger)
    with threads(0), pytest.raises(Busy):
        writer.watch(Row("J", Cancellation()))
    row = Row("J", Cancellation())
    ledger.open_job("J", "iso", ("MR.001",), requester="x")
    writer.watch(row)
    assert writer.end(row, state="done", finished_at="2026-01-01T00:00:00.000Z")
    ledger.close()


def test_a_look_that_could_not_begin_is_not_known_and_begins_with_the_next_question() -> None:
    cached = Cached(lambda: "good", renewed=10, oldest=30)
    with threads(0):
        assert cached.awaited(0.1) is None
    assert cached.awaited(10) == "good"


@pytest.fixture
def master() -> Master:
    """gunicorn's master, never started."""
    made = Master.__new__(Master)
    made.pid = os.getpid()
    return made


@pytest.mark.parametrize(
    "error", [*(error for error, _ in LACKS if error is not NO_THREAD), OSError(errno.EROFS, "Read-only file system")]
)
def test_a_master_that_can_start_no_worker_tells_it_once_and_goes_on(
    error: Exception, master: Master, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(Arbiter, "spawn_worker", failing(3, error, lambda _master: 4711))
    assert [master.spawn_worker() for _ in range(5)] == [0, 0, 0, 4711, 4711]
    assert [one.levelname for one in caplog.records] == ["ERROR", "INFO"]


def test_a_worker_never_goes_on_as_a_second_master(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(Arbiter, "spawn_worker", failing(1, OSError(errno.EPIPE, "Broken pipe"), lambda _: 1))
    monkeypatch.setattr(os, "_exit", ended.append)
    master.pid = os.getpid() + 1
    master.spawn_worker()
    assert ended == [1]


def test_no_exit_status_of_a_worker_ends_the_service() -> None:
    assert not {Master.WORKER_BOOT_ERROR, Master.APP_LOAD_ERROR} & set(range(256))


def test_a_workers_sign_of_life_needs_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.mkstemp", failing(1, OSError(errno.ENOSPC, "No space left on device"), lambda: 1))
    worker = Worker(
        1, os.getpid(), [], None, 15, SimpleNamespace(max_requests=0, worker_connections=9, threads=8), None
    )
    assert isinstance(worker.tmp, Heartbeat)
    before = worker.tmp.last_update()
    worker.notify()
    assert worker.tmp.last_update() != before
    worker.tmp.close()


def test_no_thread_begins_while_python_ends() -> None:
    """One that begins then is waited for, and the next one does not: SIGSEGV may be the end of it."""
    births, begins, begun = waiting._Births(), threading.Event(), threading.Event()

    class Late(threading.Thread):
        def start(self) -> None:
            begins.set()
            time.sleep(0.2)
            super().start()
            begun.set()

    creator = threading.Thread(target=births.start, args=(Late(),))
    creator.start()
    assert begins.wait(20)
    births.end()
    assert begun.is_set()
    with pytest.raises(Busy):
        births.start(threading.Thread())
    creator.join()
