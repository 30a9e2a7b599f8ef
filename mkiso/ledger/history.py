"""What people look back at: the ledger's rows by filters, page after page, and what a job handed out."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from mkiso.ledger.database import Database
from mkiso.ledger.schema import COLLECTED, PUBLIC, UNFINISHED, collections, instances, job_accessions, jobs

BATCH = 500
# What NFKD takes no accent from, and people type without.
PLAIN = str.maketrans(dict(zip("ıøđłħŧɨð", "iodlhtid", strict=True)) | {"æ": "ae", "œ": "oe", "þ": "th"})
WILDCARD, ESCAPED = re.compile(r"([%_/])"), r"/\1"
NAMED = [column.label(name) for name, column in COLLECTED.items()]
ENTRIES = sa.select(collections.c.job_id, *NAMED).order_by(collections.c.id)


class Mark(NamedTuple):
    """Where a page of the history ends: the time and the id of its last job."""

    created_at: str
    job_id: str


@dataclass(frozen=True)
class Filters:
    """What a job is to meet, where it is given.

    `patient` are words, each in the patient's name or ID, with accents or without, `requester` is a part of who asked;
    both in capitals or not. `since` and `until` are the ledger's times, `until` the first one beyond.
    """

    accession: str | None = None
    patient: tuple[str, ...] = ()
    requester: str | None = None
    state: str | None = None
    since: str | None = None
    until: str | None = None

    def conditions(self, dialect: str) -> Iterator[sa.ColumnElement[bool]]:
        """What the database of that kind compares; in SQLite nothing that `jobs_searched` does not hold."""
        if self.accession is not None:
            of_number = job_accessions.c.accession_number == self.accession
            yield jobs.c.id.in_(sa.select(job_accessions.c.job_id).where(of_number))
        if self.since is not None:
            yield jobs.c.created_at >= self.since
        if self.until is not None:
            yield jobs.c.created_at < self.until
        for word in self.patient:
            yield sa.or_(_holds(jobs.c.folded, folded(word)), _is_unfolded_and_has(word, dialect))
        if self.requester is not None:
            yield _contains(jobs.c.requester, self.requester, dialect)
        if self.state is not None:  # the last, for it costs SQLite most
            yield _state(dialect) == self.state


class History:
    """Every method raises LedgerUnavailable, or DiskFull, where the database cannot be read now."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, filters: Filters, beyond: Mark | None, most: int) -> list[dict[str, Any]]:
        """JOBs that meet the filters, newest first; the first ones older than a mark, where it is given."""
        return self._database.do(lambda connection: _page(connection, filters, beyond, most))

    def all(self, filters: Filters) -> Iterator[dict[str, Any]]:
        """Every JOB that meets the filters, newest first, read as it is asked for."""
        beyond: Mark | None = None
        while page := self.page(filters, beyond, BATCH):
            yield from page
            beyond = mark_of(page[-1])

    def running(
        self, accessions: Collection[str], studies: Collection[str] = (), series: Collection[str] = ()
    ) -> list[dict[str, Any]]:
        """The JOBs under way for which exactly this was asked, newest first: these numbers, study and series UIDs."""
        query = sa.select(*PUBLIC, jobs.c.asked).where(jobs.c.state.in_(UNFINISHED)).order_by(jobs.c.created_at.desc())
        found = self._database.do(lambda connection: with_collected(connection, query))
        wanted = asked_for(accessions, studies, series)
        return [row for row in found if (row.pop("asked") or asked_for(row["accessions"], (), ())) == wanted]

    def jobs(self, job_ids: Collection[str]) -> dict[str, tuple[dict[str, Any], int | None]]:
        """Of each job that is there its JOB, and the place in the queue for a receiver, from 1, of one that waits."""
        query = SEEN.where(jobs.c.id.in_(job_ids))
        found = self._database.do(lambda connection: with_collected(connection, query))
        return {job["id"]: _with_place(job) for job in found}

    def instances(self, job_id: str, beyond: str, most: int) -> list[dict[str, Any]]:
        """What a job handed out, by SOP Instance UID, from the first one that is greater than `beyond`."""
        query = (
            sa.select(instances)
            .where(instances.c.job_id == job_id, instances.c.sop_instance_uid > beyond)
            .order_by(instances.c.sop_instance_uid)
            .limit(most)
        )
        return self._database.do(lambda connection: [dict(row) for row in connection.execute(query).mappings()])

    def handed_out(self, job_id: str) -> list[dict[str, Any]]:
        """How many instances (`count`) a job handed out of each series and SOP class."""
        kinds = (instances.c.study_uid, instances.c.series_uid, instances.c.sop_class_uid)
        query = sa.select(*kinds, sa.func.count().label("count")).where(instances.c.job_id == job_id).group_by(*kinds)
        return self._database.do(lambda connection: [dict(row) for row in connection.execute(query).mappings()])

    def asked(self, job_id: str) -> list[list[str]] | None:
        """The accession numbers, study UIDs and series UIDs for which a job was asked; None where nobody wrote them."""
        query = sa.select(jobs.c.asked).where(jobs.c.id == job_id)
        return self._database.do(lambda connection: connection.execute(query).scalar())

    def queue(self, work_dir: str) -> int:
        """How many jobs of a work_dir's identity wait for a receiver."""
        waiting = sa.select(sa.func.count()).select_from(jobs).where(_waits(jobs), jobs.c.work_dir == work_dir)
        return self._database.do(lambda connection: connection.execute(waiting).scalar_one())


