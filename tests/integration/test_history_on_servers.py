"""The history where several hosts share a ledger: on PostgreSQL and MariaDB as they are."""

from collections.abc import Iterator
from contextlib import suppress

import pytest
from sqlalchemy.exc import DBAPIError

from mkiso.errors import LedgerUnavailable
from mkiso.ledger import database
from mkiso.ledger.history import Filters, Mark, search_key
from mkiso.ledger.ledger import Ledger
from mkiso.ledger.schema import jobs
from tests.integration.test_ledger import Server, server, servers
from tests.unit.test_history import fill

__all__ = ("server", "servers")  # fixtures


@pytest.fixture
def shared(server: Server) -> Iterator[Ledger]:
    ledger = Ledger(server.url, lambda: "W", set)
    fill(ledger, 1, "A", patient_id="P1", patient_name="JOHN DOE")
    key = search_key("p1", "Müller^Zoë=山田^太郎")
    fill(ledger, 2, "A", "B", patient_id="p1", patient_name="Zoë Müller", folded=key, requester="HIS@10.0.0.2")
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
        (Filters(patient=("ZOE", "muller")), [2]),
        (Filters(patient=("山田",)), [2]),
        (Filters(patient=("山本",)), []),
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


def test_rows_of_an_older_version_are_found_by_what_they_have(shared: Ledger) -> None:
    shared._database.do(lambda connection: connection.execute(jobs.update().values(folded=None, asked=None)))
    for words, found in ((("doe", "JOHN"), [1]), (("Müller",), [2]), (("P1",), [2, 1]), (("p_",), [3])):
        assert [int(job["id"][:8], 16) for job in shared.history.all(Filters(patient=words))] == found


def test_who_collected_a_disc_and_who_cancelled_is_kept(shared: Ledger) -> None:
    done = fill(shared, 4, "D")
    for name in ("Mueler", "Müller\0 山田"):
        shared.collect(done, by=name, relation="doctor", given_by="Anna", note="x" * 20_000, requester="x")
    (found,) = shared.history.page(Filters(accession="D"), None, 1)
    assert [(one["by"], len(one["note"])) for one in found["collected"]] == [
        ("Mueler", 10_000),
        ("Müller 山田", 10_000),
    ]
    job_id = fill(shared, 5, "A", state="retrieving", finished_at=None, study_uids=("1.2",), series_uids=("1.3",))
    (found,) = shared.history.page(Filters(accession="A"), None, 1)
    assert (found["series"], found["encrypted"], found["collected"]) == (["1.3"], False, [])
    shared.update(job_id, accessions=["B", "C"])
    assert [len(shared.list_jobs(accession=number)) for number in "ABC"] == [2, 2, 1]
    assert [len(shared.history.running(["A"], ["1.2"], one)) for one in (["1.3"], [])] == [1, 0]
    assert shared.request_cancel(job_id, "ben@10.0.0.4")["error"]["detail"] == "Cancelled by ben@10.0.0.4."


SLEEPS = {"mariadb": "SELECT SLEEP(60)", "postgresql": "SELECT pg_sleep(60)"}
RUNNING = {
    "mariadb": "SELECT count(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'",
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'",
}


def test_a_search_that_takes_too_long_stops_and_is_no_ledger_that_is_away(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "LIMIT", 2.0)
    ledger = Ledger(server.url, lambda: "W", set)
    ledger.prepare()
    kind = "postgresql" if "postgresql" in server.url else "mariadb"
    with pytest.raises(LedgerUnavailable, match="takes longer than 2 seconds, and was stopped"):
        ledger._database.do(lambda connection: connection.exec_driver_sql(SLEEPS[kind]).all())
    assert server.execute(RUNNING[kind]) == [(0,)]
    assert "the ledger does not answer" not in caplog.text
    assert ledger._database.answered_for(60)
    ledger.close()


def test_what_is_wrong_with_a_statement_is_no_ledger_that_is_away(
    shared: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    for ask in ("nonsense", "SELECT CAST('x' AS DECIMAL) / 0 FROM jobs WHERE 1 = 'x'", f"SELECT {'(' * 100_000}"):
        with suppress(DBAPIError):
            shared._database.do(lambda connection, ask=ask: connection.exec_driver_sql(ask).all())  # type: ignore[misc]
    for odd in ("\0", "x\0y", "\x7f", "'"):
        with suppress(DBAPIError):
            shared.history.page(Filters(accession=odd, patient=(odd,), requester=odd), Mark(odd, odd), 50)
    assert "the ledger does not answer" not in caplog.text
    assert shared._database.answered_for(60)
    shared.check()


def test_no_text_with_a_nul_keeps_a_job_out_of_the_ledger(shared: Ledger) -> None:
    """From instances, archives and destinations alike."""
    odd = {"patient_id": "P\0", "patient_name": "A\0B", "studies": ["1.2\0"], "destination": "\0", "requester": "x\0"}
    job_id = fill(shared, 9, "A", **odd, error={"code": "busy", "detail": "\0"})
    uids = dict.fromkeys(("sop_class_uid", "series_uid", "study_uid", "transfer_syntax"), "1.2\0")
    shared.hand_out(job_id, [{"sop_instance_uid": "1.2\0.3", **uids, "bytes": 1, "outcome": "\0"}])
    shared.update(job_id, seconds={"queued": 0.5}, error={"code": "\0", "detail": ["\0"]})
    job = shared.job(job_id)
    assert (job["patient_id"], job["patient_name"], job["studies"], job["requester"]) == ("P", "AB", ["1.2"], "x")
    assert [one["sop_instance_uid"] for one in shared.history.instances(job_id, "", 9)] == ["1.2.3"]
