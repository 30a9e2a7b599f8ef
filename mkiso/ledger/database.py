"""The ledger's database: SQLite in WAL mode, PostgreSQL, MariaDB; it may be away for a while, or hang.

What a driver raised says whether a statement failed by itself, or with the database.
"""

from __future__ import annotations

import logging
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from mkiso.errors import Busy, ConfigurationError, DiskFull, LedgerUnavailable, MkisoError
from mkiso.ledger.schema import OtherVersion, Schema, version
from mkiso.waiting import start
from mkiso.workspace import is_full

# SQLite says the same of a statement that it cannot compile, and of a ledger whose tables are gone.
NO_TABLES = ("no such table", "no such column")
SQLITE = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE}
# Data, program limits, syntax: PostgreSQL's classes; but for its tables, their columns and the rights to them.
POSTGRESQL, NO_ACCESS = ("22", "54", "42"), {"42P01", "42703", "42501"}
# MariaDB's: syntax, nesting, expressions, the packet's size, the stack.
MARIADB = {1064, 1119, 1139, 1153, 1366, 1436, 1473, 4078}
STOPPED = {sqlite3.SQLITE_INTERRUPT, "57014", 1969, 3024}
LIMIT = 5.0
# Of LIMIT: what ends by then tells more than that nobody waits any more.
SOONER, LOCKED_SOONER = 0.8, 0.9
STEPS = 100_000  # of SQLite, which take 10 ms or so
LOCKED = 60.0
TRIES = 3
# A statement's limit, in ms for MySQL (of those that only read), in s for MariaDB, each in a comment of its own.
LIMITED = "SET @mkiso = 0 /*!50708 , SESSION max_execution_time = {} */ /*M!100101 , SESSION max_statement_time = {} */"
EMPTY_LOG = "PRAGMA wal_checkpoint(TRUNCATE)"
FULL = re.compile(r"(disk|table).* full|no space left", re.IGNORECASE)
T = TypeVar("T")
log = logging.getLogger("mkiso.ledger")


def is_at_fault(error: BaseException | None) -> bool:
    """Whether the database answers, and will take this statement from nobody, of what a driver raised."""
    code = _code(error)
    if isinstance(error, sqlite3.Error):
        if code is None:  # the module's own errors, of values that it cannot bind
            return isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError | sqlite3.DataError)
        return code in SQLITE and not str(error).startswith(NO_TABLES)
    return code in MARIADB or (isinstance(code, str) and code.startswith(POSTGRESQL) and code not in NO_ACCESS)


def was_stopped(error: BaseException | None) -> bool:
    """Whether the statement took longer than it may."""
    return _code(error) in STOPPED


def _code(error: BaseException | None) -> str | int | None:
    """SQLite's code without what extends it, MariaDB's number by pymysql, PostgreSQL's SQLSTATE by psycopg.

    None where the database itself said nothing.
    """
    if isinstance(error, sqlite3.Error):
        code: int | None = getattr(error, "sqlite_errorcode", None)
        return None if code is None else code & 0xFF
    number = error.args[0] if error is not None and error.args else None
    if isinstance(number, int):
        return number
    sqlstate: str | None = getattr(error, "sqlstate", None)
    return sqlstate


class Upgrading(LedgerUnavailable):
    """This process migrates the tables at this moment."""


class CommitLost(LedgerUnavailable):
    """Whether what was done is committed is not known: the connection ended in the COMMIT, or says nothing for long."""

    def __init__(self) -> None:
        super().__init__(
            "The ledger (storage.ledger) did not say whether it was recorded. Check that it runs; ask again."
        )


