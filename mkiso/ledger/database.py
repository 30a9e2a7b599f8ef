"""The ledger's database: SQLite in WAL mode, PostgreSQL, MariaDB; it may be away for a while, or hang."""

from __future__ import annotations

import logging
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from mkiso.errors import ConfigurationError, DiskFull, LedgerUnavailable, MkisoError
from mkiso.ledger.tables import jobs, metadata

LIMIT = 5.0
TRIES = 10
FULL = re.compile(r"(disk|table).* full|no space left", re.IGNORECASE)
LEAST_FREE = 1 << 16
T = TypeVar("T")
log = logging.getLogger("mkiso.ledger")


class Database:
    """Raises ConfigurationError where the URL can never work. Its tables are made at the first use that succeeds."""

    def __init__(self, url: str) -> None:
        try:
            self._engine = _engine(url)
            self.now = _clock(self._engine.dialect.name)
        except (SQLAlchemyError, ImportError, ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(
                f"The ledger (storage.ledger) cannot be opened: {_cause(error)}. It is a URL such as sqlite:////FILE,"
                " postgresql+psycopg://… (needs mkiso[postgresql]) or mysql+pymysql://… (needs mkiso[mysql])."
            ) from None
        self._is_ready = self._is_away = False
        self._failed_at: float | None = None

    @property
    def file(self) -> Path | None:
        """SQLite's file; None for a server's database, and for one in memory."""
        name = self._engine.url.database
        return Path(name) if _is_sqlite(self._engine) and name and name != ":memory:" else None

    def do(self, work: Callable[[sa.Connection], T]) -> T:
        """Have `work` done in a transaction, and wait LIMIT seconds for it at most.

        That takes a thread: some drivers wait for ever for a server that hangs. What nobody waits
        for any more is not committed. Raises LedgerUnavailable, DiskFull; IntegrityError, DataError.
        """
        done: Future[T] = Future()
        try:
            threading.Thread(target=self._run, args=(work, done), name="ledger", daemon=True).start()
            result = done.result(LIMIT)
        except (IntegrityError, DataError):
            raise
        except (SQLAlchemyError, OSError, RuntimeError) as error:  # RuntimeError: pymysql lacks a library; no thread
            done.cancel()
            raise self._failure(error) from error
        if self._is_away:
            self._is_away = False
            log.info("the ledger answers again")
        return result

    def answered_for(self, seconds: float) -> bool:
        """Whether nothing has failed for so long."""
        return self._failed_at is None or time.monotonic() - self._failed_at > seconds

    def close(self) -> None:
        self._engine.dispose()

    def _run(self, work: Callable[[sa.Connection], T], done: Future[T]) -> None:
        try:
            if not self._is_ready:
                _make_tables(self._engine)
                self._is_ready = True
            with self._engine.begin() as connection:
                result = work(connection)
                if not done.set_running_or_notify_cancel():
                    raise TimeoutError
            done.set_result(result)
        except BaseException as error:  # the boundary: it is raised where it is waited for
            with suppress(InvalidStateError):
                done.set_exception(error)

    def _failure(self, error: Exception) -> MkisoError:
        self._is_ready, self._failed_at = False, time.monotonic()
        if not self._is_away:
            self._is_away = True
            log.warning("the ledger does not answer", extra={"fields": {"error": _cause(error)}})
        if FULL.search(str(getattr(error, "orig", ""))) or self._has_full_disk():
            return DiskFull("The disk of the ledger (storage.ledger) is full. Make room.")
        return LedgerUnavailable(
            f"The ledger (storage.ledger) does not answer ({_cause(error)}). Check that it runs, and can be written;"
            " then ask again."
        )

    def _has_full_disk(self) -> bool:
        """SQLite on a full disk says one time this, and another time that."""
        with suppress(OSError):
            return self.file is not None and shutil.disk_usage(self.file.parent).free < LEAST_FREE
        return False


def _engine(text: str) -> sa.Engine:
    url = make_url(text)
    engine = sa.create_engine(
        url,
        hide_parameters=True,
        pool_pre_ping=True,
        max_overflow=-1,  # so that nobody waits for a connection that hangs
        connect_args=_connect_args(url),
    )
    if _is_sqlite(engine):
        sa.event.listen(engine, "connect", _concurrent)
    return engine


def _connect_args(url: sa.URL) -> dict[str, Any]:
    seconds, milliseconds = max(1, round(LIMIT)), round(LIMIT * 1000)
    mariadb: dict[str, Any] = {
        "connect_timeout": seconds,
        "read_timeout": seconds,
        "write_timeout": seconds,
        "charset": "utf8mb4",
    }
    postgresql: dict[str, Any] = {
        "connect_timeout": seconds,
        # a host that lost its power within a transaction holds the rows that it wrote no longer than that
        "options": f"{url.query.get('options', '')} -c statement_timeout={milliseconds}"
        f" -c idle_in_transaction_session_timeout={milliseconds}",
        "tcp_user_timeout": milliseconds,
        "keepalives_idle": seconds,
    }
    sqlite = {"timeout": 0.9 * LIMIT}  # sooner, for it tells more than that nobody waits any more
    return {"sqlite": sqlite, "postgresql": postgresql}.get(url.get_backend_name(), mariadb)


def _clock(backend: str) -> sa.ColumnElement[int]:
    """Seconds since 1970 by the database's clock, which all hosts share."""
    mariadb = sa.func.unix_timestamp()
    clocks: dict[str, sa.ColumnElement[Any]] = {
        "sqlite": sa.func.strftime("%s", "now"),
        "postgresql": sa.extract("epoch", sa.func.clock_timestamp()),
        "mysql": mariadb,
        "mariadb": mariadb,
    }
    return sa.cast(clocks[backend], sa.BigInteger)


def _make_tables(engine: sa.Engine) -> None:
    """Another process may be making them at this moment: then what failed is there soon."""
    if _is_sqlite(engine) and engine.url.database:
        _make_private(Path(engine.url.database))
    for tries_left in reversed(range(TRIES)):
        with engine.connect() as connection:
            try:
                with connection.begin():
                    _make_what_is_absent(connection)
                return
            except DBAPIError:
                if not tries_left:
                    raise
        time.sleep(0.1)


def _make_what_is_absent(connection: sa.Connection) -> None:
    metadata.create_all(connection)
    known = {column["name"] for column in sa.inspect(connection).get_columns(jobs.name)}
    for column in jobs.columns:
        if column.name not in known:
            kind = column.type.compile(connection.dialect)
            connection.execute(sa.text(f"ALTER TABLE {jobs.name} ADD COLUMN {column.name} {kind}"))
    for index in jobs.indexes:
        index.create(connection, checkfirst=True)


def _make_private(file: Path) -> None:
    """The ledger names patients. What fails here is told when the database is opened."""
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)


def _is_sqlite(engine: sa.Engine) -> bool:
    return engine.dialect.name == "sqlite"


def _concurrent(connection: Any, _record: object) -> None:
    """Readers beside a writer, and no wait for the disk at each commit."""
    with suppress(sqlite3.OperationalError):  # another process turns it on at this moment
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _cause(error: Exception) -> str:
    """SQLite's own words, which name no more than the file; of another database only what kind of failure it is."""
    original = getattr(error, "orig", None) or error
    return str(original) if isinstance(original, sqlite3.Error) else type(original).__name__
