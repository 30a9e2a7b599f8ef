"""The ledger's two tables of queued relays, on each database: none is lost, none has two attempts, the limits hold."""

import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mkiso.errors import JobExists, RelayNotFound
from mkiso.ledger.ledger import Ledger
from mkiso.ledger.outcomes import DIED
from mkiso.ledger.relays import Claim
from mkiso.ledger.schema import now
from tests.integration.test_ledger import new_database, servers

__all__ = ["servers"]
PARALLEL = {"one": 2, "other": 1}
ADDRESSES = {"one": "127.0.0.1:1", "other": "127.0.0.1:2"}


@pytest.fixture(scope="module", params=["sqlite", "mariadb", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, servers: dict[str, Any]) -> str:
    file = tmp_path_factory.mktemp("claims") / "ledger.db"
    return f"sqlite:///{file}" if request.param == "sqlite" else new_database(servers[request.param]).url


class Hospital:
    """A ledger, and the jobs of it that have a process."""

    def __init__(self, url: str) -> None:
        self.engine, self.living = sa.create_engine(url), set[str]()
        self.ledger = Ledger(url, lambda: "W", lambda: self.living)
        self.relays = self.ledger.relays

    def add(self, destination: str = "one", **values: Any) -> str:
        relay_id = str(uuid.uuid4())
        self.relays.add(relay_id, destination, ("A",), **{"requester": "anna@10.1.2.3", "give_up": 60} | values)
        return relay_id

    def claim(self) -> Claim | None:
        job_id = str(uuid.uuid4())
        self.living.add(job_id)
        return self.ledger.claim_relay(job_id, PARALLEL, ADDRESSES)

    def claimed(self) -> Claim:
        claim = self.claim()
        assert claim is not None
        return claim

    def end(self, claim: Claim, code: str | None = None, **values: Any) -> dict[str, Any]:
        """The relay after its attempt has ended, with the error's code where there is one."""
        error = {"code": code, "detail": "What happened."} if code else None
        state = "cancelled" if code == "cancelled" else "failed" if code else "done"
        fields = {"state": state, "error": error, "finished_at": now(), "seconds": {}} | values
        self.ledger.update(claim.job_id, **fields)
        self.living.discard(claim.job_id)
        return self.relays.relay(claim.relay_id)

    def make_due(self) -> None:
        """As if all pauses were over."""
        self.execute("UPDATE relays SET next_at = 0")
        self.execute("UPDATE relay_queues SET next_at = 0")

    def execute(self, statement: str) -> Any:
        """The first value of what a statement gives, past the ledger."""
        with self.engine.begin() as connection:
            result = connection.execute(sa.text(statement))
            return result.scalar() if result.returns_rows else None


@pytest.fixture
def hospital(url: str) -> Iterator[Hospital]:
    hospital = Hospital(url)
    yield hospital
    for table in ("relays", "relay_queues", "job_accessions", "instances", "jobs"):
        hospital.execute(f"DELETE FROM {table}")
    hospital.engine.dispose()
    hospital.ledger.close()


def test_relays_are_claimed_in_the_order_asked_within_the_limits_and_by_turns(hospital: Hospital) -> None:
    ones = [hospital.add("one") for _ in range(4)]
    others = [hospital.add("other") for _ in range(2)]
    first = [hospital.claimed() for _ in range(3)]
    assert sorted(claim.relay_id for claim in first) == sorted([ones[0], ones[1], others[0]])
    assert {claim.destination for claim in first[:2]} == {"one", "other"}
    assert hospital.claim() is None
    hospital.end(first[0])
    following = hospital.claimed()
    assert following.destination == first[0].destination
    assert following.relay_id == (ones[2] if following.destination == "one" else others[1])


def test_who_claims_at_once_never_has_the_same_and_the_limits_hold(hospital: Hospital) -> None:
    hospital.ledger.prepare()
    relay_ids = {hospital.add("one" if number % 2 else "other") for number in range(16)}
    claims: list[str] = []
    running: Counter[str] = Counter()
    too_many: list[Counter[str]] = []
    lock = threading.Lock()

    def work() -> None:
        while len(claims) < len(relay_ids):
            claim = hospital.claim()
            if claim is None:
                continue
            with lock:
                claims.append(claim.relay_id)
                running[claim.destination] += 1
                too_many.extend([running.copy()] if running[claim.destination] > PARALLEL[claim.destination] else [])
            with lock:
                running[claim.destination] -= 1
            hospital.end(claim)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sorted(claims), too_many) == (sorted(relay_ids), [])
    assert {hospital.relays.relay(relay_id)["state"] for relay_id in relay_ids} == {"done"}


