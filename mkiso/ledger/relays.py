"""Queued relays: what waits, who claims it, and what becomes of it when an attempt has ended.

A claim is one transaction under the lock of its destination's row: the oldest relay that is due, within the number that
may run there at once, and its attempt's row among the jobs. A relay goes on in the very transaction that ends its
attempt (`totals.change`), whoever ends it: so none is lost, and none has two attempts at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from mkiso.errors import Cancelled, JobExists, NotConfigured, RelayNotFound
from mkiso.ledger.database import Database
from mkiso.ledger.outcomes import LONGEST_AWAY, longer_pause
from mkiso.ledger.schema import fitting, instances, jobs, ledger_time, now, relay_queues, relays

RELAY_STATES = ("waiting", "running", "done", "quarantined", "cancelled")
ASKED = ("accessions", "study_uids", "series")
MOST_COMPARED = 10_000
NOT_TRIED = "not tried"  # dcmtk.sending.Outcome, which says nothing of what another attempt did
OPEN = ("waiting", "running", "quarantined")
# A RELAY: its own columns, and how its last attempt is.
OWN = ("id", "destination", "state", "accessions", "series", "requester", "created_at", "finished_at")
OF_ATTEMPT = ("patient_id", "patient_name", "expected", "files_sent", "files_failed")
SEEN = sa.select(
    *(relays.c[name] for name in (*OWN, "attempts", "counted", "next_at", "error", "job_id")),
    relays.c.studies.label("study_uids"),
    *(jobs.c[name] for name in OF_ATTEMPT),
    jobs.c.confirmed.label("files_confirmed"),
).outerjoin(jobs, jobs.c.id == relays.c.job_id)
NEVER_USED = dict.fromkeys(("paused_by", "pause", "next_at", "oldest", "due", "waiting", "running", "quarantined"))


class Claim(NamedTuple):
    """A relay whose next attempt is the caller's: a job whose row is there."""

    relay_id: str
    job_id: str
    destination: str
    accessions: tuple[str, ...]
    study_uids: tuple[str, ...]
    series_uids: tuple[str, ...]
    requester: str


@dataclass(frozen=True)
class Due:
    """What is to be done now: destinations that have a relay due and room for it, those to be asked whether they are
    back, and whether relays are there that nobody will send any more.
    """

    destinations: tuple[str, ...] = ()
    away: tuple[str, ...] = ()
    has_hopeless: bool = False


OpenJob = Callable[[sa.Connection, Claim], None]


