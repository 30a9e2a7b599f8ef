"""How pictures, reports and documents are made: for one job, within a time, and never failing a disc."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mkiso.clock import Stopwatch
from mkiso.dcmtk.conversion import LIMIT, Converter
from mkiso.retrieve.instances import Instance

Check = Callable[[], None]
LIMIT_OF_ALL = 120.0
PARTS = 3  # of a staged file's path, which are its own


@dataclass(frozen=True)
class Maker:
    """Where DCMTK is, the job's directory, how many pictures a series has, and the seconds that all may take.

    `limit` are those of one program.
    """

    dcmtk_dir: Path
    directory: Path
    pictures: int = 12
    limit: float = LIMIT
    limit_of_all: float = LIMIT_OF_ALL


@dataclass(frozen=True)
class Bench:
    """Where it is made: what runs the programs, room for what lies between, and the disc's web content."""

    converter: Converter
    room: Path
    web: Path

    def path(self, instance: Instance, ending: str) -> Path:
        """A file for what lies between: no UID is a name, for a stranger wrote it."""
        return self.room / f"{'-'.join(instance.path.parts[-PARTS:])}.{ending}"


class Late(Exception):
    """The time for all is over."""


class Deadline:
    """A `check` for several threads that raises Late after `seconds`, and before that what another one raises."""

    def __init__(self, seconds: float, check: Check) -> None:
        self._seconds, self._check = seconds, check
        self._watch, self._lock = Stopwatch(), threading.Lock()

    def check(self) -> None:
        self._check()
        with self._lock:
            if self._watch.seconds() >= self._seconds:
                raise Late
