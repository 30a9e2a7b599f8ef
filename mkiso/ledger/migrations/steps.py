"""What migrations are made of: each step is taken only where it has not been.

So one that was killed half-way goes on (MariaDB keeps each statement for itself), and a ledger of before there were
versions is taken over, whatever it has already.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from mkiso.ledger.schema import UNICODE


def make_table(name: str, *parts: sa.schema.SchemaItem) -> None:
    if not _inspector().has_table(name):
        op.create_table(name, *parts, **UNICODE)


def add_column(table: str, column: sa.Column[Any]) -> None:
    """One that may be NULL, or has a server's default: an older version goes on writing rows."""
    if column.name not in {one["name"] for one in _inspector().get_columns(table)}:
        op.add_column(table, column)


def add_index(name: str, table: str, *columns: str) -> None:
    if name not in {one["name"] for one in _inspector().get_indexes(table)}:
        op.create_index(name, table, columns)


def _inspector() -> sa.Inspector:
    return sa.inspect(op.get_bind())
