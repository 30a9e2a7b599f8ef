"""The story of one disc, and of one relay, from accession numbers to bytes that are proven."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from mkiso.browse.shown import Part
from mkiso.config import LayoutName
from mkiso.confirm import asking
from mkiso.dcmtk.findscu import Finder
from mkiso.dicom.datasets import disc_file_name, display_name, single_file_name
from mkiso.dicom.instances import Instance
from mkiso.disc.layout import LAYOUTS, Setting, unusable
from mkiso.disc.product import Format, Product, mastering, medium, require_likely_size, require_small_files, zipping
from mkiso.disc.uncompressed import Uncompressed, uncompressed
from mkiso.errors import BadRequest, Cancelled, JobExists, NotConfigured, PacsRejected, PacsTimeout, PacsUnreachable
from mkiso.installation import Installation
from mkiso.ledger.history import search_key
from mkiso.ledger.record import JobRecord
from mkiso.password import require_password
from mkiso.process import Take
from mkiso.relay import NONE, Delivery, Relay, peer_of
from mkiso.retrieve.choosing import find_chosen
from mkiso.retrieve.inbox import Inbox
from mkiso.retrieve.receiver import RunningReceiver, Strangers
from mkiso.retrieve.retrieval import LookUp, Retrieval
from mkiso.retrieve.scu import receiving
from mkiso.retrieve.studies import Study, count_by_modality, require_instances, require_one_patient, with_instances
from mkiso.waiting import LEFT, Cancellation
from mkiso.workspace import Workspace, claimed, job_directory, require_space

Weigh = Callable[[Finder, list[Study]], None]
PATIENCE = 1.0  # for a ledger that hangs, which is to tell no more than what a disc is likely to weigh
ON_DISC, IN_PART = "on disc", "broken off"  # what became of a disc's instances


@dataclass(frozen=True)
class Order:
    """What a caller wants: the checked accession numbers, or the studies themselves, and who asks.

    `study_uids` are wanted whole, but for those of which `series_uids` names series: of these they alone. `single`
    names the disc after its only number. With a password the disc is a ZIP that needs it; raises BadRequest where it
    can be none. With `relay_id` the job is an attempt of that queued relay, which was claimed for it.
    """

    accessions: tuple[str, ...]
    requester: str
    layout: LayoutName = "pdi"
    format: Format = "iso"
    single: bool = False
    job_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    study_uids: tuple[str, ...] = ()
    series_uids: tuple[str, ...] = ()
    password: str | None = field(default=None, repr=False)
    relay_id: str | None = None

    def __post_init__(self) -> None:
        if self.password is not None:
            if self.format != "zip":
                raise BadRequest("Only a ZIP can have a password. Ask for format=zip, too, or leave the password out.")
            require_password(self.password)

    def file_name(self, patient_name: str, found: Sequence[str] = (), days: Iterable[str] = ()) -> str:
        """The name of the disc's file (contract, "File names"), by the numbers, else the days, of what was found."""
        if self.single:
            return single_file_name(self.accessions[0], self.format)
        return disc_file_name(patient_name, found or self.accessions, self.format, days)


@dataclass(frozen=True)
class Relayed:
    """A relay of which the destination acknowledged every instance.

    `patient_name` is a DICOM person name, `destination` is HOST:PORT, `accessions` are those of its studies.
    """

    patient_name: str
    destination: str
    delivery: Delivery
    accessions: tuple[str, ...] = ()


def make_disc(installation: Installation, order: Order, cancellation: Cancellation) -> Disc:
    """Retrieve, prove and master; returns when the first bytes of the disc are there.

    Raises the MkisoError that the caller is told, with nothing left behind.
    """
    if why := unusable(installation.config.media, order.layout):
        raise NotConfigured(why)
    record = installation.record_of(order.job_id, cancellation)
    with ExitStack() as held:
        job = held.enter_context(
            running_job(installation, order, cancellation, record, kind="iso", layout=order.layout, format=order.format)
        )
        studies = job.look_up()
        received = job.retrieve(studies, weigh=job.require_likely_size)
        content = job.decompress(received)
        product = held.enter_context(job.master(content))
        # From here on the disc holds what the job holds: until its last byte, or until it is closed.
        name = order.file_name(job.patient_name, job.accessions, [study.study_date for study in studies])
        return Disc(name, product, content.instances, job, held.pop_all())


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
    address = f"{to.host}:{to.port}"
    record = installation.record_of(order.job_id, cancellation, is_attempt=order.relay_id is not None)
    with running_job(installation, order, cancellation, record, kind="relay", destination=address) as job:
        opened()
        acknowledged = installation.acknowledged(order.relay_id)
        studies = job.look_up()
        sender = job.relay_to(destination)
        instances = job.retrieve(studies)
        delivery = job.send(instances, sender, acknowledged)
        record.complete()
        return Relayed(job.patient_name, address, delivery, job.accessions)


