"""Whose row it is, and when its process last wrote; in MariaDB every character, and numbers byte for byte."""

import sqlalchemy as sa
from alembic import op

from mkiso.ledger.migrations.steps import add_column

revision, down_revision = "1.3", "1.2"
COLLATION = "utf8mb4_bin"
BINARY = "varbinary"
OF_JOBS = ("job_accessions", "instances")


def upgrade() -> None:
    add_column("jobs", sa.Column("host", sa.Text))
    add_column("jobs", sa.Column("alive_at", sa.BigInteger))
    if op.get_bind().dialect.name in ("mysql", "mariadb"):
        _compare_bytes()


def _compare_bytes() -> None:
    if any(_told("table_collation", "tables", table) != COLLATION for table in ("jobs", *OF_JOBS)):
        _drop_foreign_keys()  # else none of their columns may change
        for table in ("jobs", *OF_JOBS):
            op.execute(f"ALTER TABLE {table} CONVERT TO CHARACTER SET utf8mb4 COLLATE {COLLATION}")
    if _told("data_type", "columns", "job_accessions", " AND column_name = 'accession_number'") != BINARY:
        op.execute(f"ALTER TABLE job_accessions MODIFY accession_number {BINARY}(64) NOT NULL")
    for table in OF_JOBS:
        if not _foreign_keys(table):
            op.create_foreign_key(None, table, "jobs", ["job_id"], ["id"])


def _drop_foreign_keys() -> None:
    for table in OF_JOBS:
        for name in _foreign_keys(table):
            op.drop_constraint(name, table, "foreignkey")


def _foreign_keys(table: str) -> list[str]:
    return [str(one["name"]) for one in sa.inspect(op.get_bind()).get_foreign_keys(table)]


def _told(what: str, where: str, table: str, further: str = "") -> str:
    query = f"SELECT {what} FROM information_schema.{where} WHERE table_schema = DATABASE() AND table_name = :table"  # noqa: S608
    return str(op.get_bind().execute(sa.text(query + further), {"table": table}).scalar_one())
