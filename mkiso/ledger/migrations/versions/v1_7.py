"""What forgotten jobs come to."""

import sqlalchemy as sa

from mkiso.ledger.migrations.steps import make_table

revision, down_revision = "1.7", "1.6"


def upgrade() -> None:
    make_table(
        "forgotten",
        sa.Column("work_dir", sa.String(36), primary_key=True),
        sa.Column("kind", sa.String(8), primary_key=True),
        sa.Column("state", sa.String(12), primary_key=True),
        sa.Column("code", sa.String(64), primary_key=True),
        sa.Column("jobs", sa.BigInteger, nullable=False),
        sa.Column("received", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.JSON, nullable=False),
    )
