"""The two ways to have an archive send, as an SCU: C-MOVE (PS3.4 C.4.2), and C-GET (PS3.4 C.4.3) where it cannot know
this host as a move destination. What is asked for, how the program runs, and what the archive said of it.
"""

from __future__ import annotations

import json
import logging
import os
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mkiso.config import Config
from mkiso.dcmtk import getting, movescu
from mkiso.dcmtk.association import SMALL_DICTIONARY, Failure, Peer, attempts
from mkiso.dcmtk.findscu import Finder
from mkiso.dcmtk.movescu import MoveResult
from mkiso.dcmtk.storescp import CANNOT_WRITE, Transfers
from mkiso.dicom.instances import Key
from mkiso.errors import PacsRejected
from mkiso.process import Child, read_log, spawned
from mkiso.retrieve.receiver import RunningReceiver, receiver_slot, started_receiver
from mkiso.retrieve.studies import Study, keys_of
from mkiso.waiting import Checkpoint
from mkiso.workspace import Workspace

log = logging.getLogger("mkiso.retrieve.scu")


@dataclass(frozen=True)
class Part:
    """What is asked for at once: a study, or one series of it, and the instances that are to come.

    `series_of` has the series of each of the study's instances.
    """

    study_uid: str
    series_uid: str | None
    keys: frozenset[Key]
    series_of: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def by_series(self) -> dict[str, list[str]]:
        """The SOP Instance UIDs that are to come, by series."""
        found = defaultdict(list)
        for _, sop in sorted(self.keys):
            found[self.series_of.get(sop, self.series_uid or "")].append(sop)
        return dict(found)


def part_of(study: Study) -> Part:
    """The study, or the series of it that is wanted."""
    return Part(study.study_uid, study.series_uid, frozenset(keys_of(study)), study.instances)


@dataclass
class Scu(ABC):
    """How an archive is asked for one job's parts.

    `tick` looks at everything once, and raises where the job must end.
    """

    config: Config
    pacs: Peer
    workspace: Workspace
    job_id: str
    tick: Callable[[], object]

    operation = ""
    may_send_later = True  # after its program has ended

    @abstractmethod
    def begun(self, part: Part) -> AbstractContextManager[Child]:
        """The program that asks for a part, which ends with the block."""

    @abstractmethod
    def failure(self, part: Part) -> Failure | None:
        """Why the archive took no association when it was last asked for the part; None where it took one."""

    @abstractmethod
    def announced(self, part: Part) -> int | None:
        """How many sub-operations there are by the first response, done and to come; None where it does not tell."""

    @abstractmethod
    def ended(self, part: Part) -> MoveResult:
        """How it ended. Raises PacsUnreachable or PacsRejected where there was no association."""

    def alone(self, part: Part, watch: Callable[[Child], None]) -> None:
        """Ask for a part, again while the archive takes no association for now; `watch` returns at its end."""
        for _ in attempts(self.pacs, self.tick):
            with self.begun(part) as child:
                watch(child)
            if self.failure(part) is not Failure.BUSY:
                break

    def result(self, part: Part) -> MoveResult:
        """As `ended`, which the log tells, too."""
        found = self.ended(part)
        fields = {
            "job": self.job_id,
            "study": part.study_uid,
            "series": part.series_uid,
            "ending": found.ending.name.lower(),
            "completed": found.completed,
            "failed": found.failed,
            "said": found.explanation or None,
        }
        log.info(f"a {self.operation} ended", extra={"fields": fields})
        return found

    def said(self, part: Part) -> str:
        """What the program has said so far when it was last asked for the part."""
        return read_log(self.file(part, "log"))

    def file(self, part: Part, kind: str) -> Path:
        """A file of the program's own for the part."""
        return self.workspace.path / f"{self.operation.lower()}-{part.series_uid or part.study_uid}.{kind}"


@dataclass
class MoveScu(Scu):
    """By movescu, to a move destination that the archive knows."""

    destination: str
    operation = "C-MOVE"

    @contextmanager
    def begun(self, part: Part) -> Iterator[Child]:
        tools, limit, file = self.config.tools.dcmtk_dir, self.config.retrieve.move_timeout, self.file(part, "log")
        argv = movescu.move_argv(tools, self.pacs, self.destination, part.study_uid, limit, part.series_uid)
        file.unlink(missing_ok=True)
        with spawned(argv, cwd=self.workspace.path, log=file, environment=SMALL_DICTIONARY) as child:
            yield child

    def failure(self, part: Part) -> Failure | None:
        return movescu.failure(self.said(part))

    def announced(self, part: Part) -> int | None:
        return movescu.announced(self.said(part))

    def ended(self, part: Part) -> MoveResult:
        return movescu.move_result(self.pacs, self.destination, self.said(part))


