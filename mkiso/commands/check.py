"""`mkiso check`: is everything there that a disc needs? One line for each thing that must be.

With `--accession` a disc of one series is made, step by step, and handed to nobody; with `--measure` all of its
studies are moved again and again, with so many C-MOVEs at once.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from mkiso.addresses import advice, bind_error
from mkiso.checks import Check, Wrong, checked, directories, logo, of_ledger, peer_answers, readable, tools
from mkiso.commands.jobs import requester
from mkiso.config import Config, Destination, Receiver, Tls
from mkiso.confirm import query_peer, require_commitment
from mkiso.dcmtk.association import Peer
from mkiso.dcmtk.findscu import Finder
from mkiso.dcmtk.storescp import faults, periods, too_open
from mkiso.dicom.datasets import display_name
from mkiso.dicom.instances import Instance
from mkiso.disc.layout import unusable
from mkiso.disc.product import image_size, medium
from mkiso.errors import AccessionNotFound
from mkiso.installation import Installation, archive_of, ledger_of
from mkiso.job import Job, Order, running_job
from mkiso.ledger.record import Unrecorded
from mkiso.patients import patient_source
from mkiso.relay import peer_of
from mkiso.retrieve.moves import FEWEST, LEAST, by_series
from mkiso.retrieve.receiver import slot_is_taken
from mkiso.retrieve.studies import Study, find_studies, of_one_series, require_one_patient, with_instances
from mkiso.waiting import Cancellation, Stopwatch
from mkiso.workspace import PREFIX, ownership

NOBODYS = "MKISO.CHECK"
MEASURED = (1, 2, 4, 8)  # C-MOVEs, or C-GETs, at once
LESS = 1.1  # times as fast is worth no further C-MOVE
SLOW = 0.5  # seconds


def checks(config: Config) -> Iterator[Check]:
    """Every check, each made when it is asked for, whatever became of those before it."""
    yield from tools(config)
    yield from directories(config)
    if config.media.viewer_dir:
        yield checked("media.viewer_dir", partial(_viewer, config, config.media.viewer_dir))
    if config.server.logo_file:
        yield checked("server.logo_file", partial(logo, config.server.logo_file))
    yield from of_ledger(config, partial(ledger_of, config.storage))
    for receiver in config.move_destinations:
        yield checked(f"receiver {receiver.ae_title}", partial(_port, config, receiver))
        if receiver.tls:
            yield checked(f"receiver {receiver.ae_title} tls", partial(_tls, receiver.tls))
    yield checked("server.bind", partial(_bind, config))
    yield checked("host name", _host_name)
    yield checked("pacs", partial(peer_answers, config, archive_of(config)))
    yield checked("patients.source", partial(_patient_source, config))
    for name, destination in config.destinations.items():
        peer = peer_of(destination, config.retrieve)
        yield checked(f"destination {name}", partial(peer_answers, config, peer))
        if destination.confirm != "none":
            yield checked(f"destination {name} confirm", partial(_confirm, config, destination, peer))


def _confirm(config: Config, destination: Destination, peer: Peer) -> str:
    """That who is asked what a destination has can be asked, and answers."""
    if destination.confirm == "commit":
        require_commitment()
    return f"{destination.confirm}: {peer_answers(config, query_peer(destination, peer))}"


def _viewer(config: Config, viewer_dir: Path) -> str:
    """genisoimage would refuse every disc for one file of the viewer that it cannot take."""
    if not viewer_dir.is_dir():
        raise Wrong(f"{ownership(viewer_dir)}. Copy the viewer's files there, or take the key away.")
    if why := unusable(config.media, config.media.layout):
        raise Wrong(why)
    size = image_size(config.tools.genisoimage, config.media, [])
    return f"{viewer_dir} ({readable(size)} as a disc)"


def _patient_source(config: Config) -> str:
    """Asked for an accession number that nobody has, a source that works does not find it."""
    source = config.patients.source
    with suppress(AccessionNotFound):
        patient_source(config.patients).name_of(NOBODYS, lambda: None)
    return f"{source} answers" if source != "pacs" else "the PACS's own answer"


def _port(config: Config, receiver: Receiver) -> str:
    with suppress(OSError):  # without a work_dir, which is told by itself, no job has a receiver
        if slot_is_taken(config.storage.work_dir, receiver):
            return f"port {receiver.port} is receiving for a job"
    if error := bind_error("", receiver.port):
        raise Wrong(f"port {receiver.port}: {advice(error)}")
    return f"port {receiver.port} is free"


def _bind(config: Config) -> str:
    from mkiso.web.server import occupant, unnamed  # noqa: PLC0415  (gunicorn is not for every command)

    who = occupant(config.server.bind)
    found = f"{config.server.bind} is free" if who == "nobody" else f"{who} serves at {config.server.bind}"
    return ". ".join(filter(None, (found, unnamed(config.server))))


def _host_name() -> str:
    """That it is known here: findscu looks it up for each answer that it writes (gethostid(3)), else in the DNS."""
    name, watch = socket.gethostname(), Stopwatch()
    ctypes.CDLL(None).gethostid()
    if (seconds := watch.seconds()) > SLOW:
        raise Wrong(
            f"this host takes {seconds:.1f} s to look up its own name {name}, for each answer of the PACS to a query. "
            f"Add the line `127.0.1.1 {name}` to /etc/hosts."
        )
    return name


def _tls(tls: Tls) -> str:
    files = dict(tls)
    if wrong := [f"{key} {files[key]} {why}" for found in (faults(tls), too_open(tls)) for key, why in found.items()]:
        raise Wrong("; ".join(wrong))
    return ", ".join(f"{key} {files[key]} until {life.end:%Y-%m-%d}" for key, life in periods(tls).items())


def trial(config: Config, accession: str) -> Iterator[Check]:
    """A check for each step of the trial; what fails keeps none from being told."""
    with ExitStack() as held:
        steps = _Steps(config, accession, held)
        for name in ("begin", "patient_source", "query", "lists", "move", "disc"):
            yield checked(f"trial {name.replace('_', ' ')}", getattr(steps, name))
    yield checked("trial end", steps.end)


def measure(config: Config, accession: str) -> Iterator[Check]:
    """A check for each number of C-MOVEs at once: how fast everything comes; then which serves best.

    What comes first is not counted, for the archive may have to find it on slower disks.
    """
    rates: dict[int, float] = {}
    first = checked("measure first", partial(_measure, config, accession, 1))
    yield first
    if not first.ok:
        return
    for moves in MEASURED:
        yield checked(f"measure {moves}", partial(_measure, config, accession, moves, rates))
    if rates:
        best = next(moves for moves, rate in rates.items() if LESS * rate > max(rates.values()))
        yield Check("measure best", True, f"pacs.parallel_moves: {best} (it is {config.pacs.parallel_moves})")


def _measure(config: Config, accession: str, moves: int, rates: dict[int, float] | None = None) -> str:
    """Everything by at most so many C-MOVEs at once, as a job with that setting does it."""
    pacs = config.pacs.model_copy(update={"parallel_moves": moves})
    with ExitStack() as held:
        steps = _Steps(config.model_copy(update={"pacs": pacs}), accession, held)
        steps.begin()
        steps.query()
        seconds, images, size = steps.everything()
    if rates is not None:
        rates[moves] = images / seconds
    return (
        f"instances: {images} in {seconds:.1f} s, {images / seconds:.0f} a second, {readable(round(size / seconds))}/s"
    )


class _Steps:
    """The steps of a job, what each found, and what it gives the next; each raises what a job would end with.

    There is a job's directory, and no row in the ledger, for that tells what left the house.
    """

    def __init__(self, config: Config, accession: str, held: ExitStack) -> None:
        self._config, self._held = config, held
        self._order = Order((accession,), requester("check"), config.media.layout)
        self._job: Job | None = None
        self._studies: list[Study] = []
        self._instances: list[Instance] = []

    def begin(self) -> str:
        installation, cancellation = Installation(self._config), Cancellation()
        record = Unrecorded(installation.writer, self._order.job_id, cancellation)
        self._job = self._held.enter_context(running_job(installation, self._order, cancellation, record))
        return f"accession number {self._order.accessions[0]}"

    def patient_source(self) -> str:
        job = self._begun()
        name = job.installation.patients.name_of(self._order.accessions[0], job.cancellation.checkpoint)
        return "the PACS's own answer" if name is None else f"the patient is {display_name(name) or 'without a name'}"

    def query(self) -> str:
        """Every study of the accession number with its instances: of one patient, where a disc must be."""
        finder = self._begun().finder()
        studies = find_studies(finder, self._order.accessions)
        if not self._config.patients.allow_mixed:
            require_one_patient(studies)
        self._studies = [with_instances(finder, study) for study in studies]
        series = {one for study in self._studies for one in study.instances.values()}
        instances = sum(len(study.instances) for study in self._studies)
        who = display_name(self._studies[0].patient_name) or "without a name"
        return f"studies: {len(self._studies)}, series: {len(series)}, instances: {instances}, of {who}"

    def lists(self) -> str:
        """An archive that cuts its lists costs each larger study a second look, or its disc."""
        finder = self._begun().finder()
        by_series = [with_instances(finder, study, by_series=True) for study in self._found()]
        if unlisted := sum(len(one.instances.keys() - finder.instances(one.study_uid).keys()) for one in by_series):
            raise Wrong(
                f"series by series the PACS lists {unlisted} instances more than at once: its lists are cut. Have the"
                " limit on the answers to one C-FIND raised or taken away in the PACS."
            )
        counted = sum(study.counted or 0 for study in self._studies)
        listed = sum(len(study.instances) for study in self._studies)
        more = f"; the PACS itself counts {counted}, and may hide some" if counted > listed else ""
        return f"at once as many instances as series by series: {listed}{more}"

    def move(self) -> str:
        """The largest series of the first study that has any, retrieved and proven: where lists are cut, it shows."""
        holding = [study for study in self._found() if study.instances] or self._studies
        moving = Stopwatch()
        self._instances = self._begun().retrieve(holding[:1], _largest_series)
        return f"the largest series came whole in {moving.seconds():.1f} s, instances: {len(self._instances)}"

    def everything(self) -> tuple[float, int, int]:
        """All studies, retrieved and proven: seconds, instances, bytes."""
        if not any(map(by_series, self._found())):
            raise Wrong(
                f"its studies are too small to tell: take one of {FEWEST} instances or more, in several series"
                f" of {LEAST} or more on the average"
            )
        moving = Stopwatch()
        came = self._begun().retrieve(self._found())
        return moving.seconds(), len(came), sum(one.bytes for one in came)

    def disc(self) -> str:
        """The disc of that series: its size is told, and its first bytes go nowhere."""
        if not self._instances:
            raise Wrong("not tried, for no series came")
        job = self._begun()
        size = self._held.enter_context(job.master(job.decompress(self._instances))).size
        fits = f"for a {medium(size)}" if medium(size) else "more than any disc holds"
        return f"{size} bytes ({readable(size)}) with that series and the layout {self._order.layout}, {fits}"

    def end(self) -> str:
        """To be asked when the trial is over."""
        if list(self._config.storage.work_dir.glob(f"{PREFIX}{self._order.job_id}")):
            raise Wrong(f"its directory is left in {self._config.storage.work_dir}. Run mkiso sweep.")
        return "nothing was handed out, nothing is left"

    def _found(self) -> list[Study]:
        if not self._studies:
            raise Wrong("not tried, for the query found nothing")
        return self._studies

    def _begun(self) -> Job:
        if self._job is None:
            raise Wrong("not tried, for the trial could not begin")
        return self._job


def _largest_series(finder: Finder, study: Study, by_series: bool = False) -> Study:
    """The study, with the instances of the series that was chosen before, or else of the largest."""
    return of_one_series(with_instances(finder, study, by_series), study.series_uid)
