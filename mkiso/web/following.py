"""A job as its page follows it: how far it is, what it makes, how it could be started again.

A hundred open pages ask as often a second, for what few jobs have to tell: the ledger is read once for all of them,
and what was just read is answered without the rest of the application.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes, urlencode

from mkiso.config import Destination, Server
from mkiso.errors import JobNotFound
from mkiso.job import Order
from mkiso.ledger.history import History
from mkiso.ledger.schema import PUBLIC, UNFINISHED
from mkiso.waiting import INTERRUPTION, LEFT, stopped_by
from mkiso.web.guards import is_for_us, is_text
from mkiso.web.live import STOPPING

T = TypeVar("T")
AGE = 0.5
WATCHED = 5.0
PREFIX, FOLLOWED = "/jobs/", ("/jobs/", "/relays")
COMMON = [
    ("Content-Type", "application/json"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Vary", "Accept"),
]
PHASES = {
    "iso": ("querying", "queued", "retrieving", "verifying", "mastering"),
    "relay": ("querying", "queued", "retrieving", "verifying", "sending"),
}
# Who or what stopped a job, by the error's detail: a key of the texts.
STOPPED = {LEFT: "stopped_left", STOPPING: "stopped_service", INTERRUPTION: "stopped_command"}
STOPPED_BY = re.compile(re.escape(stopped_by("\0")).replace("\0", "(.+)"), re.DOTALL)
Application = Any  # a WSGI application


class Shared(Generic[T]):
    """What is read at most once in so many seconds, for all who follow it."""

    def __init__(self, read: Callable[[], T], seconds: float = 1.0) -> None:
        self._read, self._seconds = read, seconds
        self._reading = threading.Lock()
        self._known: tuple[T, float] | None = None

    def get(self) -> T:
        """Raises what the reading raises."""
        with self._reading:
            if self._known is None or time.monotonic() - self._known[1] >= self._seconds:
                self._known = self._read(), time.monotonic()
            return self._known[0]


class FollowedJob(NamedTuple):
    """A JOB, and its place in the queue for a receiver, from 1, while it waits there."""

    job: dict[str, Any]
    place: int | None

    def headers(self) -> dict[str, str]:
        """What the page wants to know beside the JOB."""
        return {"X-Job-Id": self.job["id"], "X-Queue-Place": str(self.place or "")}


class FollowedJobs:
    """JOBs as they were at most AGE seconds ago, of whatever was asked for in the last WATCHED seconds."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._jobs: dict[str, FollowedJob] = {}
        self._asked_at: dict[str, float] = {}
        self._asking = threading.Lock()
        self._read_at = 0.0
        self._reading = threading.Lock()

    def job(self, job_id: str) -> FollowedJob:
        """What was read last, if only for whoever else reads now; who has something to show does not wait.

        Raises JobNotFound, LedgerUnavailable, DiskFull.
        """
        if recent := self.recent(job_id):
            return recent
        moment, known = self._ask(job_id), self._jobs.get(job_id)
        if self._reading.acquire(blocking=known is None):
            try:
                self._read(moment, job_id)
                known = self._jobs.get(job_id)
            finally:
                self._reading.release()
        if known is None:
            raise JobNotFound("The ledger has no job of that id.")
        return known

    def recent(self, job_id: str) -> FollowedJob | None:
        """The JOB where it was read less than AGE seconds ago; it will be read again with the others."""
        known = self._jobs.get(job_id)
        if known is None:
            return None
        return known if self._ask(job_id) - self._read_at < AGE else None

    def _ask(self, job_id: str) -> float:
        with self._asking:
            moment = self._asked_at[job_id] = time.monotonic()
        return moment

    def _read(self, moment: float, job_id: str) -> None:
        if self._read_at > moment and job_id in self._jobs:
            return
        began = self._ask(job_id)  # who waited for a reading of others asks still
        with self._asking:
            self._asked_at = {one: asked for one, asked in self._asked_at.items() if began - asked < WATCHED}
            wanted = list(self._asked_at)
        found = self._history.jobs(wanted)
        self._jobs, self._read_at = {one: FollowedJob(*pair) for one, pair in found.items()}, began


class Polls:
    """Before an application: answers the pages that ask again how their job is, for a third less of a processor.

    What is not known already, and whatever is no poll of a page of ours, is the application's.
    """

    def __init__(self, application: Application, jobs: FollowedJobs, server: Server) -> None:
        self._application, self._jobs, self._server = application, jobs, server

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        query = unquote_to_bytes(environ["QUERY_STRING"])
        is_ours = is_poll(environ) and is_for_us(environ, self._server) and is_text(query)
        known = self._jobs.recent(environ["PATH_INFO"].removeprefix(PREFIX)) if is_ours else None
        if known is None:
            return self._application(environ, start_response)  # type: ignore[no-any-return]
        body = json.dumps(known.job, ensure_ascii=False, separators=(",", ":")).encode()
        start_response("200 OK", [*COMMON, *known.headers().items(), ("Content-Length", str(len(body)))])
        return [body]


