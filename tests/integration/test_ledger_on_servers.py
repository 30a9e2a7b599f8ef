"""A ledger that hosts share, on PostgreSQL and MariaDB as they are: its versions, its totals, what it forgets."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from mkiso.errors import ConfigurationError, LedgerUnavailable
from mkiso.ledger import schema, totals
from mkiso.ledger.ledger import Ledger
from tests.integration.test_ledger import MANY, Server, new_database, server, servers
from tests.support.ledgers import OLDER, execute, layout, make, require_all_rows
from tests.unit.test_experience import handed_out
from tests.unit.test_retention import ended, forgotten_at_once, ids
from tests.unit.test_totals import BUSY, House

__all__ = ("server", "servers")  # fixtures


@pytest.fixture
def house(server: Server) -> Iterator[House]:
    made = House(server.url)
    yield made
    made.ours.close()
    made.theirs.close()


@pytest.fixture
def first(server: Server) -> str:
    """A ledger as the first version made it; its URL."""
    make(server.url, f"1.8.{'mariadb' if 'mysql' in server.url else 'postgresql'}.sql")
    return server.url


@pytest.fixture
def ledger(first: str) -> Iterator[Ledger]:
    opened = Ledger(first, lambda: "W", set)
    yield opened
    opened.close()


@pytest.fixture
def new(server: Server) -> dict[str, Any]:
    """The layout of a ledger that was made as it is now."""
    url = new_database(server.running).url
    made = Ledger(url, lambda: "W", set)
    made.prepare()
    made.close()
    return layout(url)


@pytest.mark.parametrize(("change", "found"), OLDER)
def test_a_ledger_of_an_older_version_is_refused_and_stays_as_it_is(
    change: str, found: str, ledger: Ledger, first: str
) -> None:
    execute(first, change)
    before = layout(first)
    with pytest.raises(ConfigurationError, match=f"{found} of an older mkiso"):
        ledger.prepare()
    assert layout(first) == before


def test_a_ledger_whose_making_was_cut_is_made_whole(
    server: Server, new: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, make_some = Ledger(server.url, lambda: "W", set), partial(schema.metadata.create_all, tables=[schema.jobs])
    with monkeypatch.context() as patched:
        patched.setattr(schema.metadata, "create_all", cut(make_some))
        with pytest.raises(LedgerUnavailable):
            ledger.prepare()
    assert layout(server.url) != new
    ledger.prepare()
    assert layout(server.url) == new
    ledger.close()


def test_an_upgrade_that_was_cut_goes_on_and_keeps_and_counts_every_row(
    ledger: Ledger, first: str, new: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(schema.totals, "create", cut(schema.totals.create))
        with pytest.raises(LedgerUnavailable):
            ledger.prepare()
    assert layout(first) != new
    require_all_rows(ledger)
    assert layout(first) == new


def cut(work: Callable[..., object]) -> Callable[..., None]:
    """Does it, and fails then."""

    def cut_off(*arguments: Any, **options: Any) -> None:
        work(*arguments, **options)
        raise ConnectionError

    return cut_off


def test_processes_upgrade_at_once(first: str, server: Server, new: dict[str, Any]) -> None:
    argv = (sys.executable, "-c", MANY.replace("48", "8"), first)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "8\n", done.stderr
    assert server.execute("SELECT count(*) FROM jobs") == [(10,)]
    assert layout(first) == new


def test_what_jobs_hand_out_that_end_at_once_is_all_learnt(house: House) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda size: handed_out(house.ours, size, size), range(4_000_000_000, 4_000_000_040)))
    assert house.ours.sizes().likely({"CT": 2}) == 8_000_000_039
    assert house.ours.totals().jobs == {("iso", "done", ""): 40}


def test_each_host_counts_its_own_jobs(house: House) -> None:
    for second in (1, 1, 2, 3):
        house.end(second)
    house.end(2, house.theirs, state="failed", error=BUSY)
    ours, theirs = (one.totals() for one in (house.ours, house.theirs))
    assert (ours.jobs, theirs.jobs) == ({("iso", "done", ""): 4}, {("iso", "failed", "busy"): 1})
    assert (ours.instances, ours.handed_out, ours.seconds) == (8, 40, {"queued": 2.0, "sending": 4.0})
    house.end(1)
    assert (house.ours.totals().instances, house.ours.running()) == (10, 0)


def test_jobs_that_end_at_once_are_all_counted(house: House) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(house.end, [1] * 40))
    assert house.ours.totals().jobs == {("iso", "done", ""): 40}


def test_hosts_that_forget_at_once_count_nothing_twice(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "JOBS", 3)
    monkeypatch.setattr(totals, "BREATH", 0)
    for _ in range(20):
        ended(house, 9)
    young = ended(house, 0.9, house.theirs)
    before = house.ours.totals()
    assert forgotten_at_once(house.ours, house.theirs) == 20
    assert ids(house.ours) == {young}
    again = House(house.url)
    assert again.ours.totals().jobs == before.jobs == {("iso", "done", ""): 20}
    assert again.theirs.totals().jobs == {("iso", "done", ""): 1}
