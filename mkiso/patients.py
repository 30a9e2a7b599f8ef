"""Where a patient's name comes from: the archive's own answer, the hospital's database, or its HTTP service."""

from __future__ import annotations

import json
import logging
import time
from typing import Any, Protocol
from urllib.parse import quote

import requests
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from urllib3.exceptions import HTTPError

from mkiso.config import Api, Patients, Sql
from mkiso.errors import AccessionNotFound, ConfigurationError, PatientApiUnavailable, PatientDbUnavailable

LARGEST_ANSWER = 1 << 20
log = logging.getLogger("mkiso.patients")


class PatientSource(Protocol):
    def name_of(self, accession: str) -> str | None:
        """The name of the patient of an accession number; None where the archive's own answer is to be taken.

        Raises AccessionNotFound, PatientDbUnavailable or PatientApiUnavailable.
        """


def patient_source(patients: Patients) -> PatientSource:
    """The source that the configuration names; ConfigurationError where it cannot be used."""
    if patients.source == "sql":
        return SqlNames(patients.sql)
    if patients.source == "api":
        return ApiNames(patients.api)
    return PacsNames()


class PacsNames:
    def name_of(self, accession: str) -> None:  # noqa: ARG002
        return None


class SqlNames:
    """The steps of `patients.sql`, each on its own database; values are bound, never put into the text."""

    def __init__(self, sql: Sql) -> None:
        urls = {step.url.get_secret_value() for step in sql.steps}
        engines = {url: _engine(url, sql.timeout) for url in urls}
        self._steps = [(engines[step.url.get_secret_value()], sa.text(step.query)) for step in sql.steps]

    def name_of(self, accession: str) -> str:
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
    """The HTTP service of `patients.api`. TLS is always verified, and no redirect is followed."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._url = api.url or ""
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.update({name: value.get_secret_value() for name, value in api.headers.items()})

    def name_of(self, accession: str) -> str:
        url = self._url.replace("{accession_number}", quote(accession, safe=""))
        try:
            status, body = self._get(url)
        except (requests.RequestException, HTTPError) as error:
            raise _unavailable(type(error).__name__) from error
        if status == requests.codes.not_found:
            raise _not_found(accession, "API")
        if status != requests.codes.ok:
            raise _unavailable(f"it answered with status {status}")
        return _field(body, self._api.name_field)

    def _get(self, url: str) -> tuple[int, Any]:
        """Status and JSON body (None where it is none); a connection that fails is tried once more."""
        try:
            return self._get_once(url)
        except requests.Timeout:
            raise
        except requests.ConnectionError:
            return self._get_once(url)

    def _get_once(self, url: str) -> tuple[int, Any]:
        api, deadline = self._api, time.monotonic() + self._api.timeout
        verify = str(api.ca_file) if api.ca_file else True
        options: dict[str, Any] = {"timeout": api.timeout, "verify": verify, "allow_redirects": False, "stream": True}
        with self._session.get(url, **options) as answer:
            body = b""
            while chunk := answer.raw.read1(1 << 14, decode_content=True):
                body += chunk
                if time.monotonic() > deadline or len(body) > LARGEST_ANSWER:
                    raise requests.Timeout
            return answer.status_code, _json(body)


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
    if not isinstance(found, str):
        raise _unavailable(f"its answer is not JSON with the patient's name in {path}")
    return found


def _engine(url: str, timeout: float) -> sa.Engine:
    """A pool that survives a restarted server; `timeout` seconds for connecting and for each statement."""
    arguments: dict[str, dict[str, Any]] = {
        "mysql": {"connect_timeout": timeout, "read_timeout": timeout, "write_timeout": timeout},
        "mariadb": {"connect_timeout": timeout, "read_timeout": timeout, "write_timeout": timeout},
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
