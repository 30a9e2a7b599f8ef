"""What ended long ago is forgotten, and what it came to is not."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mkiso.errors import JobNotFound
from mkiso.ledger import retention
from mkiso.ledger.ledger import Ledger
from mkiso.ledger.tables import forgotten, instances, job_accessions, ledger_time
from tests.unit.test_totals import BUSY, House, house

__all__ = ("house",)  # a fixture
UIDS = ("sop_class_uid", "series_uid", "study_uid", "transfer_syntax")


@pytest.fixture(autouse=True)
def breathless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BREATH", 0)


def ended(house: House, days: float, host: Ledger | None = None, name: str = "DOE^JANE", **fields: Any) -> str:
    """A job that ended so many days ago, and handed two instances out; its id."""
    moment = ledger_time(datetime.now(UTC) - timedelta(days=days))
    job_id = house.end(1, host, **{"finished_at": moment, "patient_name": name} | fields)
    rows = [{"sop_instance_uid": uid, **dict.fromkeys(UIDS, "1.2"), "bytes": 5, "outcome": name} for uid in "12"]
    house.ours.hand_out(job_id, rows)
    return job_id


def ids(ledger: Ledger) -> set[str]:
    return {job["id"] for job in ledger.list_jobs(limit=1000)}


def in_all(ledger: Ledger, *columns: Any) -> set[str]:
    queries = [sa.select(column) for column in columns]
    return ledger._database.do(lambda connection: {one for query in queries for one in connection.scalars(query)})


def test_jobs_are_forgotten_with_their_numbers_and_instances(house: House) -> None:
    old, young = ended(house, 31), ended(house, 29)
    assert house.ours.retention.forget(30) == 1
    with pytest.raises(JobNotFound):
        house.ours.job(old)
    assert in_all(house.ours, job_accessions.c.job_id, instances.c.job_id) == {young} == ids(house.ours)
    assert house.ours.retention.forget(30) == 0


def test_a_job_that_runs_is_never_forgotten(house: House) -> None:
    unended = {"state": "retrieving", "created_at": "2000-01-01T00:00:00.000000Z"}
    running = {ended(house, 99, **unended), ended(house, 99, finished_at=None, **unended)}
    assert house.ours.retention.forget(1) == 0
    assert ids(house.ours) == running
    assert house.ours.abandon()


def test_another_hosts_jobs_are_forgotten_too(house: House) -> None:
    ended(house, 3, house.theirs)
    assert house.ours.retention.forget(2) == 1


def test_counters_never_fall(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "JOBS", 2)
    for days in (5, 4, 3, 1):
        ended(house, days)
    ended(house, 4, state="failed", error=BUSY, received=1)
    ended(house, 4, house.theirs, kind="relay")
    before = house.ours.counting.totals()
    house.ours.retention.forget(2)
    ended(house, 1)
    again = Ledger(house.url, lambda: "W", set)
    for ledger in (house.ours, again):
        after = ledger.counting.totals()
        assert after.jobs == {("iso", "done", ""): 5, ("iso", "failed", "busy"): 1}
        assert (after.instances, after.handed_out) == (before.instances + 2, before.handed_out + 10)
        assert after.seconds == {"queued": 3.0, "sending": 6.0}
    again.close()
    assert house.theirs.counting.totals().jobs == {("relay", "done", ""): 1}


def test_no_patient_is_in_what_is_kept_of_forgotten_jobs(house: House) -> None:
    ended(house, 3, error={"code": "busy", "detail": "DOE^JANE"}, state="failed")
    house.ours.retention.forget(2)
    rows = house.ours._database.do(lambda connection: connection.execute(sa.select(forgotten)).all())
    assert [tuple(row) for row in rows] == [("W", "iso", "failed", "busy", 1, 2, 10, {"queued": 0.5, "sending": 1.0})]


def test_a_job_of_many_instances_is_forgotten_alone(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "INSTANCES", 3)
    transactions = []
    forget = retention._forget
    monkeypatch.setattr(retention, "_forget", lambda *given: transactions.append(forget(*given)) or transactions[-1])
    for _ in range(3):
        ended(house, 9)
    assert house.ours.retention.forget(1) == 3
    assert transactions == [1, 1, 1, 0]


def test_several_may_forget_at_once_and_nothing_is_counted_twice(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "JOBS", 3)
    for _ in range(30):
        ended(house, 9)
    assert forgotten_at_once(house.ours, house.theirs) == 30
    assert ids(house.ours) == set()
    assert house.ours.counting.totals().jobs == {("iso", "done", ""): 30}


def test_nothing_of_a_forgotten_patient_is_left_in_the_files(house: House, tmp_path: Path) -> None:
    names = {f"PATIENT{number:04}" for number in range(60)}
    for name in sorted(names):
        ended(house, 1 if name.endswith("0") else 9, name=name)
    assert found(tmp_path, names) == names
    house.ours.retention.forget(5)
    assert found(tmp_path, names) == {name for name in names if name.endswith("0")}


def forgotten_at_once(*ledgers: Ledger) -> int:
    """How many jobs the ledgers forgot, of what ended more than a day ago."""
    counts: list[int] = []
    threads = [threading.Thread(target=lambda one=one: counts.append(one.retention.forget(1))) for one in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == len(ledgers)
    return sum(counts)


def found(directory: Path, names: set[str]) -> set[str]:
    """Which of the names are anywhere in SQLite's files."""
    held = b"".join(file.read_bytes() for file in directory.glob("house.db*"))
    return {name for name in names if name.encode() in held}
