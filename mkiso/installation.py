"""What every job of a service or a command shares: the configuration, the ledger, and the way to the archive.

And how the service is: the archive, the receivers, the queue and the disk, looked at beside whoever asks.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from mkiso.checks import Readiness, pacs_answers
from mkiso.config import Config, Storage
from mkiso.dcmtk.association import Peer
from mkiso.dcmtk.findscu import Finder
from mkiso.dcmtk.sending import Outcome
from mkiso.errors import ConfigurationError
from mkiso.ledger.ledger import Ledger
from mkiso.ledger.record import AttemptRecord, JobRecord, Writer
from mkiso.ledger.relays import Claim
from mkiso.patients import patient_source
from mkiso.retrieve.receiver import taken
from mkiso.retrieve.search import PatientQuery, SearchResult, search
from mkiso.retrieve.studies import (
    Series,
    Study,
    counted_series,
    find_by_uid,
    find_studies,
    series_of,
    studies_of,
    with_instances,
    with_modalities,
)
from mkiso.waiting import Cancellation, lack
from mkiso.workspace import Workspace, identity, job_directory, leash_of, living_jobs, require_space, sweep

T = TypeVar("T")
ARRIVED = tuple(one.value for one in Outcome if one.arrived)
log = logging.getLogger("mkiso.installation")


class Cached(Generic[T]):
    """What a look found, at which a thread looks again, one at a time, whoever asks and however often.

    Asking begins a look where the last one is more than `renewed` seconds old and none is under way. What was found is
    as old as its look's beginning, and given until it is `oldest` seconds old.
    """

    def __init__(self, look: Callable[[], T], renewed: float, oldest: float) -> None:
        self._look, self.renewed, self.oldest = look, renewed, oldest
        self._found: tuple[T, float] | None = None
        self._beginning = threading.Lock()
        self._thread: threading.Thread | None = None

    def known(self, oldest: float | None = None) -> T | None:
        """What is known now, without waiting; None where nothing is, or nothing so young."""
        if self._is_due():
            self._begin()
        return self._young(self.oldest if oldest is None else oldest)

    def awaited(self, seconds: float) -> T | None:
        """As `known`; where nothing is known, it waits so many seconds at most for the look under way."""
        known, thread = self.known(), self._thread
        if known is not None or thread is None:
            return known
        thread.join(seconds)
        return self._young(self.oldest)

    def _is_due(self) -> bool:
        found = self._found
        return found is None or _age(found) > self.renewed

    def _begin(self) -> None:
        with self._beginning:  # another's look may have ended while this was waited for
            if self._is_due() and (self._thread is None or not self._thread.is_alive()):
                thread = threading.Thread(target=self._renew, name="look", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # whoever asks next begins it
                    if not lack(error):
                        raise
                else:
                    self._thread = thread

    def _renew(self) -> None:
        began = time.monotonic()
        try:
            self._found = self._look(), began
        except Exception as error:  # the boundary: nothing is known then
            log.warning("the state of the service is not known", extra={"fields": {"error": type(error).__name__}})

    def _young(self, oldest: float) -> T | None:
        found = self._found
        return found[0] if found is not None and _age(found) <= oldest else None


def _age(found: tuple[object, float]) -> float:
    return time.monotonic() - found[1]


@dataclass(frozen=True)
class Status:
    """`waiting` are jobs of this host, `free` is in bytes."""

    pacs: bool
    busy: int
    receivers: int
    waiting: int
    free: int


def look(config: Config, pacs: Peer, ledger: Ledger) -> Status:
    """The state now; takes the archive's time. Raises LedgerUnavailable, DiskFull, OSError."""
    work_dir, ours = config.storage.work_dir, identity(config.storage.work_dir)
    return Status(
        pacs=pacs_answers(config, pacs).ok,
        busy=taken(work_dir, config.move_destinations),
        receivers=len(config.move_destinations),
        waiting=ledger.history.queue(ours),
        free=shutil.disk_usage(work_dir).free,
    )


def archive_of(config: Config) -> Peer:
    """The archive as this host calls it."""
    pacs, retrieve = config.pacs, config.retrieve
    return Peer(pacs.ae_title, pacs.host, pacs.port, retrieve.calling_ae_title, retrieve.connect_timeout)


def ledger_of(storage: Storage) -> Ledger:
    """The ledger of this host's jobs; ConfigurationError where it can never be opened."""
    work_dir = storage.work_dir
    return Ledger(storage.ledger.get_secret_value(), partial(identity, work_dir), partial(_living, work_dir))


def _living(work_dir: Path) -> set[str]:
    """The ids of the jobs that have a process; of any other, no program runs any more: the next attempt of a relay may
    begin as soon as one is told to be dead.
    """
    with suppress(ConfigurationError, OSError):
        sweep(work_dir)
    return living_jobs(work_dir)


