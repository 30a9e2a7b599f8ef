"""The ledger of jobs, which every worker and command writes and reads, on every host that shares it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from mkiso.accession import LONGEST
from mkiso.errors import Cancelled, JobExists, JobNotFound
from mkiso.ledger.database import Database
from mkiso.ledger.experience import Sizes, read_sizes
from mkiso.ledger.history import History, asked_for, search_key, with_collected
from mkiso.ledger.outcomes import DIED
from mkiso.ledger.relays import Claim, Relays
from mkiso.ledger.schema import (
    COLLECTED,
    PUBLIC,
    UNFINISHED,
    collections,
    fitting,
    instances,
    job_accessions,
    jobs,
    now,
)
from mkiso.ledger.totals import Retention, Totals, change, read_totals
from mkiso.waiting import stopped_by

STATES = (*UNFINISHED, "done", "failed", "cancelled")
# A running job's row is written every BEAT seconds; a row on which nobody wrote for SILENT seconds has no process.
BEAT = 10.0
SILENT = 120.0
UNDER_WAY = jobs.c.state.in_(UNFINISHED)


class Ledger:
    """Every method raises LedgerUnavailable, or DiskFull, where the database cannot be read or written now.

    `identity` is the work_dir's, and `living` are the ids of the jobs there that have a
    process: the rows of that identity that are not among them are ours to finish.
    """

    def __init__(self, url: str, identity: Callable[[], str], living: Callable[[], set[str]]) -> None:
        self._database = Database(url)
        self.history = History(self._database)
        self.retention = Retention(self._database)
        self.relays = Relays(self._database)
        self._identity = identity
        self._living = living

    @property
    def file(self) -> Path | None:
        """The ledger's file, where it is one."""
        return self._database.file

    @property
    def is_shared(self) -> bool:
        """Whether other hosts may have the same ledger."""
        return self._database.is_server

    def prepare(self) -> None:
        """Make or migrate the tables, however long that takes; ConfigurationError where they are another version's."""
        self._database.prepare()

    def refuse_other_versions(self) -> None:
        """Raise ConfigurationError where the ledger is of a version of the program that this one cannot go on from."""
        self._database.refuse_other_versions()

    def open_job(
        self,
        job_id: str,
        kind: str,
        accessions: Sequence[str],
        *,
        study_uids: Sequence[str] = (),
        series_uids: Sequence[str] = (),
        **fields: Any,
    ) -> None:
        """A row for a new job, which has its directory already; JobExists where there is one of that id.

        It remembers what was asked for, by which `History.running` knows the same again.
        """
        row = self._new_row(job_id, kind, accessions, study_uids, series_uids, **fields)

        def work(connection: sa.Connection) -> None:
            _insert(connection, row)

        try:
            self._database.do(work)
        except IntegrityError:
            if not self._has(row):
                raise JobExists(f"There is a job {job_id} already. Choose another UUID, or none.") from None

    def claim_relay(self, job_id: str, parallel: Mapping[str, int], addresses: Mapping[str, str]) -> Claim | None:
        """As `Relays.claim`, with its attempt's row opened; `addresses` has the HOST:PORT of each destination."""

        def open_attempt(connection: sa.Connection, claim: Claim) -> None:
            asked = (claim.accessions, claim.study_uids, claim.series_uids)
            fields = {"destination": addresses[claim.destination], "requester": claim.requester}
            _insert(connection, self._new_row(job_id, "relay", *asked, relay_id=claim.relay_id, **fields))

        return self.relays.claim(job_id, parallel, open_attempt)

    def _new_row(
        self,
        job_id: str,
        kind: str,
        accessions: Sequence[str],
        study_uids: Sequence[str],
        series_uids: Sequence[str],
        **fields: Any,
    ) -> dict[str, Any]:
        return {
            "id": job_id,
            "kind": kind,
            "state": "queued",
            "accessions": list(accessions),
            "series": list(series_uids) or None,
            "asked": asked_for(accessions, study_uids, series_uids),
            "created_at": now(),
            "work_dir": self._identity(),
            "host": socket.gethostname(),
            "alive_at": self._database.now,
            "folded": "",
            **_searchable(fields),
        }

    def _has(self, row: Mapping[str, Any]) -> bool:
        """Whether it is this very row that is there: its COMMIT was done, and nobody heard of it."""
        same = [jobs.c[name] == row[name] for name in ("id", "created_at", "work_dir", "host")]
        return bool(self._database.do(lambda connection: connection.execute(sa.select(jobs.c.id).where(*same)).all()))

    def update(self, job_id: str, **fields: Any) -> None:
        """Write columns of a job's row; it is alive. It is listed by its `accessions`, where they are given anew."""
        row, values = jobs.c.id == job_id, fitting(jobs, _searchable(fields)) | {"alive_at": self._database.now}
        goes_on = jobs.update().where(row, jobs.c.finished_at.is_(None)).values(values)

        def write_on(connection: sa.Connection) -> int:
            _renumber(connection, job_id, fields)
            return connection.execute(goes_on).rowcount

        def end(connection: sa.Connection) -> None:
            _renumber(connection, job_id, fields)
            change(connection, row, values)

        if fields.get("finished_at") or not self._database.do(write_on):
            self._database.do(end, alone=True)

    def hand_out(self, job_id: str, rows: Sequence[Mapping[str, str | int]]) -> None:
        """Remember instances that leave the house with this job: columns of `instances`, without the job's.

        Those that are remembered already stay as they are, but for what became of them.
        """
        fitted = (fitting(instances, {"job_id": job_id, **row}) for row in rows)
        values = {row["sop_instance_uid"]: row for row in fitted}

        def add_others(connection: sa.Connection) -> None:
            uid, outcome = instances.c.sop_instance_uid, instances.c.outcome
            these = instances.c.job_id == job_id, uid.in_(values)
            there = dict(connection.execute(sa.select(uid, outcome).where(*these)).all())
            if others := [values[one] for one in values.keys() - there.keys()]:
                connection.execute(instances.insert(), others)
            for became in {values[one]["outcome"] for one in there}:
                changed = [one for one in there if values[one]["outcome"] == became != there[one]]
                connection.execute(instances.update().where(*these, uid.in_(changed)).values(outcome=became))

        try:
            self._database.do(lambda connection: connection.execute(instances.insert(), list(values.values())))
        except IntegrityError:
            self._database.do(add_others)

    def job(self, job_id: str) -> dict[str, Any]:
        """One JOB of the contract; JobNotFound. Where its process is gone, it is finished by this."""
        job, is_silent = self._job(job_id)
        if is_silent and self._judges():
            self._finish([job_id], "failed", DIED)
            job, _ = self._job(job_id)
        return job

    def _job(self, job_id: str) -> tuple[dict[str, Any], bool]:
        """The JOB, and whether nobody has written to it for long."""
        query = sa.select(*PUBLIC, self._silent().label("is_silent")).where(jobs.c.id == job_id)
        found = self._database.do(lambda connection: with_collected(connection, query))
        if not found:
            raise JobNotFound("The ledger has no job of that id.")
        (job,) = found
        return job, bool(job.pop("is_silent"))

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
        return self._database.do(lambda connection: with_collected(connection, query))

    def request_cancel(self, job_id: str, by: str) -> dict[str, Any]:
        """Ask whichever process runs the job to stop it, or end it where none does; the job as it is now.

        `by` is a requester; the first one is remembered, and said in the job's error.
        """
        values = fitting(jobs, {"cancel_requested": True, "cancelled_by": by})

        def work(connection: sa.Connection) -> list[str]:
            is_new = (jobs.c.id == job_id, UNDER_WAY, sa.not_(jobs.c.cancel_requested))
            connection.execute(jobs.update().where(*is_new).values(values))
            return self._dead(connection, jobs.c.id == job_id)

        if dead := self._database.do(work):
            who = self.cancel_requested(dead).get(job_id)
            self._finish(dead, "cancelled", {"code": Cancelled.code, "detail": stopped_by(who)})
        return self.job(job_id)

    def cancel_requested(self, job_ids: Collection[str]) -> dict[str, str | None]:
        """Those of the jobs that somebody asked to stop, and who; None where an older version took the request."""
        query = sa.select(jobs.c.id, jobs.c.cancelled_by).where(jobs.c.id.in_(job_ids), jobs.c.cancel_requested)
        return self._database.do(lambda connection: dict(connection.execute(query).all()))

    def collect(self, job_id: str, *, by: str, relation: str, given_by: str, note: str, requester: str) -> None:
        """Remember who collected what a job made, beside all that was said of it before; JobNotFound."""
        said = {"at": now(), "by": by, "relation": relation, "given_by": given_by, "note": note}
        named = {COLLECTED[name].name: value for name, value in said.items()}
        row = fitting(collections, {"job_id": job_id, "requester": requester} | named)

        def work(connection: sa.Connection) -> bool:
            if not connection.execute(sa.select(jobs.c.id).where(jobs.c.id == job_id).with_for_update()).first():
                return False
            same = [collections.c[name] == value for name, value in row.items()]  # its COMMIT was not heard of
            if not connection.execute(sa.select(collections.c.id).where(*same)).first():
                connection.execute(collections.insert().values(row))
            return True

        if not self._database.do(work, alone=True):
            raise JobNotFound("The ledger has no job of that id.")

    def sizes(self) -> Sizes:
        """What instances came to so far: a few rows."""
        return self._database.do(read_sizes)

    def abandon(self) -> list[str]:
        """Finish the rows of jobs whose process is gone, ours and anybody's; their ids."""
        dead = self._database.do(lambda connection: self._dead(connection, sa.true()))
        self._finish(dead, "failed", DIED)
        return dead

    def totals(self) -> Totals:
        """What the jobs of this identity come to that ended."""
        return self._database.do(lambda connection: read_totals(connection, self._identity()))

    def running(self) -> int:
        """How many jobs of this identity are under way."""
        ours = (jobs.c.finished_at.is_(None), jobs.c.work_dir == self._identity())
        query = sa.select(sa.func.count()).select_from(jobs).where(*ours)
        return self._database.do(lambda connection: connection.execute(query).scalar_one())

    def check(self) -> None:
        """Raise LedgerUnavailable where the database does not answer."""
        self._database.do(lambda connection: connection.execute(sa.select(jobs.c.id).limit(1)).all())

    def close(self) -> None:
        self._database.close()

    def _dead(self, connection: sa.Connection, among: sa.ColumnElement[bool]) -> list[str]:
        """The ids of jobs whose process is gone.

        The rows are read before the processes are looked for: a job has a process before it has a row, and until that
        has ended.
        """
        query = sa.select(jobs.c.id, jobs.c.work_dir, self._silent()).where(among, UNDER_WAY)
        rows, identity, judges = connection.execute(query).all(), self._identity(), self._judges()
        living = self._living() if any(work_dir == identity for _, work_dir, _ in rows) else set()
        return [
            job_id
            for job_id, work_dir, silent in rows
            if (judges and silent) or (work_dir == identity and job_id not in living)
        ]

    def _silent(self) -> sa.ColumnElement[bool]:
        return sa.and_(UNDER_WAY, sa.func.coalesce(jobs.c.alive_at, 0) < self._database.now - int(SILENT))

    def _judges(self) -> bool:
        """While the ledger was away, nobody could write: who lives is to be heard first."""
        return self._database.answered_for(2 * BEAT)

    def _finish(self, job_ids: Sequence[str], state: str, error: Mapping[str, str]) -> None:
        """End those of the jobs that are under way still."""
        if job_ids:
            which = sa.and_(jobs.c.id.in_(job_ids), UNDER_WAY)
            values = {"state": state, "finished_at": now(), "error": error}
            self._database.do(lambda connection: change(connection, which, values), alone=True)


