"""What jobs that ended come to, counted in the transaction that ends a job; and forgetting those that did long ago.

Their rows, numbers, instances, and who collected them are forgotten; what was counted stays.

What is forgotten cannot be had back, so a clock alone is not believed. A job's row tells when it was written: a clock
that is more than a day beyond the newest one may be wrong; and so may one whose newest rows have a long gap before them
and are of less than a week, for they were written by that very clock.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from mkiso.errors import DiskFull, LedgerUnavailable
from mkiso.ledger.database import Database
from mkiso.ledger.experience import learn
from mkiso.ledger.outcomes import ENDED, follow
from mkiso.ledger.schema import (
    UNFINISHED,
    VERSION,
    collections,
    instances,
    job_accessions,
    jobs,
    ledger_time,
    relays,
    totals,
)

COUNTED = tuple(jobs.c[name] for name in (*ENDED, "work_dir", "kind", "received", "bytes", "seconds"))
OVER = ("done", "cancelled")  # of relays; those that wait for a person are not forgotten
JOBS, INSTANCES = 200, 5_000  # of one transaction, which so takes less than a second
BREATH = 0.1  # for those who write meanwhile
DAY, AGAIN = 86_400.0, 60.0
WEEK, LONG_WEEKEND = 7 * DAY, 4 * DAY
log = logging.getLogger("mkiso.ledger")


@dataclass
class Totals:
    """Of one host's jobs that ended: how many by kind, state and error's code ("" where it is done), and what they did.

    `handed_out` are the bytes of those that are done, `seconds` are by phase.
    """

    jobs: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    instances: int = 0
    handed_out: int = 0
    seconds: Counter[str] = field(default_factory=Counter)


def read_totals(connection: sa.Connection, work_dir: str) -> Totals:
    """The totals of a work_dir's identity."""
    found = Totals()
    query = sa.select(totals).where(totals.c.work_dir == work_dir, totals.c.jobs > 0)
    for row in connection.execute(query).mappings():
        found.jobs[row["kind"], row["state"], row["code"]] = row["jobs"]
        found.instances += row["received"]
        found.handed_out += row["bytes"] if row["state"] == "done" else 0
        found.seconds.update(row["seconds"])
    return found


def change(connection: sa.Connection, which: sa.ColumnElement[bool], values: Mapping[str, Any]) -> None:
    """Write these values into the jobs' rows, and count what that makes of them; learn from those that are done now.

    A job may end anew, or turn out to run still: then what was counted of it is taken off. In SQLite the transaction is
    to be alone; elsewhere one counts after the other, by the lock of a row that is always there: two who are the first
    to add one of another table would wait for each other in MariaDB.
    """
    before = connection.execute(sa.select(*COUNTED).where(which).with_for_update()).mappings().all()
    if before:
        connection.execute(jobs.update().where(jobs.c.id.in_([row["id"] for row in before])).values(values))
        connection.execute(sa.select(VERSION).with_for_update())
        after = [{**row, **values} for row in before]
        count(connection, before, after)
        for row in after:
            follow(connection, row)
        if values.get("state") == "done":
            learn(connection, [row["id"] for row in before if row["state"] != "done"])


@dataclass
class Sum:
    """What jobs of one kind, state and code come to; seconds are by phase."""

    jobs: int = 0
    received: int = 0
    bytes: int = 0
    seconds: Counter[str] = field(default_factory=Counter)

    def add(self, row: Mapping[Any, Any], times: int) -> None:
        self.jobs += times
        self.received += times * row["received"]
        self.bytes += times * row["bytes"]
        self.seconds.update({phase: times * seconds for phase, seconds in row["seconds"].items()})


def count(connection: sa.Connection, before: Iterable[Any], after: Iterable[Any]) -> None:
    """Count the rows of jobs that have ended, instead of what the same rows were before."""
    sums: dict[tuple[str, ...], Sum] = defaultdict(Sum)
    for rows, times in ((before, -1), (after, 1)):
        for row in rows:
            if row["finished_at"]:
                code = (row["error"] or {}).get("code", "")
                sums[row["work_dir"][:36], row["kind"], row["state"], code[:64]].add(row, times)
    for key, one in sorted(sums.items()):
        if one != Sum():
            _add(connection, key, one)


def _add(connection: sa.Connection, key: tuple[str, ...], more: Sum) -> None:
    named = dict(zip(("work_dir", "kind", "state", "code"), key, strict=True))
    found = sa.and_(*(totals.c[name] == value for name, value in named.items()))
    if connection.execute(sa.select(totals.c.jobs).where(found)).first() is None:
        with suppress(IntegrityError), connection.begin_nested():  # another process may be the first
            connection.execute(totals.insert().values(named | vars(Sum())))
    old = connection.execute(sa.select(totals).where(found).with_for_update()).mappings().one()
    values: dict[str, Any] = {name: old[name] + getattr(more, name) for name in ("jobs", "received", "bytes")}
    values["seconds"] = Counter(old["seconds"])
    values["seconds"].update(more.seconds)
    connection.execute(totals.update().where(found).values(values))


