"""What a service has of the host at a moment: memory, descriptors, threads, connections, programs, directories."""

import shutil
import sqlite3
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks import processes
from mkiso.process import OWNER
from mkiso.workspace import PREFIX
from tests.support.service import Service

MB = 10**6
READINGS, BETWEEN = 20, 0.1  # at rest, and seconds: the ledger's writer needs a thread and a descriptor now and then


@dataclass(frozen=True)
class Figures:
    """Of one process: `memory` and `own` in bytes, `connections` are TCP's, listeners aside.

    `memory` is all resident memory that is no file's (RssAnon). `own` is what no other process shares (USS): of a
    master that does nothing it grows, too, as its workers write to the pages that they had from it.
    """

    memory: int
    own: int
    descriptors: int
    threads: int
    connections: int

    def line(self) -> str:
        memory = f"{self.memory / MB:5.1f} MB ({self.own / MB:5.1f})"
        return f"{memory} {self.descriptors:3} fd {self.threads:2} thr {self.connections} tcp"


@dataclass(frozen=True)
class Sample:
    """Of the service: its master first, then its workers, by process number; `programs` are DCMTK's and genisoimage.

    `ledger` and `shared` (what is in /dev/shm, whoever's) are in bytes; `jobs` are all rows, `unfinished` those of
    jobs that have not ended.
    """

    seconds: float
    processes: Mapping[int, Figures]
    programs: tuple[str, ...]
    directories: int
    jobs: int
    unfinished: int
    ledger: int
    shared: int

    @property
    def is_at_rest(self) -> bool:
        connections = sum(one.connections for one in self.processes.values())
        return not (self.unfinished or self.programs or self.directories or connections)

    def line(self) -> str:
        figures = "  ".join(one.line() for one in self.processes.values())
        rest = f"{len(self.programs):2} programs  {self.directories} directories  {self.unfinished} of {self.jobs} jobs"
        return f"{self.seconds:5.0f} s  {figures}  {rest}  {self.ledger / MB:.1f} MB ledger"


class Sampler:
    """Takes samples of a service, whose files are in `directory`."""

    def __init__(self, service: Service, directory: Path) -> None:
        self._master = psutil.Process(service.process.pid)
        self._work_dir, self._ledger = directory / "work", directory / "ledger.db"
        self._began, self._before = time.monotonic(), Counter(self._states())

    def sample(self) -> Sample:
        workers = self._master.children()
        programs = [child for worker in workers for child in _children(worker)]
        jobs, unfinished = self._rows()
        return Sample(
            time.monotonic() - self._began,
            {one.pid: _figures(one) for one in (self._master, *workers)},
            tuple(_name(one) for one in programs),
            len(list(self._work_dir.glob(f"{PREFIX}*"))),
            jobs,
            unfinished,
            sum(file.stat().st_size for file in self._ledger.parent.glob(f"{self._ledger.name}*")),
            shutil.disk_usage("/dev/shm").used,
        )

    def at_rest(self, seconds: float) -> Sample:
        """When nothing is under way any more, or so many seconds have passed.

        Of several readings: the median of memory, the least of what is counted.
        """
        deadline = time.monotonic() + seconds
        while not (last := self.sample()).is_at_rest and time.monotonic() < deadline:
            time.sleep(0.5)
        readings = [last]
        for _ in range(READINGS):
            time.sleep(BETWEEN)
            readings.append(self.sample())
        of = {pid: [one.processes[pid] for one in readings if pid in one.processes] for pid in last.processes}
        return replace(readings[-1], processes={pid: _least(figures) for pid, figures in of.items()})

    def left_programs(self) -> list[str]:
        """Whatever on this host was started for a job of the service and still runs."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(OWNER, "").startswith(str(self._work_dir)):
                    found.append(process.name())
        return found

    def ended(self) -> Counter[str]:
        """How many jobs have come to what since the beginning."""
        return Counter(self._states()) - self._before

    def _states(self) -> dict[str, int]:
        return dict(self._read("SELECT state, count(*) FROM jobs GROUP BY state"))

    def _rows(self) -> tuple[int, int]:
        ((jobs, unfinished),) = self._read("SELECT count(*), count(*) - count(finished_at) FROM jobs")
        return jobs, unfinished

    def _read(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self._ledger}?mode=ro", uri=True, timeout=30)) as ledger:
            return ledger.execute(query).fetchall()


def _figures(process: psutil.Process) -> Figures:
    connections = [one for one in process.net_connections("tcp") if one.status != psutil.CONN_LISTEN]
    memory, own = processes.status(process.pid, "RssAnon"), process.memory_full_info().uss
    return Figures(memory, own, process.num_fds(), process.num_threads(), len(connections))


def _least(figures: Iterable[Figures]) -> Figures:
    memory, own, *counts = zip(*map(astuple, figures), strict=True)
    return Figures(round(statistics.median(memory)), round(statistics.median(own)), *map(min, counts))


def _children(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []


def _name(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        return process.name()
    return "?"
