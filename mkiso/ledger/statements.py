"""Whether a statement failed by itself, or with the database: what SQLite, PostgreSQL and MariaDB say of either."""

from __future__ import annotations

import sqlite3

# SQLite says the same of a statement that it cannot compile, and of a ledger whose tables are gone.
NO_TABLES = ("no such table", "no such column")
SQLITE = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE}
# Data, program limits, syntax: PostgreSQL's classes; but for its tables, their columns and the rights to them.
POSTGRESQL, NO_ACCESS = ("22", "54", "42"), {"42P01", "42703", "42501"}
# MariaDB's: syntax, nesting, expressions, the packet's size, the stack.
MARIADB = {1064, 1119, 1139, 1153, 1366, 1436, 1473, 4078}
STOPPED = {"57014", 1969, 3024}


def is_at_fault(error: BaseException | None) -> bool:
    """Whether the database answers, and will take this statement from nobody, of what a driver raised."""
    if isinstance(error, sqlite3.Error):
        return _is_at_fault_in_sqlite(error)
    code = _code(error)
    return code in MARIADB or (isinstance(code, str) and code.startswith(POSTGRESQL) and code not in NO_ACCESS)


def was_stopped(error: BaseException | None) -> bool:
    """Whether the statement took longer than it may."""
    if isinstance(error, sqlite3.Error):
        return _code_in_sqlite(error) == sqlite3.SQLITE_INTERRUPT
    return _code(error) in STOPPED


def _is_at_fault_in_sqlite(error: sqlite3.Error) -> bool:
    """The module's own errors have no code: of values that it cannot bind."""
    code = _code_in_sqlite(error)
    if code is None:
        return isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError | sqlite3.DataError)
    return code in SQLITE and not str(error).startswith(NO_TABLES)


def _code_in_sqlite(error: sqlite3.Error) -> int | None:
    """Without what extends it."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _code(error: BaseException | None) -> str | int | None:
    """MariaDB's number by pymysql, PostgreSQL's SQLSTATE by psycopg; None where neither server said anything."""
    number = error.args[0] if error is not None and error.args else None
    if isinstance(number, int):
        return number
    sqlstate: str | None = getattr(error, "sqlstate", None)
    return sqlstate