class Database:
    """Its tables are made, or migrated, at the first use that succeeds; whoever asks meanwhile gets LedgerUnavailable.

    Raises ConfigurationError where the URL can never work. `now` is the database's clock, in seconds since 1970.
    """

    def __init__(self, url: str) -> None:
        limit, locked = round(SOONER * LIMIT * 1000), LOCKED_SOONER * LIMIT
        try:
            # No limit to connections, so that nobody waits for one that hangs.
            self._engine = _engine(url, limit, locked, pool_pre_ping=True, max_overflow=-1)
            # For what takes as long as it takes; each connection is closed after its use.
            unlimited = _engine(url, 0, LOCKED, poolclass=sa.NullPool)
            self.now = clock(self._engine.dialect.name)
        except (SQLAlchemyError, ImportError, ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(
                f"The ledger (storage.ledger) cannot be opened: {_cause(error)}. It is a URL such as sqlite:////FILE,"
                " postgresql+psycopg://… (needs mkiso[postgresql]) or mysql+pymysql://… (needs mkiso[mysql])."
            ) from None
        self._schema = Schema(self._engine, unlimited)
        self._is_away = False
        self._failed_at: float | None = None

    @property
    def file(self) -> Path | None:
        """SQLite's file; None for a server's database, and for one in memory."""
        name = self._engine.url.database
        return Path(name) if _is_sqlite(self._engine) and name and name != ":memory:" else None

    @property
    def is_server(self) -> bool:
        return not _is_sqlite(self._engine)

    def prepare(self) -> None:
        """Make or migrate the tables, however long that takes.

        Raises ConfigurationError where the ledger is another version's; LedgerUnavailable, DiskFull.
        """
        while True:
            try:
                return self.do(lambda _: None)
            except Upgrading:
                continue
            except OtherVersion as other:
                raise ConfigurationError(other.detail) from None

    def refuse_other_versions(self) -> None:
        """Raise ConfigurationError as `prepare` does, and change nothing."""
        if self.file and not self.file.exists():
            return
        try:
            self._limited(version, lambda _: None)
        except OtherVersion as other:
            raise ConfigurationError(other.detail) from None

    def do(
        self,
        work: Callable[[sa.Connection], T],
        *,
        alone: bool = False,
        committed: bool = False,
        durable: bool = False,
    ) -> T:
        """Have `work` done in a transaction, and wait LIMIT seconds for it at most; as long again for its COMMIT.

        What is done `alone` may read first and write then: SQLite lets nobody else write meanwhile; in other databases
        it has to lock the rows that it reads. What sees `committed` rows sees those of each moment, and not of its
        beginning. What is `durable` is on the disk, which SQLite otherwise does not wait for.

        That takes a thread: some drivers wait for ever for a server that hangs. What nobody waits for any more is not
        committed, and stops; where the COMMIT's end was not heard, `work` is done once more, which is to do no harm,
        and waits where the other is still at it. Raises LedgerUnavailable, DiskFull; and DBAPIError, such as
        IntegrityError and DataError, of what the database takes from nobody.
        """

        def doing(connection: sa.Connection) -> T:
            if _is_sqlite(self._engine):
                if durable:
                    connection.detach()  # the next one does not wait for the disk
                    connection.exec_driver_sql("PRAGMA synchronous=FULL")
                if alone:
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
            elif committed:
                connection.execution_options(isolation_level="READ COMMITTED")
            return work(connection)

        try:
            return self._limited(doing, self._schema.require)
        except CommitLost:
            return self._limited(doing, self._schema.require)

    def overwrite(self) -> None:
        """Have SQLite's log emptied, where rows are that were deleted; readers may hold that up for a few seconds."""
        if _is_sqlite(self._engine):
            for _ in range(TRIES):
                busy, *_rest = self.do(lambda connection: connection.exec_driver_sql(EMPTY_LOG).one())
                if not busy:
                    return

    def _limited(self, work: Callable[[sa.Connection], T], make_ready: Callable[[float], None]) -> T:
        done: Future[T] = Future()
        thread = threading.Thread(target=self._run, args=(work, make_ready, done), name="ledger", daemon=True)
        try:
            start(thread)
        except Busy as error:
            raise LedgerUnavailable(f"The ledger could not be asked. {error.detail}") from error
        try:
            result = _awaited(done)
        except (IntegrityError, DataError):
            raise
        except (OtherVersion, CommitLost):
            self._failed_at = time.monotonic()
            raise
        except (SQLAlchemyError, OSError, RuntimeError) as error:  # RuntimeError: pymysql lacks a library
            done.cancel()
            if self._schema.is_ready and isinstance(error, DBAPIError) and is_at_fault(error.orig):
                raise
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

    def _run(self, work: Callable[[sa.Connection], T], make_ready: Callable[[float], None], done: Future[T]) -> None:
        try:
            if not self._schema.is_ready:
                if self.file:
                    _make_private(self.file)
                make_ready(LIMIT)
            with self._engine.connect() as connection, _stopping(connection, done.cancelled):
                result = work(connection)
                if not done.set_running_or_notify_cancel():
                    raise TimeoutError
                _commit(connection)
                done.set_result(result)
        except BaseException as error:  # the boundary: it is raised where it is waited for
            with suppress(InvalidStateError):
                done.set_exception(error)

    def _failure(self, error: Exception) -> MkisoError:
        if isinstance(error, DBAPIError) and was_stopped(error.orig):
            log.warning("the ledger took too long for what was asked, and was stopped")
            return LedgerUnavailable(
                f"What was asked of the ledger (storage.ledger) takes longer than {LIMIT:g} seconds, and was stopped."
                " Ask for less: fewer words, or a few days."
            )
        self._failed_at = time.monotonic()
        if self._schema.is_due and isinstance(error, TimeoutError):
            return Upgrading("The ledger (storage.ledger) is brought up to date at this moment. Ask again in a minute.")
        self._schema.is_ready = False
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
            return self.file is not None and is_full(self.file.parent)
        return False


def _awaited(done: Future[T]) -> T:
    """What was done within LIMIT seconds; a COMMIT has as many more, for it can be taken back no longer."""
    try:
        return done.result(LIMIT)
    except TimeoutError:
        if done.cancel():
            raise
    wait([done], LIMIT)
    if not done.done():
        raise CommitLost
    return done.result()


@contextmanager
def _stopping(connection: sa.Connection, is_given_up: Callable[[], bool]) -> Iterator[None]:
    """Have SQLite stop within a statement that nobody waits for any more; one that only reads, sooner."""
    sqlite: Any = connection.connection.driver_connection
    if not isinstance(sqlite, sqlite3.Connection):
        yield  # a server stops by itself
        return
    deadline = time.monotonic() + SOONER * LIMIT

    def must_stop() -> bool:
        return is_given_up() or (time.monotonic() > deadline and not sqlite.in_transaction)

    sqlite.set_progress_handler(must_stop, STEPS)
    try:
        yield
    finally:
        sqlite.set_progress_handler(None, STEPS)


def _commit(connection: sa.Connection) -> None:
    try:
        connection.commit()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise CommitLost from error  # it may be done
        raise


def _engine(text: str, limit: int, locked: float, **options: Any) -> sa.Engine:
    """An engine whose statements may take `limit` milliseconds (0: any time), and wait `locked` seconds in SQLite."""
    url = make_url(text)
    engine = sa.create_engine(url, hide_parameters=True, connect_args=_connect_args(url, limit, locked), **options)
    if _is_sqlite(engine):
        sa.event.listen(engine, "connect", _concurrent)
    return engine


def _connect_args(url: sa.URL, limit: int, locked: float) -> dict[str, Any]:
    seconds = max(1, round(LIMIT))
    mariadb: dict[str, Any] = {
        "connect_timeout": seconds,
        "read_timeout": (limit and seconds) or None,
        "write_timeout": seconds,
        "charset": "utf8mb4",
        "init_command": LIMITED.format(limit, limit / 1000) if limit else None,
    }
    postgresql: dict[str, Any] = {
        "connect_timeout": seconds,
        # a host that lost its power within a transaction holds the rows that it wrote no longer than that
        "options": f"{url.query.get('options', '')} -c statement_timeout={limit}"
        f" -c idle_in_transaction_session_timeout={limit}",
        "tcp_user_timeout": round(LIMIT * 1000),
        "keepalives_idle": seconds,
    }
    sqlite = {
        "timeout": locked,  # sooner than LIMIT, for it tells more than that nobody waits any more
        "cached_statements": 0,  # each would keep what it was last asked for: hundreds of ids, and patients
    }
    return {"sqlite": sqlite, "postgresql": postgresql}.get(url.get_backend_name(), mariadb)


def clock(backend: str) -> sa.ColumnElement[int]:
    """Seconds since 1970 by the database's clock, which all hosts share."""
    clocks: dict[str, sa.ColumnElement[Any]] = {
        "sqlite": sa.func.strftime("%s", "now"),
        "postgresql": sa.extract("epoch", sa.func.clock_timestamp()),
        "mysql": sa.func.unix_timestamp(),
        "mariadb": sa.func.unix_timestamp(),
    }
    return sa.cast(clocks[backend], sa.BigInteger)


def _make_private(file: Path) -> None:
    """Make the file its user's alone, for the ledger names patients. What fails here fails again when it is opened."""
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)


def _is_sqlite(engine: sa.Engine) -> bool:
    return engine.dialect.name == "sqlite"


def _concurrent(connection: Any, _record: object) -> None:
    """Readers beside a writer, and no wait for the disk at each commit; what is deleted is overwritten.

    Each of the pool's connections keeps 256 KiB of pages at most, where it would keep 2 MB.
    """
    with suppress(sqlite3.OperationalError):  # another process turns it on at this moment
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA secure_delete=ON")
    connection.execute("PRAGMA cache_size=-256")


def _cause(error: Exception) -> str:
    """SQLite's own words, which name no more than the file; of another database the kind of failure alone."""
    original = getattr(error, "orig", None) or error
    return str(original) if isinstance(original, sqlite3.Error) else type(original).__name__
