"""How many instances, and which, came whole and are not well-formed."""

import sqlalchemy as sa

from mkiso.ledger.migrations.steps import add_column

revision, down_revision = "1.8", "1.7"


def upgrade() -> None:
    add_column("jobs", sa.Column("malformed", sa.Integer))
    add_column("instances", sa.Column("malformed", sa.Boolean))
