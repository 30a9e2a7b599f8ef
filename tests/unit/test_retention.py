"""What ended long ago is forgotten, and what it came to is not."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mkiso.errors import JobNotFound
from mkiso.ledger import ledger as ledger_module
from mkiso.ledger import schema, totals
from mkiso.ledger.ledger import Ledger
from mkiso.ledger.schema import collections, instances, job_accessions, jobs, ledger_time
from mkiso.ledger.totals import DAY
from tests.unit.test_totals import BUSY, House, house

__all__ = ("house",)  # a fixture
UIDS = ("sop_class_uid", "series_uid", "study_uid", "transfer_syntax")


@pytest.fixture(autouse=True)
def breathless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "BREATH", 0)


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


def test_jobs_are_forgotten_with_their_numbers_and_instances_and_who_collected_them(house: House) -> None:
    old, young = ended(house, 31), ended(house, 29)
    for job_id in (old, old, young):
        house.ours.collect(job_id, by="x", relation="patient", given_by="y", note="", requester="z")
    assert house.ours.retention.forget(30) == 1
    with pytest.raises(JobNotFound):
        house.ours.job(old)
    tables = (job_accessions, instances, collections)
    assert in_all(house.ours, *(table.c.job_id for table in tables)) == {young} == ids(house.ours)
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
    monkeypatch.setattr(totals, "JOBS", 2)
    for days in (5, 4, 3, 1):
        ended(house, days)
    ended(house, 4, state="failed", error=BUSY, received=1)
    ended(house, 4, house.theirs, kind="relay")
    before = house.ours.totals()
    house.ours.retention.forget(2)
    ended(house, 1)
    again = Ledger(house.url, lambda: "W", set)
    for ledger in (house.ours, again):
        after = ledger.totals()
        assert after.jobs == {("iso", "done", ""): 5, ("iso", "failed", "busy"): 1}
        assert (after.instances, after.handed_out) == (before.instances + 2, before.handed_out + 10)
        assert after.seconds == {"queued": 3.0, "sending": 6.0}
    again.close()
    assert house.theirs.totals().jobs == {("relay", "done", ""): 1}


def test_no_patient_is_in_what_is_counted(house: House) -> None:
    ended(house, 3, error={"code": "busy", "detail": "DOE^JANE"}, state="failed")
    house.ours.retention.forget(2)
    rows = house.ours._database.do(lambda connection: connection.execute(sa.select(schema.totals)).all())
    assert [tuple(row) for row in rows] == [("W", "iso", "failed", "busy", 1, 2, 10, {"queued": 0.5, "sending": 1.0})]


def test_a_job_of_many_instances_is_forgotten_alone(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "INSTANCES", 3)
    transactions = []
    forget = totals._forget
    monkeypatch.setattr(totals, "_forget", lambda *given: transactions.append(forget(*given)) or transactions[-1])
    for _ in range(3):
        ended(house, 9)
    assert house.ours.retention.forget(1) == 3
    assert transactions == [1, 1, 1, 0]


def test_several_may_forget_at_once_and_nothing_is_counted_twice(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "JOBS", 3)
    for _ in range(30):
        ended(house, 9)
    assert forgotten_at_once(house.ours, house.theirs) == 30
    assert ids(house.ours) == set()
    assert house.ours.totals().jobs == {("iso", "done", ""): 30}


def test_nothing_of_a_forgotten_patient_is_left_in_the_files(house: House, tmp_path: Path) -> None:
    names = {f"PATIENT{number:04}" for number in range(60)}
    for name in sorted(names):
        ended(house, 1 if name.endswith("0") else 9, name=name)
    assert found(tmp_path, names) == names
    house.ours.retention.forget(5)
    assert found(tmp_path, names) == {name for name in names if name.endswith("0")}


class Clocks:
    """The database's clock and the host's, so many days from now; and a process's own, which nobody sets."""

    def __init__(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self.house, self.begin, self.up = house, datetime.now(UTC), 0.0
        self.show(0)
        monkeypatch.setattr(ledger_module, "now", lambda: ledger_time(self.shown))
        monkeypatch.setattr(totals.time, "monotonic", lambda: self.up * DAY)

    def show(self, days: float) -> None:
        self.shown = self.begin + timedelta(days=days)
        for one in (self.house.ours, self.house.theirs):
            one._database.now = sa.literal(int(self.shown.timestamp()))

    def job(self, days: float) -> str:
        """One that is run and ends at this time."""
        self.show(days)
        return self.house.end(1, finished_at=ledger_time(self.shown))

    def forgets(self, days: float, keep: int, host: Ledger | None = None) -> set[str]:
        """What is forgotten at this time, by a process that has just started unless it is told."""
        self.show(days)
        before = ids(self.house.ours)
        self.house.ours.retention._believed = None
        (host or self.house.ours).retention.forget(keep)
        return before - ids(self.house.ours)


@pytest.fixture
def clocks(house: House, monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(house, monkeypatch)


def a_month_of_jobs(clocks: Clocks) -> dict[int, str]:
    """One every third day, by the day; the last one today."""
    return {day: clocks.job(day) for day in range(-30, 1, 3)}


def test_one_start_with_a_wrong_clock_forgets_nothing(clocks: Clocks, caplog: pytest.LogCaptureFixture) -> None:
    made = a_month_of_jobs(clocks)
    assert clocks.forgets(400, keep=28) == {made[-30]}
    assert "the clock is far beyond the ledger's last job" in caplog.text
    assert clocks.forgets(400, keep=28) == set()
    caplog.clear()
    assert clocks.forgets(0.5, keep=26) == {made[-27]}
    assert "the clock" not in caplog.text


def test_jobs_that_are_run_by_a_wrong_clock_do_not_bear_it_out(clocks: Clocks) -> None:
    made = a_month_of_jobs(clocks)
    strange = [clocks.job(400 + hours / 24) for hours in range(0, 6 * 24, 8)]
    assert clocks.forgets(406, keep=28) == {made[-30]}
    assert clocks.forgets(1, keep=28) == set()
    clocks.job(1)
    assert clocks.forgets(1, keep=27) == {made[-27]}
    assert set(strange) <= ids(clocks.house.ours)


def test_a_service_that_was_off_for_long_believes_its_clock_when_a_week_of_jobs_bears_it_out(clocks: Clocks) -> None:
    made = a_month_of_jobs(clocks)
    for day in range(60, 67, 3):
        clocks.job(day)
        assert clocks.forgets(day, keep=40) == set()
    clocks.job(67.5)
    assert clocks.forgets(67.5, keep=40) == set(made.values())


def test_a_long_weekend_without_jobs_is_no_wrong_clock(clocks: Clocks, caplog: pytest.LogCaptureFixture) -> None:
    made = a_month_of_jobs(clocks)
    for day in range(5):
        clocks.up = day
        expected = {0: {made[-30]}, 3: {made[-27]}}.get(day, set())
        assert clocks.forgets(day + 0.1, keep=30, host=clocks.house.theirs) == expected
    assert "the clock" not in caplog.text


def test_a_start_after_a_long_weekend_waits_for_the_first_job(clocks: Clocks) -> None:
    made = a_month_of_jobs(clocks)
    assert clocks.forgets(4, keep=28) == {made[-30]}
    clocks.job(4)
    assert clocks.forgets(4, keep=28) == {made[-27]}


def test_a_clock_that_jumps_while_the_service_runs_is_not_believed(clocks: Clocks) -> None:
    made = a_month_of_jobs(clocks)
    running = clocks.house.theirs
    assert clocks.forgets(0.1, keep=30, host=running) == {made[-30]}
    clocks.up = 4
    clocks.job(404)
    assert clocks.forgets(404, keep=30, host=running) == {made[-27]}


def test_a_job_of_the_future_keeps_no_other_and_ends_none(clocks: Clocks) -> None:
    strange = clocks.job(3_650)
    made = a_month_of_jobs(clocks)
    assert clocks.forgets(0.1, keep=28) == {made[-30]}
    assert strange in ids(clocks.house.ours)


def test_a_ledger_of_older_versions_bears_its_clock_out_too(clocks: Clocks) -> None:
    made = a_month_of_jobs(clocks)
    clocks.house.change(jobs.update().values(alive_at=None))
    assert clocks.forgets(400, keep=28) == {made[-30]}
    assert clocks.forgets(0.5, keep=26) == {made[-27]}


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
