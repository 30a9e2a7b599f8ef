"""What all finished jobs of a host come to, counted from their rows as they finish.

Forgetting jobs that ended long ago: their rows, numbers and instances; what they come to stays in the totals.

What is forgotten cannot be had back, so a clock alone is not believed. A job's row tells when it was written: a clock
that is more than a day beyond the newest one may be wrong; and so may one whose newest rows have a long gap before them
and are of less than a week, for they were written by that very clock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from mkiso.errors import DiskFull, LedgerUnavailable
from mkiso.ledger.database import Database
from mkiso.ledger.schema import UNFINISHED, forgotten, instances, job_accessions, jobs, ledger_time

BATCH = 5_000
TRIES = 3
COUNTED = tuple(
    jobs.c[name] for name in ("finished_at", "id", "kind", "state", "error", "received", "bytes", "seconds")
)
JOBS, INSTANCES = 200, 5_000  # of one transaction, which so takes less than a second
BREATH = 0.1  # for those who write meanwhile
DAY, AGAIN = 86_400.0, 60.0
WEEK, LONG_WEEKEND = 7 * DAY, 4 * DAY
log = logging.getLogger("mkiso.ledger")
FORGOTTEN = tuple(jobs.c[name] for name in ("id", "work_dir", "kind", "state", "error", "received", "bytes", "seconds"))


@dataclass
class Totals:
    """Of finished jobs: how many by kind, state and error's code ("" where it is done), and what they did.

    `handed_out` are the bytes of those that are done, `seconds` are by phase.
    """

    jobs: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    instances: int = 0
    handed_out: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    mark: tuple[str, str] = ("", "")

    def add(self, rows: Iterable[sa.RowMapping]) -> None:
        """Count rows, in the order in which they finished."""
        for row in rows:
            self._add((row["kind"], row["state"], (row["error"] or {}).get("code", "")), 1, row)
            self.mark = row["finished_at"], row["id"]

    def add_forgotten(self, sums: Iterable[sa.RowMapping]) -> None:
        """Count what jobs came to whose rows are gone."""
        for row in sums:
            self._add((row["kind"], row["state"], row["code"]), row["jobs"], row)

    def _add(self, key: tuple[str, str, str], count: int, row: sa.RowMapping) -> None:
        self.jobs[key] += count
        self.instances += row["received"]
        self.handed_out += row["bytes"] if row["state"] == "done" else 0
        for phase, seconds in row["seconds"].items():
            self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds


class Counting:
    """The totals of one identity's jobs: what has been counted is not read again.

    A row may be written long after its job's end, finished anew, or taken out: wherever the rows up to the mark, and
    those that were forgotten, are not as many as were counted, everything is counted again. So every process comes to
    the same, and what is forgotten stays counted.
    """

    def __init__(self, database: Database, identity: Callable[[], str]) -> None:
        self._database, self._identity = database, identity
        self._totals, self._of = Totals(), ""
        self._counting = threading.Lock()

    def totals(self) -> Totals:
        """The totals now. Raises LedgerUnavailable or DiskFull."""
        with self._counting:
            ours = self._identity()
            if ours != self._of:
                self._begin(ours)
            for _ in range(TRIES):
                while self._count_more(ours):
                    pass
                if self._counted(ours) == self._totals.jobs.total():
                    return deepcopy(self._totals)
                self._begin(ours)
        raise LedgerUnavailable("Jobs are forgotten faster than others are counted. Ask again in a minute.")

    def running(self) -> int:
        """How many jobs are under way. Raises LedgerUnavailable or DiskFull."""
        return self._scalar(jobs.c.finished_at.is_(None), jobs.c.work_dir == self._identity())

    def _begin(self, ours: str) -> None:
        query = sa.select(forgotten).where(forgotten.c.work_dir == ours)
        sums = self._database.do(lambda connection: connection.execute(query).mappings().all())
        self._totals, self._of = Totals(), ours
        self._totals.add_forgotten(sums)

    def _counted(self, ours: str) -> int:
        """How many jobs there are up to the mark, and were, at one moment."""
        moment, job_id = self._totals.mark
        here = sa.select(sa.func.count()).select_from(jobs).where(jobs.c.work_dir == ours)
        before = here.where(jobs.c.finished_at < moment).scalar_subquery()
        same_time = here.where(jobs.c.finished_at == moment, jobs.c.id <= job_id).scalar_subquery()
        gone = sa.select(sa.func.coalesce(sa.func.sum(forgotten.c.jobs), 0)).where(forgotten.c.work_dir == ours)
        query = sa.select(before + same_time + gone.scalar_subquery())
        return int(self._database.do(lambda connection: connection.execute(query).scalar_one()))

    def _count_more(self, ours: str) -> bool:
        """Count a batch; whether there was one."""
        moment, job_id = self._totals.mark
        later = sa.or_(jobs.c.finished_at > moment, jobs.c.id > job_id)
        batch = sa.select(*COUNTED).where(jobs.c.work_dir == ours, jobs.c.finished_at >= moment, later)
        query = batch.order_by(jobs.c.finished_at, jobs.c.id).limit(BATCH)
        rows = self._database.do(lambda connection: connection.execute(query).mappings().all())
        self._totals.add(rows)
        return len(rows) == BATCH

    def _scalar(self, *conditions: Any) -> int:
        query = sa.select(sa.func.count()).select_from(jobs).where(*conditions)
        return self._database.do(lambda connection: connection.execute(query).scalar_one())


@dataclass
class Sum:
    """What jobs of one kind, state and code come to; seconds are by phase."""

    jobs: int = 0
    received: int = 0
    bytes: int = 0
    seconds: Counter[str] = field(default_factory=Counter)


class Retention:
    """Whoever forgets beside others forgets what is left, and nothing is counted twice."""

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
        while batch := self._forget_some(before):
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
        told = {"clock": _moment(clock).isoformat(), "counted_from": _moment(known).isoformat()}
        level = logging.WARNING if clock - known > WEEK else logging.INFO
        log.log(
            level, "the clock is far beyond the ledger's last job: days are counted from that", extra={"fields": told}
        )
        return known

    def _forget_some(self, before: str) -> int:
        try:
            return self._database.do(lambda connection: _forget(connection, before), alone=True)
        except IntegrityError:  # another host was the first to write a sum
            return self._forget_some(before)


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
    """When the newest job was written, of those that were by then; a row of older versions tells only its begin."""
    begun = sa.and_(jobs.c.alive_at.is_(None), jobs.c.created_at <= ledger_time(_moment(until)))
    query = sa.select(jobs.c.alive_at, jobs.c.created_at).where(sa.or_(jobs.c.alive_at <= int(until), begun))
    row = connection.execute(query.order_by(jobs.c.created_at.desc()).limit(1)).first()
    if row is None:
        return None
    return float(row.alive_at or datetime.fromisoformat(row.created_at).timestamp())


def _forget(connection: sa.Connection, before: str) -> int:
    ended = (jobs.c.finished_at < before, jobs.c.state.not_in(UNFINISHED))
    oldest = sa.select(*FORGOTTEN).where(*ended).order_by(jobs.c.finished_at, jobs.c.id).limit(JOBS).with_for_update()
    rows = _few_enough(connection, connection.execute(oldest).mappings().all())
    ids = [row["id"] for row in rows]
    if ids:
        for table in (instances, job_accessions):
            connection.execute(table.delete().where(table.c.job_id.in_(ids)))
        connection.execute(jobs.delete().where(jobs.c.id.in_(ids)))
        for key, one in sorted(_sums(rows).items()):
            _add(connection, key, one)
    return len(ids)


def _few_enough(connection: sa.Connection, rows: Sequence[sa.RowMapping]) -> Sequence[sa.RowMapping]:
    """The first ones, with INSTANCES instances at most; but one job at least."""
    column, ids = instances.c.job_id, [row["id"] for row in rows]
    counts = sa.select(column, sa.func.count()).where(column.in_(ids)).group_by(column)
    handed_out: dict[str, int] = dict(connection.execute(counts).all())
    taken = 0
    for number, row in enumerate(rows):
        taken += handed_out.get(row["id"], 0)
        if number and taken > INSTANCES:
            return rows[:number]
    return rows


def _sums(rows: Sequence[sa.RowMapping]) -> dict[tuple[str, str, str, str], Sum]:
    sums: dict[tuple[str, str, str, str], Sum] = {}
    for row in rows:
        code = (row["error"] or {}).get("code", "")
        one = sums.setdefault((row["work_dir"][:36], row["kind"], row["state"], code[:64]), Sum())
        one.jobs += 1
        one.received += row["received"]
        one.bytes += row["bytes"]
        one.seconds.update(row["seconds"])
    return sums


def _add(connection: sa.Connection, key: tuple[str, str, str, str], more: Sum) -> None:
    found = sa.and_(*(column == value for column, value in zip(forgotten.primary_key.columns, key, strict=True)))
    old: Any = connection.execute(sa.select(forgotten).where(found).with_for_update()).mappings().first()
    if old is None:
        values = dict(zip(("work_dir", "kind", "state", "code"), key, strict=True)) | vars(more)
        connection.execute(forgotten.insert().values(values))
        return
    seconds = Counter(old["seconds"])
    seconds.update(more.seconds)
    values = {name: old[name] + getattr(more, name) for name in ("jobs", "received", "bytes")}
    connection.execute(forgotten.update().where(found).values(values | {"seconds": seconds}))