@contextmanager
def running_job(
    installation: Installation, order: Order, cancellation: Cancellation, record: JobRecord, **fields: Any
) -> Iterator[Job]:
    """A job with its directory and its row in the ledger, of which `fields` are columns.

    However the block ends, children are dead, the directory gone, the slot free and the row finished.
    """
    storage = installation.config.storage
    installation.sweep()
    open_row = partial(
        record.open,
        accessions=order.accessions,
        study_uids=order.study_uids,
        series_uids=sorted(order.series_uids),
        requester=order.requester,
        encrypted=order.password is not None,
        **fields,
    )
    with claimed(storage.work_dir, order.job_id), record, ExitStack() as held:
        try:
            workspace = held.enter_context(job_directory(storage.work_dir, order.job_id))
        except JobExists:  # the row is for the job that has the directory
            raise
        except BaseException:  # the row tells why there is none
            open_row()
            raise
        open_row()
        require_space(storage.work_dir, storage.min_free)
        yield Job(installation, order, cancellation, record, workspace)


@dataclass
class Job:
    """The steps of the story. After `look_up` it knows the patient's name, a DICOM person name, the accession numbers
    of the studies, and which of these the job has in part.
    """

    installation: Installation
    order: Order
    cancellation: Cancellation
    record: JobRecord
    workspace: Workspace
    patient_name: str = ""
    accessions: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        self._config = self.installation.config

    def look_up(self) -> list[Study]:
        """Whose studies these are, of a part an entry for each series. What fails here has cost no receiver."""
        self.record.enter("querying")
        order = self.order
        name = self._name_of(order.accessions)
        studies = find_chosen(self.finder(), order.accessions, order.study_uids, order.series_uids)
        if not self._config.patients.allow_mixed:
            require_one_patient(studies)
        numbers = (*order.accessions, *(study.accession_number for study in studies))
        self.accessions = tuple(dict.fromkeys(filter(None, numbers)))
        if not order.accessions:
            name = self._name_of(self.accessions)
        self.patient_name = studies[0].patient_name if name is None else name
        self.parts = parts_of(studies)
        self.record.enter(
            "queued",
            patient_id=studies[0].patient_id,
            patient_name=display_name(self.patient_name),
            folded=search_key(studies[0].patient_id, self.patient_name),
            accessions=list(self.accessions),
            studies=list(dict.fromkeys(study.study_uid for study in studies)),
        )
        return studies

    def _name_of(self, accessions: Sequence[str]) -> str | None:
        """The patient's name by the patient source, which knows patients by accession numbers alone."""
        if not accessions:
            return None
        return self.installation.patients.name_of(accessions[0], self.cancellation.checkpoint)

    def finder(self, meanwhile: Callable[[], None] = lambda: None) -> Finder:
        """The way to ask the archive; `meanwhile` is called while it answers."""
        return self.installation.finder(self.workspace, self.cancellation, meanwhile)

    def retrieve(
        self, studies: list[Study], look_up: LookUp = with_instances, weigh: Weigh = lambda _finder, _studies: None
    ) -> list[Instance]:
        """The instances that the archive holds of the studies, whole, and no others: those that `look_up` lists.

        They are listed while storescp starts, for that takes as long. `weigh` may refuse what is listed.
        """
        checkpoint, sweep = self.cancellation.checkpoint, self.installation.sweep
        with receiving(self._config, self.workspace, checkpoint, sweep) as receiver:
            self.record.enter("retrieving")
            retrieval = self._retrieval(studies, receiver, look_up, weigh)
            receiver.wait_until_it_listens()
            retrieval.receive()
        self.record.enter("verifying")
        return retrieval.proven()

    def require_likely_size(self, finder: Finder, studies: list[Study]) -> None:
        """Raise DiscTooLarge where an image of these would hardly keep `media.max_size`, by what was learnt so far."""
        media = self._config.media
        if media.max_size is None or self.order.format != "iso":
            return
        with suppress(PacsRejected, PacsTimeout, PacsUnreachable):  # nobody knows then, and the exact size tells later
            if sizes := self.installation.sizes.awaited(PATIENCE):
                require_likely_size(sizes, count_by_modality(finder, studies), media)

    def _retrieval(self, studies: list[Study], receiver: RunningReceiver, look_up: LookUp, weigh: Weigh) -> Retrieval:
        strangers = Strangers(receiver, Inbox(self.workspace.received, receiver.transfers), self._config)
        finder = self.finder(strangers.keep_in_bounds_sometimes)
        listed = [look_up(finder, study, False) for study in studies]
        require_instances(listed)
        weigh(finder, listed)
        self.record.note(expected=sum(len(study.instances) for study in listed))
        return Retrieval(
            self._config,
            self.installation.pacs,
            self.workspace,
            self.record,
            self.cancellation,
            strangers,
            finder,
            look_up,
            listed,
        )

    def decompress(self, instances: Sequence[Instance]) -> Uncompressed:
        """The instances as the disc is to hold them: each as it was received, but for `media.uncompressed`."""
        self.record.enter("mastering")
        if not self._config.media.uncompressed:
            return Uncompressed(tuple(instances))
        return uncompressed(instances, self._setting())

    @contextmanager
    def master(self, content: Uncompressed) -> Iterator[Product]:
        """The disc's layout, its exact size and its first bytes; the program that makes it ends with the block."""
        media, checkpoint = self._config.media, self.cancellation.checkpoint
        if self.order.format == "iso":
            require_small_files(content.instances)
        setting = replace(self._setting(), decompressed=content.decompressed, left_compressed=content.left_compressed)
        tree = LAYOUTS[self.order.layout](content.instances, setting)
        if self.order.format == "zip":
            made = zipping(media, tree.grafts, checkpoint, self.order.password)
        else:
            made = mastering(self._config.tools.genisoimage, media, tree.grafts, self.workspace.path, checkpoint)
        with made as product:
            self.record.note(
                bytes=product.size, medium=medium(product.size, self.order.format), not_indexed=tree.not_indexed
            )
            yield product

    def _setting(self) -> Setting:
        return Setting(self._config, self.workspace, self.order.format, self._checkpoint, parts=self.parts)

    def _checkpoint(self) -> None:
        self.cancellation.checkpoint()
        require_space(self._config.storage.work_dir, self._config.storage.min_free)

    def relay_to(self, name: str) -> Relay:
        """The way to a destination that answers; what fails here has moved nothing.

        Raises DestinationUnreachable, and NotConfigured where it cannot be asked what it has.
        """
        destination = self._config.destination(name)
        peer, dcmtk_dir = peer_of(destination, self._config.retrieve), self._config.tools.dcmtk_dir
        relay = Relay(
            name,
            destination,
            peer,
            dcmtk_dir,
            self.workspace,
            self.cancellation,
            on_progress=self._sent,
            on_outcomes=self.record.hand_out,
            leash=self.record.leash,
            ask=asking(self._config, destination, peer, self.workspace, self.cancellation.checkpoint),
        )
        relay.require_reachable()
        return relay

    def send(self, instances: list[Instance], relay: Relay, acknowledged: Mapping[str, int] = NONE) -> Delivery:
        """Every instance sent, acknowledged, and confirmed where the destination is to do so.

        What was `acknowledged` before is not sent (`Relay.deliver`). Raises DestinationUnreachable, RelayFailed,
        NotConfirmed, Cancelled.
        """
        self.record.enter("sending", bytes=sum(one.bytes for one in instances))
        delivery = relay.deliver(instances, acknowledged)
        self.record.note(files_sent=delivery.sent, files_failed=delivery.failed, confirmed=delivery.confirmed)
        if delivery.failed:
            self.cancellation.checkpoint()
        relay.require_all(delivery)
        return delivery

    def _sent(self, count: int) -> None:
        self.record.note(files_sent=count)


