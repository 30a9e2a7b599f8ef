"""Checks of what every job needs: its tools, directories, ledger and archive. `mkiso check` adds to them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mkiso.config import Config, Media, Tls
from mkiso.dcmtk.association import Peer, attempts, echo
from mkiso.dcmtk.programs import Program, dcmtk_programs, other_programs
from mkiso.dcmtk.storescp import faults
from mkiso.disc.layout import unusable
from mkiso.errors import DiskFull, MkisoError
from mkiso.ledger.ledger import Ledger
from mkiso.process import run
from mkiso.waiting import Stopwatch
from mkiso.workspace import (
    ensure_work_dir,
    existing_part,
    free_space,
    require_directory,
    require_space,
    require_writable,
)

VERSION_LIMIT = 10.0
RELAYS = "relays"  # the check that warns, and keeps no job from ending well
PATIENCE = 4.0  # with the ledger's limit less than a caller waits
log = logging.getLogger("mkiso.installation")


class Wrong(Exception):
    """What a check found is not as it must be: the cause, and what to do."""


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and whether that is as it must be."""

    name: str
    ok: bool
    found: str


def checked(name: str, look: Callable[[], str]) -> Check:
    """One check, made now: whatever goes wrong is what was found."""
    try:
        return Check(name, True, look())
    except MkisoError as error:
        return Check(name, False, " ".join([error.detail, *getattr(error, "__notes__", ())]))
    except Exception as wrong:  # the boundary: the other checks are made all the same
        return Check(name, False, str(wrong) or type(wrong).__name__)


def tools(config: Config) -> Iterator[Check]:
    """A check of each program that a job runs with this configuration, by its version."""
    genisoimage = Program("genisoimage", str(config.tools.genisoimage), "Install it, or set tools.genisoimage.")
    programs = (
        *dcmtk_programs(config.tools.dcmtk_dir, config.media),
        genisoimage,
        *other_programs(config.media),
    )
    for program in programs:
        yield checked(program.name, partial(_version, program))


def directories(config: Config) -> Iterator[Check]:
    """The work_dir, and the room in it."""
    yield checked("storage.work_dir", partial(_work_dir, config))
    yield checked("storage.min_free", partial(_space, config))


def files(config: Config) -> Iterator[Check]:
    """What may come and go while the service runs: the viewer, the certificates of receivers, the pages' logo."""
    if config.media.viewer_dir:
        yield checked("media.viewer_dir", partial(_viewer, config.media))
    for receiver in config.move_destinations:
        if receiver.tls:
            yield checked(f"receiver {receiver.ae_title} tls", partial(_tls, receiver.tls))
    if config.server.logo_file:
        yield checked("server.logo_file", partial(logo, config.server.logo_file))


class Readiness:
    """What must be there for a job to end well, in at most a few seconds; what changes for the worse is logged."""

    def __init__(self, config: Config, pacs: Peer, ledger: Ledger) -> None:
        self._config, self._pacs, self._ledger = config, pacs, ledger
        self._failed: Collection[str] = ()

    def look(self) -> tuple[Check, ...]:
        """Every check, made now."""
        found = (
            *tools(self._config),
            *directories(self._config),
            *files(self._config),
            *of_ledger(self._config, lambda: self._ledger),
            pacs_answers(self._config, self._pacs),
        )
        for check in found:
            if not check.ok and check.name not in self._failed:
                log.warning("not ready", extra={"fields": {"check": check.name, "found": check.found}})
        self._failed = {check.name for check in found if not check.ok}
        return found


def of_ledger(config: Config, opened: Callable[[], Ledger]) -> Iterator[Check]:
    """That the ledger can be used, and then whether a relay in it needs a person."""
    answers = checked("storage.ledger", lambda: ledger_answers(opened()))
    yield answers
    if answers.ok:
        yield checked(RELAYS, lambda: relays_go_out(config, opened()))


def ledger_answers(ledger: Ledger) -> str:
    """That the ledger can be read, and its file written; raises Wrong, MkisoError."""
    if file := ledger.file:
        require_directory(file.parent)
        if file.exists():
            require_writable(file)
    ledger.check()
    if file and not file.exists():
        raise Wrong(f"{file} was taken away while it was in use. Put it back, and restart the service.")
    return f"{file or 'the database'} answers"


