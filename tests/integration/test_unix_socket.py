"""A disc at a unix socket, as nginx asks for it: what the worker never reads has the promises of what it does."""

import http.client
import json
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import requests

from tests.integration.conftest import Site
from tests.integration.test_lifecycle import SIZES, program
from tests.support.nginx import running_nginx
from tests.support.ports import free_ports
from tests.support.service import Service, instances_of, instances_on, read_disc, running_service
from tests.support.tools import wait_until


class Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


@dataclass
class Behind:
    """A service of one worker at a unix socket; nginx before it serves for what else is asked."""

    service: Service
    unix_socket: Path
    directory: Path

    @contextmanager
    def disc(self, accession: str) -> Iterator[tuple[str, http.client.HTTPResponse]]:
        """The job's id, and the answer, of which no more is read than the test reads."""
        job_id = str(uuid.uuid4())
        with closing(Connection(self.unix_socket)) as connection:
            connection.request("GET", f"/mkiso.php?accession_number={accession}&job={job_id}")
            with connection.getresponse() as answer:
                assert answer.status == 200
                yield job_id, answer

    def job(self, job_id: str) -> dict[str, Any]:
        return self.service.get(f"/api/jobs/{job_id}").json()

    def ended(self, job_id: str) -> tuple[str, str]:
        """How the job ended: its state, and its error's code; nothing of it is left."""
        wait_until(lambda: self.job(job_id)["finished_at"], 10, lambda: f"{self.job(job_id)}")
        assert list(self.directory.glob("work/dicomdir_*")) == []
        job = self.job(job_id)
        return job["state"], job["error"]["code"]

    def read_by_the_worker(self) -> int:
        """In bytes; what a program had read that it has waited for counts, too."""
        (worker,) = self.service.workers()
        return int(worker.io_counters().read_chars)


Start = Callable[..., AbstractContextManager[Behind]]


@pytest.fixture
def behind(site: Site) -> Start:
    @contextmanager
    def start(server: dict[str, Any] | None = None, **sections: Any) -> Iterator[Behind]:
        (port,) = free_ports(1)
        with TemporaryDirectory(prefix="mkiso-") as short:  # a socket's path is to be short (unix(7))
            path = Path(short) / "s"
            bind = {"bind": f"unix:{path}", "workers": 1, "threads": 8}
            configuration = site.settings(server=bind | (server or {}), **sections)
            with (
                running_nginx(site.directory / "nginx", port, path),
                running_service(site.directory, port, configuration) as service,
            ):
                yield Behind(service, path, site.directory)

    return start


def test_a_disc_comes_whole_and_is_logged_so_and_the_worker_does_not_read_it(
    behind: Start, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MKISO_LOG", "json")
    with behind() as made:
        with made.disc("BENCH.200") as (job_id, answer):
            size, before = int(answer.headers["Content-Length"]), made.read_by_the_worker()
            body = answer.read(size - 4_000_000)
            assert made.read_by_the_worker() - before < size / 2
            body += answer.read()
        assert (len(body), made.job(job_id)["state"]) == (size, "done")
        assert instances_on(read_disc(body, tmp_path / "disc")) == instances_of(site.pacs.of("BENCH.200"))
    events = [json.loads(line) for line in made.service.log.read_text().splitlines()]
    assert [one["bytes"] for one in events if one.get("path") == "/mkiso.php"] == [size]


def test_a_client_that_leaves_ends_its_job(behind: Start) -> None:
    with behind() as made:
        with made.disc("BENCH.200") as (job_id, answer):
            assert answer.read(1 << 20)
        assert made.ended(job_id) == ("cancelled", "cancelled")


def test_a_client_that_takes_nothing_is_cut_off(behind: Start) -> None:
    with behind({"send_timeout": 1}) as made, made.disc("BENCH.200") as (job_id, answer):
        assert made.ended(job_id) == ("cancelled", "cancelled")
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()


def test_a_cancel_breaks_a_disc_that_nobody_reads(behind: Start) -> None:
    with behind() as made, made.disc("BENCH.200") as (job_id, answer):
        requests.post(f"{made.service.url}/api/jobs/{job_id}/cancel", timeout=10)
        assert made.ended(job_id) == ("cancelled", "cancelled")
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()


@pytest.mark.parametrize(
    "script",
    [
        '"$real" "$@"; printf x',
        '"$real" "$@" | head -c 50000000',
        '"$real" "$@"; exit 1',
        '"$real" "$@"; echo "it left something out" >&2',
    ],
    ids=["too long", "too short", "failed", "complained"],
)
def test_a_disc_that_was_not_made_well_to_its_end_never_looks_whole(script: str, behind: Start, site: Site) -> None:
    genisoimage = program(site.directory, SIZES, script)
    with behind(tools={"genisoimage": genisoimage}) as made, made.disc("BENCH.200") as (job_id, answer):
        with pytest.raises(http.client.IncompleteRead) as broken:
            answer.read()
        assert 0 < len(broken.value.partial) < int(answer.headers["Content-Length"])
        assert made.ended(job_id) == ("failed", "internal")


def test_a_job_whose_genisoimage_hangs_in_the_middle_can_be_ended(behind: Start, site: Site) -> None:
    genisoimage = program(site.directory, SIZES, '"$real" "$@" | head -c 3000000', "sleep 3600")
    with behind(tools={"genisoimage": genisoimage}) as made, made.disc("BENCH.200") as (job_id, answer):
        assert len(answer.read(3_000_000)) == 3_000_000
        requests.post(f"{made.service.url}/api/jobs/{job_id}/cancel", timeout=10)
        assert made.ended(job_id) == ("cancelled", "cancelled")
