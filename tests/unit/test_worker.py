import json
import logging
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from types import SimpleNamespace

import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.http import errors as http
from gunicorn.workers.gthread import ThreadWorker

from mkiso.errors import Cancelled
from mkiso.web import server as worker_module
from mkiso.web.server import Worker


@pytest.fixture
def worker() -> Worker:
    """A worker of 16 threads that was never started."""
    made = Worker.__new__(Worker)
    made.cfg = SimpleNamespace(threads=16)
    return made


@pytest.mark.parametrize(("connections", "happens"), [(11, ["accept"]), (12, ["wait", "accept"])])
def test_a_worker_full_of_jobs_lets_another_be_first(
    connections: int, happens: list[str], worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    monkeypatch.setattr(worker_module, "time", SimpleNamespace(sleep=lambda _: happened.append("wait")))
    monkeypatch.setattr(ThreadWorker, "accept", lambda _self, _listener: happened.append("accept"))
    worker.nr_conns = connections
    worker.accept(None)
    assert happened == happens


@pytest.mark.parametrize(
    ("alive", "asked", "accepts"), [(True, True, True), (True, False, False), (False, False, True)]
)
def test_a_stopping_worker_goes_on_to_accept(
    alive: bool, asked: bool, accepts: bool, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    monkeypatch.setattr(ThreadWorker, "set_accept_enabled", lambda _self, enabled: told.append(enabled))
    worker.alive = alive
    worker.set_accept_enabled(asked)
    assert told == [accepts]


def test_a_signal_in_the_middle_of_a_submit_cancels_the_jobs_and_ends_the_worker(worker: Worker) -> None:
    asked: list[Worker] = []
    worker.cfg.worker_int = asked.append
    worker.tpool = ThreadPoolExecutor(1)
    with worker.tpool._shutdown_lock, ThreadPoolExecutor(1) as main:
        ended = main.submit(worker.handle_quit, signal.SIGQUIT, None)
        try:
            assert isinstance(ended.exception(10), SystemExit)
        finally:
            worker.tpool._shutdown_lock.release()
            ended.exception(10)
            worker.tpool._shutdown_lock.acquire()
    assert asked == [worker]


def answered(worker: Worker, request: object, error: Exception) -> tuple[int, dict[str, object]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker.handle_error(request, ours, ("127.0.0.1", 1), error)
        head, _, body = theirs.recv(1 << 16).partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (http.InvalidHeader("s3cr3t"), HTTPStatus.BAD_REQUEST),
        (http.LimitRequestLine(9000, 8190), HTTPStatus.REQUEST_URI_TOO_LONG),
        (http.LimitRequestHeaders("s3cr3t"), HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
        (ValueError("s3cr3t"), HTTPStatus.BAD_REQUEST),
    ],
)
def test_what_cannot_be_read_is_refused_without_a_word_of_it(
    error: Exception, status: HTTPStatus, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    given, told = answered(worker, None, error)
    assert (given, told["error"], told["code"]) == (status, status.phrase.lower(), "bad_request")
    (logged,) = caplog.records
    assert logged.fields == {"status": status, "reason": type(error).__name__, "address": "127.0.0.1"}
    assert logged.exc_info is None
    assert "s3cr3t" not in caplog.text + str(told)


def test_what_fails_behind_the_applications_back_is_internal_and_logged_without_the_query(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    request = SimpleNamespace(path="/mkiso.php", uri="/mkiso.php?token=s3cr3t", method="GET")
    status, told = answered(worker, request, ValueError("/w/received"))
    assert (status, told["code"], told["job_id"]) == (500, "internal", None)
    assert "/w" not in str(told)
    (logged,) = caplog.records
    assert (logged.levelno, logged.fields) == (logging.ERROR, {"path": "/mkiso.php"})
    assert "s3cr3t" not in caplog.text


def test_an_error_of_the_contract_keeps_its_status(worker: Worker) -> None:
    assert answered(worker, SimpleNamespace(path="/"), Cancelled("It was stopped."))[0] == 410


@pytest.mark.parametrize("booted", [False, True])
def test_a_worker_that_fails_tells_it_once_as_an_event_and_does_not_end_the_service(
    booted: bool,
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_self: ThreadWorker) -> None:
        raise ValueError("boom")

    monkeypatch.setattr(ThreadWorker, "init_process", fail)
    monkeypatch.setattr("mkiso.web.server.START_PAUSE", 0)
    worker.booted = booted
    with pytest.raises(SystemExit) as ended:
        worker.init_process()
    assert ended.value.code not in (0, Arbiter.WORKER_BOOT_ERROR, Arbiter.APP_LOAD_ERROR)
    assert [(one.getMessage(), bool(one.exc_info)) for one in caplog.records] == [("the worker failed", True)]