def relays_go_out(config: Config, ledger: Ledger) -> str:
    """That no queued relay needs a person, and no destination is away or held; raises Wrong, MkisoError."""
    wrong, waiting = [], 0
    for queue in ledger.relays.queues(config.destinations):
        name, waiting = queue["destination"], waiting + queue["waiting"]
        if count := queue["quarantined"]:
            wrong.append(f"{name}: {count} were given up and need a person (mkiso relays --state quarantined)")
        if (by := queue["paused_by"]) is not None:
            wrong.append(f"{name} was paused by {by} (mkiso relays resume {name})")
        elif queue["is_away"]:
            wrong.append(f"{name} does not answer, and is asked again at {queue['next_at']}")
    if wrong:
        raise Wrong("; ".join(wrong))
    return f"{waiting} wait, and every destination is open"


def is_taking(queue: Mapping[str, Any]) -> bool:
    """Whether relays are sent to a destination now: it is neither paused nor away."""
    return queue["paused_by"] is None and not queue["is_away"]


def pacs_answers(config: Config, pacs: Peer) -> Check:
    """The archive's check for who cannot wait: it takes PATIENCE seconds at most."""
    return checked("pacs", partial(peer_answers, config, pacs, PATIENCE))


def peer_answers(config: Config, peer: Peer, seconds: float | None = None) -> str:
    """That a peer answers a C-ECHO; raises Wrong.

    One that has as many associations as it takes is asked again, or, where `seconds` are given that the
    caller can wait, is known to be there.
    """
    waited = Stopwatch()

    def checkpoint() -> None:
        if seconds is not None and waited.seconds() > seconds:
            raise Wrong(f"{peer}: no answer in {seconds:g} s")

    in_time = replace(peer, connect_timeout=min(seconds or peer.connect_timeout, peer.connect_timeout))
    why = ""
    for _ in attempts(in_time, checkpoint):
        failure = echo(config.tools.dcmtk_dir, in_time, checkpoint)
        if failure is None:
            return f"{peer} answers"
        if not failure.busy:
            raise Wrong(f"{peer}: {failure.why}")
        if seconds is not None:
            return f"{peer} answers, and is busy ({failure.why})"
        why = failure.why
    raise Wrong(f"{peer}: it has as many associations as it takes ({why}). Try again later.")


def readable(count: int) -> str:
    """So many bytes as a person reads them."""
    return f"{tqdm.format_sizeof(count)}B"


def _version(program: Program) -> str:
    """The first line that the program has to say of its version."""
    if program.path is None or not Path(program.path).exists():
        absent = f"{program.path or program.name} is not there. {program.advice}"
        if program.optional:
            return absent
        raise Wrong(absent)
    result = run((program.path, program.version_option), timeout=VERSION_LIMIT)
    first = next((line for line in (result.stdout + result.stderr).splitlines() if line.strip()), "")
    if result.rc != 0:
        raise Wrong(f"{program.path} ended with status {result.rc}: {first}")
    return first.strip("$ ")


def _viewer(media: Media) -> str:
    if why := unusable(media, media.layout):
        raise Wrong(why)
    return str(media.viewer_dir)


def _tls(tls: Tls) -> str:
    if wrong := faults(tls):
        raise Wrong("; ".join(f"{key} {why}" for key, why in wrong.items()))
    return "can be used"


def logo(file: Path) -> str:
    """That the pages' logo can be read; raises Wrong."""
    try:
        file.open("rb").close()
    except OSError as error:
        raise Wrong(f"{file}: {error.strerror}. The pages go without it.") from error
    return str(file)


def _work_dir(config: Config) -> str:
    work_dir = config.storage.work_dir
    if not work_dir.exists():
        require_directory(work_dir)
    ensure_work_dir(work_dir)
    require_writable(work_dir)
    return str(work_dir)


def _space(config: Config) -> str:
    work_dir, kept = existing_part(config.storage.work_dir), config.storage.min_free
    try:
        require_space(work_dir, kept)
    except DiskFull as full:
        raise Wrong(f"{work_dir}: {full.detail}") from full
    return f"{readable(free_space(work_dir))} are free at {work_dir}, {readable(kept)} of which are kept"
