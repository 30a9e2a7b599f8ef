"""What all finished jobs of a host come to, counted from their rows as they finish."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from mkiso.errors import LedgerUnavailable
from mkiso.ledger.database import Database
from mkiso.ledger.tables import forgotten, jobs

BATCH = 5_000
TRIES = 3
COUNTED = tuple(
    jobs.c[name] for name in ("finished_at", "id", "kind", "state", "error", "received", "bytes", "seconds")
)


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
