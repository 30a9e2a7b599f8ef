"""The story of one disc, from accession numbers to bytes that are proven, and of one relay."""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from mkiso.cancellation import Cancellation
from mkiso.config import Config, LayoutName
from mkiso.dcmtk.association import Peer
from mkiso.dcmtk.findscu import Finder
from mkiso.disc.image import Image, image_size, mastering, require_small_files
from mkiso.disc.layouts import LAYOUTS
from mkiso.errors import BadRequest, Cancelled, JobExists
from mkiso.instances import Instance
from mkiso.ledger import Ledger
from mkiso.names import disc_file_name, display_name, single_file_name
from mkiso.receiver import running_receiver
from mkiso.record import JobRecord
from mkiso.retrieval import Retrieval
from mkiso.slots import receiver_slot
from mkiso.studies import (
    Study,
    find_studies,
    require_instances,
    require_one_patient,
    with_instances,
    with_modalities,
)
from mkiso.workspace import Workspace, job_directory, living_jobs, require_space, sweep


@dataclass(frozen=True)
class Order:
    """What a caller wants: the checked accession numbers, and who asks; `single` names the disc after its number."""

    accessions: tuple[str, ...]
    requester: str
    layout: LayoutName = "legacy"
    single: bool = False
    job_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def file_name(self, patient_name: str) -> str:
        """The name of the disc's ISO (contract, "File names")."""
        if self.single:
            return single_file_name(self.accessions[0])
        return disc_file_name(patient_name, self.accessions)


class Disc:
    """A proven disc: its name, its size in bytes, and its bytes, once. `close` ends what is left of the job."""

    def __init__(
        self, file_name: str, image: Image, job: ExitStack, record: JobRecord, cancellation: Cancellation
    ) -> None:
        self.file_name = file_name
        self.size = image.size
        self._job = job
        self._cancellation = cancellation
        self._chunks = self._stream(image, record)

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        with suppress(Cancelled):
            self._chunks.close()
        self._job.close()

    def _stream(self, image: Image, record: JobRecord) -> Generator[bytes]:
        """The last chunk leaves when genisoimage has ended well and the job is cleaned up, and not before."""
        last = b""
        with self._job:
            try:
                for chunk in image.chunks():
                    self._cancellation.check()
                    if last:
                        yield last
                    last = chunk
            except GeneratorExit:
                self._cancellation.check()
                raise
            record.complete()
        yield last


class House:
    """The service's or a command's rooms: the configuration and the ledger, passed to every job."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.ledger = Ledger(config.storage.ledger.get_secret_value(), config.storage.work_dir)
        retrieve = config.retrieve
        self.pacs = Peer(
            config.pacs.ae_title,
            config.pacs.host,
            config.pacs.port,
            retrieve.calling_ae_title,
            retrieve.connect_timeout,
        )

    def make_disc(self, order: Order, cancellation: Cancellation) -> Disc:
        """Retrieve, prove and master; returns when the first bytes of the disc are there.

        Raises the MkisoError that the caller is told, with nothing left behind.
        """
        if order.layout not in LAYOUTS:
            raise BadRequest(f"This version makes no disc with the layout {order.layout}. Leave layout out.")
        with ExitStack() as job:
            record = self._open(order, job, kind="iso", layout=order.layout)
            workspace = self._workspace(order, job)
            studies = self._look_up(order, record, workspace, cancellation)
            instances = self._retrieve(studies, record, workspace, cancellation)
            image = self._master(order, instances, record, workspace, job)
            self.ledger.hand_out(order.job_id, instances)
            return Disc(order.file_name(studies[0].patient_name), image, job.pop_all(), record, cancellation)

    def finder(self, workspace: Workspace, cancellation: Cancellation) -> Finder:
        tools, timeout = self.config.tools.dcmtk_dir, self.config.retrieve.query_timeout
        return Finder(tools, self.pacs, timeout, workspace.path, cancellation.check)

    def studies(self, accessions: Sequence[str], cancellation: Cancellation) -> list[Study]:
        """What the archive holds for the accession numbers; nothing is moved, and no job is recorded."""
        with job_directory(self.config.storage.work_dir, str(uuid.uuid4())) as workspace:
            finder = self.finder(workspace, cancellation)
            return [with_modalities(finder, study) for study in find_studies(finder, accessions)]

    def sweep(self) -> list[str]:
        """Clear away what jobs left behind whose process died; the ids of those jobs."""
        work_dir = self.config.storage.work_dir
        swept = sweep(work_dir)
        return sorted({*swept, *self.ledger.abandon(living_jobs(work_dir))})

    def _open(self, order: Order, job: ExitStack, **fields: str) -> JobRecord:
        self.ledger.open_job(order.job_id, accessions=order.accessions, requester=order.requester, **fields)
        return job.enter_context(JobRecord(self.ledger, order.job_id))

    def _workspace(self, order: Order, job: ExitStack) -> Workspace:
        storage = self.config.storage
        sweep(storage.work_dir)
        require_space(storage.work_dir, storage.min_free)
        try:
            return job.enter_context(job_directory(storage.work_dir, order.job_id))
        except FileExistsError:
            raise JobExists(f"A job {order.job_id} is running. Choose another UUID, or none.") from None

    def _look_up(
        self, order: Order, record: JobRecord, workspace: Workspace, cancellation: Cancellation
    ) -> list[Study]:
        """Whose studies these are, and which instances must arrive. What fails here has cost no receiver."""
        record.enter("querying")
        studies = find_studies(self.finder(workspace, cancellation), order.accessions)
        if not self.config.patients.allow_mixed:
            require_one_patient(studies)
        require_instances(studies)
        first = studies[0]
        record.enter(
            "queued",
            patient_id=first.patient_id,
            patient_name=display_name(first.patient_name),
            studies=[study.study_uid for study in studies],
            expected=sum(len(study.instances) for study in studies),
        )
        return studies

    def _retrieve(
        self, studies: list[Study], record: JobRecord, workspace: Workspace, cancellation: Cancellation
    ) -> list[Instance]:
        """The instances that the archive holds of the studies, whole, and no others."""
        config = self.config
        finder = self.finder(workspace, cancellation)
        retrieval = Retrieval(
            config,
            self.pacs,
            workspace,
            record,
            cancellation,
            studies,
            look_up_again=lambda study: with_instances(finder, study),
        )
        limit = config.retrieve.queue_timeout
        with receiver_slot(config.storage.work_dir, config.receivers, limit, cancellation.check) as free:
            record.enter("retrieving")
            with running_receiver(config.tools, free, config.retrieve, workspace) as receiver:
                retrieval.receive(receiver)
        record.enter("verifying")
        return retrieval.proven()

    def _master(
        self, order: Order, instances: list[Instance], record: JobRecord, workspace: Workspace, job: ExitStack
    ) -> Image:
        """The disc's layout, its exact size and its first bytes."""
        genisoimage, media = self.config.tools.genisoimage, self.config.media
        require_small_files(instances)
        grafts = LAYOUTS[order.layout](instances, workspace.disc)
        size = image_size(genisoimage, media, grafts)
        record.enter("mastering", bytes=size)
        return job.enter_context(mastering(genisoimage, media, grafts, size, workspace.path))