def folded(text: str) -> str:
    """The text as the search compares it: without capitals, accents, and the widths and shapes of one letter."""
    text = unicodedata.normalize("NFKD", text).casefold()
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text).translate(PLAIN)
        text = "".join(letter for letter in text if not unicodedata.combining(letter))
    return text


def search_key(patient_id: str, name: str) -> str:
    """What the search finds a patient by: the ID, and all groups of a DICOM person name (PS3.5 6.2.1)."""
    return folded(" ".join([patient_id, *re.split(r"[\s^=]+", name)])).strip()


def asked_for(accessions: Collection[str], studies: Collection[str], series: Collection[str]) -> list[list[str]]:
    """What a job was asked for, to compare."""
    return [sorted(set(one)) for one in (accessions, studies, series)]


def mark_of(job: Mapping[str, Any]) -> Mark:
    return Mark(job["created_at"], job["id"])


def _page(connection: sa.Connection, filters: Filters, beyond: Mark | None, most: int) -> list[dict[str, Any]]:
    """First the ids, for which an index holds all that the filters look at; then their rows."""
    newest_first = (jobs.c.created_at.desc(), jobs.c.id.desc())
    older = () if beyond is None else (jobs.c.created_at <= beyond.created_at, _is_older(beyond))
    conditions = (*older, *filters.conditions(connection.dialect.name))
    ids = sa.select(jobs.c.id).where(*conditions).order_by(*newest_first).limit(most)
    found = connection.execute(ids).scalars().all()
    return with_collected(connection, sa.select(*PUBLIC).where(jobs.c.id.in_(found)).order_by(*newest_first))


def with_collected(connection: sa.Connection, query: sa.Select[Any]) -> list[dict[str, Any]]:
    """The JOBs of a query, each with `collected`: who has what it made, oldest first, the last one valid.

    That is one statement more for BATCH jobs that are done; nobody can have what the others did not make.
    """
    found = [{**row, "collected": []} for row in connection.execute(query).mappings()]
    collected = {job["id"]: job["collected"] for job in found if job["state"] == "done"}
    for some in batches(list(collected)):
        for row in connection.execute(ENTRIES.where(collections.c.job_id.in_(some))).mappings():
            said = dict(row)
            collected[said.pop("job_id")].append(said)
    return found


def batches(job_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many at once as a database takes in one statement."""
    return (job_ids[start : start + BATCH] for start in range(0, len(job_ids), BATCH))


def _is_older(mark: Mark) -> sa.ColumnElement[bool]:
    same_time = sa.and_(jobs.c.created_at == mark.created_at, jobs.c.id < mark.job_id)
    return sa.or_(jobs.c.created_at < mark.created_at, same_time)


def _state(dialect: str) -> sa.ColumnElement[str]:
    """Not by SQLite's index of the state alone: it would take that for a state that nearly all jobs have, too."""
    return jobs.c.state.concat("") if dialect == "sqlite" else jobs.c.state


def _holds(column: sa.Column[Any], text: str) -> sa.ColumnElement[bool]:
    """What is folded on both sides is compared as it is; half as long where nothing is escaped."""
    pattern = f"%{WILDCARD.sub(ESCAPED, text)}%"
    return column.like(pattern, escape=None if pattern == f"%{text}%" else "/")


def _is_unfolded_and_has(word: str, dialect: str) -> sa.ColumnElement[bool]:
    """Rows of an older version beside, which folds nothing."""
    columns = (jobs.c.patient_name, jobs.c.patient_id)
    return sa.and_(jobs.c.folded.is_(None), sa.or_(*(_contains(column, word, dialect) for column in columns)))


def _contains(column: sa.Column[Any], text: str, dialect: str) -> sa.ColumnElement[bool]:
    """SQLite's LIKE knows no capitals of ASCII, and takes half as long where nothing is escaped."""
    pattern = f"%{WILDCARD.sub(ESCAPED, text)}%"
    escape = None if pattern == f"%{text}%" else "/"
    return column.like(pattern, escape=escape) if dialect == "sqlite" else column.ilike(pattern, escape="/")


def _waits(table: Any) -> sa.ColumnElement[bool]:
    """A job that waits for a receiver has its patient's ID already."""
    return sa.and_(table.c.state == "queued", table.c.patient_id.is_not(None))


def _seen() -> sa.Select[Any]:
    """A JOB, and its `place` among those that wait where it does."""
    others = jobs.alias("others")
    before = (_waits(others), others.c.work_dir == jobs.c.work_dir, others.c.created_at <= jobs.c.created_at)
    count = sa.select(sa.func.count()).select_from(others).where(*before).correlate(jobs).scalar_subquery()
    return sa.select(*PUBLIC, sa.case((_waits(jobs), count), else_=None).label("place"))


SEEN = _seen()  # made once: it is read several times a second


def _with_place(job: dict[str, Any]) -> tuple[dict[str, Any], int | None]:
    place = job.pop("place")
    return job, place
