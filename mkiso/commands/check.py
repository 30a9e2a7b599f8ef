"""Is everything there that a disc needs? One line for each thing that must be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from mkiso.addresses import advice, bind_error
from mkiso.checks import Check, Wrong, checked, directories, ledger_answers, logo, peer_answers, readable, tools
from mkiso.config import Config, Receiver, Tls
from mkiso.dcmtk.storescp import faults, periods, too_open
from mkiso.disc.layout import unusable
from mkiso.disc.product import image_size
from mkiso.errors import AccessionNotFound
from mkiso.installation import archive_of, ledger_of
from mkiso.patients import patient_source
from mkiso.relay import peer_of
from mkiso.retrieve.receiver import slot_is_taken
from mkiso.workspace import ownership

NOBODYS = "MKISO.CHECK"


def checks(config: Config) -> Iterator[Check]:
    """Every check, each made when it is asked for, whatever became of those before it."""
    yield from tools(config)
    yield from directories(config)
    if config.media.viewer_dir:
        yield checked("media.viewer_dir", partial(_viewer, config, config.media.viewer_dir))
    if config.server.logo_file:
        yield checked("server.logo_file", partial(logo, config.server.logo_file))
    yield checked("storage.ledger", partial(_ledger, config))
    for receiver in config.receivers:
        yield checked(f"receiver {receiver.ae_title}", partial(_port, config, receiver))
        if receiver.tls:
            yield checked(f"receiver {receiver.ae_title} tls", partial(_tls, receiver.tls))
    yield checked("server.bind", partial(_bind, config))
    yield checked("pacs", partial(peer_answers, config, archive_of(config)))
    yield checked("patients.source", partial(_patient_source, config))
    for name, destination in config.destinations.items():
        yield checked(f"destination {name}", partial(peer_answers, config, peer_of(destination, config.retrieve)))


def _viewer(config: Config, viewer_dir: Path) -> str:
    """genisoimage would refuse every disc for one file of the viewer that it cannot take."""
    if not viewer_dir.is_dir():
        raise Wrong(f"{ownership(viewer_dir)}. Copy the viewer's files there, or take the key away.")
    if why := unusable(config.media, config.media.layout):
        raise Wrong(why)
    size = image_size(config.tools.genisoimage, config.media, [])
    return f"{viewer_dir} ({readable(size)} as a disc)"


def _ledger(config: Config) -> str:
    return ledger_answers(ledger_of(config.storage))


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


def _tls(tls: Tls) -> str:
    files = dict(tls)
    if wrong := [f"{key} {files[key]} {why}" for found in (faults(tls), too_open(tls)) for key, why in found.items()]:
        raise Wrong("; ".join(wrong))
    return ", ".join(f"{key} {files[key]} until {life.end:%Y-%m-%d}" for key, life in periods(tls).items())