def parts_of(studies: Sequence[Study]) -> tuple[Part, ...]:
    """The studies of which not all series are wanted."""
    wanted = Counter(study.study_uid for study in studies if study.series_uid is not None)
    known = {study.study_uid: study for study in studies}
    parts = (
        Part(study.study_date, study.description, wanted[uid], study.counted_series or 0)
        for uid, study in known.items()
        if uid in wanted
    )
    return tuple(part for part in parts if part.series < part.of)


class Disc:
    """A proven disc: its name, its size in bytes, and its bytes, once. `held` is what its job holds meanwhile.

    Where there is a `take`, it is given most of the bytes as they are written (`Product.chunks`).
    """

    take: Take | None = None

    def __init__(
        self, file_name: str, product: Product, instances: Sequence[Instance], job: Job, held: ExitStack
    ) -> None:
        self.file_name = file_name
        self.size = product.size
        self._product, self._instances, self._job, self._held = product, instances, job, held
        self._chunks = self._stream()

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        """End what is left of the job: before the last byte, the client has left."""
        with suppress(Cancelled):
            self._chunks.close()
        with suppress(Cancelled), self._held:  # of a disc of which no byte was asked for; else nothing is held any more
            raise Cancelled(LEFT)

    def _stream(self) -> Generator[bytes]:
        """The last chunk leaves when the disc was made to its end and the job is cleaned up, and not before.

        The ledger then has what left the house: all instances, none, or, of a disc that broke off, a part of them.
        """
        cancellation, record = self._job.cancellation, self._job.record
        last, outcome = b"", None
        with self._held:
            try:
                for chunk in self._product.chunks(self.take):
                    cancellation.checkpoint()
                    if last:  # the first: what fails until the second is there has a status of its own
                        outcome = IN_PART
                        yield last
                    last = chunk
                    if outcome and self._product.left:
                        yield last
                        last = b""
                outcome = ON_DISC
            except GeneratorExit:
                cancellation.checkpoint()
                raise Cancelled(LEFT) from None
            finally:
                if outcome:
                    record.hand_out((one.row(outcome) for one in self._instances), is_all=True)
            record.complete()
        yield last
