"""What every job of a service or a command shares: the configuration, the ledger, and the way to the archive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from mkiso.cancellation import Cancellation
from mkiso.checks import Readiness
from mkiso.config import Config, Storage
from mkiso.dcmtk.association import Peer
from mkiso.dcmtk.findscu import Finder
from mkiso.last import Last
from mkiso.ledger.glance import Glance
from mkiso.ledger.ledger import Ledger
from mkiso.ledger.pulse import Pulse
from mkiso.patients import patient_source
from mkiso.retrieve.studies import Study, find_studies, studies_of, with_instances, with_modalities
from mkiso.status import look
from mkiso.workspace import Workspace, identity, job_directory, living_jobs, require_space, sweep


def archive_of(config: Config) -> Peer:
    """The archive as this host calls it."""
    pacs, retrieve = config.pacs, config.retrieve
    return Peer(pacs.ae_title, pacs.host, pacs.port, retrieve.calling_ae_title, retrieve.connect_timeout)


def ledger_of(storage: Storage) -> Ledger:
    """The ledger of this host's jobs; ConfigurationError where it can never be opened."""
    work_dir = storage.work_dir
    return Ledger(storage.ledger.get_secret_value(), partial(identity, work_dir), partial(living_jobs, work_dir))


class Installation:
    """Raises ConfigurationError where the ledger or the patient source can never be used."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.patients = patient_source(config.patients)
        self.ledger = ledger_of(config.storage)
        self.pulse = Pulse(self.ledger)
        self.glance = Glance(self.ledger.history)
        self.status = Last(lambda: look(config, self.pacs, self.ledger), renewed=10, oldest=30)
        self.readiness = Last(Readiness(config, self.pacs, self.ledger).look, renewed=5, oldest=10)

    @property
    def pacs(self) -> Peer:
        return archive_of(self.config)

    def finder(
        self, workspace: Workspace, cancellation: Cancellation, meanwhile: Callable[[], None] = lambda: None
    ) -> Finder:
        """The way to ask the archive; `meanwhile` is asked while it answers."""
        tools, timeout, storage = self.config.tools.dcmtk_dir, self.config.retrieve.query_timeout, self.config.storage

        def check() -> None:
            cancellation.check()
            meanwhile()
            require_space(storage.work_dir, storage.min_free, meanwhile)

        return Finder(tools, self.pacs, timeout, workspace.path, check)

    def studies(self, accessions: Sequence[str], cancellation: Cancellation, query_id: str) -> list[Study]:
        """What the archive holds for the accession numbers; nothing is moved, and no job is recorded.

        `query_id` is a UUID that names the query's directory.
        """
        with job_directory(self.config.storage.work_dir, query_id) as workspace:
            finder = self.finder(workspace, cancellation)
            return [_described(finder, study) for study in find_studies(finder, accessions)]

    def look_up(self, accessions: Sequence[str], cancellation: Cancellation, query_id: str) -> dict[str, list[Study]]:
        """As `studies`, by accession number, with none for a number that the archive does not know."""
        with job_directory(self.config.storage.work_dir, query_id) as workspace:
            finder = self.finder(workspace, cancellation)
            return {one: [_described(finder, study) for study in studies_of(finder, one)] for one in accessions}

    def sweep(self) -> list[str]:
        """Clear away what jobs left behind whose process died; their ids. The ledger learns of it a little later."""
        if swept := sweep(self.config.storage.work_dir):
            self.pulse.beat_now()
        return swept

    def clear_away(self) -> list[str]:
        """As `sweep`, and the ledger knows of it: the ids of all jobs that were found dead.

        Raises LedgerUnavailable or DiskFull, with the directories swept.
        """
        return sorted({*self.sweep(), *self.ledger.abandon()})


def _described(finder: Finder, study: Study) -> Study:
    return with_modalities(finder, with_instances(finder, study))
