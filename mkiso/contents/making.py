"""How pictures, reports and documents are made: for one job, within a time, and never failing a disc."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mkiso.clock import Stopwatch
from mkiso.dcmtk.conversion import LIMIT, Converter, TooLarge
from mkiso.retrieve.instances import Instance, inflates_to

Check = Callable[[], None]
LIMIT_OF_ALL = 120.0
LARGEST_OF_REPORTS = 1 << 24  # bytes of memory
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


class Reports:
    """How much of them a disc's pages hold, for several threads: they are in memory until these are written."""

    def __init__(self) -> None:
        self._bytes, self._lock = 0, threading.Lock()

    def take(self, text: str) -> None:
        """Raises TooLarge where there is no room for it any more."""
        with self._lock:
            self._bytes += sys.getsizeof(text)
            if self._bytes > LARGEST_OF_REPORTS:
                raise TooLarge


@dataclass(frozen=True)
class Bench:
    """Where it is made: what runs the programs, room for what lies between, and the disc's web content."""

    converter: Converter
    room: Path
    web: Path
    reports: Reports = field(default_factory=Reports)

    def path(self, instance: Instance, ending: str) -> Path:
        """A file for what lies between: no UID is a name, for a stranger wrote it."""
        return self.room / f"{'-'.join(instance.path.parts[-PARTS:])}.{ending}"


class Late(Exception):
    """The time for all is over."""


def require_small(instance: Instance, most: int) -> None:
    """Raise TooLarge where an instance has more than so many bytes, or inflates to them (PS3.5 A.5)."""
    if instance.bytes > most or (instance.is_deflated and inflates_to(instance, most)):
        raise TooLarge


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
