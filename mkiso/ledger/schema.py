"""The ledger's tables: a row per job, and a row per instance that was handed out; and their version, MAJOR.MINOR.

A new MINOR only adds what an older version of the program need not know, which so goes on beside it; a new MAJOR ends
that. A change of a table is a migration, too (`migrations/versions`; a test compares them). A new ledger is made as it
is now. Its version is read without alembic, whose import takes longer than most commands.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from mkiso.errors import LedgerUnavailable

UNFINISHED = ("queued", "querying", "retrieving", "verifying", "mastering", "sending")
# In characters: MariaDB's TEXT has 65,535 bytes.
LONGEST_TEXT = 10_000
# MariaDB's own choice would know fewer characters, and hold `a` and `A` for the same.
UNICODE: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}
SERVERS = ("postgresql", "mysql", "mariadb")
metadata = sa.MetaData()
jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("state", sa.String(12), nullable=False, index=True),
    sa.Column("accessions", sa.JSON, nullable=False),
    sa.Column("patient_id", sa.Text),
    sa.Column("patient_name", sa.Text),
    sa.Column("studies", sa.JSON, nullable=False, default=list),
    sa.Column("layout", sa.String(8)),
    sa.Column("destination", sa.Text),
    sa.Column("expected", sa.Integer),
    sa.Column("received", sa.Integer, nullable=False, default=0),
    sa.Column("bytes", sa.BigInteger, nullable=False, default=0),
    sa.Column("files_sent", sa.Integer, nullable=False, default=0),
    sa.Column("files_failed", sa.Integer, nullable=False, default=0),
    sa.Column("error", sa.JSON(none_as_null=True)),
    sa.Column("requester", sa.Text, nullable=False),
    sa.Column("created_at", sa.String(27), nullable=False, index=True),
    sa.Column("finished_at", sa.String(27)),
    sa.Column("format", sa.String(4)),
    sa.Column("medium", sa.String(8)),
    sa.Column("not_indexed", sa.Integer),
    sa.Column("malformed", sa.Integer),
    sa.Column("seconds", sa.JSON, nullable=False, default=dict),
    # The Series Instance UIDs of a disc or relay of a part; none where whole studies were asked for.
    sa.Column("series", sa.JSON(none_as_null=True)),
    sa.Column("encrypted", sa.Boolean, nullable=False, default=False, server_default=sa.false()),
    # Of which queued relay it is an attempt; how many instances the destination confirmed, where it was asked.
    sa.Column("relay_id", sa.String(36), index=True),
    sa.Column("confirmed", sa.Integer),
    # Not for the outside: what was asked for, what the history's search compares (the patient's ID and name, folded),
    # whose job it is, when its process last wrote (seconds, by the database's clock, for the hosts' may differ),
    # whether somebody asked to stop it, and who. The first two an older version beside leaves out.
    sa.Column("asked", sa.JSON(none_as_null=True)),
    sa.Column("folded", sa.Text),
    sa.Column("work_dir", sa.Text, nullable=False),
    sa.Column("host", sa.Text),
    sa.Column("alive_at", sa.BigInteger),
    sa.Column("cancel_requested", sa.Boolean, nullable=False, default=False),
    sa.Column("cancelled_by", sa.Text),
    **UNICODE,
)
INTERNAL = ("asked", "folded", "work_dir", "host", "alive_at", "cancel_requested", "cancelled_by")
PUBLIC = tuple(one for one in jobs.columns if one.name not in INTERNAL)
job_accessions = sa.Table(
    "job_accessions",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id"), primary_key=True),
    # Byte for byte: MariaDB's comparisons of text leave spaces at the end out.
    sa.Column(
        "accession_number",
        sa.String(64).with_variant(mysql.VARCHAR(64, charset="binary"), "mysql", "mariadb"),
        primary_key=True,
        index=True,
    ),
    **UNICODE,
)
instances = sa.Table(
    "instances",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("sop_instance_uid", sa.String(64), primary_key=True),
    sa.Column("sop_class_uid", sa.String(64), nullable=False),
    sa.Column("series_uid", sa.String(64), nullable=False),
    sa.Column("study_uid", sa.String(64), nullable=False, index=True),
    sa.Column("transfer_syntax", sa.String(64), nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    # What became of it: on a disc, or in a destination's words.
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("malformed", sa.Boolean),
    sa.Column("modality", sa.String(16)),
    **UNICODE,
)
# What jobs come to that ended, of nobody in particular; their rows may be gone. `code` is the error's, or empty.
totals = sa.Table(
    "totals",
    metadata,
    sa.Column("work_dir", sa.String(36), primary_key=True),
    sa.Column("kind", sa.String(8), primary_key=True),
    sa.Column("state", sa.String(12), primary_key=True),
    sa.Column("code", sa.String(64), primary_key=True),
    sa.Column("jobs", sa.BigInteger, nullable=False),
    sa.Column("received", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.JSON, nullable=False),
    **UNICODE,
)
# Who collected what a job made: a correction is a further row, and none is ever changed.
collections = sa.Table(
    "collections",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    # An older version beside forgets the job alone.
    sa.Column("job_id", sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("at", sa.String(27), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("relation", sa.String(16), nullable=False),
    sa.Column("handed_over_by", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("requester", sa.Text, nullable=False),
    **UNICODE,
)
# An entry of a JOB's `collected`: the table is older than these names.
COLLECTED = {
    "at": collections.c.at,
    "by": collections.c.name,
    "relation": collections.c.relation,
    "given_by": collections.c.handed_over_by,
    "note": collections.c.note,
}
# What instances of a kind came to so far, by which the size of a disc is told before it is made: their number, the sum
# of their bytes, and of the squares of these.
experience = sa.Table(
    "experience",
    metadata,
    sa.Column("modality", sa.String(16), primary_key=True),
    sa.Column("sop_class_uid", sa.String(64), primary_key=True),
    sa.Column("instances", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("squares", sa.Double, nullable=False),
    **UNICODE,
)
# Relays that are tried until they have arrived, in the order in which they were asked for. Times are in seconds, by the
# database's clock; `pause` is the last one between two tries. What a destination has acknowledged is in `instances`.
relays = sa.Table(
    "relays",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("destination", sa.String(255), nullable=False),
    sa.Column("state", sa.String(12), nullable=False),
    sa.Column("accessions", sa.JSON, nullable=False),
    sa.Column("studies", sa.JSON, nullable=False),
    sa.Column("series", sa.JSON, nullable=False),
    sa.Column("requester", sa.Text, nullable=False),
    sa.Column("created_at", sa.String(27), nullable=False),
    sa.Column("finished_at", sa.String(27), index=True),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("counted", sa.Integer, nullable=False),
    sa.Column("next_at", sa.BigInteger, nullable=False),
    sa.Column("pause", sa.Integer, nullable=False),
    sa.Column("give_up_at", sa.BigInteger, nullable=False),
    sa.Column("error", sa.JSON(none_as_null=True)),
    # The attempt that runs, or was the last.
    sa.Column("job_id", sa.String(36)),
    sa.Index("relays_due", "destination", "state", "next_at"),
    **UNICODE,
)
# A destination: whether somebody paused it, and from when on it is asked whether it is back, where it was away.
relay_queues = sa.Table(
    "relay_queues",
    metadata,
    sa.Column("destination", sa.String(255), primary_key=True),
    sa.Column("paused_by", sa.Text),
    sa.Column("next_at", sa.BigInteger, nullable=False),
    sa.Column("pause", sa.Integer, nullable=False),
    # Which was served longest ago: a number that grows with each claim.
    sa.Column("served", sa.BigInteger, nullable=False),
    **UNICODE,
)
# For the history, newest first. SQLite finds in the second one all that its filters look at, without the rows; other
# databases limit how long what is indexed may be.
sa.Index("jobs_by_state", jobs.c.state, jobs.c.created_at, jobs.c.id)
sa.Index(
    "jobs_searched",
    *(jobs.c[name] for name in ("created_at", "id", "state", "folded", "requester")),
).ddl_if(dialect="sqlite")
# For the jobs that ended, in the order in which they did. With the work_dir first, SQLite would take it for jobs of a
# state, too.
sa.Index("jobs_finished_here", jobs.c.finished_at, jobs.c.work_dir, jobs.c.id).ddl_if(dialect="sqlite")
sa.Index("jobs_finished", jobs.c.finished_at, jobs.c.id).ddl_if(dialect=SERVERS)  # type: ignore[arg-type]

FIRST, NEWEST = (1, 8), (1, 11)
LOCK = int.from_bytes(b"mkiso")
LOCK_LIMIT = 3600
VERSION = sa.Table("ledger_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))
log = logging.getLogger("mkiso.ledger")


def ledger_time(moment: datetime) -> str:
    """A time in UTC as the ledger has it (RFC 3339), which sorts as text."""
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def now() -> str:
    """The time as the ledger has it."""
    return ledger_time(datetime.now(UTC))


def fitting(table: sa.Table, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as each database takes them: none longer than its column, no NUL, no half of a surrogate pair."""
    return {name: _cut(_clean(value), table.c[name].type) for name, value in values.items()}


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        if value.isascii() and "\0" not in value:
            return value
        return value.replace("\0", "").encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {name: _clean(one) for name, one in value.items()}
    return [_clean(one) for one in value] if isinstance(value, list | tuple) else value


