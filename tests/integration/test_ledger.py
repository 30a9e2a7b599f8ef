"""A ledger that is away, hangs, comes back, or is shared: on SQLite, PostgreSQL and MariaDB as they are."""

import re
import socket
import sqlite3
import subprocess
import sys
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import pytest
import requests
import sqlalchemy as sa

from mkiso import workspace
from mkiso.errors import DiskFull, JobExists, LedgerUnavailable, PacsUnreachable
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from mkiso.ledger import database, schema
from mkiso.ledger.database import Database
from mkiso.ledger.ledger import Ledger
from mkiso.ledger.schema import now
from mkiso.process import remove_tree
from mkiso.waiting import Cancellation
from mkiso.workspace import job_directory
from tests.integration.test_lifecycle import Slow, slow_archive
from tests.integration.test_limits import small_disk  # noqa: F401
from tests.support.mariadb import running_mariadb
from tests.support.pages import block
from tests.support.ports import free_ports
from tests.support.postgres import SECRET, running_postgres
from tests.support.service import Service, config, instances_of, instances_on, read_disc, running_service, settings
from tests.support.tools import run, wait_until

# What takes seconds in earnest, so that a test waits less for it.
HASTY = """
from mkiso.ledger import database, ledger, record
database.LIMIT = record.RETRY = 1
ledger.BEAT = record.BEAT = record.PAUSE = 0.3
from mkiso.commands.cli import main
main()
"""
PROGRAM = (sys.executable, "-c", HASTY)
# Forked, as a service's workers are, and let go at once.
MANY = """
import os, sys
from sqlalchemy import create_engine
from mkiso.ledger import database
from mkiso.ledger.ledger import Ledger
database.LIMIT = 60
create_engine(sys.argv[1])  # imports the driver once, and not in each of them
waiting, go = os.pipe()
children = []
for number in range(48):
    if (child := os.fork()) == 0:
        os.close(go)
        os.read(waiting, 1)
        Ledger(sys.argv[1], lambda: "W", set).open_job(str(number), "iso", ("A",), requester="x")
        os._exit(0)
    children.append(child)
os.close(waiting)
os.close(go)
print(sum(os.waitpid(child, 0)[1] == 0 for child in children))
"""


@dataclass(frozen=True)
class Server:
    """One of the two servers, and a new database in it."""

    running: Any
    name: str

    @property
    def url(self) -> str:
        return self.running.url(self.name)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sa.create_engine(self.url).connect()) as connection, connection.begin():
            result = connection.execute(sa.text(statement))
            return [tuple(row) for row in result] if result.returns_rows else []


def started(kind: str, directory: Path) -> AbstractContextManager[Any]:
    port = free_ports(1)[0]
    return running_mariadb(directory / "mariadb", port) if kind == "mariadb" else running_postgres(port)


def new_database(running: Any) -> Server:
    name = f"ledger_{uuid.uuid4().hex}"
    running.execute(f"CREATE DATABASE {name}")
    return Server(running, name)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    directory = tmp_path_factory.mktemp("servers")
    with started("mariadb", directory) as mariadb, started("postgresql", directory) as postgresql:
        yield {"mariadb": mariadb, "postgresql": postgresql}


@pytest.fixture(params=["mariadb", "postgresql"])
def server(request: pytest.FixtureRequest, servers: dict[str, Any]) -> Server:
    return new_database(servers[request.param])


@pytest.fixture(params=["mariadb", "postgresql"])
def server_of_its_own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """One that a test may end, and start again."""
    with started(request.param, tmp_path) as running:
        yield new_database(running)


@pytest.fixture
def postgresql(servers: dict[str, Any]) -> Server:
    return new_database(servers["postgresql"])


@contextmanager
def slow_service(tmp_path: Path, url: str, delay: float = 0.05) -> Iterator[Slow]:
    with slow_archive(tmp_path, delay) as (port, receiver, study):
        configuration = settings(tmp_path, port, {"RECEIVER": receiver}, server={"drain_timeout": 0.5})
        configuration["storage"]["ledger"] = url
        with running_service(tmp_path, free_ports(1)[0], configuration, program=PROGRAM) as service:
            if delay:  # else a ledger is away
                wait_until(lambda: service.get("/api/jobs").ok, 60, lambda: "the tables are not made")
            yield Slow(service, study, tmp_path, configuration)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    with sqlite3.connect(file, isolation_level=None) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")
    connection.close()


def refused(slow: Slow) -> tuple[int, str]:
    answer = slow.service.get("/mkiso.php?accession_number=SLOW.001")
    return answer.status_code, answer.json()["code"]