def test_an_attempt_is_a_job_of_its_relay(hospital: Hospital) -> None:
    relay_id = hospital.add(study_uids=("1.2",), series_uids=("1.2.3",))
    claim = hospital.claimed()
    assert (claim.accessions, claim.study_uids, claim.series_uids) == (("A",), ("1.2",), ("1.2.3",))
    job = hospital.ledger.job(claim.job_id)
    assert (job["relay_id"], job["kind"], job["destination"]) == (relay_id, "relay", ADDRESSES["one"])
    assert (job["requester"], job["series"]) == ("anna@10.1.2.3", ["1.2.3"])
    assert hospital.relays.relay(relay_id)["jobs"] == [claim.job_id]


@pytest.mark.parametrize(
    ("code", "state", "counted", "pause"),
    [
        ("relay_failed", "waiting", 1, True),
        ("incomplete", "waiting", 1, True),
        ("accession_not_found", "quarantined", 0, False),
        ("study_not_found", "quarantined", 0, False),
        ("series_not_found", "quarantined", 0, False),
        ("pacs_unreachable", "waiting", 0, True),
        ("disk_full", "waiting", 0, True),
        ("cancelled", "waiting", 0, False),
        ("wrong_patient", "quarantined", 0, False),
        ("several_patients", "quarantined", 0, False),
        ("not_configured", "quarantined", 0, False),
        ("not_confirmed", "waiting", 1, True),
    ],
)
def test_the_error_decides_how_a_relay_goes_on(
    code: str, state: str, counted: int, pause: bool, hospital: Hospital
) -> None:
    hospital.add()
    relay = hospital.end(hospital.claimed(), code)
    assert (relay["state"], relay["counted"], relay["error"]["code"]) == (state, counted, code)
    assert (hospital.claim() is None) == (pause or state != "waiting")
    hospital.make_due()
    assert (state == "waiting" and pause) == (hospital.claim() is not None)


def test_what_a_destination_says_it_has_not_waits_for_a_person(hospital: Hospital) -> None:
    hospital.add()
    assert hospital.end(hospital.claimed(), "not_confirmed", confirmed=3)["state"] == "quarantined"


def test_a_relay_that_fails_ten_times_waits_for_a_person_who_may_have_it_tried_again(hospital: Hospital) -> None:
    relay_id = hospital.add()
    for _ in range(10):
        relay = hospital.end(hospital.claimed(), "relay_failed")
        hospital.make_due()
    assert (relay["state"], relay["counted"], hospital.claim()) == ("quarantined", 10, None)
    hospital.relays.again(relay_id, 60)
    assert hospital.end(hospital.claimed())["state"] == "done"


def test_the_pause_doubles(hospital: Hospital) -> None:
    relay_id, pauses = hospital.add(), []
    for _ in range(4):
        hospital.end(hospital.claimed(), "relay_failed")
        pauses.append(hospital.execute("SELECT pause FROM relays"))
        hospital.make_due()
    assert (pauses, hospital.relays.relay(relay_id)["state"]) == ([5, 10, 20, 40], "waiting")


def test_a_destination_that_is_away_is_asked_once_for_all(hospital: Hospital) -> None:
    waiting = [hospital.add() for _ in range(3)]
    hospital.end(hospital.claimed(), "destination_unreachable")
    assert hospital.claim() is None
    assert hospital.relays.due(PARALLEL).away == ()
    hospital.make_due()
    assert hospital.claim() is None
    assert hospital.relays.due(PARALLEL).away == ("one",)
    assert [hospital.relays.begin_to_ask("one") for _ in range(2)] == [True, False]
    hospital.relays.is_back("one")
    assert hospital.claimed().relay_id == waiting[0]


def test_nothing_is_sent_to_a_destination_that_somebody_paused(hospital: Hospital) -> None:
    hospital.add()
    hospital.relays.pause("one", "anna@10.1.2.3")
    assert (hospital.claim(), hospital.relays.queues(PARALLEL)[0]["paused_by"]) == (None, "anna@10.1.2.3")
    hospital.relays.resume("one")
    hospital.claimed()


def test_a_relay_whose_process_died_waits_again_at_once_and_its_late_end_changes_nothing(hospital: Hospital) -> None:
    relay_id = hospital.add()
    dead = hospital.claimed()
    hospital.living.clear()
    assert hospital.ledger.abandon() == [dead.job_id]
    relay = hospital.relays.relay(relay_id)
    assert (relay["state"], relay["error"], relay["counted"]) == ("waiting", DIED, 0)
    second = hospital.claimed()
    assert hospital.end(dead, "wrong_patient")["state"] == "running"
    assert hospital.end(second)["state"] == "done"
    assert hospital.relays.relay(relay_id)["attempts"] == 2


