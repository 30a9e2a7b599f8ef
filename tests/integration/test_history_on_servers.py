"""The history where several hosts share a ledger: on PostgreSQL and MariaDB as they are."""

from collections.abc import Iterator

import pytest

from mkiso.ledger.history import Filters, Mark
from mkiso.ledger.ledger import Ledger
from tests.integration.test_ledger import Server, server, servers
from tests.unit.test_history import fill

__all__ = ("server", "servers")  # fixtures


@pytest.fixture
def shared(server: Server) -> Iterator[Ledger]:
    ledger = Ledger(server.url, lambda: "W", set)
    fill(ledger, 1, "A", patient_id="P1", patient_name="JOHN DOE")
    fill(ledger, 2, "A", "B", patient_id="p1", patient_name="Zoë Müller", requester="HIS@10.0.0.2")
    fill(ledger, 3, "100%", patient_id="P_3", patient_name="x" * 10_000, state="failed")
    yield ledger
    ledger.close()


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (Filters(), [3, 2, 1]),
        (Filters(accession="A"), [2, 1]),
        (Filters(accession="100%"), [3]),
        (Filters(patient=("doe", "JOHN")), [1]),
        (Filters(patient=("P1",)), [2, 1]),
        (Filters(patient=("Müller",)), [2]),
        (Filters(patient=("p_",)), [3]),
        (Filters(patient=("%",)), []),
        (Filters(requester="his@"), [2]),
        (Filters(state="failed"), [3]),
        (Filters(since="2026-01-02T12:00:00.000000Z", until="2026-01-03T12:00:00.000000Z"), [2]),
    ],
)
def test_the_history_meets_every_filter(filters: Filters, found: list[int], shared: Ledger) -> None:
    assert [int(job["id"][:8], 16) for job in shared.history.page(filters, None, 50)] == found
    assert [int(job["id"][:8], 16) for job in shared.history.all(filters)] == found


def test_the_next_page_begins_where_the_last_one_ended(shared: Ledger) -> None:
    (newest,) = shared.history.page(Filters(), None, 1)
    rest = shared.history.page(Filters(), Mark(newest["created_at"], newest["id"]), 50)
    assert [int(job["id"][:8], 16) for job in rest] == [2, 1]


def test_who_waits_has_a_place(shared: Ledger) -> None:
    waiting = {"state": "queued", "finished_at": None, "patient_id": "P"}
    first, second = (fill(shared, number, "A", **waiting) for number in (4, 5))
    assert {one: place for one, (_, place) in shared.history.jobs([first, second]).items()} == {first: 1, second: 2}
    assert (shared.history.queue("W"), len(shared.history.running(["A"]))) == (2, 2)