def require_whole_disc(slow: Slow) -> None:
    assert slow.answer.status_code == 200, slow.answer.text
    assert instances_on(read_disc(slow.answer.content, slow.directory / "disc")) == instances_of([slow.study])


def require_row(slow: Slow, job_id: str, state: str = "done") -> dict[str, Any]:
    """The row comes to tell the truth."""
    wait_until(lambda: slow.state(job_id) == state, 20, lambda: f"{slow.job(job_id)}")
    job = slow.job(job_id)
    assert job["finished_at"] is not None
    return job


def test_a_ledger_that_is_locked_takes_no_running_job_down(tmp_path: Path) -> None:
    file, job_id = tmp_path / "ledger.db", str(uuid.uuid4())
    with slow_service(tmp_path, f"sqlite:///{file}") as slow:
        waiting = slow.ask(job_id)
        with locked(file):
            assert refused(slow) == (503, "ledger_unavailable")
            waiting.join()
            require_whole_disc(slow)
            assert slow.state(job_id) == "retrieving"
        assert require_row(slow, job_id)["received"] == 30
        with sqlite3.connect(file) as connection:
            assert connection.execute("SELECT count(*) FROM instances").fetchone() == (30,)
        connection.close()
        assert "ERROR   the ledger has not taken a job's end yet" in slow.service.log.read_text()


def test_a_server_that_goes_and_comes_back_takes_no_running_job_down(server_of_its_own: Server, tmp_path: Path) -> None:
    server, job_id = server_of_its_own, str(uuid.uuid4())
    with slow_service(tmp_path, server.url) as slow:
        waiting = slow.ask(job_id)
        server.running.kill()
        assert refused(slow) == (503, "ledger_unavailable")
        waiting.join()
        require_whole_disc(slow)
        server.running.start()
        job = require_row(slow, job_id)
        assert (job["received"], job["expected"], job["patient_name"]) == (30, 30, "RICHARD ROE")
        assert server.execute("SELECT count(*) FROM instances") == [(30,)]


def test_a_server_that_hangs_holds_neither_jobs_nor_requests(server: Server, tmp_path: Path) -> None:
    job_id = str(uuid.uuid4())
    with slow_service(tmp_path, server.url) as slow:
        waiting = slow.ask(job_id)
        with server.running.frozen():
            assert refused(slow) == (503, "ledger_unavailable")
            for path in ("/api/jobs", f"/api/jobs/{job_id}"):
                answer = slow.service.get(path)
                assert (answer.status_code, answer.json()["code"]) == (503, "ledger_unavailable")
            assert slow.service.get("/healthz").ok
            waiting.join()
        require_whole_disc(slow)
        require_row(slow, job_id)


def test_a_server_that_hangs_holds_no_stopping_service(postgresql: Server, tmp_path: Path) -> None:
    with slow_service(tmp_path, postgresql.url, delay=0.5) as slow:
        waiting = slow.ask(str(uuid.uuid4()))
        with postgresql.running.frozen():
            assert slow.service.stop() == 0
            assert slow.left() == []
            waiting.join()
            assert slow.answer is None or slow.answer.status_code == 410


def test_a_server_that_hangs_holds_no_job_whose_client_left(postgresql: Server, tmp_path: Path) -> None:
    job_id = str(uuid.uuid4())
    with slow_service(tmp_path, postgresql.url, delay=0.5) as slow:
        host, port = slow.service.url.removeprefix("http://").split(":")
        request = f"GET /mkiso.php?accession_number=SLOW.001&job={job_id} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with socket.create_connection((host, int(port))) as client:
            client.sendall(request.encode())
            wait_until(lambda: slow.state(job_id) == "retrieving", 20, lambda: f"{slow.job(job_id)}")
            with postgresql.running.frozen():
                client.close()
                wait_until(lambda: slow.left() == [], 10, lambda: f"{slow.left()}")
        require_row(slow, job_id, "cancelled")


def test_a_service_starts_while_its_ledger_is_away(tmp_path: Path) -> None:
    with started("postgresql", tmp_path) as running:
        url = new_database(running).url
        running.kill()
        with slow_service(tmp_path, url, delay=0) as slow:
            require_no_jobs(slow)
            argv = (*PROGRAM, "iso", "SLOW.001", "-o", tmp_path / "x.iso", "--config", slow.service.config_file)
            command = run(argv)
            assert (command.returncode, "mkiso: ledger unavailable: " in command.stderr) == (1, True)
            running.start()
            require_jobs(slow)


