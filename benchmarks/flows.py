"""The ways to a disc that are compared, each run once from a study in the archive to its last byte."""

import os
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from benchmarks import processes
from benchmarks.service import Service

HERE = Path(__file__).resolve().parent
LIMIT = 1800
CURL = ("/usr/bin/curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{size_download} %{time_starttransfer}")


@dataclass(frozen=True)
class Case:
    """A study of the test archive."""

    accession: str
    files: tuple[Path, ...]

    @property
    def images(self) -> int:
        return len(self.files)

    @cached_property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)

    def settle(self) -> None:
        """Have the archive's files in memory, and nothing left to write from the run before."""
        for file in self.files:
            file.read_bytes()
        os.sync()


@dataclass(frozen=True)
class Run:
    """One disc: wall time in seconds, bytes written to files, and what only a service can tell."""

    seconds: float
    written: int
    first_byte: float = 0.0
    peak: int = 0
    phases: dict[str, float] = field(default_factory=dict)


Flow = Callable[[Case], Run]


def shell_flow(script: str, work: Path, pacs_port: int, ae_title: str, port: int) -> Flow:
    """A script of this directory, which says how many files it received; RuntimeError where that is not all."""
    settings = {"WORK": str(work), "PACS_PORT": str(pacs_port), "AE": ae_title, "PORT": str(port)}
    environment = {key: value for key, value in os.environ.items() if key != "TCP_NODELAY"} | settings

    def run(case: Case) -> Run:
        case.settle()
        seconds, written, said = _measured(("/bin/sh", str(HERE / script)), environment | {"ACCESSION": case.accession})
        if said.split() != [str(case.images)]:
            raise RuntimeError(f"{script} received {said.strip() or 'nothing'} of {case.images} images")
        return Run(seconds, written)

    return run


def http_flow(service: Service, layout: str, disc_format: str = "iso", form: Sequence[str] = ()) -> Flow:
    """curl and a running service; RuntimeError where the disc is not whole. `form` are fields of a POST."""
    fields = [word for field in form for word in ("--data-urlencode", field)]

    def run(case: Case) -> Run:
        job_id = str(uuid.uuid4())
        case.settle()
        workers = service.memory()
        url = service.url(case.accession, job_id, layout, disc_format)
        seconds, written, said = _measured((*CURL, *fields, url), dict(os.environ))
        status, size, first_byte = said.split()
        job = service.job(job_id)
        if status != "200" or int(size) != job["bytes"] or job["state"] != "done" or job["received"] != case.images:
            raise RuntimeError(f"mkiso answered {said}: {job}")
        peak = max(processes.peak_rss(pid) for pid in workers)
        return Run(seconds, written, float(first_byte), peak, job["seconds"])

    return run


def _measured(argv: tuple[str, ...], environment: dict[str, str]) -> tuple[float, int, str]:
    """Seconds, bytes written, standard output."""
    before, began = processes.bytes_written(), time.monotonic()
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        timeout=LIMIT,
        check=True,
        start_new_session=True,
    )
    seconds = time.monotonic() - began
    written = processes.bytes_written() - before
    processes.bury_orphans()
    return seconds, written, done.stdout
