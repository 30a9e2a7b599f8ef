"""Is everything there that a disc needs? One line for each thing that must be."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from mkiso.addresses import advice, bind_error
from mkiso.certificates import faults, periods, too_open
from mkiso.commands.places import Wrong, nearest, require_directory, require_writable, whose
from mkiso.config import Config, Receiver, Tls
from mkiso.dcmtk.association import Peer
from mkiso.dcmtk.echoscu import echo
from mkiso.disc.image import image_size
from mkiso.disc.viewer import covered
from mkiso.errors import AccessionNotFound, DiskFull, MkisoError
from mkiso.installation import archive_of, ledger_of
from mkiso.patients import patient_source
from mkiso.process import run
from mkiso.relay import peer_of
from mkiso.retrieve.slots import slot_is_taken
from mkiso.workspace import ensure_work_dir, require_space

DCMTK = (
    "echoscu",
    "findscu",
    "movescu",
    "storescp",
    "storescu",
    "dcmsend",
    "dcmmkdir",
    "dcmj2pnm",
    "dsr2html",
    "dcm2pdf",
)
VERSION_LIMIT = 10.0
NOBODYS = "MKISO.CHECK"


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and whether that is as it must be."""

    name: str
    ok: bool
    found: str


def checks(config: Config) -> Iterator[Check]:
    """Every check, each made when it is asked for, whatever became of those before it."""
    for tool in DCMTK:
        yield checked(tool, partial(_version, config.tools.dcmtk_dir / tool, "tools.dcmtk_dir"))
    yield checked("genisoimage", partial(_version, config.tools.genisoimage, "tools.genisoimage"))
    yield checked("storage.work_dir", partial(_work_dir, config))
    yield checked("storage.min_free", partial(_space, config))
    if config.media.viewer_dir:
        yield checked("media.viewer_dir", partial(_viewer, config, config.media.viewer_dir))
    yield checked("storage.ledger", partial(_ledger, config))
    for receiver in config.receivers:
        yield checked(f"receiver {receiver.ae_title}", partial(_port, config, receiver))
        if receiver.tls:
            yield checked(f"receiver {receiver.ae_title} tls", partial(_tls, receiver.tls))
    yield checked("server.bind", partial(_bind, config))
    yield checked("pacs", partial(_echo, config, archive_of(config)))
    yield checked("patients.source", partial(_patient_source, config))
    for name, destination in config.destinations.items():
        yield checked(f"destination {name}", partial(_echo, config, peer_of(destination, config.retrieve)))


def checked(name: str, look: Callable[[], str]) -> Check:
    """One check, made now: whatever goes wrong is what was found."""
    try:
        return Check(name, True, look())
    except MkisoError as error:
        return Check(name, False, " ".join([error.detail, *getattr(error, "__notes__", ())]))
    except Exception as wrong:  # the boundary: the other checks are made all the same
        return Check(name, False, str(wrong) or type(wrong).__name__)


def _version(program: Path, key: str) -> str:
    if not program.exists():
        raise Wrong(f"{program} is not there. Install it, or set {key}.")
    result = run((str(program), "--version"), timeout=VERSION_LIMIT)
    first = next((line for line in (result.stdout + result.stderr).splitlines() if line.strip()), "")
    if result.rc != 0:
        raise Wrong(f"{program} ended with status {result.rc}: {first}")
    return first.strip("$ ")


def _work_dir(config: Config) -> str:
    work_dir = config.storage.work_dir
    if not work_dir.exists():
        require_directory(work_dir)
    ensure_work_dir(work_dir)
    require_writable(work_dir)
    return str(work_dir)


def _space(config: Config) -> str:
    work_dir, kept = nearest(config.storage.work_dir), config.storage.min_free
    try:
        require_space(work_dir, kept)
    except DiskFull as full:
        raise Wrong(f"{work_dir}: {full.detail}") from full
    free = shutil.disk_usage(work_dir).free
    return f"{readable(free)} are free at {work_dir}, {readable(kept)} of which are kept"


def _viewer(config: Config, viewer_dir: Path) -> str:
    """genisoimage would refuse every disc for one file of the viewer that it cannot take."""
    if not viewer_dir.is_dir():
        raise Wrong(f"{whose(viewer_dir)}. Copy the viewer's files there, or take the key away.")
    if cover := covered(config.media, config.media.layout):
        raise Wrong(cover)
    size = image_size(config.tools.genisoimage, config.media, [])
    return f"{viewer_dir} ({readable(size)} as a disc)"


def _ledger(config: Config) -> str:
    ledger = ledger_of(config.storage)
    if file := ledger.file:
        require_directory(file.parent)
        if file.exists():
            require_writable(file)
    ledger.check()
    return f"{file or 'the database'} answers"


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
    from mkiso.web.listening import occupant  # noqa: PLC0415  (gunicorn is not for every command)

    who = occupant(config.server.bind)
    return f"{config.server.bind} is free" if who == "nobody" else f"{who} serves at {config.server.bind}"


def _tls(tls: Tls) -> str:
    files = dict(tls)
    if wrong := [f"{key} {files[key]} {why}" for found in (faults(tls), too_open(tls)) for key, why in found.items()]:
        raise Wrong("; ".join(wrong))
    return ", ".join(f"{key} {files[key]} until {life.end:%Y-%m-%d}" for key, life in periods(tls).items())


def _echo(config: Config, peer: Peer) -> str:
    if failure := echo(config.tools.dcmtk_dir, peer):
        raise Wrong(f"{peer}: {failure}")
    return f"{peer} answers"


def readable(count: int) -> str:
    """So many bytes as a person reads them."""
    return f"{tqdm.format_sizeof(count)}B"
