"""Where a patient's name comes from: the archive's own answer, the hospital's database, or its HTTP service."""

from __future__ import annotations

import functools
import json
import logging
import re
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Protocol, TypeVar
from urllib.parse import SplitResult, quote, urlsplit

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from mkiso.config import Api, Patients, Sql
from mkiso.errors import AccessionNotFound, ConfigurationError, PatientApiUnavailable, PatientDbUnavailable
from mkiso.waiting import Stopwatch, start

LARGEST_ANSWER = 1 << 20
SLICE = 0.05
SURROGATE = re.compile("[\ud800-\udfff]")  # of JSON, which may hold half of a pair: that cannot be written down
Checkpoint = Callable[[], None]
T = TypeVar("T")
log = logging.getLogger("mkiso.patients")


class PatientSource(Protocol):
    def name_of(self, accession: str, checkpoint: Checkpoint) -> str | None:
        """The name of the patient of an accession number; None where the archive's own answer is to be taken.

        `checkpoint` is called all the while, and ends it by raising. Raises AccessionNotFound, PatientDbUnavailable,
        PatientApiUnavailable.
        """


def patient_source(patients: Patients) -> PatientSource:
    """The source that the configuration names; ConfigurationError where it cannot be used."""
    if patients.source == "sql":
        return SqlNames(patients.sql)
    if patients.source == "api":
        return ApiNames(patients.api)
    return PacsNames()


class PacsNames:
    def name_of(self, accession: str, checkpoint: Checkpoint) -> None:  # noqa: ARG002
        return None


class SqlNames:
    """The steps of `patients.sql`, each on its own database; values are bound, never put into the text."""

    def __init__(self, sql: Sql) -> None:
        urls = {step.url.get_secret_value() for step in sql.steps}
        engines = {url: _engine(url, sql.timeout) for url in urls}
        self._steps = [(engines[step.url.get_secret_value()], sa.text(step.query)) for step in sql.steps]

    def name_of(self, accession: str, checkpoint: Checkpoint) -> str:
        return watched(lambda: self._ask(accession), checkpoint)

    def _ask(self, accession: str) -> str:
        known: dict[str, Any] = {"accession_number": accession}
        try:
            for engine, statement in self._steps:
                row = _first_row(engine, statement, known)
                if row is None:
                    raise _not_found(accession, "database")
                known |= row
            return str(known["patient_name"] or "")
        except (SQLAlchemyError, KeyError, RuntimeError) as error:  # RuntimeError: pymysql lacks a library
            log.error("patient database", extra={"fields": {"accession": accession, "error": type(error).__name__}})
            raise PatientDbUnavailable(
                f"The hospital's database did not give the patient's name ({_cause(error)}). Check that it runs,"
                " and patients.sql; then ask again."
            ) from error


