"""The ledger's schema has a version, MAJOR.MINOR: a new ledger is made as it is now, an older one is migrated.

A new MINOR only adds what an older version of the program need not know, which so goes on beside it; a new MAJOR ends
that. The version is read without alembic, whose import takes longer than most commands.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from mkiso.errors import LedgerUnavailable
from mkiso.ledger.tables import jobs, metadata

NEWEST = (1, 8)
TRIES = 10
LOCK = int.from_bytes(b"mkiso")
LOCK_LIMIT = 3600
VERSION = sa.Table("ledger_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))
log = logging.getLogger("mkiso.ledger")


class NewerLedger(LedgerUnavailable):
    """A version of the program made it which this one does not understand."""


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

        Raises NewerLedger, TimeoutError, and what the database raises.
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
            self.is_due = sa.inspect(connection).has_table(jobs.name)
            if is_current(connection):
                return
        self._change()

    def _change(self) -> None:
        """An older version may be making tables at this moment: then what failed is there soon."""
        for tries_left in reversed(range(TRIES)):
            with self._unlimited.connect() as connection:
                try:
                    with connection.begin():
                        lock(connection)
                        if not is_current(connection):
                            _make_or_migrate(connection)
                    return
                except DBAPIError:
                    if not tries_left:
                        raise
            time.sleep(0.1)


def is_current(connection: sa.Connection) -> bool:
    """Whether the ledger has all that this version needs; raises NewerLedger."""
    version = _version(connection)
    if version is None:
        return False
    major, minor = (int(number) for number in version.split("."))
    if major > NEWEST[0]:
        raise NewerLedger(
            f"The ledger (storage.ledger) has the schema {version} of a newer mkiso; this one knows {_text(NEWEST)}."
            " Install the newer one on this host, too, or restore the copy of the ledger from before the upgrade."
        )
    return (major, minor) >= NEWEST


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


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(VERSION.name):
        return None
    return connection.execute(sa.select(VERSION.c.version_num)).scalar_one_or_none()


def _make_or_migrate(connection: sa.Connection) -> None:
    if sa.inspect(connection).has_table(jobs.name):
        _migrate(connection)
        return
    metadata.create_all(connection)
    VERSION.create(connection, checkfirst=True)
    connection.execute(VERSION.insert().values(version_num=_text(NEWEST)))


def _migrate(connection: sa.Connection) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from alembic import command  # noqa: PLC0415  (it takes a third of a second)
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    told, began = {"found": _version(connection) or "none", "needed": _text(NEWEST)}, time.monotonic()
    log.warning("the ledger is brought up to date", extra={"fields": told})
    command.upgrade(config, "head")
    log.info("the ledger is up to date", extra={"fields": {"seconds": round(time.monotonic() - began, 3)}})


def _text(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
