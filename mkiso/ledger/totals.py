"""What all finished jobs of a host come to, counted from their rows as they finish."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from mkiso.ledger.database import Database
from mkiso.ledger.tables import jobs

BATCH = 5_000
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
            self.jobs[row["kind"], row["state"], (row["error"] or {}).get("code", "")] += 1
            self.instances += row["received"]
            self.handed_out += row["bytes"] if row["state"] == "done" else 0
            for phase, seconds in row["seconds"].items():
                self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
            self.mark = row["finished_at"], row["id"]


class Counting:
    """The totals of one identity's jobs: what has been counted is not read again.

    A row may be written long after its job's end, finished anew, or be forgotten: wherever the rows up to the mark are
    not as many as were counted, everything is counted again. So every process comes to the same.
    """

    def __init__(self, database: Database, identity: Callable[[], str]) -> None:
        self._database, self._identity = database, identity
        self._totals, self._of = Totals(), ""
        self._counting = threading.Lock()

    def totals(self) -> Totals:
        """The totals now. Raises LedgerUnavailable or DiskFull."""
        with self._counting:
            ours = self._identity()
            if ours != self._of or self._counted_rows(ours) != self._totals.jobs.total():
                self._totals, self._of = Totals(), ours
            while self._count_more(ours):
                pass
            return deepcopy(self._totals)

    def running(self) -> int:
        """How many jobs are under way. Raises LedgerUnavailable or DiskFull."""
        return self._scalar(jobs.c.finished_at.is_(None), jobs.c.work_dir == self._identity())

    def _counted_rows(self, ours: str) -> int:
        moment, job_id = self._totals.mark
        before = jobs.c.finished_at < moment
        same_time = sa.and_(jobs.c.finished_at == moment, jobs.c.id <= job_id)
        return self._scalar(jobs.c.work_dir == ours, before) + self._scalar(jobs.c.work_dir == ours, same_time)

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