class Relays:
    """Every method raises LedgerUnavailable, or DiskFull, where the database cannot be read or written now."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        relay_id: str,
        destination: str,
        accessions: Sequence[str],
        *,
        study_uids: Sequence[str] = (),
        series_uids: Sequence[str] = (),
        requester: str,
        give_up: float,
    ) -> None:
        """Have a relay wait for its turn; it is on the disk when this returns. JobExists where there is one of that id.

        After `give_up` seconds it waits for a person.
        """
        row = {
            "id": relay_id,
            "destination": destination,
            "state": "waiting",
            "accessions": list(accessions),
            "studies": list(study_uids),
            "series": list(series_uids),
            "requester": requester,
            "created_at": now(),
            **dict.fromkeys(("attempts", "counted", "pause"), 0),
        }
        times = {"next_at": self._database.now, "give_up_at": self._database.now + int(give_up)}

        def work(connection: sa.Connection) -> None:
            _have_queue(connection, destination)
            connection.execute(relays.insert().values(fitting(relays, row) | times))

        try:
            self._database.do(work, durable=True)
        except IntegrityError:
            same = [relays.c[name] == row[name] for name in ("id", "created_at", "requester")]
            query = sa.select(relays.c.id).where(*same)
            if not self._database.do(lambda connection: connection.execute(query).all()):
                raise JobExists(f"There is a relay {relay_id} already. Choose another UUID, or none.") from None

    def due(self, parallel: Mapping[str, int]) -> Due:
        """A look that locks nothing; `parallel` has how many may run at once to each destination there is."""
        moment = self._database.now
        waits = sa.and_(relays.c.state == "waiting", relays.c.next_at <= moment)
        running = _number_of(relays.c.state == "running").label("running")
        waiting = _number_of(waits).label("waiting")
        hopeless = _number_of(sa.and_(relays.c.state == "waiting", relays.c.give_up_at <= moment)).label("hopeless")
        counts = (
            sa.select(relays.c.destination, running, waiting, hopeless)
            .where(relays.c.state.in_(("waiting", "running")))
            .group_by(relays.c.destination)
            .subquery()
        )
        queue = relay_queues.c
        is_time = (queue.next_at <= moment).label("is_time")
        query = (
            sa.select(counts, queue.paused_by, queue.pause, is_time)
            .join(relay_queues, queue.destination == counts.c.destination)
            .order_by(queue.served)
        )
        found = self._database.do(lambda connection: connection.execute(query).all())
        known = [one for one in found if one.destination in parallel and one.paused_by is None and one.waiting]
        room = (one for one in known if not one.pause and one.running < parallel[one.destination])
        return Due(
            tuple(one.destination for one in room),
            tuple(one.destination for one in known if one.pause and one.is_time),
            any(one.hopeless or (one.waiting and one.destination not in parallel) for one in found),
        )

    def claim(self, job_id: str, parallel: Mapping[str, int], open_job: OpenJob) -> Claim | None:
        """The next relay to be sent, which runs from here on as the job of this id; None where none is to be.

        Of the destinations with room the one that was served longest ago. `open_job` makes the attempt's row.
        """
        for destination in self.due(parallel).destinations:
            if claim := self._claim(job_id, destination, parallel[destination], open_job):
                return claim
        return None

    def _claim(self, job_id: str, destination: str, most: int, open_job: OpenJob) -> Claim | None:
        def work(connection: sa.Connection) -> Claim | None:
            mine = connection.execute(sa.select(relays).where(relays.c.job_id == job_id)).mappings().first()
            if mine is not None:  # its COMMIT was not heard of
                return _claim_of(mine, job_id)
            row = self._oldest(connection, destination, most)
            if row is None:
                return None
            values = {"state": "running", "job_id": job_id, "attempts": row["attempts"] + 1}
            connection.execute(relays.update().where(relays.c.id == row["id"]).values(values))
            last = connection.execute(sa.select(sa.func.max(relay_queues.c.served))).scalar_one()
            is_this = relay_queues.c.destination == destination
            connection.execute(relay_queues.update().where(is_this).values(served=last + 1))
            claim = _claim_of(row, job_id)
            open_job(connection, claim)
            return claim

        return self._database.do(work, alone=True, committed=True)

    def _oldest(self, connection: sa.Connection, destination: str, most: int) -> Mapping[Any, Any] | None:
        """The relay of a destination that is due, where there is room; its row is locked, and its queue's."""
        queue, waits = relay_queues.c, sa.and_(relays.c.state == "waiting", relays.c.next_at <= self._database.now)
        is_open = (queue.destination == destination, queue.paused_by.is_(None), queue.pause == 0)
        locked = sa.select(queue.destination).where(*is_open).with_for_update(skip_locked=True)
        if connection.execute(locked).first() is None:
            return None
        running = sa.select(sa.func.count()).where(relays.c.destination == destination, relays.c.state == "running")
        if connection.execute(running).scalar_one() >= most:
            return None
        oldest = sa.select(relays).where(relays.c.destination == destination, waits).order_by(relays.c.number).limit(1)
        return connection.execute(oldest.with_for_update(skip_locked=True)).mappings().first()

    def handed_out(self, relay_id: str, outcomes: Collection[str]) -> dict[str, int]:
        """The instances of which its last attempt that tried them wrote one of these outcomes: their bytes by UID."""
        columns = (instances.c.sop_instance_uid, instances.c.bytes, instances.c.outcome)
        query = sa.select(*columns).join(jobs, jobs.c.id == instances.c.job_id).where(jobs.c.relay_id == relay_id)
        query = query.where(instances.c.outcome != NOT_TRIED).order_by(jobs.c.created_at)
        rows = self._database.do(lambda connection: connection.execute(query).all())
        last = {uid: (size, outcome) for uid, size, outcome in rows}
        return {uid: size for uid, (size, outcome) in last.items() if outcome in outcomes}

    def relay(self, relay_id: str) -> dict[str, Any]:
        """One RELAY, with the ids of its attempts (`jobs`), the first one first. Raises RelayNotFound."""
        found = self._database.do(lambda connection: _public(connection, SEEN.where(relays.c.id == relay_id)))
        if not found:
            raise RelayNotFound("The ledger has no relay of that id.")
        return found[0]

    def page(self, states: Collection[str], destination: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """The RELAYs in one of these states, as they were asked for; of those that are over, the newest first."""
        order = relays.c.number if set(states) <= {"waiting", "running"} else relays.c.number.desc()
        query = SEEN.where(relays.c.state.in_(states)).order_by(order).limit(limit)
        if destination is not None:
            query = query.where(relays.c.destination == destination)
        return self._database.do(lambda connection: _public(connection, query))

    def same(self, destination: str, asked: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
        """The RELAYs that wait or run there of exactly these accession numbers, study UIDs and series UIDs."""
        wanted = [sorted(set(one)) for one in asked]
        found = self.page(("waiting", "running"), destination, MOST_COMPARED)
        return [one for one in found if [sorted(set(one[name])) for name in ASKED] == wanted]

    def queues(self, known: Collection[str]) -> list[dict[str, Any]]:
        """Of each destination that is known, or has relays: how many wait, run and were given up, and what holds it up.

        `next_at` is when one that is away is asked again, `oldest` when the first was asked for of those that wait.
        """
        counts = [_number_of(relays.c.state == one).label(one) for one in OPEN]
        oldest = sa.func.min(sa.case((relays.c.state == "waiting", relays.c.created_at))).label("oldest")
        due = sa.func.min(sa.case((relays.c.state == "waiting", relays.c.next_at))).label("due")
        found = sa.select(relays.c.destination, *counts, oldest, due).where(relays.c.state.in_(OPEN))
        of_each = found.group_by(relays.c.destination).subquery()
        queue = relay_queues.c
        query = sa.select(queue.destination, queue.paused_by, queue.pause, queue.next_at, *list(of_each.c)[1:])
        query = query.outerjoin(of_each, of_each.c.destination == queue.destination)
        rows = self._database.do(lambda connection: connection.execute(query).mappings().all())
        seen = [row for row in rows if row["destination"] in known or row["waiting"] is not None]
        of_all = {name: _queue(NEVER_USED | {"destination": name}) for name in known}
        of_all |= {row["destination"]: _queue(row) for row in seen}
        return [of_all[name] for name in sorted(of_all)]

    def begin_to_ask(self, destination: str) -> bool:
        """Whether it is the caller who asks a destination that was away; the next one does so after a longer pause."""
        moment = self._database.now
        is_due = (relay_queues.c.destination == destination, relay_queues.c.next_at <= moment, relay_queues.c.pause > 0)

        def work(connection: sa.Connection) -> bool:
            pause = connection.execute(sa.select(relay_queues.c.pause).where(*is_due).with_for_update()).scalar()
            if pause is None:
                return False
            longer = longer_pause(pause, LONGEST_AWAY)
            values = {"pause": longer, "next_at": moment + longer}
            return bool(connection.execute(relay_queues.update().where(*is_due).values(values)).rowcount)

        return self._database.do(work, alone=True)

    def is_back(self, destination: str) -> None:
        """Have what waits for a destination sent."""
        self._set_queue(destination, pause=0, next_at=0)

    def pause(self, destination: str, by: str) -> None:
        """Have nothing more sent to a destination until `resume`; `by` is a requester. What runs ends as it does."""
        self._set_queue(destination, paused_by=by)

    def resume(self, destination: str) -> None:
        """Have what waits for a destination sent, whether it was paused or away."""
        self._set_queue(destination, paused_by=None, pause=0, next_at=0)

    def _set_queue(self, destination: str, **values: Any) -> None:
        def work(connection: sa.Connection) -> None:
            _have_queue(connection, destination)
            is_this = relay_queues.c.destination == destination
            connection.execute(relay_queues.update().where(is_this).values(fitting(relay_queues, values)))

        self._database.do(work, alone=True)

    def again(self, relay_id: str, give_up: float) -> None:
        """Have a relay that waits, or was given up, tried now, with all its tries before it. Raises RelayNotFound."""
        moment = self._database.now
        values = {
            "state": "waiting",
            "counted": 0,
            "pause": 0,
            "finished_at": None,
            "next_at": moment,
            "give_up_at": moment + int(give_up),
        }
        self._change(relay_id, ("waiting", "quarantined"), values)

    def cancel(self, relay_id: str, by: str) -> str | None:
        """End a relay that waits or was given up; of one that runs, its attempt's id, which is to be cancelled.

        Raises RelayNotFound.
        """
        row = self._change(relay_id, ("waiting", "quarantined"), _ended_by(f"Cancelled by {by}."))
        job_id: str | None = row["job_id"] if row["state"] == "running" else None
        return job_id

    def forget(self, relay_id: str, by: str) -> None:
        """End a relay that was given up, and no other. Raises RelayNotFound."""
        self._change(relay_id, ("quarantined",), _ended_by(f"Forgotten by {by}."))

    def _change(self, relay_id: str, states: Collection[str], values: Mapping[str, Any]) -> Any:
        """Write these values where the relay is in one of the states; its row as it was."""
        query = sa.select(relays).where(relays.c.id == relay_id).with_for_update()

        def work(connection: sa.Connection) -> Any:
            row = connection.execute(query).mappings().first()
            if row is not None and row["state"] in states:
                connection.execute(relays.update().where(relays.c.id == relay_id).values(fitting(relays, values)))
            return row

        row = self._database.do(work, alone=True)
        if row is None:
            raise RelayNotFound("The ledger has no relay of that id.")
        return row

    def give_up(self, known: Collection[str]) -> None:
        """Have a person see what has not arrived in its time, and what goes to none of the destinations `known`."""
        for_nobody = {
            "code": NotConfigured.code,
            "detail": "The configuration has no destination of that name any more.",
        }
        waits = relays.c.state == "waiting"
        late = relays.update().where(waits, relays.c.give_up_at <= self._database.now)
        unknown = relays.update().where(waits, relays.c.destination.not_in(known))

        def work(connection: sa.Connection) -> None:
            connection.execute(unknown.values(state="quarantined", finished_at=now(), error=for_nobody))
            connection.execute(late.values(state="quarantined", finished_at=now()))

        self._database.do(work, alone=True)


def _number_of(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.count(sa.case((condition, 1)))


def _ended_by(detail: str) -> dict[str, Any]:
    return {"state": "cancelled", "finished_at": now(), "error": {"code": Cancelled.code, "detail": detail}}


def _public(connection: sa.Connection, query: sa.Select[Any]) -> list[dict[str, Any]]:
    """The RELAYs that a query finds, with the ids of their attempts (`jobs`), the first one first.

    What waits tells when it is tried next.
    """
    found = [dict(row) for row in connection.execute(query).mappings()]
    attempts = defaultdict(list)
    tried = sa.select(jobs.c.relay_id, jobs.c.id).where(jobs.c.relay_id.in_([one["id"] for one in found]))
    for relay_id, job_id in connection.execute(tried.order_by(jobs.c.created_at)) if found else ():
        attempts[relay_id].append(job_id)
    for one in found:
        one["next_at"] = _time(one["next_at"]) if one["state"] == "waiting" else None
        one["jobs"] = attempts[one["id"]]
    return found


def _queue(row: Mapping[Any, Any]) -> dict[str, Any]:
    counts = {name: row[name] or 0 for name in ("waiting", "running", "quarantined")}
    asked, due = (_time(row["next_at"]) if row["pause"] else None), row["due"] and _time(row["due"])
    return {"destination": row["destination"], "paused_by": row["paused_by"], **counts} | {
        "is_away": bool(row["pause"]),
        "next_at": asked or due,
        "oldest": row["oldest"],
    }


def _time(seconds: int) -> str:
    return ledger_time(datetime.fromtimestamp(seconds, UTC))


def _claim_of(row: Mapping[Any, Any], job_id: str) -> Claim:
    numbers, studies, series = (tuple(row[name]) for name in ("accessions", "studies", "series"))
    return Claim(row["id"], job_id, row["destination"], numbers, studies, series, row["requester"])


def _have_queue(connection: sa.Connection, destination: str) -> None:
    known = sa.select(relay_queues.c.destination).where(relay_queues.c.destination == destination)
    if connection.execute(known).first() is None:
        row = {"destination": destination, "next_at": 0, "pause": 0, "served": 0}
        try:
            with connection.begin_nested():
                connection.execute(relay_queues.insert().values(row))
        except IntegrityError:  # another process was the first
            pass
