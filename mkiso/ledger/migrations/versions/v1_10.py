"""Discs of a part, protected ones, who collected them and who cancelled; what the search compares, and sizes so far."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from mkiso.ledger.schema import collections, experience

revision, down_revision = "1.10", "1.9"
COLUMNS: dict[str, Any] = {
    "series": sa.JSON(none_as_null=True),
    "cancelled_by": sa.Text(),
    "folded": sa.Text(),
}


def upgrade() -> None:
    connection = op.get_bind()
    there = {column["name"] for column in sa.inspect(connection).get_columns("jobs")}
    for name, kind in COLUMNS.items():
        if name not in there:  # of a migration that was cut, MariaDB keeps what was done
            op.add_column("jobs", sa.Column(name, kind))
    if "encrypted" not in there:
        op.add_column("jobs", sa.Column("encrypted", sa.Boolean, nullable=False, server_default=sa.false()))
    collections.create(connection, checkfirst=True)
    experience.create(connection, checkfirst=True)
