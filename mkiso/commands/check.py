"""Is everything there that a disc needs? One line for each thing that must be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mkiso.config import Config, Receiver
from mkiso.dcmtk.association import Peer
from mkiso.dcmtk.echoscu import echo
from mkiso.disc.image import image_size
from mkiso.errors import AccessionNotFound, MkisoError
from mkiso.installation import Installation
from mkiso.process import run
from mkiso.relay import peer_of
from mkiso.retrieve.receiver import can_bind
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


def checks(installation: Installation) -> Iterator[Check]:
    """Every check, each made when it is asked for."""
    config = installation.config
    for tool in DCMTK:
        yield _check(tool, partial(_version, config.tools.dcmtk_dir / tool))
    yield _check("genisoimage", partial(_version, config.tools.genisoimage))
    yield _check("storage.work_dir", partial(_work_dir, installation))
    if config.media.viewer_dir:
        yield _check("media.viewer_dir", partial(_viewer, config))
    yield _check("storage.ledger", partial(_ledger, installation))
    for receiver in config.receivers:
        yield _check(f"receiver {receiver.ae_title}", partial(_port, installation, receiver))
    yield _check("pacs", partial(_echo, installation, installation.pacs))
    yield _check("patients.source", partial(_patient_source, installation))
    for name, destination in config.destinations.items():
        yield _check(f"destination {name}", partial(_echo, installation, peer_of(destination, config.retrieve)))


class _Wrong(Exception):
    """What was found is not as it must be."""


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except (_Wrong, OSError) as wrong:
        return Check(name, False, str(wrong))
    except MkisoError as error:
        return Check(name, False, " ".join([error.detail, *getattr(error, "__notes__", ())]))


def _version(program: Path) -> str:
    result = run((str(program), "--version"), timeout=VERSION_LIMIT)
    first = next((line for line in (result.stdout + result.stderr).splitlines() if line.strip()), "")
    if result.rc != 0:
        raise _Wrong(f"{program} ended with status {result.rc}: {first}")
    return first.strip("$ ")


def _work_dir(installation: Installation) -> str:
    storage = installation.config.storage
    ensure_work_dir(storage.work_dir)
    require_space(storage.work_dir, storage.min_free)
    return str(storage.work_dir)


def _viewer(config: Config) -> str:
    """genisoimage would refuse every disc for one file of the viewer that it cannot take."""
    size = image_size(config.tools.genisoimage, config.media, [])
    return f"{config.media.viewer_dir} ({size} bytes as a disc)"


def _ledger(installation: Installation) -> str:
    installation.ledger.check()
    return "answers"


def _patient_source(installation: Installation) -> str:
    """Asked for an accession number that nobody has, a source that works does not find it."""
    source = installation.config.patients.source
    with suppress(AccessionNotFound):
        installation.patients.name_of(NOBODYS, lambda: None)
    return f"{source} answers" if source != "pacs" else "the PACS's own answer"


def _port(installation: Installation, receiver: Receiver) -> str:
    if slot_is_taken(installation.config.storage.work_dir, receiver):
        return f"port {receiver.port} is receiving for a job"
    if not can_bind(receiver.port):
        raise _Wrong(f"port {receiver.port} is taken by another program")
    return f"port {receiver.port} is free"


def _echo(installation: Installation, peer: Peer) -> str:
    if failure := echo(installation.config.tools.dcmtk_dir, peer):
        raise _Wrong(f"{peer}: {failure}")
    return f"{peer} answers"
