"""The ledger: a row per job, and a row per instance that was handed out.

Written by every worker and command at once: SQLite in WAL mode, or any database that SQLAlchemy takes.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError

from mkiso.errors import ConfigurationError, Internal, JobExists, JobNotFound

UNFINISHED = ("queued", "querying", "retrieving", "verifying", "mastering", "sending")
STATES = (*UNFINISHED, "done", "failed", "cancelled")
BUSY_LIMIT = 30
TRIES = 10

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
    sa.Column("seconds", sa.JSON, nullable=False, default=dict),
)
PUBLIC = tuple(jobs.columns)
# Not for the outside: whose job directories to look at for its life, and whether somebody asked to stop it.
jobs.append_column(sa.Column("work_dir", sa.Text, nullable=False))
jobs.append_column(sa.Column("cancel_requested", sa.Boolean, nullable=False, default=False))
job_accessions = sa.Table(
    "job_accessions",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("accession_number", sa.String(64), primary_key=True, index=True),
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
)


def now() -> str:
    """The time as the ledger has it."""
    return ledger_time(datetime.now(UTC))


def ledger_time(moment: datetime) -> str:
    """A time in UTC as the ledger has it (RFC 3339), which sorts as text."""
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


class Ledger:
    """The database of jobs, of which those with this `work_dir` are ours to sweep."""

    def __init__(self, url: str, work_dir: Path) -> None:
        self._work_dir = str(work_dir)
        try:
            self._engine = _engine(url)
            _make_tables(self._engine)
        except (SQLAlchemyError, ImportError) as error:
            raise ConfigurationError(
                f"The ledger (storage.ledger) cannot be opened: {_cause(error)}. Make its directory, or correct it."
            ) from None

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """What the ledger cannot do now is an error of its own, but for a row that exists."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            raise Internal("The ledger (storage.ledger) does not answer. The service's log tells why.") from error

    def open_job(self, job_id: str, kind: str, accessions: tuple[str, ...], **fields: Any) -> None:
        """A row for a new job; JobExists where there is one of that id."""
        row = {
            "id": job_id,
            "kind": kind,
            "state": "queued",
            "accessions": list(accessions),
            "created_at": now(),
            "work_dir": self._work_dir,
        }
        try:
            with self._transaction() as connection:
                connection.execute(jobs.insert().values(row | fields))
                connection.execute(
                    job_accessions.insert(),
                    [{"job_id": job_id, "accession_number": accession} for accession in accessions],
                )
        except IntegrityError:
            raise JobExists(f"There is a job {job_id} already. Choose another UUID, or none.") from None

    def update(self, job_id: str, **fields: Any) -> None:
        with self._transaction() as connection:
            connection.execute(jobs.update().where(jobs.c.id == job_id).values(fields))

    def finish(self, job_id: str, state: str, error: Mapping[str, str] | None, **fields: Any) -> None:
        self.update(job_id, state=state, error=error, finished_at=now(), **fields)

    def hand_out(self, job_id: str, rows: Iterable[Mapping[str, str | int]]) -> None:
        """Remember the instances that leave the house with this job: columns of `instances`, without the job's."""
        with self._transaction() as connection:
            connection.execute(instances.insert(), [{"job_id": job_id, **row} for row in rows])

    def job(self, job_id: str) -> dict[str, Any]:
        """One JOB of the contract; JobNotFound."""
        with self._transaction() as connection:
            row = connection.execute(sa.select(*PUBLIC).where(jobs.c.id == job_id)).mappings().first()
        if row is None:
            raise JobNotFound("The ledger has no job of that id.")
        return dict(row)

    def list_jobs(
        self,
        accession: str | None = None,
        state: str | None = None,
        since: str | None = None,
        limit: int = 100,
    ) -> list[dict[str, Any]]:
        """The jobs that meet every condition given, newest first; `since` as `now` writes it."""
        query = sa.select(*PUBLIC).order_by(jobs.c.created_at.desc()).limit(limit)
        if accession is not None:
            of_accession = sa.select(job_accessions.c.job_id).where(job_accessions.c.accession_number == accession)
            query = query.where(jobs.c.id.in_(of_accession))
        if state is not None:
            query = query.where(jobs.c.state == state)
        if since is not None:
            query = query.where(jobs.c.created_at >= since)
        with self._transaction() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def request_cancel(self, job_id: str) -> dict[str, Any]:
        """Ask whichever process runs the job to stop it; the job as it is now."""
        with self._transaction() as connection:
            running = jobs.c.state.in_(UNFINISHED)
            connection.execute(jobs.update().where(jobs.c.id == job_id, running).values(cancel_requested=True))
        return self.job(job_id)

    def cancel_requested(self, job_ids: Collection[str]) -> set[str]:
        query = sa.select(jobs.c.id).where(jobs.c.id.in_(job_ids), jobs.c.cancel_requested)
        with self._transaction() as connection:
            return set(connection.execute(query).scalars())

    def abandon(self, living: Collection[str]) -> list[str]:
        """Finish the rows of jobs whose process died: those of our `work_dir` that are not `living`; their ids."""
        dead = sa.and_(jobs.c.state.in_(UNFINISHED), jobs.c.work_dir == self._work_dir, jobs.c.id.not_in(living))
        error = {"code": Internal.code, "detail": "The process that ran this job died. Ask again."}
        with self._transaction() as connection:
            ids = list(connection.execute(sa.select(jobs.c.id).where(dead)).scalars())
            ended = {"state": "failed", "finished_at": now(), "error": error}
            running = jobs.c.state.in_(UNFINISHED)
            connection.execute(jobs.update().where(jobs.c.id.in_(ids), running).values(ended))
        return ids

    def check(self) -> None:
        """Raise Internal where the database does not answer."""
        with self._transaction() as connection:
            connection.execute(sa.select(jobs.c.id).limit(1))

    def close(self) -> None:
        self._engine.dispose()


def _engine(text: str) -> sa.Engine:
    url = make_url(text)
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, hide_parameters=True, pool_pre_ping=True)
    if url.database:
        _make_private(Path(url.database))
    engine = sa.create_engine(url, hide_parameters=True, connect_args={"timeout": BUSY_LIMIT})
    sa.event.listen(engine, "connect", _concurrent)
    return engine


def _make_tables(engine: sa.Engine) -> None:
    """Another process may be making them, or turning the WAL on, at this moment."""
    for _ in range(TRIES - 1):
        try:
            return metadata.create_all(engine)
        except OperationalError:
            time.sleep(0.1)
    return metadata.create_all(engine)


def _make_private(file: Path) -> None:
    """The ledger names patients. What fails here is told when the database is opened."""
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)


def _concurrent(connection: Any, _record: object) -> None:
    """Readers beside a writer, and no wait for the disk at each commit."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _cause(error: Exception) -> str:
    """SQLite's own words, which name no more than the file; of another database only what kind of failure it is."""
    original = getattr(error, "orig", None) or error
    return str(original) if isinstance(original, sqlite3.Error) else type(original).__name__
