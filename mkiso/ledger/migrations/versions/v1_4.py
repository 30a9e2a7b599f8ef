"""A job's format and medium."""

import sqlalchemy as sa

from mkiso.ledger.migrations.steps import add_column

revision, down_revision = "1.4", "1.3"


def upgrade() -> None:
    add_column("jobs", sa.Column("format", sa.String(4)))
    add_column("jobs", sa.Column("medium", sa.String(8)))
