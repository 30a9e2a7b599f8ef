"""How many instances no DICOMDIR names; the history's indexes."""

import sqlalchemy as sa
from alembic import op

from mkiso.ledger.migrations.steps import add_column, add_index

revision, down_revision = "1.5", "1.4"


def upgrade() -> None:
    add_column("jobs", sa.Column("not_indexed", sa.Integer))
    add_index("jobs_by_state", "jobs", "state", "created_at", "id")
    if op.get_bind().dialect.name == "sqlite":
        searched = ("created_at", "id", "state", "patient_name", "patient_id", "requester")
        add_index("jobs_searched", "jobs", *searched)
