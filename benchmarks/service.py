"""`bin/mkiso serve` for the benchmark: its configuration, its life, and what is asked of it."""

import http.client
import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import processes

ROOT = Path(__file__).resolve().parents[1]
LOCALHOST = "127.0.0.1"
START_LIMIT = 30
WORKERS = 2
WARMING = 40
PAGES = frozenset({".htm", ".jpg"})


@dataclass(frozen=True)
class Service:
    """A service that answers on a port, and its work directory."""

    process: subprocess.Popen[bytes]
    port: int
    work_dir: Path

    def url(self, accession: str, job_id: str, layout: str, disc_format: str) -> str:
        return f"http://{LOCALHOST}:{self.port}{_path(accession, job_id, layout)}&format={disc_format}"

    def workers(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.process.pid).children()]

    def memory(self) -> dict[int, int]:
        """What memory each worker has; its peak is forgotten."""
        workers = self.workers()
        for pid in workers:
            processes.forget_peak(pid)
        return {pid: processes.rss(pid) for pid in workers}

    def growth(self, before: dict[int, int]) -> int:
        """The most that a worker has had above what it had, since `memory` was last asked."""
        return max(0, *(processes.peak_rss(pid) - had for pid, had in before.items()))

    def job(self, job_id: str) -> dict[str, Any]:
        """The ledger's row of a job."""
        connection = http.client.HTTPConnection(LOCALHOST, self.port, timeout=30)
        connection.request("GET", f"/api/jobs/{job_id}")
        return json.loads(connection.getresponse().read())


@dataclass(frozen=True)
class Observed:
    """What was seen of one disc from inside: at the first byte, and of a worker's memory while it streamed.

    `growth` is the most that a worker had above what it had at the first byte; `growth_in_all` above what it
    had before the request. Bytes.
    """

    size: int
    on_disk: int
    since_last_image: float
    growth: int
    growth_in_all: int


@dataclass(frozen=True)
class Pages:
    """What a disc of the layout `pdi`, its pages with their pictures, and of these PHONE.HTM take, in bytes."""

    disc: int
    pages: int
    phone: int


@contextmanager
def running_service(directory: Path, port: int, pacs_port: int, receiver: int, **media: Any) -> Iterator[Service]:
    """The service with the contract's defaults beside what is given; ended with the block."""
    directory.mkdir()
    configuration = directory / "mkiso.json"  # JSON is YAML
    configuration.write_text(json.dumps(_settings(directory, port, pacs_port, receiver, media)))
    with (directory / "service.log").open("wb") as log:
        argv = (ROOT / "bin" / "mkiso", "serve", "--config", configuration)
        process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
    try:
        service = Service(process, port, directory / "work")
        _wait_until_it_answers(service, directory / "service.log")
        yield service
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def warm_up(service: Service, accession: str) -> None:
    """Discs with pages until each worker has made one: a worker imports and compiles at its first."""
    for _ in range(WARMING):
        _request(service, accession, str(uuid.uuid4()), "pdi").read()
        if all(psutil.Process(pid).cpu_times().children_user for pid in service.workers()):
            return


def observe(service: Service, accession: str) -> Observed:
    """Take one disc, and look at the job's directory and at the workers' memory when its first byte has come.

    All that a job writes is there at that moment (only the C-FIND's answers are gone), and it cannot go away
    while the answer is not read; so the disc must be larger than the sockets' buffers. The last image's time
    is that of the newest file in the folder of the disc.
    """
    idle = service.memory()
    answer = _request(service, accession, job_id := str(uuid.uuid4()), "legacy")
    size, moment = len(answer.read(1)), time.time()
    files = [path for path in (service.work_dir / f"dicomdir_{job_id}").rglob("*") if path.is_file()]
    on_disk = sum(path.stat().st_size for path in files)
    newest = max(path.stat().st_mtime for path in files if "disc" in path.parts)
    retrieving, at_first_byte = service.growth(idle), service.memory()
    while chunk := answer.read(1 << 20):
        size += len(chunk)
    growth_in_all = max(retrieving, service.growth(idle))
    return Observed(size, on_disk, moment - newest, service.growth(at_first_byte), growth_in_all)


def pages(service: Service, accession: str) -> Pages:
    """Take one disc, and look at its pages in the job's directory when its first byte has come."""
    answer = _request(service, accession, job_id := str(uuid.uuid4()), "pdi")
    disc = len(answer.read(1))
    job = service.work_dir / f"dicomdir_{job_id}"
    sizes = {path.name: path.stat().st_size for path in job.rglob("*") if path.suffix.lower() in PAGES}
    while chunk := answer.read(1 << 20):
        disc += len(chunk)
    return Pages(disc, sum(sizes.values()), sizes["PHONE.HTM"])


def _request(service: Service, accession: str, job_id: str, layout: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(LOCALHOST, service.port, timeout=600)
    connection.request("GET", _path(accession, job_id, layout))
    answer = connection.getresponse()
    if answer.status != http.client.OK:
        raise RuntimeError(f"{accession}: {answer.status} {answer.read(2000).decode(errors='replace')}")
    return answer


def _path(accession: str, job_id: str, layout: str) -> str:
    return f"/mkiso.php?accession_number={accession}&job={job_id}&layout={layout}"


def _settings(directory: Path, port: int, pacs_port: int, receiver: int, media: dict[str, Any]) -> dict[str, Any]:
    return {
        "pacs": {"port": pacs_port},
        "receivers": [{"ae_title": "CDRECORD", "port": receiver}],
        "storage": {"work_dir": str(directory / "work"), "ledger": f"sqlite:///{directory}/ledger.db"},
        "server": {"bind": f"{LOCALHOST}:{port}", "workers": WORKERS},
        "media": media,
    }


def _wait_until_it_answers(service: Service, log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline and service.process.poll() is None:
        connection = http.client.HTTPConnection(LOCALHOST, service.port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            if connection.getresponse().status == http.client.OK and len(service.workers()) == WORKERS:
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the service did not start: {log.read_text(errors='replace')}")