class ApiNames:
    """The HTTP service of `patients.api`. TLS is always verified, and no redirect is followed.

    http.client shows its connection, which so can be cut off whatever the service does.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._headers = {name: value.get_secret_value() for name, value in api.headers.items()}

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        """Read when it is needed: the file may be away when a worker starts."""
        try:
            return ssl.create_default_context(cafile=self._api.ca_file)
        except OSError as error:
            raise _unavailable(f"patients.api.ca_file: no certificates can be read from it: {error}") from error

    def name_of(self, accession: str, checkpoint: Checkpoint) -> str:
        url = (self._api.url or "").replace("{accession_number}", quote(accession, safe=""))
        try:
            status, body = self._get(url, checkpoint)
        except (OSError, HTTPException, ValueError) as error:
            raise _unavailable(type(error).__name__) from error
        if status == HTTPStatus.NOT_FOUND:
            raise _not_found(accession, "API")
        if status != HTTPStatus.OK:
            raise _unavailable(f"it answered with status {status}")
        return _field(body, self._api.name_field)

    def _get(self, url: str, checkpoint: Checkpoint) -> tuple[int, Any]:
        """Status and JSON body (None where it is none). A connection that fails is tried once more.

        Raises TimeoutError where both are not there within the timeout.
        """
        waited = Stopwatch()

        def within_the_timeout() -> None:
            checkpoint()
            if waited.seconds() > self._api.timeout:
                raise TimeoutError

        try:
            return self._get_once(urlsplit(url), within_the_timeout)
        except ConnectionError:
            return self._get_once(urlsplit(url), within_the_timeout)

    def _get_once(self, url: SplitResult, checkpoint: Checkpoint) -> tuple[int, Any]:
        host, timeout = url.hostname or "", self._api.timeout
        if url.scheme == "https":
            connection: HTTPConnection = HTTPSConnection(host, url.port, timeout=timeout, context=self._tls)
        else:
            connection = HTTPConnection(host, url.port, timeout=timeout)
        connection.auto_open = 0  # once it is cut off
        target = url._replace(scheme="", netloc="", fragment="").geturl()
        try:
            watched(connection.connect, checkpoint)
            return watched(lambda: _answer(connection, target, self._headers), checkpoint)
        finally:
            _cut_off(connection)


def _answer(connection: HTTPConnection, target: str, headers: dict[str, str]) -> tuple[int, Any]:
    """The status and the JSON body that a request is answered with."""
    connection.request("GET", target, headers=headers)
    answer = connection.getresponse()
    return answer.status, _json(answer.read(LARGEST_ANSWER + 1))


def _cut_off(connection: HTTPConnection) -> None:
    """End a connection, although another thread may wait for its answer; one that is not there yet is never used."""
    with suppress(OSError):
        if connection.sock is not None:  # of a TLS socket, too, without its own farewell
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
    connection.close()


def watched(ask: Callable[[], T], checkpoint: Checkpoint) -> T:
    """What `ask` returns or raises in a thread of its own, while `checkpoint` is called here.

    Raises whatever `checkpoint` raises, too; nobody waits for the thread then.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(ask())
        except BaseException as error:  # raised to whoever waits
            future.set_exception(error)

    start(threading.Thread(target=run, daemon=True), checkpoint)
    while not wait([future], SLICE).done:
        checkpoint()
    return future.result()


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _field(body: Any, path: str) -> str:
    """The name at a dotted path of the JSON answer; numbers are places in lists."""
    found = body
    for part in path.split("."):
        if isinstance(found, dict):
            found = found.get(part)
        elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        else:
            found = None
    if not isinstance(found, str) or SURROGATE.search(found):
        raise _unavailable(f"its answer is not JSON with the patient's name in {path}")
    return found


def _engine(url: str, timeout: float) -> sa.Engine:
    """A pool that survives a restarted server; `timeout` seconds for connecting and for each statement."""
    mariadb = dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), timeout)
    arguments: dict[str, dict[str, Any]] = {
        "mysql": mariadb,
        "mariadb": mariadb,
        "postgresql": {
            "connect_timeout": max(1, round(timeout)),
            "options": f"-c statement_timeout={round(timeout * 1000)}",
        },
        "sqlite": {"timeout": timeout},
    }
    try:
        parsed = make_url(url)
        connect_args = arguments.get(parsed.get_backend_name(), {})
        return sa.create_engine(
            parsed, hide_parameters=True, pool_pre_ping=True, pool_recycle=3600, connect_args=connect_args
        )
    except (SQLAlchemyError, ImportError) as error:
        raise ConfigurationError(
            f"patients.sql.steps: a url cannot be used ({_cause(error)}). MariaDB and MySQL need mkiso[mysql],"
            " PostgreSQL needs mkiso[postgresql]."
        ) from None


def _first_row(engine: sa.Engine, statement: sa.TextClause, known: dict[str, Any]) -> dict[str, Any] | None:
    wanted = {name: known[name] for name in statement.compile().params}
    with engine.connect() as connection:
        row = connection.execute(statement, wanted).mappings().first()
    return None if row is None else dict(row)


def _cause(error: Exception) -> str:
    """What kind of failure: never a driver's own text, which may hold the user, the host or a value."""
    if isinstance(error, KeyError):
        return f"no step's row has a column {error.args[0]}"
    return type(getattr(error, "orig", None) or error).__name__


def _not_found(accession: str, source: str) -> AccessionNotFound:
    return AccessionNotFound(
        f"The patient {source} knows no patient for the accession number {accession}. Check the number.",
        accession=accession,
    )


def _unavailable(why: str) -> PatientApiUnavailable:
    return PatientApiUnavailable(
        f"The patient API did not give the patient's name ({why}). Check that it runs, and patients.api; ask again."
    )
