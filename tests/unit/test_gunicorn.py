"""gunicorn's parts as mkiso has them: what they do, and that this version has what they override and use."""

import ast
import inspect
import json
import logging
import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace

import gunicorn
import pytest
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.http import errors as http
from gunicorn.workers import base, gthread
from gunicorn.workers.gthread import TConn, ThreadWorker
from gunicorn.workers.workertmp import WorkerTmp

from mkiso.config import parse
from mkiso.errors import Cancelled
from mkiso.web import gunicorn as own
from mkiso.web.gunicorn import Worker
from tests.support.tools import ROOT

# Our classes, what each is in gunicorn, and what in each is ours alone.
INSIDES: dict[type, tuple[type, set[str]]] = {
    own.Logger: (Logger, set()),
    own.Heartbeat: (WorkerTmp, set()),
    own.Worker: (ThreadWorker, {"_stop_at_once", "application", "is_stopping"}),
    own.Master: (Arbiter, {"_lacks", "_note_lack", "addresses"}),
    own.GunicornApplication: (BaseApplication, {"_config", "_settings", "stop_listening"}),
}
IMPLICIT = {"__annotations__", "__module__", "__doc__", "__qualname__", "__firstlineno__", "__static_attributes__"}
SOURCE = Path(own.__file__).read_text()


def attributes(kind: type) -> set[str]:
    """What its instances have: methods, and what its own code gives them."""
    sources = (inspect.getsource(one) for one in kind.__mro__ if one is not object)
    return {*dir(kind), *re.findall(r"\bself\.(\w+)(?:, self\.\w+)* = ", "".join(sources))}


def used(source: str, name: str) -> set[str]:
    """Which attributes of a variable a piece of Python names."""
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute))
    return {node.attr for node in nodes if ast.unparse(node.value) == name}


def parameters(method: object) -> list[tuple[str, object]]:
    return [(one.name, one.kind) for one in inspect.signature(method).parameters.values()]  # type: ignore[arg-type]


@pytest.mark.parametrize("ours", INSIDES, ids=lambda ours: ours.__name__)
def test_what_is_overridden_is_there_and_takes_the_same(ours: type) -> None:
    theirs, alone = INSIDES[ours]
    overridden = vars(ours).keys() - IMPLICIT - alone
    assert overridden
    assert overridden - attributes(theirs) == set()
    for name in (one for one in overridden if inspect.isfunction(vars(ours)[one])):
        if name != "__init__":
            assert parameters(getattr(ours, name)) == parameters(getattr(theirs, name)), name


@pytest.mark.parametrize("ours", INSIDES, ids=lambda ours: ours.__name__)
def test_what_is_used_of_gunicorns_own_is_there(ours: type) -> None:
    theirs, alone = INSIDES[ours]
    source = inspect.getsource(ours)
    assert used(source, "self") | used(source, "super()") <= attributes(theirs) | alone


def test_a_connection_has_what_is_used_of_it() -> None:
    assert {"sock"} < used(SOURCE, "conn") <= attributes(TConn)
    assert used(SOURCE, "gthread") <= set(dir(gthread))


def test_a_missing_attribute_would_be_seen() -> None:
    assert used("self.gone + self.sock.alive; super().left()", "self") == {"gone", "sock"}
    assert not {"gone", "left"} & attributes(TConn)


def test_gunicorns_worker_beats_as_ours_wants_it() -> None:
    """It makes its heartbeat by the name that ours has replaced."""
    assert "WorkerTmp(cfg)" in inspect.getsource(base.Worker.__init__)


def test_a_deferred_connection_waits_for_its_first_byte_outside_the_threads() -> None:
    assert "_DEFER" in inspect.getsource(ThreadWorker.finish_request)


def test_no_other_module_knows_gunicorn() -> None:
    package = Path(own.__file__).parents[1]
    imports = re.compile(r"^\s*(from|import) gunicorn\b", re.M)
    knowing = [file for file in package.rglob("*.py") if imports.search(file.read_text())]
    assert knowing == [Path(own.__file__)]


def test_a_setting_that_gunicorn_does_not_know_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    def listener() -> None:
        return

    assert own.GunicornApplication(parse({}), {"threads": 9}, listener).cfg.threads == 9
    with pytest.raises(SystemExit) as ended:
        own.GunicornApplication(parse({}), {"no_such_setting": 1}, listener)
    assert (ended.value.code, "no_such_setting" in capsys.readouterr().err) == (1, True)


def test_gunicorn_is_of_the_version_that_was_read() -> None:
    bounds = re.search(r"^ +gunicorn>=(\d+),<(\d+)$", (ROOT / "setup.cfg").read_text(), re.M)
    assert bounds
    assert int(bounds[1]) <= int(gunicorn.__version__.split(".")[0]) < int(bounds[2])


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
    monkeypatch.setattr(own, "time", SimpleNamespace(sleep=lambda _: happened.append("wait")))
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
    monkeypatch.setattr("mkiso.web.gunicorn.START_PAUSE", 0)
    worker.booted = booted
    with pytest.raises(SystemExit) as ended:
        worker.init_process()
    assert ended.value.code not in (0, Arbiter.WORKER_BOOT_ERROR, Arbiter.APP_LOAD_ERROR)
    assert [(one.getMessage(), bool(one.exc_info)) for one in caplog.records] == [("the worker failed", True)]
