"""Discs of a part, protected ones, who collected them and who cancelled; what the search compares, and sizes so far.

The search's key is made of the rows that are there. `folded` is '' of a job without a patient, and NULL only in what an
older version beside writes.
"""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from mkiso.ledger import history
from mkiso.ledger.schema import collections, experience, jobs

revision, down_revision = "1.10", "1.9"
COLUMNS: dict[str, dict[str, Any]] = {
    "jobs": {
        "series": sa.JSON(none_as_null=True),
        "asked": sa.JSON(none_as_null=True),
        "cancelled_by": sa.Text(),
        "folded": sa.Text(),
    },
    "instances": {"modality": sa.String(16)},
}
SEARCHED = "jobs_searched"
JOBS = sa.table("jobs", *map(sa.column, ("id", "patient_id", "patient_name", "folded")))


def upgrade() -> None:
    connection = op.get_bind()
    inspector = sa.inspect(connection)
    for table, columns in COLUMNS.items():
        there = {column["name"] for column in inspector.get_columns(table)}
        for name in columns.keys() - there:  # of a migration that was cut, MariaDB keeps what was done
            op.add_column(table, sa.Column(name, columns[name]))
        if table == "jobs" and "encrypted" not in there:
            op.add_column(table, sa.Column("encrypted", sa.Boolean, nullable=False, server_default=sa.false()))
    collections.create(connection, checkfirst=True)
    experience.create(connection, checkfirst=True)
    fold = JOBS.update().where(JOBS.c.id == sa.bindparam("job")).values(folded=sa.bindparam("key"))
    for rows in _unfolded(connection):
        keys = ({"job": job, "key": history.search_key(number or "", name or "")} for job, number, name, _ in rows)
        connection.execute(fold, list(keys))
    if connection.dialect.name == "sqlite":
        op.drop_index(SEARCHED, "jobs")
        next(index for index in jobs.indexes if index.name == SEARCHED).create(connection)


def _unfolded(connection: sa.Connection) -> Iterator[Any]:
    """The rows, piece by piece."""
    query = sa.select(JOBS).where(JOBS.c.folded.is_(None)).order_by(JOBS.c.id).limit(history.BATCH)
    last = ""
    while rows := connection.execute(query.where(JOBS.c.id > last)).all():
        yield rows
        last = rows[-1].id
