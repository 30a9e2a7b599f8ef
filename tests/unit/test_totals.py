"""What jobs that ended come to: counted as each ends, and once, whatever becomes of it or its row."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mkiso.errors import LedgerUnavailable
from mkiso.ledger.ledger import Ledger
from mkiso.ledger.schema import jobs

BUSY = {"code": "busy", "detail": "All are."}


class House:
    """Two hosts that share a ledger."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.ours, self.theirs = (Ledger(url, lambda name=name: name, set) for name in "WX")  # type: ignore[misc]

    def end(self, second: int, host: Ledger | None = None, **fields: Any) -> str:
        """A job that ended at this second; its id."""
        job_id = str(uuid.uuid4())
        ended = {
            "state": "done",
            "finished_at": moment(second),
            "received": 2,
            "bytes": 10,
            "seconds": {"queued": 0.5, "sending": 1.0},
        }
        (host or self.ours).open_job(job_id, "iso", ("A",), requester="x")
        (host or self.ours).update(job_id, **ended | fields)
        return job_id

    def change(self, statement: Any) -> None:
        engine = sa.create_engine(self.url)
        with engine.begin() as connection:
            connection.execute(statement)
        engine.dispose()


def moment(second: int) -> str:
    return f"2026-01-01T00:00:{second:02}.000000Z"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(f"sqlite:///{tmp_path}/house.db")
    yield made
    made.ours.close()
    made.theirs.close()


def test_finished_jobs_are_counted_with_what_they_did(house: House) -> None:
    house.end(1)
    house.end(2, kind="relay", state="done")
    house.end(3, state="failed", error=BUSY, received=1)
    found = house.ours.totals()
    assert found.jobs == {("iso", "done", ""): 1, ("relay", "done", ""): 1, ("iso", "failed", "busy"): 1}
    assert (found.instances, found.handed_out) == (5, 20)
    assert found.seconds == {"queued": 1.5, "sending": 3.0}


def test_running_jobs_are_no_finished_ones(house: House) -> None:
    house.ours.open_job(str(uuid.uuid4()), "iso", ("A",), requester="x")
    assert house.ours.totals().jobs.total() == 0
    assert (house.ours.running(), house.theirs.running()) == (1, 0)


def test_another_hosts_jobs_are_not_counted(house: House) -> None:
    house.end(1)
    house.end(2, house.theirs)
    house.end(3, house.theirs)
    assert [one.totals().jobs.total() for one in (house.ours, house.theirs)] == [1, 2]


def test_a_row_that_is_written_late_is_counted(house: House) -> None:
    house.end(5)
    house.end(3)
    assert house.ours.totals().jobs.total() == 2


def test_a_job_that_ends_anew_is_counted_once(house: House) -> None:
    job_id = house.end(1, state="failed", error=BUSY, seconds={"queued": 0.5})
    house.end(2)
    house.ours.update(job_id, state="done", error=None, finished_at=moment(3), received=7)
    found = house.ours.totals()
    assert found.jobs == {("iso", "done", ""): 2}
    assert (found.instances, found.handed_out, found.seconds) == (9, 20, {"queued": 1.0, "sending": 1.0})


def test_an_end_that_is_written_twice_is_counted_once(house: House) -> None:
    job_id = house.end(1)
    house.ours.update(job_id, state="done", finished_at=moment(1))
    assert house.ours.totals().jobs == {("iso", "done", ""): 1}


def test_a_job_that_was_taken_for_dead_and_runs_is_no_ended_one(house: House) -> None:
    job_id = house.end(1, state="failed", error=BUSY)
    house.ours.update(job_id, state="retrieving", error=None, finished_at=None)
    assert (house.ours.totals().jobs, house.ours.totals().instances, house.ours.running()) == ({}, 0, 1)


def test_jobs_that_others_end_are_counted_where_they_ran(house: House) -> None:
    dead, cancelled = str(uuid.uuid4()), str(uuid.uuid4())
    for job_id in (dead, cancelled):
        house.ours.open_job(job_id, "iso", ("A",), requester="x")
    house.change(jobs.update().values(alive_at=0))
    house.theirs.request_cancel(cancelled, "x@10.0.0.9")
    assert house.theirs.abandon() == [dead]
    assert house.ours.totals().jobs == {("iso", "failed", "internal"): 1, ("iso", "cancelled", "cancelled"): 1}
    assert house.theirs.totals().jobs == {}


def test_jobs_that_end_at_once_are_all_counted(house: House) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(house.end, range(40)))
    assert house.ours.totals().jobs == {("iso", "done", ""): 40}


def test_rows_that_are_taken_out_stay_counted(house: House) -> None:
    job_id = house.end(1)
    house.end(2)
    house.change(sa.text(f"DELETE FROM job_accessions WHERE job_id = '{job_id}'"))
    house.change(sa.text(f"DELETE FROM jobs WHERE id = '{job_id}'"))
    assert house.ours.totals().jobs.total() == 2


def test_a_ledger_that_is_away_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ledger = Ledger(f"sqlite:///{tmp_path}/file/ledger.db", lambda: "W", set)
    with pytest.raises(LedgerUnavailable):
        ledger.totals()
