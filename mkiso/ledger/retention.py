"""Forgetting jobs that ended long ago: their rows, numbers and instances; what they come to stays in the totals.

What is forgotten cannot be had back, so a clock alone is not believed. A job's row tells when it was written: a clock
that is more than a day beyond the newest one may be wrong; and so may one whose newest rows have a long gap before them
and are of less than a week, for they were written by that very clock.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from mkiso.errors import DiskFull, LedgerUnavailable
from mkiso.ledger.database import Database
from mkiso.ledger.tables import UNFINISHED, forgotten, instances, job_accessions, jobs, ledger_time

JOBS, INSTANCES = 200, 5_000  # of one transaction, which so takes less than a second
BREATH = 0.1  # for those who write meanwhile
DAY, AGAIN = 86_400.0, 60.0
WEEK, LONG_WEEKEND = 7 * DAY, 4 * DAY
log = logging.getLogger("mkiso.ledger")
COUNTED = tuple(jobs.c[name] for name in ("id", "work_dir", "kind", "state", "error", "received", "bytes", "seconds"))


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
    oldest = sa.select(*COUNTED).where(*ended).order_by(jobs.c.finished_at, jobs.c.id).limit(JOBS).with_for_update()
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
