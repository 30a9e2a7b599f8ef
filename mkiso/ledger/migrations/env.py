"""What alembic runs: the migrations that are due, in the transaction of `mkiso.ledger.schema`."""

from alembic import context

from mkiso.ledger.schema import VERSION

context.configure(connection=context.config.attributes["connection"], version_table=VERSION.name)
context.run_migrations()
