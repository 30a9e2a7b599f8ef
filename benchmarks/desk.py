"""The soak's service as its clients find it: jobs that they follow, and discs, each read to its end and proven."""

import http.client
import itertools
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from benchmarks.samples import MB
from mkiso.verify.verify import verify
from tests.support.service import Service, instances_of, instances_on, read_disc
from tests.support.studies import Study
from tests.support.testpacs import RunningPacs
from tests.support.tools import LOCALHOST

LIMIT = 300  # s, for one answer
PROVEN = 20  # every so manieth disc is compared byte by byte
INSTANCES = ("DICOMDIR/", "IMAGES/", "OTHER/")


def _ended(look: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        if (found := look()) and found["finished_at"]:
            return found
        time.sleep(0.5)
    raise TimeoutError(f"it has not ended: {found}")


@dataclass
class Desk:
    """Where the clients ask, and what is held there; all files of it are in `directory`."""

    service: Service
    pacs: RunningPacs
    directory: Path
    _taken: Iterator[int] = field(default_factory=itertools.count)

    @property
    def discs(self) -> Path:
        return self.directory / "discs"

    @property
    def ledger(self) -> Path:
        return self.directory / "ledger.db"

    def studies(self, accessions: tuple[str, ...]) -> list[Study]:
        return [study for one in accessions for study in self.pacs.of(one)]

    def count(self, accessions: tuple[str, ...]) -> int:
        return sum(len(study.files) for study in self.studies(accessions))

    def is_to_be_proven(self) -> bool:
        return next(self._taken) % PROVEN == 0

    def job(self, job_id: str) -> dict[str, Any] | None:
        """A job as its page asks for it; None where there is none yet."""
        answer = self.service.get(f"/jobs/{job_id}", headers={"Accept": "application/json"})
        return answer.json() if answer.ok else None

    def finished(self, job_id: str) -> dict[str, Any]:
        """The job when it has ended, followed as its page does."""
        return _ended(lambda: self.job(job_id))

    def relayed(self, relay_id: str) -> dict[str, Any]:
        """The queued relay when it has ended."""
        return _ended(lambda: self.service.get(f"/api/relays/{relay_id}").json())

    @property
    def port(self) -> int:
        return int(self.service.url.rpartition(":")[2])

    @contextmanager
    def asked(self, path: str) -> Iterator[http.client.HTTPConnection]:
        """A request that has been sent; the connection is closed at the end of the block, whatever was read."""
        connection = http.client.HTTPConnection(LOCALHOST, self.port, timeout=LIMIT)
        try:
            connection.request("GET", path)
            yield connection
        finally:
            connection.close()


@dataclass(frozen=True)
class Wish:
    """A disc that is asked for."""

    accessions: tuple[str, ...]
    layout: str
    format: str
    job_id: str

    @property
    def path(self) -> str:
        single = len(self.accessions) == 1
        page = "/mkiso.php" if single else "/mkiso_multiple.php"
        numbers = ",".join(self.accessions)
        return f"{page}?accession_number={numbers}&layout={self.layout}&format={self.format}&job={self.job_id}"


def take(desk: Desk, wanted: Wish, pause: float = 0.0) -> None:
    """A disc to its last byte: its size, how many instances it has, and of some everything."""
    file = desk.discs / f"{wanted.job_id}.{wanted.format}"
    try:
        with requests.get(desk.service.url + wanted.path, stream=True, timeout=LIMIT) as answer, file.open("wb") as to:
            assert answer.ok, f"{wanted}: {answer.status_code} {answer.text}"
            for chunk in answer.iter_content(MB):
                to.write(chunk)
                time.sleep(pause)
        assert file.stat().st_size == int(answer.headers["Content-Length"]), f"{wanted}: {file.stat().st_size} bytes"
        found = _count_instances(file)
        assert found == desk.count(wanted.accessions), f"{wanted}: {found} instances"
        if desk.is_to_be_proven():
            _prove(desk, wanted, file)
    finally:
        file.unlink()


def _count_instances(file: Path) -> int:
    listed = subprocess.run(("/usr/bin/bsdtar", "-tvf", file), capture_output=True, text=True, check=True).stdout
    return sum(line[0] == "-" and line.split()[-1].startswith(INSTANCES) for line in listed.splitlines())


def _prove(desk: Desk, wanted: Wish, file: Path) -> None:
    failed = [check for check in verify(file) if not check.ok] if wanted.layout == "pdi" else ()
    assert not failed, f"{wanted}: {failed}"
    directory = file.with_suffix("")
    try:
        held = instances_on(read_disc(file, directory))
        assert held == instances_of(desk.studies(wanted.accessions)), f"{wanted} holds something else"
    finally:
        subprocess.run(("/bin/rm", "-rf", directory), check=True)
