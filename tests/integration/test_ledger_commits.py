"""A COMMIT of which nobody hears the end: what is committed is told as done, on each database."""

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from mkiso.errors import JobExists, LedgerUnavailable
from mkiso.ledger import database
from mkiso.ledger.ledger import Ledger
from tests.integration.test_ledger import new_database, opened, servers
from tests.support.lost_commit import Loss, Way, losing
from tests.support.tools import wait_until

__all__ = ("servers",)  # a fixture
LOSSES: tuple[Loss, ...] = ("done", "not done")
COLUMNS = ("sop_class_uid", "series_uid", "study_uid", "transfer_syntax", "outcome")


def instance(uid: str) -> dict[str, Any]:
    return {"sop_instance_uid": uid, **dict.fromkeys(COLUMNS, "1"), "bytes": 1}


@contextmanager
def reached(url: str) -> Iterator[Ledger]:
    ledger = Ledger(url, lambda: "W", set)
    ledger.prepare()
    yield ledger
    ledger.close()


@pytest.fixture(params=["mariadb", "postgresql"])
def lossy(request: pytest.FixtureRequest, servers: dict[str, Any]) -> Iterator[tuple[Ledger, Way]]:
    """A ledger, and the way to its server."""
    server = new_database(servers[request.param])
    with losing(server.running.port) as way:
        url = make_url(server.url).set(port=way.port)
        with reached(url.render_as_string(hide_password=False)) as ledger:
            yield ledger, way


@pytest.mark.parametrize("loss", LOSSES)
def test_a_job_whose_connection_ended_in_the_commit_is_open_once(loss: Loss, lossy: tuple[Ledger, Way]) -> None:
    ledger, way = lossy
    way.lose(loss)
    job_id = opened(ledger, "A", "B")
    assert way.met.is_set()
    (job,) = ledger.list_jobs(accession="B")
    assert (job["id"], job["state"], job["accessions"]) == (job_id, "queued", ["A", "B"])


@pytest.mark.parametrize("loss", LOSSES)
def test_an_id_that_another_has_is_taken_whatever_becomes_of_the_commit(loss: Loss, lossy: tuple[Ledger, Way]) -> None:
    ledger, way = lossy
    job_id = opened(ledger, "A")
    way.lose(loss)
    with pytest.raises(JobExists):
        ledger.open_job(job_id, "iso", ("B",), requester="x")


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_written_when_the_connection_ends_is_written(loss: Loss, lossy: tuple[Ledger, Way]) -> None:
    ledger, way = lossy
    job_id = opened(ledger, "A")
    for act in (
        lambda: ledger.update(job_id, state="retrieving"),
        lambda: ledger.hand_out(job_id, [instance("1.1"), instance("1.2")]),
        lambda: ledger.request_cancel(job_id, "x@10.0.0.9"),
    ):
        way.lose(loss)
        act()
        assert way.met.is_set()
    job = ledger.job(job_id)
    assert (job["state"], job["error"]["code"]) == ("cancelled", "cancelled")
    assert [one["sop_instance_uid"] for one in ledger.history.instances(job_id, "", 9)] == ["1.1", "1.2"]


@pytest.mark.parametrize("loss", LOSSES)
def test_who_finishes_the_dead_tells_their_ids(loss: Loss, lossy: tuple[Ledger, Way]) -> None:
    ledger, way = lossy
    dead = opened(ledger, "A")
    way.lose(loss)
    assert ledger.abandon() == [dead]


def test_instances_are_remembered_beside_those_that_were_before(lossy: tuple[Ledger, Way]) -> None:
    ledger, _ = lossy
    job_id = opened(ledger, "A")
    ledger.hand_out(job_id, [instance("1.1")])
    ledger.hand_out(job_id, [instance("1.1"), instance("1.2")])
    assert [one["sop_instance_uid"] for one in ledger.history.instances(job_id, "", 9)] == ["1.1", "1.2"]


def test_a_server_that_is_gone_since_the_commit_is_told(
    lossy: tuple[Ledger, Way], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, way = lossy
    monkeypatch.setattr(database, "LIMIT", 1.0)
    way.lose("done")
    way.close()
    with pytest.raises(LedgerUnavailable):
        opened(ledger, "A")


@pytest.fixture
def slow(
    request: pytest.FixtureRequest, servers: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Any, Any]]:
    """A ledger and the event without which its next COMMIT does not go on; SQLite's is held in its driver."""
    if request.param != "sqlite":
        server = new_database(servers[request.param])
        with losing(server.running.port) as way:
            url = make_url(server.url).set(port=way.port)
            with reached(url.render_as_string(hide_password=False)) as ledger:
                monkeypatch.setattr(database, "LIMIT", 1.0)
                way.lose("late")
                yield ledger, way
        return
    with reached(f"sqlite:///{tmp_path}/jobs.db") as ledger:
        dialect, held = ledger._database._engine.dialect, Way.__new__(Way)
        held.met, held.go_on = threading.Event(), threading.Event()
        commit = dialect.do_commit

        def late(connection: Any) -> None:
            held.met.set()
            assert held.go_on.wait(30)
            commit(connection)

        monkeypatch.setattr(dialect, "do_commit", late)
        yield ledger, held


@pytest.mark.parametrize("slow", ["sqlite", "mariadb", "postgresql"], indirect=True)
def test_a_commit_that_the_deadline_finds_under_way_is_told_as_done(
    slow: tuple[Ledger, Way], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait is over when it has just begun."""
    ledger, way = slow
    waits: list[float | None] = []
    result = database.Future.result

    def given_up(done: Any, seconds: float | None = None) -> Any:
        if not waits:
            waits.append(seconds)
            assert way.met.wait(10)
            threading.Timer(0.2, way.go_on.set).start()
            raise TimeoutError
        return result(done, seconds)

    monkeypatch.setattr(database.Future, "result", given_up)
    job_id = str(uuid.uuid4())
    ledger.open_job(job_id, "iso", ("A",), requester="x")
    assert ledger.job(job_id)["state"] == "queued"
    assert waits


@pytest.mark.parametrize("slow", ["mariadb", "postgresql"], indirect=True)
def test_a_commit_that_nobody_waits_for_any_more_is_found_by_looking(
    slow: tuple[Ledger, Way], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on while the same is tried once more, which waits for it."""
    ledger, way = slow
    tries: list[object] = []
    run, job_id = database.Database._run, str(uuid.uuid4())
    monkeypatch.setattr(database.Database, "_run", lambda *words: tries.append(None) or run(*words))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ledger.open_job, job_id, "iso", ("A",), requester="x")
        wait_until(lambda: len(tries) > 1, 20, lambda: f"{tries}")
        way.go_on.set()
        asked.result(20)
    (job,) = ledger.list_jobs()
    assert job["id"] == job_id