def test_a_service_starts_while_its_ledger_hangs(postgresql: Server, tmp_path: Path) -> None:
    with ExitStack() as hanging:
        hanging.enter_context(postgresql.running.frozen())
        with slow_service(tmp_path, postgresql.url, delay=0) as slow:
            require_no_jobs(slow)
            hanging.close()
            require_jobs(slow)


def require_no_jobs(slow: Slow) -> None:
    assert refused(slow) == (503, "ledger_unavailable")
    assert slow.service.get("/api/jobs").json()["code"] == "ledger_unavailable"
    assert slow.left() == []
    log = slow.service.log.read_text()
    assert "WARNING the ledger does not answer" in log
    assert SECRET not in log


def require_jobs(slow: Slow) -> None:
    assert slow.service.get("/mkiso.php?accession_number=SLOW.001").status_code == 200
    assert [job["state"] for job in slow.service.get("/api/jobs").json()["jobs"]] == ["done"]


@dataclass
class Two:
    """Two hosts' services, with one ledger, and work_dirs of the same path; on the first one a job runs."""

    one: Slow

    @contextmanager
    def other(self) -> Iterator[Service]:
        """The other host's, which is here a mount namespace; that needs root."""
        work_dir = self.one.settings["storage"]["work_dir"]
        others = self.one.directory / "other" / "work"
        others.mkdir(0o700, parents=True)
        mounted = 'mount --bind "$0" "$1" && shift && exec "$@"'
        program = ("/usr/bin/unshare", "--mount", "/bin/sh", "-c", mounted, others, work_dir, *PROGRAM)
        with running_service(others.parent, free_ports(1)[0], self.one.settings, program=program) as service:
            yield service


@pytest.fixture
def two(postgresql: Server, tmp_path: Path) -> Iterator[Two]:
    with slow_service(tmp_path, postgresql.url, delay=1) as one:
        yield Two(one)


def test_a_start_on_one_host_leaves_the_jobs_of_another_alone_and_a_cancel_reaches_them(two: Two) -> None:
    job_id = str(uuid.uuid4())
    waiting = two.one.ask(job_id)
    with two.other() as other:
        assert [job["state"] for job in other.get("/api/jobs").json()["jobs"]] == ["retrieving"]
        assert waiting.is_alive()
        cancelled = requests.post(f"{other.url}/api/jobs/{job_id}/cancel", timeout=10)
        assert (cancelled.status_code, cancelled.json()["id"]) == (200, job_id)
        waiting.join()
        assert (two.one.answer.status_code, two.one.answer.json()["code"]) == (410, "cancelled")
        assert other.get(f"/api/jobs/{job_id}").json()["state"] == "cancelled"


def test_a_job_whose_host_is_gone_is_finished_by_another_one(two: Two, postgresql: Server) -> None:
    job_id = str(uuid.uuid4())
    waiting = two.one.ask(job_id)
    for process in (psutil.Process(two.one.service.process.pid), *two.one.service.workers()):
        process.kill()
    two.one.service.process.wait()
    waiting.join()
    with two.other() as other:
        url = f"/api/jobs/{job_id}"
        assert other.get(url).json()["state"] == "retrieving"
        postgresql.execute("UPDATE jobs SET alive_at = alive_at - 121")
        wait_until(lambda: other.get(url).json()["state"] == "failed", 10, lambda: other.get(url).text)
        assert other.get(url).json()["error"]["code"] == "internal"
    with running_service(two.one.directory, free_ports(1)[0], two.one.settings):
        assert two.one.left() == []