def _cut(value: Any, column_type: Any) -> Any:
    return value[: column_type.length or LONGEST_TEXT] if isinstance(value, str) else value


class OtherVersion(LedgerUnavailable):
    """The ledger is of a version of the program with which this one cannot share it."""


class Schema:
    """The tables as this version needs them, which are made or changed by one thread of one process at a time.

    `unlimited` opens connections whose statements may take as long as they take.
    """

    def __init__(self, engine: sa.Engine, unlimited: sa.Engine) -> None:
        self._engine, self._unlimited = engine, unlimited
        self._changing = threading.Lock()
        self.is_ready = self.is_due = False

    def require(self, seconds: float) -> None:
        """Make or migrate the tables where that is due, after so many seconds at most of another thread's doing so.

        Raises OtherVersion, TimeoutError, and what the database raises.
        """
        if not self._changing.acquire(timeout=seconds):
            raise TimeoutError
        try:
            if not self.is_ready:
                self._look_and_change()
                self.is_ready = True
        finally:
            self.is_due = False
            self._changing.release()

    def _look_and_change(self) -> None:
        with self._engine.connect() as connection:
            found = version(connection)
        if found is None or found < NEWEST:
            self.is_due = found is not None
            with self._unlimited.connect() as connection, connection.begin():
                lock(connection)
                _make_or_migrate(connection)