class Installation:
    """Raises ConfigurationError where the ledger or the patient source can never be used."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.patients = patient_source(config.patients)
        self.ledger = ledger_of(config.storage)
        self.writer = Writer(self.ledger)
        self.status = Cached(lambda: look(config, self.pacs, self.ledger), renewed=10, oldest=30)
        self.sizes = Cached(self.ledger.sizes, renewed=60, oldest=3600)
        self.readiness = Cached(Readiness(config, self.pacs, self.ledger).look, renewed=5, oldest=10)

    @property
    def pacs(self) -> Peer:
        return archive_of(self.config)

    def finder(
        self, workspace: Workspace, cancellation: Cancellation, meanwhile: Callable[[], None] = lambda: None
    ) -> Finder:
        """The way to ask the archive; `meanwhile` is called while it answers, and ends the query by raising."""
        tools, timeout, storage = self.config.tools.dcmtk_dir, self.config.retrieve.query_timeout, self.config.storage

        def checkpoint() -> None:
            cancellation.checkpoint()
            meanwhile()
            require_space(storage.work_dir, storage.min_free, meanwhile)

        return Finder(tools, self.pacs, timeout, workspace.path, checkpoint)

    def studies(self, accessions: Sequence[str], cancellation: Cancellation, query_id: str) -> list[Study]:
        """What the archive holds for the accession numbers; nothing is moved, and no job is recorded.

        `query_id` is a UUID that names the query's directory.
        """
        with self._asking(cancellation, query_id) as finder:
            return [_described(finder, study) for study in find_studies(finder, accessions)]

    def look_up(self, accessions: Sequence[str], cancellation: Cancellation, query_id: str) -> dict[str, list[Study]]:
        """As `studies`, by accession number, with none for a number that the archive does not know.

        One that it knows in capitals alone is taken, and given, so.
        """
        found: dict[str, list[Study]] = {}
        with self._asking(cancellation, query_id) as finder:
            for typed in accessions:
                for number in dict.fromkeys((typed, typed.upper())):
                    if studies := studies_of(finder, number):
                        found[number] = [_described(finder, study) for study in studies]
                        break
                else:
                    found[typed] = []
        return found

    def look_up_studies(self, study_uids: Sequence[str], cancellation: Cancellation, query_id: str) -> list[Study]:
        """As `studies`, of Study Instance UIDs. Raises StudyNotFound."""
        with self._asking(cancellation, query_id) as finder:
            return [_described(finder, study) for study in find_by_uid(finder, study_uids)]

    def search(self, query: PatientQuery, cancellation: Cancellation, query_id: str) -> SearchResult:
        """The studies that the archive finds for a patient or for days, as it describes them itself."""
        with self._asking(cancellation, query_id) as finder:
            return search(finder, query)

    def series_of(
        self, study_uids: Sequence[str], cancellation: Cancellation, query_id: str
    ) -> dict[str, list[Series]]:
        """The series of each study, as the archive describes them: a query for each."""
        with self._asking(cancellation, query_id) as finder:
            return {study_uid: series_of(finder, study_uid) for study_uid in study_uids}

    def counted_series(self, study_uids: Sequence[str], cancellation: Cancellation, query_id: str) -> list[Series]:
        """As `series_of`, each with how many instances it has. Raises StudyNotFound."""
        with self._asking(cancellation, query_id) as finder:
            return [series for study_uid in study_uids for series in counted_series(finder, study_uid)]

    @contextmanager
    def _asking(self, cancellation: Cancellation, query_id: str) -> Iterator[Finder]:
        with job_directory(self.config.storage.work_dir, query_id) as workspace:
            yield self.finder(workspace, cancellation)

    def record_of(self, job_id: str, cancellation: Cancellation, *, is_attempt: bool = False) -> JobRecord:
        """The record of a job that is to be opened, or, of a queued relay's attempt, was when it was claimed."""
        if not is_attempt:
            return JobRecord(self.writer, job_id, cancellation)
        leash = leash_of(self.config.storage.work_dir, job_id) if self.ledger.is_shared else None
        return AttemptRecord(self.writer, job_id, cancellation, leash)

    def queue_relay(self, relay_id: str, destination: str, requester: str, asked: Sequence[Sequence[str]]) -> None:
        """Have a relay sent in its turn, of these accession numbers, study UIDs and series UIDs; it is durable.

        Raises NotConfigured or BadRequest for the destination, JobExists for the id.
        """
        self.config.destination(destination)
        numbers, studies, series = asked
        self.ledger.relays.add(
            *(relay_id, destination, numbers),
            study_uids=studies,
            series_uids=series,
            requester=requester,
            give_up=self.config.relay.give_up,
        )

    def claim_relay(self, job_id: str) -> Claim | None:
        """The queued relay whose turn it is, which runs from here on as the job of this id; None where none is due."""
        destinations = self.config.destinations
        addresses = {name: f"{one.host}:{one.port}" for name, one in destinations.items()}
        return self.ledger.claim_relay(job_id, self.parallel, addresses)

    def cancel_relay(self, relay_id: str, by: str) -> None:
        """End a queued relay, or have the attempt of it that runs stop; `by` is a requester. Raises RelayNotFound."""
        if job_id := self.ledger.relays.cancel(relay_id, by):
            self.ledger.request_cancel(job_id, by)

    def acknowledged(self, relay_id: str | None) -> dict[str, int]:
        """What the attempts of a queued relay have had acknowledged: bytes by SOP Instance UID."""
        return {} if relay_id is None else self.ledger.relays.handed_out(relay_id, ARRIVED)

    @property
    def parallel(self) -> dict[str, int]:
        """How many queued relays may run at once to each destination."""
        return {name: one.parallel for name, one in self.config.destinations.items()}

    def sweep(self) -> list[str]:
        """Clear away what jobs left behind whose process died; their ids. The ledger learns of it a little later."""
        if swept := sweep(self.config.storage.work_dir):
            self.writer.beat_now()
        return swept

    def clear_away(self) -> list[str]:
        """As `sweep`, and the ledger knows of it: the ids of all jobs that were found dead.

        Raises LedgerUnavailable or DiskFull, with the directories swept.
        """
        return sorted({*self.sweep(), *self.ledger.abandon()})


def _described(finder: Finder, study: Study) -> Study:
    return with_modalities(finder, with_instances(finder, study))
