"""The story of one disc, and of one relay, from accession numbers to bytes that are proven."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from mkiso.clock import Cancellation
from mkiso.config import LayoutName
from mkiso.dcmtk.findscu import Finder
from mkiso.dicom.datasets import disc_file_name, display_name, single_file_name
from mkiso.dicom.instances import Instance
from mkiso.disc.iso import mastering, require_small_files
from mkiso.disc.layout import LAYOUTS, unusable
from mkiso.disc.product import Format, Graft, Product, Setting, medium
from mkiso.disc.uncompressed import uncompressed
from mkiso.disc.zip import zipping
from mkiso.errors import Cancelled, NotConfigured
from mkiso.installation import Installation
from mkiso.ledger.record import JobRecord
from mkiso.relay import Delivery, Relay, peer_of
from mkiso.retrieve.inbox import Inbox
from mkiso.retrieve.receiver import RunningReceiver, receiver_slot, started_receiver
from mkiso.retrieve.retrieval import Retrieval
from mkiso.retrieve.strangers import Strangers
from mkiso.retrieve.studies import (
    Study,
    find_studies,
    require_instances,
    require_one_patient,
    with_all_patients,
    with_instances,
)
from mkiso.workspace import claimed, job_directory, require_space

ON_DISC, IN_PART = "on disc", "broken off"  # what became of a disc's instances


@dataclass(frozen=True)
class Order:
    """What a caller wants: the checked accession numbers, and who asks.

    `single` names the disc after its only number.
    """

    accessions: tuple[str, ...]
    requester: str
    layout: LayoutName = "pdi"
    format: Format = "iso"
    single: bool = False
    job_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def file_name(self, patient_name: str) -> str:
        """The name of the disc's file (contract, "File names")."""
        if self.single:
            return single_file_name(self.accessions[0], self.format)
        return disc_file_name(patient_name, self.accessions, self.format)


@dataclass(frozen=True)
class Relayed:
    """A relay of which the destination acknowledged every instance.

    `patient_name` is a DICOM person name, `destination` is HOST:PORT.
    """

    patient_name: str
    destination: str
    delivery: Delivery


def make_disc(installation: Installation, order: Order, cancellation: Cancellation) -> Disc:
    """Retrieve, prove and master; returns when the first bytes of the disc are there.

    Raises the MkisoError that the caller is told, with nothing left behind.
    """
    if why := unusable(installation.config.media, order.layout):
        raise NotConfigured(why)
    with Job(installation, order, cancellation, kind="iso", layout=order.layout, format=order.format) as job:
        studies = job.look_up()
        instances = job.decompress(job.retrieve(studies))
        product = job.master(instances)
        return Disc(order.file_name(job.patient_name), product, job, instances)


def relay(
    installation: Installation,
    order: Order,
    destination: str,
    cancellation: Cancellation,
    opened: Callable[[], None] = lambda: None,
) -> Relayed:
    """Retrieve and prove everything, then send it to a destination of the configuration.

    `opened` is called when the job is in the ledger. Raises the MkisoError that the caller is told;
    the ledger then knows what became of each instance.
    """
    to = installation.config.destination(destination)
    with Job(installation, order, cancellation, kind="relay", destination=f"{to.host}:{to.port}") as job:
        opened()
        studies = job.look_up()
        sender = job.relay_to(destination)
        instances = job.retrieve(studies)
        delivery = job.send(instances, sender)
        job.record.complete()
        return Relayed(job.patient_name, f"{to.host}:{to.port}", delivery)