def _searchable(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, and what the search compares: of the name as it is shown, where nobody gives more of it."""
    patient = [fields.get(name) or "" for name in ("patient_id", "patient_name")]
    return ({"folded": search_key(*patient)} if any(patient) else {}) | dict(fields)


def _insert(connection: sa.Connection, row: Mapping[str, Any]) -> None:
    connection.execute(jobs.insert().values(fitting(jobs, row)))
    _number(connection, row["id"], row["accessions"])


def _renumber(connection: sa.Connection, job_id: str, fields: Mapping[str, Any]) -> None:
    """List a job by the accession numbers among these fields, where they are others than before."""
    numbers = fields.get("accessions")
    if numbers is not None:
        before = connection.execute(sa.select(jobs.c.accessions).where(jobs.c.id == job_id)).scalar()
        if before is not None and set(before) != set(numbers):
            connection.execute(job_accessions.delete().where(job_accessions.c.job_id == job_id))
            _number(connection, job_id, numbers)


def _number(connection: sa.Connection, job_id: str, accessions: Sequence[str]) -> None:
    """List a job by these accession numbers: those that somebody can ask for."""
    numbers = [number for number in dict.fromkeys(accessions) if number and len(number.encode()) <= LONGEST]
    if numbers:
        rows = [{"job_id": job_id, "accession_number": number} for number in numbers]
        connection.execute(job_accessions.insert(), rows)