def test_a_host_that_vanishes_within_a_transaction_holds_no_row(
    postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server learns of a power loss hours later."""
    monkeypatch.setattr(database, "LIMIT", 1.0)
    back, vanished = Event(), Database(postgresql.url)
    with closing(Ledger(postgresql.url, lambda: "W", set)) as ledger:
        job_id = opened(ledger, "A")

        def vanish(connection: sa.Connection) -> None:
            connection.execute(schema.jobs.update().values(state="retrieving"))
            back.wait()

        with pytest.raises(LedgerUnavailable):
            vanished.do(vanish)
        try:
            wait_until(lambda: is_written(ledger, job_id), 20, lambda: "the row is locked")
        finally:
            back.set()


def is_written(ledger: Ledger, job_id: str) -> bool:
    with suppress(LedgerUnavailable):
        ledger.update(job_id, state="failed")
        return True
    return False


def test_a_job_id_that_another_process_uses_is_refused(tmp_path: Path) -> None:
    installation, order = site_without_archive(tmp_path), Order(("A",), "test")
    work_dir = installation.config.storage.work_dir
    with job_directory(work_dir, order.job_id) as workspace:
        installation.ledger.open_job(order.job_id, "iso", ("B",), requester="x")
        with pytest.raises(JobExists):
            make_disc(installation, order, Cancellation())
        assert workspace.received.is_dir()
        job = installation.ledger.job(order.job_id)
        assert (job["accessions"], job["state"]) == (["B"], "queued")
    assert installation.clear_away() == [order.job_id]


def test_of_two_that_begin_at_once_the_one_with_the_directory_has_the_row(tmp_path: Path) -> None:
    installation, order = site_without_archive(tmp_path), Order(("A",), "test")
    with job_directory(installation.config.storage.work_dir, order.job_id):
        with pytest.raises(JobExists):
            make_disc(installation, order, Cancellation())
        installation.ledger.open_job(order.job_id, "iso", ("A",), requester="the first")
        assert installation.ledger.job(order.job_id)["state"] == "queued"
    assert installation.clear_away() == [order.job_id]


def test_a_job_that_ends_is_not_taken_for_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installation, order, found = site_without_archive(tmp_path), Order(("A",), "test"), []
    another = Installation(installation.config)

    def removed(path: Path) -> None:
        remove_tree(path)
        found.append(another.ledger.abandon())  # as another worker does from time to time

    monkeypatch.setattr(workspace, "remove_tree", removed)
    with pytest.raises(PacsUnreachable):
        make_disc(installation, order, Cancellation())
    assert found == [[]]
    assert installation.ledger.job(order.job_id)["error"]["code"] == "pacs_unreachable"
    assert {path.name for path in installation.config.storage.work_dir.iterdir()} == {"identity"}


def test_a_job_that_gets_no_directory_has_a_row_that_says_so(tmp_path: Path) -> None:
    installation, order = site_without_archive(tmp_path), Order(("A",), "test")
    work_dir = installation.config.storage.work_dir
    work_dir.mkdir(0o700)
    in_the_way = work_dir / f"dicomdir_{order.job_id}"
    in_the_way.touch()
    with pytest.raises(FileExistsError):
        make_disc(installation, order, Cancellation())
    in_the_way.unlink()
    job = installation.ledger.job(order.job_id)
    assert (job["state"], job["error"]["code"]) == ("failed", "internal")


def site_without_archive(tmp_path: Path) -> Installation:
    port, receiver = free_ports(2)
    return Installation(config(tmp_path, port, {"RECEIVER": receiver}))


def test_48_processes_make_the_tables_at_once(server: Server) -> None:
    done = subprocess.run(
        (sys.executable, "-c", MANY, server.url), capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.stderr) == ("48\n", "")
    assert server.execute("SELECT count(*) FROM jobs") == [(48,)]


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def ledger(request: pytest.FixtureRequest, servers: dict[str, Any], tmp_path: Path) -> Iterator[Ledger]:
    url = f"sqlite:///{tmp_path}/jobs.db" if request.param == "sqlite" else new_database(servers[request.param]).url
    opened = Ledger(url, lambda: "W", set)
    yield opened
    opened.close()


def opened(ledger: Ledger, *accessions: str, **fields: Any) -> str:
    job_id = str(uuid.uuid4())
    ledger.open_job(job_id, "iso", accessions, **{"requester": "x", **fields})
    return job_id


def test_accession_numbers_compare_byte_for_byte(ledger: Ledger) -> None:
    written = ("A1", "a1", "A1 ", "Ä1", "A1\u0308")
    ids = {accession: opened(ledger, accession) for accession in written}
    together = opened(ledger, *written)
    for accession in written:
        assert {job["id"] for job in ledger.list_jobs(accession=accession)} == {ids[accession], together}
    assert ledger.list_jobs(accession="ä1") == []


@pytest.mark.parametrize("name", ["Jörg Müller", "山田 太郎", "𠮷野家 😀", "Ян\u200d", "a\u0301 \\ ' \" % %s :x"])
def test_any_name_is_stored(name: str, ledger: Ledger) -> None:
    job_id = opened(ledger, "A", requester=name)
    error = {"code": "incomplete", "detail": name}
    ledger.update(job_id, patient_name=name, patient_id=name, destination=name, error=error)
    job = ledger.job(job_id)
    told = [job["requester"], job["patient_name"], job["patient_id"], job["destination"], job["error"]]
    assert told == [name, name, name, name, error]


def test_what_no_column_takes_is_cut(ledger: Ledger) -> None:
    odd, long = "a\0b\ud800c", "😀" * 100_000
    job_id = opened(ledger, "A", requester=odd, destination=long)
    ledger.update(job_id, patient_name=long, error={"code": "internal", "detail": odd + long})
    job = ledger.job(job_id)
    assert job["requester"] == "ab?c"
    assert {len(job["destination"]), len(job["patient_name"])} == {schema.LONGEST_TEXT}
    assert job["error"]["detail"] == "ab?c" + long
    columns = ("sop_class_uid", "series_uid", "study_uid", "transfer_syntax", "outcome")
    rows = [
        {"sop_instance_uid": "1" * length, **dict.fromkeys(columns, odd + long), "bytes": 1} for length in (2, 99, 100)
    ]
    ledger.hand_out(job_id, rows)
    query = sa.select(schema.instances.c.sop_instance_uid).order_by(schema.instances.c.sop_instance_uid)
    found = ledger._database.do(lambda connection: connection.execute(query).scalars().all())
    assert found == ["11", "1" * 64]


def test_an_id_is_taken_once_on_every_database(ledger: Ledger) -> None:
    job_id = opened(ledger, "A")
    with pytest.raises(JobExists):
        ledger.open_job(job_id, "iso", ("B",), requester="x")


def test_silence_is_told_by_the_databases_clock(ledger: Ledger) -> None:
    job_id = opened(ledger, "A", work_dir="ELSEWHERE")
    column = schema.jobs.c.alive_at
    for seconds, state in ((110, "queued"), (130, "failed")):
        values = {"alive_at": ledger._database.now - seconds}
        ledger._database.do(lambda connection, values=values: connection.execute(schema.jobs.update().values(values)))
        assert ledger.job(job_id)["state"] == state
    ledger.update(job_id, state="retrieving", finished_at=None, error=None)
    silent_for = sa.select(ledger._database.now - column)
    assert ledger._database.do(lambda connection: connection.execute(silent_for).scalar_one()) in range(60)
    assert ledger.abandon() == []


@pytest.mark.parametrize("found", ["open", "closed", "absent"])
def test_a_full_disk_of_the_ledger_is_told_as_such(found: str, small_disk: Path) -> None:  # noqa: F811
    ledger = Ledger(f"sqlite:///{small_disk}/ledger.db", lambda: "W", set)
    if found != "absent":
        opened(ledger, "A")
    if found == "closed":
        ledger.close()
    with (small_disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(1 << 10))
    with pytest.raises(DiskFull, match=r"storage\.ledger"):
        deque(opened(ledger, "A", destination="x" * 5000) for _ in range(1000))
    ledger.close()


@pytest.mark.parametrize(("kind", "host"), [("postgresql", "127.0.0.1"), ("mariadb", "localhost")])
def test_a_database_that_is_made_as_the_page_says_holds_a_ledger(kind: str, host: str, servers: dict[str, Any]) -> None:
    server = servers[kind]
    statements = block("hosts", f"sql {kind}").replace("10.1.2.%", host).split(";\n")
    server.execute(*filter(None, statements))
    url = re.findall(rf"^{kind if kind == 'postgresql' else 'mysql'}\S*$", block("hosts", "text urls"), re.M)[0]
    ledger = Ledger(url.replace("10.1.2.7", f"127.0.0.1:{server.port}"), lambda: "W", set)
    job_id = opened(ledger, "A.1")
    ledger.update(job_id, patient_name="小东^王")
    assert ledger.job(job_id)["patient_name"] == "小东^王"
    ledger.close()


def test_a_patients_rows_go_as_the_page_says_and_no_others(ledger: Ledger) -> None:
    columns = ("sop_class_uid", "series_uid", "study_uid", "transfer_syntax", "outcome")
    kept = [opened(ledger, "A.1", patient_id="PAT001"), opened(ledger, "A.2", patient_id="PAT002")]
    ended = [opened(ledger, "A.1", patient_id=who) for who in ("PAT001", "PAT001", "PAT002")]
    for job_id in ended:
        ledger.hand_out(job_id, [{"sop_instance_uid": "1.2", **dict.fromkeys(columns, "1"), "bytes": 1}])
        ledger.update(job_id, state="done", finished_at=now())
        ledger.collect(job_id, by="x", relation="other", given_by="x", note="", requester="x")
    for statement in block("security", "sql erase").split(";\n"):
        if statement:
            ledger._database.do(lambda connection, words=statement: connection.execute(sa.text(words)))
    assert {job["id"] for job in ledger.list_jobs()} == {*kept, ended[2]}
    rows = ledger._database.do(lambda connection: connection.execute(sa.text("SELECT job_id FROM collections")).all())
    assert [job_id for (job_id,) in rows] == ended[2:]