def is_poll(environ: Mapping[str, Any]) -> bool:
    """Whether a page of ours asks how a job is, or queued relays are."""
    return (
        environ["REQUEST_METHOD"] == "GET"
        and environ["PATH_INFO"].startswith(FOLLOWED)
        and environ.get("HTTP_ACCEPT") == "application/json"
        and environ.get("HTTP_SEC_FETCH_SITE", "same-origin") == "same-origin"
    )


@dataclass(frozen=True)
class JobView:
    """A JOB, and what its page shows of it beside that."""

    job: Mapping[str, Any]
    place: int | None
    destinations: Mapping[str, Destination]

    @property
    def is_under_way(self) -> bool:
        return self.job["state"] in UNFINISHED

    @property
    def phases(self) -> tuple[str, ...]:
        return PHASES[self.job["kind"]]

    @property
    def phase(self) -> str:
        """The state as the page shows it: who is not looked up yet does not wait for a receiver."""
        state: str = self.job["state"]
        return "querying" if state == "queued" and self.job["patient_id"] is None else state

    @property
    def moved(self) -> int:
        """How many instances are where the phase takes them."""
        count: int = self.job["files_sent"] if self.job["state"] == "sending" else self.job["received"]
        return count

    @property
    def seconds(self) -> float:
        return float(sum(self.job["seconds"].values()))

    @property
    def percent(self) -> int | None:
        """How far its phase is; None while nobody knows."""
        expected = self.job["expected"]
        return min(100 * self.moved // expected, 100) if expected else None

    def again(self, asked: Sequence[Sequence[str]] | None) -> dict[str, str] | None:
        """The fields of a form that starts the same once more, of `History.asked`.

        None where its destination is configured no more.
        """
        numbers, studies, series = asked or (self.job["accessions"], (), ())
        in_order = [number for number in self.job["accessions"] if number in numbers]
        fields = wanted("accession_numbers", in_order, studies, series)
        if self.job["kind"] == "iso":
            fields |= {"format": self.job["format"] or "iso", "layout": self.job["layout"] or "legacy"}
            return fields | ({"protect": "1"} if self.job["encrypted"] else {})
        name = destination_at(self.destinations, self.job["destination"])
        return None if name is None else fields | {"destination": name}


def wanted(
    parameter: str, accessions: Sequence[str], studies: Sequence[str], series: Sequence[str] | None
) -> dict[str, str]:
    """The parameters that say what a job is of; `parameter` is the name of the one with the accession numbers."""
    lists = {parameter: accessions, "study_uids": studies, "series_uids": series}
    return {name: ",".join(values) for name, values in lists.items() if values}


def stopped(job: Mapping[str, Any]) -> tuple[str, str]:
    """Who or what stopped a job: a key of the texts, and a name where that is a person."""
    detail = (job["error"] or {}).get("detail", "")
    if somebody := STOPPED_BY.fullmatch(detail):
        return "stopped_by", shown_name(somebody[1])
    return STOPPED.get(detail, "stopped"), ""


def shown_name(requester: str) -> str:
    """`USER` of `USER@ADDRESS`; of somebody without a name the address."""
    return requester.rpartition("@")[0] or requester


def destination_at(destinations: Mapping[str, Destination], address: str | None) -> str | None:
    """The first name of a destination at HOST:PORT; None where the configuration has none there any more."""
    return next((name for name, to in destinations.items() if f"{to.host}:{to.port}" == address), None)


def not_started(order: Order) -> dict[str, Any]:
    """The JOB of a disc that is about to be started."""
    return {column.name: None for column in PUBLIC} | {
        "id": order.job_id,
        "kind": "iso",
        "state": "queued",
        "accessions": list(order.accessions),
        "requester": order.requester,
        "layout": order.layout,
        "format": order.format,
        "studies": list(order.study_uids),
        "series": list(order.series_uids) or None,
        "encrypted": order.password is not None,
        "collected": [],
        "seconds": {},
        "received": 0,
        "bytes": 0,
        "files_sent": 0,
        "files_failed": 0,
    }


def download_url(job: Mapping[str, Any], parameters: Mapping[str, str]) -> str:
    """The disc's own URL, with the id of the job that it is to be, for a frame of the job's page."""
    path = "/mkiso.php" if "single" in parameters and len(job["accessions"]) == 1 else "/mkiso_multiple.php"
    chosen = {"format": job["format"], "layout": job["layout"], "job": job["id"], "page": "frame"}
    of = wanted("accession_number", job["accessions"], job["studies"], job["series"])
    return f"{path}?{urlencode(of | chosen)}"