def test_what_was_taken_for_dead_and_has_arrived_is_done(hospital: Hospital) -> None:
    hospital.add()
    claim = hospital.claimed()
    hospital.living.clear()
    hospital.ledger.abandon()
    assert (hospital.end(claim)["state"], hospital.claim()) == ("done", None)


def test_a_relay_is_cancelled_wherever_it_is(hospital: Hospital) -> None:
    waiting, other = hospital.add("other"), hospital.add("other")
    assert hospital.relays.cancel(waiting, "anna@10.1.2.3") is None
    relay = hospital.relays.relay(waiting)
    assert (relay["state"], relay["error"]["detail"]) == ("cancelled", "Cancelled by anna@10.1.2.3.")
    claim = hospital.claimed()
    assert (claim.relay_id, hospital.relays.cancel(other, "anna@10.1.2.3")) == (other, claim.job_id)
    hospital.ledger.request_cancel(claim.job_id, "anna@10.1.2.3")
    assert hospital.end(claim, "cancelled")["state"] == "cancelled"
    with pytest.raises(RelayNotFound):
        hospital.relays.cancel(str(uuid.uuid4()), "anna@10.1.2.3")


def test_what_has_had_its_time_or_has_no_destination_any_more_waits_for_a_person(hospital: Hospital) -> None:
    late, lost = hospital.add(give_up=0), hospital.add("removed")
    assert hospital.relays.due(PARALLEL).has_hopeless
    hospital.relays.give_up(PARALLEL)
    assert [hospital.relays.relay(one)["state"] for one in (late, lost)] == ["quarantined", "quarantined"]
    assert hospital.relays.relay(lost)["error"]["code"] == "not_configured"
    assert not hospital.relays.due(PARALLEL).has_hopeless


def test_what_the_last_attempt_wrote_of_an_instance_counts(hospital: Hospital) -> None:
    """Not what one before it wrote, which may have been withdrawn since."""
    relay_id = hospital.add()
    for outcomes in ({"1.1": "acknowledged", "1.2": "acknowledged"}, {"1.1": "not confirmed", "1.2": "not tried"}):
        claim = hospital.claimed()
        hospital.ledger.hand_out(claim.job_id, [row(uid, outcome) for uid, outcome in outcomes.items()])
        hospital.end(claim, "relay_failed")
        hospital.make_due()
    assert hospital.relays.handed_out(relay_id, ("acknowledged",)) == {"1.2": 100}


def row(uid: str, outcome: str) -> dict[str, str | int]:
    names = ("sop_class_uid", "series_uid", "study_uid", "transfer_syntax")
    return {"sop_instance_uid": uid, "bytes": 100, "outcome": outcome} | dict.fromkeys(names, "1.2")


def test_what_is_over_is_forgotten_with_the_jobs_and_nothing_else(hospital: Hospital) -> None:
    over, failed, waiting = (hospital.add() for _ in range(3))
    hospital.end(hospital.claimed())
    hospital.end(hospital.claimed(), "wrong_patient")
    hospital.execute("UPDATE relays SET finished_at = '2020-01-01T00:00:00.000000Z' WHERE finished_at IS NOT NULL")
    hospital.ledger.retention.forget(30)
    with pytest.raises(RelayNotFound):
        hospital.relays.relay(over)
    assert [hospital.relays.relay(one)["state"] for one in (failed, waiting)] == ["quarantined", "waiting"]


def test_an_id_is_taken_once(hospital: Hospital) -> None:
    relay_id = hospital.add()
    with pytest.raises(JobExists):
        hospital.relays.add(relay_id, "one", ("B",), requester="x", give_up=60)


def test_a_queued_relay_is_on_the_disk_when_it_is_told(tmp_path: Path) -> None:
    told: list[int] = []

    @sa.event.listens_for(sa.Engine, "before_cursor_execute")
    def look(_connection: Any, cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("INSERT INTO relays "):
            told.append(cursor.connection.execute("PRAGMA synchronous").fetchone()[0])

    hospital = Hospital(f"sqlite:///{tmp_path}/ledger.db")
    hospital.add()
    sa.event.remove(sa.Engine, "before_cursor_execute", look)
    hospital.ledger.close()
    assert told == [2]  # FULL
