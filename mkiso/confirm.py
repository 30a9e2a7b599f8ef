"""Asking a destination what it has of what it acknowledged: by C-FIND, or by Storage Commitment.

Where it goes on to file what came, it is asked again, or waited for, until `relay.confirm_timeout`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from mkiso.accession import uid_fault
from mkiso.config import Config, Destination
from mkiso.dcmtk import committing
from mkiso.dcmtk.association import Peer, attempts
from mkiso.dcmtk.findscu import Finder, QueryRefused
from mkiso.dicom.instances import Instance
from mkiso.errors import MkisoError, NotConfigured, PacsRejected, PacsTimeout, PacsUnreachable
from mkiso.process import ToolTimeout, run
from mkiso.waiting import Checkpoint, Stopwatch
from mkiso.workspace import Workspace, held

FIRST_PAUSE, LONGEST_PAUSE, SLICE = 0.25, 8.0, 0.05
START = 10.0  # seconds, for the program to begin and to end
NOT_LISTED = "it does not list it"
LIBRARY = "pynetdicom"


@dataclass(frozen=True)
class Answer:
    """The instances that a destination does not confirm, by SOP Instance UID, each with its words where it gives any.

    Where it gave no answer, or not all of it, `why` tells that: then nobody knows whether it has them.
    """

    missing: Mapping[str, str]
    why: str = ""


Ask = Callable[[Collection[Instance]], Answer]


def query_peer(destination: Destination, peer: Peer) -> Peer:
    """Where a destination is asked what it has."""
    return replace(
        peer,
        called=destination.query_ae_title or peer.called,
        host=destination.query_host or peer.host,
        port=destination.query_port or peer.port,
    )


def require_commitment() -> None:
    """Raise NotConfigured where the library for Storage Commitment is not there."""
    if find_spec(LIBRARY) is None:
        raise NotConfigured(
            f"A destination is to confirm by Storage Commitment, and the library {LIBRARY} is not there. Install the"
            " extra mkiso[commit], or have the destination confirm by find."
        )


def asking(
    config: Config, destination: Destination, peer: Peer, workspace: Workspace, checkpoint: Checkpoint
) -> Ask | None:
    """The way to ask a destination what it has; None where it is to confirm nothing. Raises NotConfigured."""
    asked, limit = query_peer(destination, peer), config.relay.confirm_timeout
    if destination.confirm == "find":
        finder = Finder(config.tools.dcmtk_dir, asked, config.retrieve.query_timeout, workspace.path, checkpoint)
        return Listing(finder, limit)
    if destination.confirm == "commit":
        require_commitment()
        lock = config.storage.work_dir / f"commit_{destination.commit_port}.lock" if destination.commit_port else None
        return Commitment(asked, limit, destination.commit_port or 0, lock, workspace.path, checkpoint)
    return None


@dataclass(frozen=True)
class Listing:
    """By C-FIND at IMAGE level, study by study; what is not listed so, in its series (PS3.4 C.4.1.3.1.1)."""

    finder: Finder
    limit: float

    def __call__(self, instances: Collection[Instance]) -> Answer:
        """Ask, with growing pauses, until all are listed or the time is over."""
        waited, pause, why = Stopwatch(), FIRST_PAUSE, ""
        missing = {one.sop_instance_uid: one for one in instances}
        while True:
            try:
                missing, why = self._unlisted(missing), ""
            except (PacsUnreachable, PacsTimeout) as error:
                why = _of_destination(error)
            except PacsRejected as error:
                return Answer(dict.fromkeys(missing, ""), _of_destination(error))
            if not missing or waited.seconds() + pause > self.limit:
                return Answer(dict.fromkeys(missing, NOT_LISTED), why)
            rested = Stopwatch()
            while rested.seconds() < pause:
                self.finder.checkpoint()
                time.sleep(SLICE)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _unlisted(self, instances: Mapping[str, Instance]) -> dict[str, Instance]:
        missing = dict(instances)
        for study_uid in {one.study_uid for one in instances.values()}:
            self._remove(missing, self.finder.instances(study_uid))
        for study_uid, series_uid in {(one.study_uid, one.series_uid) for one in missing.values()}:
            if uid_fault(series_uid) is None:
                with suppress(QueryRefused):
                    self._remove(missing, self.finder.instances_of(study_uid, series_uid))
        return missing

    @staticmethod
    def _remove(missing: dict[str, Instance], listed: Mapping[str, str]) -> None:
        for uid in missing.keys() & listed.keys():
            del missing[uid]


def _of_destination(error: MkisoError) -> str:
    """What the finder tells of an archive, of another peer."""
    return (
        error.detail.replace("The PACS ", "The peer ")
        .replace("the PACS ", "the peer ")
        .replace("pacs.*", "its address")
    )


@dataclass(frozen=True)
class Commitment:
    """By Storage Commitment (PS3.4 J.3), with a program that waits for the reports; two do not listen on one port."""

    peer: Peer
    limit: float
    port: int
    lock: Path | None
    directory: Path
    checkpoint: Checkpoint

    def __call__(self, instances: Collection[Instance]) -> Answer:
        wanted = {one.sop_instance_uid: one.sop_class_uid for one in instances}
        file = self.directory / "commit.json"
        file.write_text(json.dumps(wanted))
        with ExitStack() as listening:
            if not self._listen(listening):
                return Answer(
                    dict.fromkeys(wanted, ""), f"other relays listen at commit_port {self.port} all the time."
                )
            told = self._told(committing.commit_argv(self.peer, self.port, self.limit, file))
        missing = {uid: told.failed.get(uid, "") for uid in wanted if uid not in told.confirmed}
        return Answer(missing, told.why if missing else "")

    def _told(self, argv: Sequence[str]) -> committing.Told:
        limit = 2 * self.limit + 4 * self.peer.connect_timeout + START
        for _ in attempts(self.peer, self.checkpoint):
            try:
                output = run(
                    argv, timeout=limit, cwd=self.directory, checkpoint=self.checkpoint, limits=committing.LIMITS
                )
            except ToolTimeout as late:
                return committing.Told(frozenset(), {}, f"{late}.")
            told = committing.told(self.peer, output.stdout, output.stderr)
            if not told.busy:
                break
        return told

    def _listen(self, listening: ExitStack) -> bool:
        """Hold the port, where there is one, for this job alone; whether it came free in time."""
        waited = Stopwatch()
        while self.lock is not None and waited.seconds() <= self.limit:
            with suppress(BlockingIOError):
                listening.enter_context(held(self.lock))
                return True
            self.checkpoint()
            time.sleep(SLICE)
        return self.lock is None