def version(connection: sa.Connection) -> tuple[int, int] | None:
    """The ledger's version; None where there is no ledger yet, or not all of it. Raises OtherVersion."""
    inspector = sa.inspect(connection)
    has_jobs = inspector.has_table(jobs.name)  # first: another process may be making both, and makes this one last
    if not inspector.has_table(VERSION.name):
        if has_jobs:
            raise _older("a schema without a version")
        return None
    text = connection.execute(sa.select(VERSION.c.version_num)).scalar_one_or_none()
    if text is None:  # whoever made it was killed
        return None
    major, minor = (int(number) for number in text.split("."))
    if major > NEWEST[0]:
        raise OtherVersion(
            f"The ledger (storage.ledger) has the schema {text} of a newer mkiso; this one knows {_text(NEWEST)}."
            " Install the newer one on this host, too, or restore the copy of the ledger from before the upgrade."
        )
    if (major, minor) < FIRST:
        raise _older(f"the schema {text}")
    return major, minor


def _older(what: str) -> OtherVersion:
    return OtherVersion(
        f"The ledger (storage.ledger) has {what} of an older mkiso; this one reads none before {_text(FIRST)}. Nothing"
        " in it was changed. Move it away (of SQLite the file, with its -wal and -shm), or name another database in"
        " storage.ledger: a new ledger is begun there."
    )


def lock(connection: sa.Connection) -> None:
    """Have the ledger alone, among those who lock it, until the connection's transaction has ended.

    In SQLite nobody else writes meanwhile; in MariaDB it lasts until the connection is closed.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
    else:
        name = sa.func.concat("mkiso ", sa.func.md5(sa.func.database()))  # the server's other databases have their own
        if connection.execute(sa.select(sa.func.get_lock(name, LOCK_LIMIT))).scalar_one() != 1:
            raise TimeoutError


def _make_or_migrate(connection: sa.Connection) -> None:
    """The version's table is the first one that is made, and its row the last: so nobody takes it for an older one."""
    found = version(connection)
    if found is None:
        VERSION.create(connection, checkfirst=True)
        metadata.create_all(connection)
        connection.execute(VERSION.insert().values(version_num=_text(NEWEST)))
    elif found < NEWEST:
        _migrate(connection, found)


def _migrate(connection: sa.Connection, found: tuple[int, int]) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from alembic import command  # noqa: PLC0415  (it takes a third of a second)
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    versions, began = {"found": _text(found), "needed": _text(NEWEST)}, time.monotonic()
    log.warning("the ledger is brought up to date", extra={"fields": versions})
    command.upgrade(config, "head")
    log.info("the ledger is up to date", extra={"fields": {"seconds": round(time.monotonic() - began, 3)}})


def _text(number: tuple[int, int]) -> str:
    return ".".join(map(str, number))
