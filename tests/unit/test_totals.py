"""What finished jobs come to: counted once, and again where the rows are no longer those that were counted."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mkiso.errors import LedgerUnavailable
from mkiso.ledger import totals
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
    found = house.ours.counting.totals()
    assert found.jobs == {("iso", "done", ""): 1, ("relay", "done", ""): 1, ("iso", "failed", "busy"): 1}
    assert (found.instances, found.handed_out) == (5, 20)
    assert found.seconds == {"queued": 1.5, "sending": 3.0}


def test_running_jobs_are_no_finished_ones(house: House) -> None:
    house.ours.open_job(str(uuid.uuid4()), "iso", ("A",), requester="x")
    assert house.ours.counting.totals().jobs.total() == 0
    assert (house.ours.counting.running(), house.theirs.counting.running()) == (1, 0)


def test_another_hosts_jobs_are_not_counted(house: House) -> None:
    house.end(1)
    house.end(2, house.theirs)
    house.end(3, house.theirs)
    assert [one.counting.totals().jobs.total() for one in (house.ours, house.theirs)] == [1, 2]


def test_what_was_counted_is_not_read_again(house: House) -> None:
    house.end(1)
    house.ours.counting.totals()
    house.change(jobs.update().values(received=1000))
    house.end(2)
    assert house.ours.counting.totals().instances == 4


def test_more_than_a_batch_is_counted(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "BATCH", 3)
    for number in range(7):
        house.end(number // 4)
    assert house.ours.counting.totals().jobs.total() == 7
    house.end(1)
    assert house.ours.counting.totals().jobs.total() == 8


def test_a_row_that_is_written_late_is_counted(house: House) -> None:
    house.end(5)
    house.ours.counting.totals()
    house.end(3)
    assert house.ours.counting.totals().jobs.total() == 2


def test_a_job_that_ends_anew_is_counted_once(house: House) -> None:
    job_id = house.end(1, state="failed", error=BUSY)
    house.end(2)
    house.ours.counting.totals()
    house.ours.update(job_id, state="done", error=None, finished_at=moment(3))
    assert house.ours.counting.totals().jobs == {("iso", "done", ""): 2}


def test_rows_that_are_taken_out_are_counted_no_longer(house: House) -> None:
    job_id = house.end(1)
    house.end(2)
    house.ours.counting.totals()
    house.change(sa.text(f"DELETE FROM jobs WHERE id = '{job_id}'"))
    assert house.ours.counting.totals().jobs.total() == 1


def test_a_ledger_that_is_away_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ledger = Ledger(f"sqlite:///{tmp_path}/file/ledger.db", lambda: "W", set)
    with pytest.raises(LedgerUnavailable):
        ledger.counting.totals()
