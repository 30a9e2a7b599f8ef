"""What became of each instance. Before relays were there, all went onto discs."""

import sqlalchemy as sa

from mkiso.ledger.migrations.steps import add_column

revision, down_revision = "1.2", "1.1"


def upgrade() -> None:
    add_column("instances", sa.Column("outcome", sa.Text, nullable=False, server_default="on disc"))
