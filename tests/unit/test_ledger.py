import _sqlite3
import ctypes
import re
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from mkiso.dicom.instances import Instance
from mkiso.errors import ConfigurationError, DiskFull, JobExists, JobNotFound, LedgerUnavailable
from mkiso.ledger import database, schema
from mkiso.ledger import ledger as ledger_module
from mkiso.ledger.history import BATCH, Filters
from mkiso.ledger.ledger import Ledger
from tests.support.tools import wait_until

# The contract's JOB.
JOB_FIELDS = {
    *("id", "kind", "state", "accessions", "patient_id", "patient_name", "studies", "layout", "destination"),
    *("expected", "received", "bytes", "files_sent", "files_failed", "error", "requester", "created_at"),
    *("finished_at", "format", "medium", "not_indexed", "malformed", "seconds", "series", "encrypted"),
    *("relay_id", "confirmed", "collected"),
}
STATES = ["queued", "querying", "retrieving", "verifying", "mastering", "sending", "done", "failed", "cancelled"]
RFC_3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
OPEN_AND_WRITE = """
import sys
from mkiso.ledger.ledger import Ledger
print("ready", flush=True)
sys.stdin.readline()
for number in range(10):
    ledger = Ledger(f"sqlite:///{sys.argv[1]}/{number}.db", lambda: "W", set)
    ledger.open_job(sys.argv[2], "iso", ("A",), requester="x")
    ledger.close()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger" / "jobs.db"


@pytest.fixture
def living() -> set[str]:
    """The jobs that have a directory and a process."""
    return set()


@pytest.fixture
def ledger(file: Path, living: set[str]) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{file}", lambda: "W", lambda: living)
    yield opened
    opened.close()


def opened(ledger: Ledger, job_id: str, *accessions: str) -> str:
    ledger.open_job(job_id, "iso", accessions or ("A",), requester="his@10.0.0.1", layout="legacy")
    return job_id


def ids(jobs: list[dict[str, Any]]) -> list[str]:
    return [job["id"] for job in jobs]


def test_a_new_job_has_every_field_of_the_contract_and_no_other(ledger: Ledger) -> None:
    job = ledger.job(opened(ledger, "J", "B", "A"))
    created = job.pop("created_at")
    assert RFC_3339_UTC.fullmatch(created)
    assert job | {"created_at": created} == job | dict.fromkeys(JOB_FIELDS - set(job), created)
    assert set(job) == JOB_FIELDS - {"created_at"}
    assert job == {
        "id": "J",
        "kind": "iso",
        "state": "queued",
        "accessions": ["B", "A"],
        "patient_id": None,
        "patient_name": None,
        "studies": [],
        "layout": "legacy",
        "destination": None,
        "expected": None,
        "received": 0,
        "bytes": 0,
        "files_sent": 0,
        "files_failed": 0,
        "error": None,
        "requester": "his@10.0.0.1",
        "finished_at": None,
        "format": None,
        "medium": None,
        "not_indexed": None,
        "malformed": None,
        "seconds": {},
        "series": None,
        "encrypted": False,
        "relay_id": None,
        "confirmed": None,
        "collected": [],
    }


def test_the_states_are_the_contracts() -> None:
    assert list(ledger_module.STATES) == STATES


def test_a_job_keeps_what_is_written(ledger: Ledger) -> None:
    opened(ledger, "J")
    ledger.update("J", patient_name="MÜLLER 山田", bytes=5 * 2**40, seconds={"queued": 0.5})
    error = {"code": "incomplete", "detail": "Two are missing."}
    ledger.update("J", state="failed", error=error, finished_at=ledger_module.now(), received=3)
    job = ledger.job("J")
    assert (job["patient_name"], job["bytes"], job["received"]) == ("MÜLLER 山田", 5 * 2**40, 3)
    assert (job["state"], job["seconds"]) == ("failed", {"queued": 0.5})
    assert job["error"] == {"code": "incomplete", "detail": "Two are missing."}
    assert RFC_3339_UTC.fullmatch(job["finished_at"])
    assert job["finished_at"] >= job["created_at"]


def test_an_id_is_taken_once(ledger: Ledger) -> None:
    opened(ledger, "J", "A")
    with pytest.raises(JobExists):
        opened(ledger, "J", "B")
    assert ledger.job("J")["accessions"] == ["A"]


def test_a_job_that_is_not_there_is_not_found(ledger: Ledger) -> None:
    with pytest.raises(JobNotFound):
        ledger.job("J")
    with pytest.raises(JobNotFound):
        ledger.request_cancel("J", "x@10.0.0.9")


@pytest.fixture
def three(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    for day, (job_id, accessions) in enumerate([("J1", "A"), ("J2", "AB"), ("J3", "B")], start=1):
        monkeypatch.setattr(ledger_module, "now", lambda day=day: f"2026-01-0{day}T00:00:00.000000Z")
        opened(ledger, job_id, *accessions)
    ledger.update("J2", state="done", finished_at="2026-01-03T00:00:00.000000Z")
    return ledger


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ["J3", "J2", "J1"]),
        ({"limit": 2}, ["J3", "J2"]),
        ({"accession": "A"}, ["J2", "J1"]),
        ({"accession": "A%"}, []),
        ({"state": "queued"}, ["J3", "J1"]),
        ({"since": "2026-01-02T00:00:00.000000Z"}, ["J3", "J2"]),
        ({"accession": "A", "state": "queued", "since": "2026-01-01T00:00:00.000000Z", "limit": 9}, ["J1"]),
    ],
)
def test_the_list_is_newest_first_and_meets_every_condition(
    wanted: dict[str, Any], found: list[str], three: Ledger
) -> None:
    assert ids(three.list_jobs(**wanted)) == found


def test_a_cancel_is_asked_for_where_the_job_still_runs(three: Ledger, living: set[str]) -> None:
    living.update(("J1", "J3"))
    assert three.request_cancel("J1", "x@10.0.0.9")["state"] == "queued"
    assert three.request_cancel("J2", "x@10.0.0.9")["state"] == "done"
    assert three.cancel_requested(["J1", "J2", "J3"]) == {"J1": "x@10.0.0.9"}


def test_a_cancel_ends_a_job_that_nobody_runs(three: Ledger, file: Path) -> None:
    job = three.request_cancel("J1", "x@10.0.0.9")
    assert (job["state"], job["error"]["code"], job["finished_at"] is None) == ("cancelled", "cancelled", False)
    elsewhere = Ledger(f"sqlite:///{file}", lambda: "ELSEWHERE", set)
    assert elsewhere.request_cancel("J3", "x@10.0.0.9")["state"] == "queued"
    silence(three, "J3")
    assert elsewhere.request_cancel("J3", "x@10.0.0.9")["state"] == "cancelled"
    elsewhere.close()


def test_the_first_who_cancels_is_remembered_and_said(three: Ledger, living: set[str]) -> None:
    living.add("J1")
    three.request_cancel("J1", "anna@10.0.0.3")
    three.request_cancel("J1", "ben@10.0.0.4")
    assert three.cancel_requested(["J1"]) == {"J1": "anna@10.0.0.3"}
    living.clear()
    assert three.request_cancel("J1", "cleo@10.0.0.5")["error"]["detail"] == "Cancelled by anna@10.0.0.3."


def test_a_cancel_that_an_older_version_took_names_nobody(three: Ledger, living: set[str]) -> None:
    living.add("J1")
    row = schema.jobs.update().where(schema.jobs.c.id == "J1").values(cancel_requested=True)
    three._database.do(lambda connection: connection.execute(row))
    assert three.cancel_requested(["J1"]) == {"J1": None}
    living.clear()
    assert three.request_cancel("J1", "x@y")["error"]["detail"] == "The job was cancelled on request."


def test_a_job_is_listed_by_the_numbers_that_its_studies_turn_out_to_have(ledger: Ledger) -> None:
    ledger.open_job("J", "iso", (), study_uids=("1.2",), requester="x")
    assert ledger.job("J")["accessions"] == []
    for fields in ({"state": "queued"}, {"state": "done", "finished_at": ledger_module.now()}):
        ledger.update("J", accessions=["A", "B"], **fields)
        assert ledger.job("J")["accessions"] == ["A", "B"]
        assert [ids(ledger.list_jobs(accession=number)) for number in "ABC"] == [["J"], ["J"], []]
    ledger.update("J", accessions=["B", "C", "", "Ä" * 40])
    assert [ids(ledger.list_jobs(accession=number)) for number in "ABC"] == [[], ["J"], ["J"]]


def test_a_job_of_a_part_has_its_series(ledger: Ledger) -> None:
    ledger.open_job("J", "iso", ("A",), series_uids=("1.2", "1.3"), requester="x", encrypted=True)
    assert (ledger.job("J")["series"], ledger.job("J")["encrypted"]) == (["1.2", "1.3"], True)


BY_ANNA = {"by": "Müller", "relation": "relative", "given_by": "Anna", "note": ""}
HERE = {"requester": "anna@10.0.0.3"}


def test_who_collected_it_is_kept_with_every_correction(three: Ledger) -> None:
    three.collect("J2", **BY_ANNA, **HERE)
    three.collect("J2", **HERE, **BY_ANNA | {"by": "Müllner\0", "note": "x" * 20_000, "relation": "y" * 30})
    first, last = three.job("J2")["collected"]
    assert first == BY_ANNA | {"at": first["at"]}
    assert RFC_3339_UTC.fullmatch(first["at"])
    assert (last["by"], len(last["note"]), len(last["relation"])) == ("Müllner", 10_000, 16)
    assert {one["id"]: one["collected"] for one in three.list_jobs()} == {"J1": [], "J2": [first, last], "J3": []}
    assert three.history.jobs(["J2"])["J2"][0]["collected"] == [first, last]
    with pytest.raises(JobNotFound):
        three.collect("J9", **BY_ANNA, **HERE)


@pytest.mark.parametrize(("batch", "done", "statements"), [(BATCH, 120, 2), (50, 120, 4), (BATCH, 1, 2), (50, 0, 1)])
def test_who_collected_what_costs_a_list_of_jobs_no_statement_for_each_and_those_under_way_none(
    batch: int, done: int, statements: int, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mkiso.ledger.history.BATCH", batch)
    for number in range(120):
        state = "done" if number < done else "retrieving"
        ledger.open_job(f"J{number}", "iso", ("A",), requester="his@10.0.0.1", state=state)
    if done:
        ledger.collect("J0", **BY_ANNA, **HERE)
    asked: list[str] = []
    sa.event.listen(sa.Engine, "before_cursor_execute", look := lambda *seen: asked.append(seen[2]))
    try:
        found = ledger.list_jobs(limit=1000)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", look)
    assert [(job["id"], job["collected"][0]["by"]) for job in found if job["collected"]] == [("J0", "Müller")][:done]
    assert (len(found), sum("FROM " in one for one in asked)) == (120, statements)


def silence(ledger: Ledger, *job_ids: str, seconds: float = 121) -> None:
    """As if nobody had written to the rows for so long."""
    rows = ledger_module.jobs.update().where(ledger_module.jobs.c.id.in_(job_ids))
    ledger._database.do(lambda connection: connection.execute(rows.values(alive_at=ledger._database.now - seconds)))


def test_the_dead_jobs_of_its_own_work_dir_alone_are_finished(three: Ledger, file: Path, living: set[str]) -> None:
    other = Ledger(f"sqlite:///{file}", lambda: "ELSEWHERE", set)
    opened(other, "O")
    living.add("J3")
    assert three.abandon() == ["J1"]
    dead = three.job("J1")
    assert (dead["state"], dead["error"]["code"]) == ("failed", "internal")
    assert RFC_3339_UTC.fullmatch(dead["finished_at"])
    assert [three.job(one)["state"] for one in ("J2", "J3", "O")] == ["done", "queued", "queued"]
    assert three.abandon() == []
    other.close()


def test_whoever_sees_a_row_that_is_silent_finishes_it(three: Ledger, file: Path) -> None:
    other = Ledger(f"sqlite:///{file}", lambda: "ELSEWHERE", set)
    silence(three, "J1", "J2", "J3", seconds=100)
    assert other.abandon() == []
    silence(three, "J1", "J2", "J3")
    assert (other.job("J1")["state"], other.job("J1")["error"]["code"]) == ("failed", "internal")
    assert other.abandon() == ["J3"]
    assert other.job("J2")["state"] == "done"
    other.close()


def test_after_the_ledger_was_away_silence_proves_nothing(three: Ledger, file: Path) -> None:
    other = Ledger(f"sqlite:///{file}", lambda: "ELSEWHERE", set)
    silence(three, "J1")
    with pytest.raises(LedgerUnavailable):
        other._database.do(lambda connection: connection.execute(sa.text("SELECT nonsense")))
    assert other.abandon() == []
    assert other.job("J1")["state"] == "queued"
    assert other.request_cancel("J1", "x@10.0.0.9")["state"] == "queued"
    other.close()


ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c{}) SELECT count(*) FROM c"


def runs(statement: str) -> Callable[[sa.Connection], Any]:
    return lambda connection: connection.exec_driver_sql(statement).scalar_one()


def runs_on() -> bool:
    """Whether a thread is still at what was asked of a ledger."""
    return any(thread.name == "ledger" for thread in threading.enumerate())


def require_not_away(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    assert "the ledger does not answer" not in caplog.text
    assert ledger._database.answered_for(60)
    ledger.check()


def test_what_is_wrong_with_a_statement_is_no_ledger_that_is_away(
    three: Ledger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LIMIT", 60.0)
    for ask in (
        lambda: three.history.page(Filters(patient=tuple(map(str, range(1_500)))), None, 50),
        lambda: three.history.jobs(list(map(str, range(300_000)))),
        lambda: three._database.do(runs("SELECT zeroblob(2000000000)")),
        lambda: three._database.do(runs("nonsense")),
        lambda: three.job(object()),  # type: ignore[arg-type]
    ):
        with pytest.raises(DBAPIError):
            ask()
    require_not_away(three, caplog)


def test_a_search_that_takes_too_long_stops_and_is_no_ledger_that_is_away(
    three: Ledger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LIMIT", 2.0)
    with pytest.raises(LedgerUnavailable, match=r"takes longer than 2 seconds, and was stopped"):
        three._database.do(runs(ENDLESS.format("")))
    wait_until(lambda: not runs_on(), 10, str)
    monkeypatch.setattr(database, "LIMIT", 5.0)
    require_not_away(three, caplog)


def write_then(connection: sa.Connection, statement: str) -> None:
    connection.execute(schema.jobs.update().values(patient_name="WRITTEN"))
    connection.exec_driver_sql(statement)


def test_who_writes_is_stopped_no_sooner_than_given_up(three: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "SOONER", 0)
    with pytest.raises(LedgerUnavailable, match="stopped"):
        three._database.do(runs(ENDLESS.format(" LIMIT 300000")))
    three._database.do(lambda connection: write_then(connection, ENDLESS.format(" LIMIT 300000")))
    assert three.job("J1")["patient_name"] == "WRITTEN"
    monkeypatch.setattr(database, "LIMIT", 0.3)
    with pytest.raises(LedgerUnavailable):
        three._database.do(lambda connection: write_then(connection, ENDLESS.format("")))
    wait_until(lambda: not runs_on(), 10, str)


def test_the_instances_of_a_job_are_remembered_once(three: Ledger) -> None:
    uids = ("1.2", "1.2.840.10008.5.1.4.1.1.2", "1.3", "1.4", "1.2.840.10008.1.2")
    row = Instance(Path("/w/f"), *uids, bytes=7, version=(7, 0), modality="CT").row("on disc")
    three.hand_out("J1", [row])
    three.hand_out("J1", [row])
    written = three._database.do(lambda connection: connection.execute(schema.instances.select()).all())
    assert written == [("J1", *uids, 7, "on disc", False, "CT")]
    three.hand_out("J1", [row | {"outcome": "acknowledged"}, row | {"sop_instance_uid": "1.9"}])
    three.hand_out("J1", [row | {"outcome": "not confirmed"}])
    query = sa.select(schema.instances.c.sop_instance_uid, schema.instances.c.outcome)
    written = three._database.do(lambda connection: connection.execute(query).all())
    assert written == [("1.2", "not confirmed"), ("1.9", "on disc")]


def test_a_disk_that_is_full_is_told_as_such(ledger: Ledger) -> None:
    opened(ledger, "J")
    pages = ledger._database.do(lambda connection: connection.exec_driver_sql("PRAGMA page_count").scalar_one())
    limit = f"PRAGMA max_page_count={pages}"
    sa.event.listen(ledger._database._engine, "connect", lambda connection, _: connection.execute(limit))
    ledger.close()
    with pytest.raises(DiskFull, match=r"storage\.ledger"):
        deque(opened(ledger, str(number)) for number in range(100))


def test_the_file_is_its_owners_alone(ledger: Ledger, file: Path) -> None:
    opened(ledger, "J")
    assert {one.stat().st_mode & 0o777 for one in file.parent.iterdir()} == {0o600}
    assert file.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "sqlite://", "nosuchdatabase://h/db", "postgresql+nosuchdriver://h/db", "mysql+pymysql://h:x/db"],
)
def test_a_url_that_can_never_work_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"storage\.ledger"):
        Ledger(url, lambda: "W", set)


def test_a_ledger_that_cannot_be_opened_now_is_unavailable_until_it_can(tmp_path: Path) -> None:
    (tmp_path / "place").touch()
    ledger = Ledger(f"sqlite:///{tmp_path}/place/jobs.db", lambda: "W", set)
    for ask in (ledger.check, ledger.list_jobs, ledger.abandon, lambda: ledger.job("J"), lambda: opened(ledger, "J")):
        with pytest.raises(LedgerUnavailable, match=r"storage\.ledger"):
            ask()
    (tmp_path / "place").unlink()
    assert ledger.job(opened(ledger, "J"))["state"] == "queued"
    ledger.close()


def test_a_ledger_that_cannot_be_opened_shows_no_secret() -> None:
    with pytest.raises(ConfigurationError) as raised:
        Ledger("nosuchdatabase://mkiso:s3cr3t@h/db", lambda: "W", set)
    assert "s3cr3t" not in str(raised.value)


def test_two_processes_may_open_a_new_ledger_at_once(tmp_path: Path) -> None:
    argv = (sys.executable, "-c", OPEN_AND_WRITE, str(tmp_path))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [subprocess.Popen((*argv, job_id), **pipes) for job_id in ("J", "K")]
    assert [one.stdout.readline() for one in both] == [b"ready\n"] * 2
    for one in both:
        one.stdin.write(b"go\n")
        one.stdin.flush()
    assert [(one.communicate()[1], one.returncode) for one in both] == [(b"", 0)] * 2
    for number in range(10):
        ledger = Ledger(f"sqlite:///{tmp_path}/{number}.db", lambda: "W", set)
        assert sorted(ids(ledger.list_jobs())) == ["J", "K"]
        ledger.close()


def test_what_was_asked_does_not_stay_in_memory(ledger: Ledger) -> None:
    """SQLite's bindings are of a statement, and Python keeps 128 of those a connection unless it is told not to."""
    ledger.check()
    in_use = ctypes.CDLL(_sqlite3.__file__).sqlite3_memory_used
    before = in_use()
    for count in range(200):
        ledger.history.jobs([str(uuid.uuid4()) for _ in range(count)])
    assert in_use() - before < 1 << 20


@pytest.fixture
def slow_commit(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Lets each COMMIT take so many times the limit of a statement."""
    ledger.prepare()
    engine, limit = ledger._database._engine, 0.3
    monkeypatch.setattr(database, "LIMIT", limit)
    listeners: list[Callable[[sa.Connection], None]] = []

    def slow(times: float) -> None:
        listeners.append(lambda _connection: time.sleep(times * limit))
        sa.event.listen(engine, "commit", listeners[-1])

    yield slow
    for listener in listeners:
        sa.event.remove(engine, "commit", listener)


def test_what_is_committed_when_the_limit_passes_is_told_as_done(
    ledger: Ledger, slow_commit: Callable[[float], None]
) -> None:
    slow_commit(1.4)
    assert opened(ledger, job_id := str(uuid.uuid4())) == job_id
    assert ledger.job(job_id)["state"] == "queued"


def test_a_commit_that_hangs_is_not_waited_for(ledger: Ledger, slow_commit: Callable[[float], None]) -> None:
    slow_commit(4)
    with pytest.raises(LedgerUnavailable):
        opened(ledger, str(uuid.uuid4()))
