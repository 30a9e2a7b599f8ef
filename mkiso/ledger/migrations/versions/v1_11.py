"""Queued relays, whose attempts are jobs; and what a destination confirmed."""

import sqlalchemy as sa
from alembic import op

from mkiso.ledger.schema import jobs, relay_queues, relays

revision, down_revision = "1.11", "1.10"
INDEX = "ix_jobs_relay_id"


def upgrade() -> None:
    connection = op.get_bind()
    inspector = sa.inspect(connection)
    there = {column["name"] for column in inspector.get_columns("jobs")}
    for name, kind in (("relay_id", sa.String(36)), ("confirmed", sa.Integer())):
        if name not in there:  # of a migration that was cut, MariaDB keeps what was done
            op.add_column("jobs", sa.Column(name, kind))
    if INDEX not in {index["name"] for index in inspector.get_indexes("jobs")}:
        next(index for index in jobs.indexes if index.name == INDEX).create(connection)
    relays.create(connection, checkfirst=True)
    relay_queues.create(connection, checkfirst=True)