@dataclass
class GetScu(Scu):
    """By a program of mkiso's own, on whose associations the archive sends.

    `transfers` has why it could not keep an instance.
    """

    finder: Finder
    transfers: Transfers
    operation = "C-GET"
    may_send_later = False

    def __post_init__(self) -> None:
        self._steps: dict[Part, list[getting.Step]] = {}
        self._classes: dict[str, dict[str, str]] = {}  # of each study: by SOP Instance UID
        self._modalities: dict[str, list[str]] = {}

    @contextmanager
    def begun(self, part: Part) -> Iterator[Child]:
        file, plan, unfinished = (self.file(part, kind) for kind in ("log", "json", "part"))
        plan.write_text(json.dumps(self._plan(part, unfinished)))
        file.unlink(missing_ok=True)
        try:
            argv = getting.get_argv(plan)
            with spawned(argv, cwd=self.workspace.path, log=file, limits=getting.LIMITS) as child:
                yield child
        finally:
            unfinished.unlink(missing_ok=True)

    def failure(self, part: Part) -> Failure | None:
        return getting.failure(self._told(part))

    def announced(self, part: Part) -> int | None:
        return getting.announced(self._told(part))

    def ended(self, part: Part) -> MoveResult:
        told = self._told(part)
        self.transfers.failed += [f"{CANNOT_WRITE}: {why}" for why in getting.unkept(told)]
        return getting.get_result(self.pacs, told)

    def _told(self, part: Part) -> Sequence[dict[str, Any]]:
        return getting.events(self.said(part))

    def _plan(self, part: Part, unfinished: Path) -> dict[str, Any]:
        wanted, pacs = part.by_series, self.pacs
        if part not in self._steps:
            self._steps[part] = self._steps_of(part, [uid for of_series in wanted.values() for uid in of_series])
        return {
            "calling": pacs.calling,
            "called": pacs.called,
            "host": pacs.host,
            "port": pacs.port,
            "connect_timeout": pacs.connect_timeout,
            "timeout": self.config.retrieve.move_timeout,
            "directory": str(self.workspace.received),
            "unfinished": str(unfinished),
            "study": part.study_uid,
            "series": part.series_uid,
            "wanted": wanted,
            "steps": self._steps[part],
        }

    def _steps_of(self, part: Part, uids: Sequence[str]) -> list[getting.Step]:
        """What the archive is asked is asked once a study, but where it does not list one at once."""
        classes = self._classes.setdefault(part.study_uid, {})
        if classes.keys().isdisjoint(uids):
            classes |= self.finder.sop_classes(part.study_uid, part.by_series)
        if not all(map(classes.get, uids)) and part.study_uid not in self._modalities:
            self._modalities[part.study_uid] = []
            with suppress(PacsRejected):  # they only tell what is likely
                self._modalities[part.study_uid] = sorted(self.finder.modalities(part.study_uid))
        return getting.steps(uids, classes, self._modalities.get(part.study_uid, ()))


class WholeFiles(Transfers):
    """Of files that have their names when they are whole, and not before."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull))

    def may_be_whole(self, _name: str) -> bool:
        return True

    def is_whole(self, _name: str, _data_set: int) -> bool:
        return True


class NoReceiver(RunningReceiver):
    """In a receiver's place where there is none: everything comes by the associations of C-GETs."""

    def __init__(self) -> None:
        self.transfers = WholeFiles()

    def wait_until_it_listens(self) -> None:
        """Nobody calls."""

    def require_alive(self) -> None:
        """There is nothing that could die."""

    def failed_handshakes(self) -> str:
        return ""

    def children(self) -> list[int]:
        return []


@contextmanager
def receiving(
    config: Config, workspace: Workspace, checkpoint: Checkpoint, sweep: Callable[[], object]
) -> Iterator[RunningReceiver]:
    """A receiver of the job's own, which starts; what comes by C-GET needs none. Raises Busy where none comes free."""
    if config.pacs.retrieve == "get":
        yield NoReceiver()
        return
    with receiver_slot(config.storage.work_dir, config.receivers, config.retrieve.queue_timeout, checkpoint) as free:
        sweep()  # whoever held the slot before may have been killed, and its receiver may still run
        with started_receiver(config.tools, free, config.retrieve, workspace) as receiver:
            yield receiver
