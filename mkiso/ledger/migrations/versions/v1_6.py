"""The index for the totals of finished jobs."""

from alembic import op

from mkiso.ledger.migrations.steps import add_index

revision, down_revision = "1.6", "1.5"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        add_index("jobs_finished_here", "jobs", "finished_at", "work_dir", "id")
    else:
        add_index("jobs_finished", "jobs", "finished_at", "id")
