"""What finished jobs come to where several hosts share a ledger: on PostgreSQL and MariaDB as they are."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from mkiso.ledger import totals
from tests.integration.test_ledger import Server, server, servers
from tests.unit.test_totals import BUSY, House

__all__ = ("server", "servers")  # fixtures


@pytest.fixture
def house(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(totals, "BATCH", 2)
    made = House(server.url)
    yield made
    made.ours.close()
    made.theirs.close()


def test_each_host_counts_its_own_jobs(house: House) -> None:
    for second in (1, 1, 2, 3):
        house.end(second)
    house.end(2, house.theirs, state="failed", error=BUSY)
    ours, theirs = (one.counting.totals() for one in (house.ours, house.theirs))
    assert (ours.jobs, theirs.jobs) == ({("iso", "done", ""): 4}, {("iso", "failed", "busy"): 1})
    assert (ours.instances, ours.handed_out, ours.seconds) == (8, 40, {"queued": 2.0, "sending": 4.0})
    house.end(1)
    assert (house.ours.counting.totals().instances, house.ours.counting.running()) == (10, 0)


def test_a_shared_ledger_of_before_gets_the_index(house: House, server: Server) -> None:
    house.end(1)
    house.ours.close()
    table = " ON jobs" if "mysql" in server.url else ""
    server.execute(f"DROP INDEX jobs_finished{table}")
    assert House(server.url).ours.counting.totals().jobs.total() == 1
    engine = sa.create_engine(server.url)
    names = {index["name"] for index in sa.inspect(engine).get_indexes("jobs")}
    assert ("jobs_finished" in names, "jobs_finished_here" in names) == (True, False)
    engine.dispose()