class Retention:
    """Forgets what ended long ago; several may do so at once, and each forgets what the others have left."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._believed: tuple[float, float] | None = None  # the database's clock, and this process's own then

    def keep(self, days: int) -> None:
        """Forget now, and every day; a ledger that is away is asked again in a minute. It never returns."""
        while True:
            try:
                if count := self.forget(days):
                    log.info("jobs of long ago are forgotten", extra={"fields": {"count": count}})
            except (LedgerUnavailable, DiskFull):
                time.sleep(AGAIN)
                continue
            except Exception:  # the boundary: tomorrow is another day
                log.exception("jobs of long ago could not be forgotten")
            time.sleep(DAY)

    def forget(self, days: int) -> int:
        """Forget the jobs that ended more than `days` days ago, by the database's clock as far as it is believed;
        how many.

        Raises LedgerUnavailable or DiskFull: what was forgotten by then stays so.
        """
        before, count = ledger_time(_moment(self._believable()) - timedelta(days=days)), 0
        while batch := self._database.do(lambda connection: _forget(connection, before), alone=True):
            count += batch
            time.sleep(BREATH)
        self._database.overwrite()
        return count

    def _believable(self) -> float:
        """The database's clock, or where it is beyond all that bears it out, the last moment that is."""
        clock, known = self._database.do(lambda connection: _clock_and_last(connection, self._database.now))
        if self._believed:
            then, own = self._believed
            known = max(known, then + time.monotonic() - own)
        if clock - known <= DAY:
            self._believed = clock, time.monotonic()
            return clock
        fields = {"clock": _moment(clock).isoformat(), "counted_from": _moment(known).isoformat()}
        level = logging.WARNING if clock - known > WEEK else logging.INFO
        text = "the clock is far beyond the ledger's last job: days are counted from that"
        log.log(level, text, extra={"fields": fields})
        return known


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _clock_and_last(connection: sa.Connection, now: sa.ColumnElement[int]) -> tuple[float, float]:
    """The database's clock, and when it was last borne out; the clock itself where there is no job."""
    clock: float = connection.execute(sa.select(now)).scalar_one()
    last = _last_written(connection, clock)
    if last is None:
        return clock, clock
    before = _last_written(connection, last - WEEK)
    return clock, last if before is None or last - before <= WEEK + LONG_WEEKEND else before


def _last_written(connection: sa.Connection, until: float) -> float | None:
    """When the newest job was written, of those that were by then; of a row of older versions, when it was begun."""
    begun = sa.and_(jobs.c.alive_at.is_(None), jobs.c.created_at <= ledger_time(_moment(until)))
    query = sa.select(jobs.c.alive_at, jobs.c.created_at).where(sa.or_(jobs.c.alive_at <= int(until), begun))
    row = connection.execute(query.order_by(jobs.c.created_at.desc()).limit(1)).first()
    if row is None:
        return None
    return float(row.alive_at or datetime.fromisoformat(row.created_at).timestamp())


def _forget(connection: sa.Connection, before: str) -> int:
    """Forget the first jobs that ended before this time; how many."""
    ended = (jobs.c.finished_at < before, jobs.c.state.not_in(UNFINISHED))
    oldest = sa.select(jobs.c.id).where(*ended).order_by(jobs.c.finished_at, jobs.c.id).limit(JOBS).with_for_update()
    ids = _few_enough(connection, connection.execute(oldest).scalars().all())
    if ids:
        for column in (instances.c.job_id, job_accessions.c.job_id, collections.c.job_id, jobs.c.id):
            connection.execute(column.table.delete().where(column.in_(ids)))
    connection.execute(relays.delete().where(relays.c.finished_at < before, relays.c.state.in_(OVER)))
    return len(ids)


def _few_enough(connection: sa.Connection, ids: Sequence[str]) -> Sequence[str]:
    """The first ones, with INSTANCES instances at most; but one job at least."""
    column = instances.c.job_id
    counts = sa.select(column, sa.func.count()).where(column.in_(ids)).group_by(column)
    handed_out: dict[str, int] = dict(connection.execute(counts).all())
    taken = 0
    for number, job_id in enumerate(ids):
        taken += handed_out.get(job_id, 0)
        if number and taken > INSTANCES:
            return ids[:number]
    return ids
