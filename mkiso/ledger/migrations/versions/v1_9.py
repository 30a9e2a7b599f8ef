"""The totals of jobs that ended, counted as each ends: so far from their rows, and from those that are gone.

The table `forgotten` stays, for an older version that goes on beside.
"""

from collections import Counter
from typing import Any

import sqlalchemy as sa
from alembic import op

from mkiso.ledger.schema import totals

revision, down_revision = "1.9", "1.8"
KEY = ("work_dir", "kind", "state", "code")
SUMMED = ("received", "bytes", "seconds")


def _table(name: str, *columns: str) -> sa.TableClause:
    return sa.table(name, *(sa.column(one, sa.JSON if one in ("error", "seconds") else None) for one in columns))


JOBS = _table("jobs", *KEY[:3], "error", "finished_at", *SUMMED)
FORGOTTEN = _table("forgotten", *KEY, "jobs", *SUMMED)


def upgrade() -> None:
    connection = op.get_bind()
    totals.create(connection, checkfirst=True)  # of a migration that was cut, MariaDB keeps the table alone
    sums: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in connection.execute(sa.select(FORGOTTEN)).mappings():
        _add(sums, row, row["code"], row["jobs"])
    for row in connection.execute(sa.select(JOBS).where(JOBS.c.finished_at.is_not(None))).mappings():
        _add(sums, row, (row["error"] or {}).get("code", ""), 1)
    if sums:
        connection.execute(totals.insert(), [dict(zip(KEY, key, strict=True)) | one for key, one in sums.items()])


def _add(sums: dict[tuple[str, ...], dict[str, Any]], row: sa.RowMapping, code: str, jobs: int) -> None:
    key = (row["work_dir"][:36], row["kind"], row["state"], code[:64])
    one = sums.setdefault(key, {"jobs": 0, "received": 0, "bytes": 0, "seconds": Counter()})
    one["jobs"] += jobs
    one["received"] += row["received"]
    one["bytes"] += row["bytes"]
    one["seconds"].update(row["seconds"])
