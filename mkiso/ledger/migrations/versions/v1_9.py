"""The totals of jobs that ended, counted as each ends: so far from their rows, and from those that are gone.

The table `forgotten` stays, for an older version that goes on beside.
"""

from collections import Counter
from typing import Any

import sqlalchemy as sa
from alembic import op

from mkiso.ledger.schema import UNICODE

revision, down_revision = "1.9", "1.8"
KEY = ("work_dir", "kind", "state", "code")
SUMMED = ("received", "bytes", "seconds")


def _table(name: str, *columns: str) -> sa.TableClause:
    return sa.table(name, *(sa.column(one, sa.JSON if one in ("error", "seconds") else None) for one in columns))


JOBS = _table("jobs", *KEY[:3], "error", "finished_at", *SUMMED)
FORGOTTEN, TOTALS = (_table(name, *KEY, "jobs", *SUMMED) for name in ("forgotten", "totals"))


def upgrade() -> None:
    connection = op.get_bind()
    if not sa.inspect(connection).has_table("totals"):  # of a migration that was cut, MariaDB keeps the table alone
        _make_table()
    sums: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in connection.execute(sa.select(FORGOTTEN)).mappings():
        _add(sums, row, row["code"], row["jobs"])
    for row in connection.execute(sa.select(JOBS).where(JOBS.c.finished_at.is_not(None))).mappings():
        _add(sums, row, (row["error"] or {}).get("code", ""), 1)
    if sums:
        connection.execute(TOTALS.insert(), [dict(zip(KEY, key, strict=True)) | one for key, one in sums.items()])


def _make_table() -> None:
    op.create_table(
        "totals",
        sa.Column("work_dir", sa.String(36), primary_key=True),
        sa.Column("kind", sa.String(8), primary_key=True),
        sa.Column("state", sa.String(12), primary_key=True),
        sa.Column("code", sa.String(64), primary_key=True),
        sa.Column("jobs", sa.BigInteger, nullable=False),
        sa.Column("received", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.JSON, nullable=False),
        **UNICODE,
    )


def _add(sums: dict[tuple[str, ...], dict[str, Any]], row: sa.RowMapping, code: str, jobs: int) -> None:
    key = (row["work_dir"][:36], row["kind"], row["state"], code[:64])
    one = sums.setdefault(key, {"jobs": 0, "received": 0, "bytes": 0, "seconds": Counter()})
    one["jobs"] += jobs
    one["received"] += row["received"]
    one["bytes"] += row["bytes"]
    one["seconds"].update(row["seconds"])