class Job:
    """One job while it runs: its row in the ledger, its directory, and the steps of the story.

    However the block ends, children are dead, the directory gone, the slot free and the row finished.
    """

    recorded_by = JobRecord

    def __init__(self, installation: Installation, order: Order, cancellation: Cancellation, **fields: Any) -> None:
        self.cancellation = cancellation
        self._installation = installation
        self._config = installation.config
        self._order = order
        self._fields = fields
        self._acquired = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as acquiring:
            order, storage = self._order, self._config.storage
            self._installation.sweep()
            acquiring.enter_context(claimed(storage.work_dir, order.job_id))
            self.record = acquiring.enter_context(
                self.recorded_by(self._installation.pulse, order.job_id, self.cancellation)
            )
            try:
                self._workspace = acquiring.enter_context(job_directory(storage.work_dir, order.job_id))
            finally:  # without a directory, too: the row tells why
                self.record.open(accessions=order.accessions, requester=order.requester, **self._fields)
            require_space(storage.work_dir, storage.min_free)
            self._acquired = acquiring.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._acquired.__exit__(kind, error, trace)

    def keep_open(self) -> ExitStack:
        """What the job holds, for a disc that outlives the block."""
        return self._acquired.pop_all()

    def look_up(self) -> list[Study]:
        """Whose studies these are. What fails here has cost no receiver."""
        self.record.enter("querying")
        name = self._installation.patients.name_of(self._order.accessions[0], self.cancellation.checkpoint)
        studies = find_studies(self._installation.finder(self._workspace, self.cancellation), self._order.accessions)
        if not self._config.patients.allow_mixed:
            require_one_patient(studies)
        self.patient_name = studies[0].patient_name if name is None else name
        self.record.enter(
            "queued",
            patient_id=studies[0].patient_id,
            patient_name=display_name(self.patient_name),
            studies=[study.study_uid for study in studies],
        )
        return studies

    def retrieve(self, studies: list[Study]) -> list[Instance]:
        """The instances that the archive holds of the studies, whole, and no others.

        Which those are is asked while storescp starts, for that takes as long.
        """
        config, work_dir = self._config, self._config.storage.work_dir
        limit = config.retrieve.queue_timeout
        with ExitStack() as held:
            free = held.enter_context(receiver_slot(work_dir, config.receivers, limit, self.cancellation.checkpoint))
            self._installation.sweep()  # whoever held the slot before may have been killed, and its receiver still run
            receiver = held.enter_context(started_receiver(config.tools, free, config.retrieve, self._workspace))
            self.record.enter("retrieving")
            retrieval = self._retrieval(studies, receiver)
            receiver.wait_until_it_listens()
            retrieval.receive()
        self.record.enter("verifying")
        return retrieval.proven()

    def decompress(self, instances: list[Instance]) -> list[Instance]:
        """The instances as the disc is to hold them: each as it was received, but for `media.uncompressed`."""
        self.record.enter("mastering")
        setting = self._setting = Setting(self._config, self._workspace, self._order.format, self._checkpoint)
        if not self._config.media.uncompressed:
            return instances
        plain = uncompressed(instances, setting)
        self._setting = replace(setting, decompressed=plain.decompressed, left_compressed=plain.left_compressed)
        return list(plain.instances)

    def master(self, instances: list[Instance]) -> Product:
        """The disc's layout, its exact size and its first bytes."""
        if self._order.format == "iso":
            require_small_files(instances)
        tree = LAYOUTS[self._order.layout](instances, self._setting)
        product = self._acquired.enter_context(self._made(tree.grafts))
        self.record.note(bytes=product.size, medium=medium(product.size), not_indexed=tree.not_indexed)
        return product

    def _made(self, grafts: list[Graft]) -> AbstractContextManager[Product]:
        media, checkpoint = self._config.media, self.cancellation.checkpoint
        if self._order.format == "zip":
            return zipping(media, grafts, checkpoint)
        return mastering(self._config.tools.genisoimage, media, grafts, self._workspace.path, checkpoint)

    def _checkpoint(self) -> None:
        self.cancellation.checkpoint()
        require_space(self._config.storage.work_dir, self._config.storage.min_free)

    def relay_to(self, name: str) -> Relay:
        """The way to a destination that answers; what fails here has moved nothing. Raises DestinationUnreachable."""
        destination = self._config.destination(name)
        peer, dcmtk_dir = peer_of(destination, self._config.retrieve), self._config.tools.dcmtk_dir
        relay = Relay(name, destination, peer, dcmtk_dir, self._workspace, self.cancellation, self._sent)
        relay.require_reachable()
        return relay

    def send(self, instances: list[Instance], relay: Relay) -> Delivery:
        """Every instance sent, and acknowledged; raises DestinationUnreachable, RelayFailed, Cancelled."""
        self.record.enter("sending", bytes=sum(one.bytes for one in instances))
        delivery = relay.deliver(instances)
        self.record.hand_out(one.row(delivery.outcomes[one.sop_instance_uid].outcome.value) for one in instances)
        self.record.note(files_sent=delivery.sent, files_failed=delivery.failed)
        if delivery.failed:
            self.cancellation.checkpoint()
        relay.require_all(delivery)
        return delivery

    def _sent(self, count: int) -> None:
        self.record.note(files_sent=count)

    def _retrieval(self, studies: list[Study], receiver: RunningReceiver) -> Retrieval:
        inbox = Inbox(self._workspace.received, receiver.transfers)
        strangers = Strangers(receiver, inbox, self._config)
        finder = self._installation.finder(self._workspace, self.cancellation, strangers.keep_in_bounds_sometimes)
        wanted = [self._wanted(finder, study) for study in studies]
        require_instances(wanted)
        self.record.note(expected=sum(len(study.instances) for study in wanted))
        return Retrieval(
            self._config,
            self._installation.pacs,
            self._workspace,
            self.record,
            self.cancellation,
            strangers,
            wanted,
            look_up_again=lambda study: self._wanted(finder, study, by_series=True),
            with_all_patients=lambda study: with_all_patients(finder, study),
        )

    def _wanted(self, finder: Finder, study: Study, by_series: bool = False) -> Study:
        """The study with the instances that are to arrive."""
        return with_instances(finder, study, by_series)


class Disc:
    """A proven disc: its name, its size in bytes, and its bytes, once. `close` ends what is left of the job."""

    def __init__(self, file_name: str, product: Product, job: Job, instances: Sequence[Instance]) -> None:
        self.file_name = file_name
        self.size = product.size
        self._instances = instances
        self._held = job.keep_open()
        self._chunks = self._stream(product, job)

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        with suppress(Cancelled):
            self._chunks.close()
        self._held.close()

    def _stream(self, product: Product, job: Job) -> Generator[bytes]:
        """The last chunk leaves when the disc was made to its end and the job is cleaned up, and not before.

        The ledger then has what left the house: all instances, none, or, of a disc that broke off, a part of them.
        """
        last, outcome = b"", None
        with self._held:
            try:
                for chunk in product.chunks():
                    job.cancellation.checkpoint()
                    if last:
                        outcome = IN_PART
                        yield last
                    last = chunk
                outcome = ON_DISC
            except GeneratorExit:
                job.cancellation.checkpoint()
                raise
            finally:
                if outcome:
                    job.record.hand_out(one.row(outcome) for one in self._instances)
            job.record.complete()
        yield last
