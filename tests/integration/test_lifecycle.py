"""What outlives what: several services, clients that leave, cancels, signals, kills. Nothing is ever left behind."""

import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from mkiso.process import OWNER
from tests.integration.conftest import Site
from tests.support.archive import running_archive
from tests.support.ports import free_ports
from tests.support.service import MKISO, Service, instances_of, instances_on, read_disc, running_service, settings
from tests.support.studies import RICHARD, Study, ct_study
from tests.support.tools import wait_until

EIGHT = ("CT.001", "MR.001", "US.001", "SR.001", "PDF.001", "JPG.001", "LATIN.001", "TWO.001")
SHORT_DRAIN = {"drain_timeout": 0.5}
# The second worker begins when it was told to stop: the signal waits for it, or was taken by what it has of the master.
TOLD_BEFORE_IT_BEGINS = """
import os, select, signal
fork, forked = os.fork, []
def late_fork():
    forked.append(fork())
    if len(forked) == 2 and forked[-1] == 0:
        taken, wakes = os.pipe()
        os.set_blocking(wakes, False)
        signal.set_wakeup_fd(wakes)
        while not (signal.sigpending() or select.select([taken], [], [], 0.01)[0]):
            pass
    return forked[-1]
os.fork = late_fork
from mkiso.commands.cli import main
main()
"""


def test_two_services_share_one_receiver_for_eight_requests_at_once(site: Site, tmp_path: Path) -> None:
    with (
        running_service(tmp_path, free_ports(1)[0], site.settings()) as one,
        running_service(tmp_path, free_ports(1)[0], site.settings()) as two,
        ThreadPoolExecutor(len(EIGHT)) as pool,
    ):
        asked = [
            pool.submit([one, two][number % 2].get, f"/mkiso.php?accession_number={accession}")
            for number, accession in enumerate(EIGHT)
        ]
        answers = dict(zip(EIGHT, [each.result() for each in asked], strict=True))
        jobs = one.get("/api/jobs").json()["jobs"]
    for accession, answer in answers.items():
        assert answer.status_code == 200, answer.text
        disc = read_disc(answer.content, tmp_path / accession)
        assert instances_on(disc) == instances_of(site.pacs.of(accession))
    assert len(jobs) == len(EIGHT)


def test_streaming_overlaps_the_next_retrieval(site: Site, tmp_path: Path) -> None:
    with (
        running_service(tmp_path, free_ports(1)[0], site.settings()) as service,
        service.get("/mkiso.php?accession_number=BENCH.200", stream=True) as held_open,
    ):
        next(held_open.iter_content(1024))
        assert service.get("/mkiso.php?accession_number=CT.001").status_code == 200
        first = service.get("/api/jobs?accession_number=BENCH.200").json()["jobs"][0]
        assert first["state"] == "mastering"
        assert 1024 + sum(map(len, held_open.iter_content(1 << 20))) == int(held_open.headers["Content-Length"])


@dataclass
class Slow:
    """A service before an archive that takes 0.2 s for each of 30 instances."""

    service: Service
    study: Study
    directory: Path
    settings: dict[str, Any]

    def ask(self, job_id: str) -> "threading.Thread":
        """Ask for the disc in the background; the answer is put into `answers`."""
        thread = threading.Thread(target=self._ask, args=(job_id,))
        thread.start()
        wait_until(lambda: self.state(job_id) == "retrieving", 20, lambda: f"the job is {self.state(job_id)}")
        return thread

    def _ask(self, job_id: str) -> None:
        try:
            self.answer = self.service.get(f"/mkiso.php?accession_number=SLOW.001&job={job_id}")
        except requests.ConnectionError:
            self.answer = None

    def state(self, job_id: str) -> str | None:
        return self.job(job_id).get("state")

    def job(self, job_id: str) -> dict[str, Any]:
        return self.service.get(f"/api/jobs/{job_id}").json()

    def received(self) -> int:
        """How many files the receiver has."""
        return len(list(self.directory.glob("work/dicomdir_*/received/*")))

    def left(self) -> list[Any]:
        """Job directories, and programs that work in them."""
        directories = list(self.directory.glob("work/dicomdir_*"))
        owned = [one for one in psutil.process_iter() if _owner(one).startswith(str(self.directory))]
        return directories + owned


def _owner(process: psutil.Process) -> str:
    try:
        return process.environ().get(OWNER, "")
    except psutil.Error:
        return ""


@contextmanager
def slow_archive(tmp_path: Path, delay: float) -> Iterator[tuple[int, int, Study]]:
    port, receiver = free_ports(2)
    study = ct_study(tmp_path / "held", RICHARD, "SLOW.001", count=30)
    with running_archive(port, {"RECEIVER": receiver}, tmp_path / "held", "slow", delay=delay):
        yield port, receiver, study


@contextmanager
def slow_service(tmp_path: Path, delay: float = 0.2, program: Any = None, **sections: Any) -> Iterator[Slow]:
    with slow_archive(tmp_path, delay) as (port, receiver, study):
        configuration = settings(tmp_path, port, {"RECEIVER": receiver}, **sections)
        options = {"program": program} if program else {}
        with running_service(tmp_path, free_ports(1)[0], configuration, **options) as service:
            yield Slow(service, study, tmp_path, configuration)


def test_a_cancel_stops_the_job_and_tells_who_waits(tmp_path: Path) -> None:
    with slow_service(tmp_path) as slow:
        job_id = str(uuid.uuid4())
        waiting = slow.ask(job_id)
        answer = requests.post(f"{slow.service.url}/api/jobs/{job_id}/cancel", timeout=10)
        assert (answer.status_code, answer.json()["id"]) == (200, job_id)
        waiting.join()
        assert (slow.answer.status_code, slow.answer.json()["code"]) == (410, "cancelled")
        assert slow.state(job_id) == "cancelled"
        assert slow.left() == []


def test_progress_is_seen_while_the_job_runs(tmp_path: Path) -> None:
    with slow_service(tmp_path, delay=0.1) as slow:
        job_id = str(uuid.uuid4())
        waiting = slow.ask(job_id)
        seen: list[int] = []
        while waiting.is_alive():
            seen.append(slow.job(job_id)["received"])
        assert slow.answer.status_code == 200
        assert seen == sorted(seen)
        assert any(0 < received < 30 for received in seen)
        assert slow.job(job_id)["received"] == 30


def test_a_client_that_leaves_while_it_waits_ends_the_job(tmp_path: Path) -> None:
    with slow_service(tmp_path) as slow:
        job_id = str(uuid.uuid4())
        host, port = slow.service.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(
                f"GET /mkiso.php?accession_number=SLOW.001&job={job_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            )
            wait_until(lambda: slow.state(job_id) == "retrieving", 20, lambda: f"{slow.state(job_id)}")
        wait_until(lambda: slow.state(job_id) == "cancelled", 10, lambda: f"{slow.job(job_id)}")
        wait_until(lambda: slow.left() == [], 5, lambda: f"{slow.left()}")


@pytest.mark.parametrize("chosen", ["iso", "zip"])
def test_a_client_that_leaves_while_it_reads_ends_the_job(chosen: str, site: Site, tmp_path: Path) -> None:
    with running_service(tmp_path, free_ports(1)[0], site.settings()) as service:
        with service.get(f"/mkiso.php?accession_number=BENCH.200&format={chosen}", stream=True) as answer:
            next(answer.iter_content(1024))
            job_id = answer.headers["X-Job-Id"]
        url = f"/api/jobs/{job_id}"
        wait_until(lambda: service.get(url).json()["state"] == "cancelled", 10, lambda: service.get(url).text)
        wait_until(lambda: list(tmp_path.glob("work/dicomdir_*")) == [], 5, str)


@pytest.mark.parametrize("chosen", ["iso", "zip"])
def test_a_cancel_breaks_a_disc_that_nobody_reads(chosen: str, site: Site, tmp_path: Path) -> None:
    with (
        running_service(tmp_path, free_ports(1)[0], site.settings()) as service,
        service.get(f"/mkiso.php?accession_number=BENCH.200&format={chosen}", stream=True) as answer,
    ):
        job_id = answer.headers["X-Job-Id"]
        requests.post(f"{service.url}/api/jobs/{job_id}/cancel", timeout=10)
        url = f"/api/jobs/{job_id}"
        wait_until(lambda: service.get(url).json()["finished_at"] is not None, 10, lambda: service.get(url).text)
        job = service.get(url).json()
        assert (job["state"], job["error"]["code"]) == ("cancelled", "cancelled")
        assert list(tmp_path.glob("work/dicomdir_*")) == []


@pytest.mark.parametrize("chosen", ["iso", "zip"])
def test_a_file_that_shrinks_while_it_is_streamed_breaks_the_connection(
    chosen: str, site: Site, tmp_path: Path
) -> None:
    viewer = tmp_path / "viewer"
    viewer.mkdir()
    (viewer / "zz.bin").write_bytes(bytes(200_000_000))
    media = {"viewer_dir": str(viewer)}
    with (
        running_service(tmp_path, free_ports(1)[0], site.settings(media=media)) as service,
        service.get(f"/mkiso.php?accession_number=SR.001&format={chosen}", stream=True) as answer,
    ):
        assert answer.status_code == 200
        (viewer / "zz.bin").write_bytes(b"")
        with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)):
            sum(map(len, answer.iter_content(1 << 20)))
        url = f"/api/jobs/{answer.headers['X-Job-Id']}"
        wait_until(lambda: service.get(url).json()["finished_at"] is not None, 10, lambda: service.get(url).text)
        job = service.get(url).json()
        assert (job["state"], job["error"]["code"]) == ("failed", "internal")


SIZES = 'case "$*" in *-print-size*) exec "$real" "$@";; esac'
HANGING = {
    "while it sizes": ("sleep 3600",),
    "before its first byte": (SIZES, "sleep 3600"),
    "in the middle": (SIZES, '"$real" "$@" | head -c 300000', "sleep 3600"),
}


def program(directory: Path, *script: str) -> str:
    """A program in genisoimage's place; `$real` is the real one."""
    file = directory / "genisoimage"
    file.write_text("\n".join(("#!/bin/sh", "real=/usr/bin/genisoimage", *script, "")))
    file.chmod(0o755)
    return str(file)


def test_a_file_that_grew_since_its_disc_was_sized_breaks_the_connection(site: Site, tmp_path: Path) -> None:
    """The size is told before the image is made: this genisoimage sees more than the other did."""
    genisoimage = program(tmp_path, SIZES, '"$real" "$@"; printf x')
    with (
        running_service(tmp_path, free_ports(1)[0], site.settings(tools={"genisoimage": genisoimage})) as service,
        service.get("/mkiso.php?accession_number=CT.001", stream=True) as answer,
    ):
        assert answer.status_code == 200
        chunks: list[bytes] = []
        with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)):
            chunks.extend(answer.iter_content(1 << 16))
        assert sum(map(len, chunks)) < int(answer.headers["Content-Length"])
        url = f"/api/jobs/{answer.headers['X-Job-Id']}"
        wait_until(lambda: service.get(url).json()["finished_at"] is not None, 10, lambda: service.get(url).text)
        assert service.get(url).json()["error"]["code"] == "internal"


@pytest.mark.parametrize("hangs", HANGING)
def test_a_job_whose_genisoimage_hangs_can_be_ended(hangs: str, site: Site, tmp_path: Path) -> None:
    configuration = site.settings(tools={"genisoimage": program(tmp_path, *HANGING[hangs])}, server=SHORT_DRAIN)
    with running_service(tmp_path, free_ports(1)[0], configuration) as service:
        with hanging_job(service) as job_id:
            requests.post(f"{service.url}/api/jobs/{job_id}/cancel", timeout=10)
            wait_until_over(service, job_id)
        with hanging_job(service) as job_id:
            pass
        wait_until_over(service, job_id)
        with hanging_job(service):
            assert service.stop() == 0
    assert list(tmp_path.glob("work/dicomdir_*")) == []


@contextmanager
def hanging_job(service: Service) -> Iterator[str]:
    """A client that waits for its disc, which is being mastered, until the block ends."""
    job_id = str(uuid.uuid4())
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(
            f"GET /mkiso.php?accession_number=CT.001&job={job_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
        url = f"/api/jobs/{job_id}"
        wait_until(lambda: service.get(url).json().get("state") == "mastering", 20, lambda: service.get(url).text)
        yield job_id


def wait_until_over(service: Service, job_id: str) -> None:
    url = f"/api/jobs/{job_id}"
    wait_until(lambda: service.get(url).json()["state"] == "cancelled", 10, lambda: service.get(url).text)


def test_a_worker_that_was_suspended_calls_no_archive_slow(tmp_path: Path) -> None:
    with slow_service(tmp_path, delay=0.1, retrieve={"stall_timeout": 0.8, "settle_timeout": 0.8}) as slow:
        waiting = slow.ask(str(uuid.uuid4()))
        wait_until(lambda: slow.received() > 0, 20, str)
        for worker in slow.service.workers():
            worker.suspend()
        try:
            # The archive goes on, for longer than it may be silent.
            wait_until(lambda: slow.received() >= 20, 20, str)
        finally:
            for worker in slow.service.workers():
                worker.resume()
        waiting.join()
        assert slow.answer.status_code == 200, slow.answer.text
        assert slow.left() == []


def test_a_worker_without_descriptors_left_leaves_nothing_behind_and_lives_on(tmp_path: Path) -> None:
    few = ("/usr/bin/prlimit", "--nofile=80:80", MKISO)
    with slow_service(tmp_path, delay=0.1, program=few, server={"workers": 1}) as slow, ExitStack() as clients:
        (worker,) = slow.service.workers()
        waiting = slow.ask(str(uuid.uuid4()))
        host, port = slow.service.url.removeprefix("http://").split(":")
        while worker.num_fds() < 80:
            clients.enter_context(socket.create_connection((host, int(port))))
        waiting.join()
        assert slow.answer is None or slow.answer.ok or slow.answer.json()["code"] in ("busy", "ledger_unavailable")
        wait_until(lambda: slow.left() == [], 5, lambda: f"{slow.left()}")
        clients.close()
        assert slow.service.get("/mkiso.php?accession_number=SLOW.001").status_code == 200
        assert slow.service.workers() == [worker]


def test_sigterm_lets_a_running_job_end(tmp_path: Path) -> None:
    with slow_service(tmp_path, delay=0.1) as slow:
        waiting = slow.ask(str(uuid.uuid4()))
        assert slow.service.stop() == 0
        waiting.join()
        assert slow.answer.status_code == 200
        assert instances_on(read_disc(slow.answer.content, tmp_path / "disc")) == instances_of([slow.study])


@pytest.mark.parametrize(
    ("number", "server"),
    [(signal.SIGTERM, SHORT_DRAIN), (signal.SIGINT, {})],
    ids=["SIGTERM after the drain", "SIGINT"],
)
def test_a_stopping_service_ends_its_jobs_and_their_children(number: int, server: Any, tmp_path: Path) -> None:
    with slow_service(tmp_path, server=server) as slow:
        waiting = slow.ask(str(uuid.uuid4()))
        slow.service.stop(number)
        waiting.join()
        assert slow.answer is None or slow.answer.status_code == 410
        assert slow.left() == []


def test_a_stopping_service_takes_no_new_job_and_tells_so(tmp_path: Path) -> None:
    """On a connection that was kept, on one that waited with nothing sent, and on a new one."""
    with (
        slow_service(tmp_path, server={"workers": 1, "drain_timeout": 60}) as slow,
        requests.Session() as kept,
        closing(connection(slow.service)) as accepted,
        ThreadPoolExecutor(1) as pool,
    ):
        waiting = slow.ask(str(uuid.uuid4()))
        assert kept.get(f"{slow.service.url}/healthz", timeout=10).headers["Connection"] == "keep-alive"
        stopped = pool.submit(slow.service.stop)
        wait_until(lambda: is_stopping(slow), 10, str)
        refused = (
            kept.get(f"{slow.service.url}/mkiso.php?accession_number=SLOW.001", timeout=10),
            slow.service.get("/mkiso2.php?accession_number=SLOW.001"),
            slow.service.get("/api/studies?accession_numbers=SLOW.001"),
        )
        for answer in refused:
            assert (answer.status_code, answer.json()["code"]) == (503, "stopping"), answer.text
            assert answer.json()["error"] == "service is stopping"
            assert int(answer.headers["Retry-After"]) > 0
        accepted.sendall(b"GET /mkiso.php?accession_number=SLOW.001 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b'"stopping"' in b"".join(iter(lambda: accepted.recv(4096), b""))
        assert slow.service.get("/healthz").status_code == 200
        waiting.join()
        assert slow.answer.status_code == 200
        assert stopped.result() == 0
        assert slow.left() == []


def connection(service: Service) -> socket.socket:
    host, port = service.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), 10)


def is_stopping(slow: Slow) -> bool:
    """Asked by what moves nothing; a connection may be cut off as the master lets go of the socket."""
    with suppress(requests.ConnectionError):
        return slow.service.get("/api/studies?accession_numbers=SLOW.001").status_code == 503
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=lambda number: number.name)
def test_a_worker_that_begins_as_the_service_stops_is_not_waited_for(number: int, site: Site, tmp_path: Path) -> None:
    program = (sys.executable, "-c", TOLD_BEFORE_IT_BEGINS)
    with running_service(
        tmp_path, free_ports(1)[0], site.settings(server={"drain_timeout": 300}), program=program
    ) as service:
        wait_until(lambda: len(service.workers()) == 2, 20, service.log.read_text)
        assert service.stop(number) == 0
    assert "worker failed" not in service.log.read_text()


def test_running_jobs_have_the_drain_timeout_and_no_more(tmp_path: Path) -> None:
    with slow_service(tmp_path, delay=1, server={"drain_timeout": 1.5}) as slow:
        waiting = slow.ask(str(uuid.uuid4()))
        told = time.monotonic()
        assert slow.service.stop() == 0
        assert 1.5 <= time.monotonic() - told < 15
        waiting.join()
        assert (slow.answer.status_code, slow.answer.json()["code"]) == (410, "cancelled")
        assert slow.left() == []


def test_a_disc_that_nobody_reads_does_not_keep_a_stopping_service(site: Site, tmp_path: Path) -> None:
    with (
        running_service(tmp_path, free_ports(1)[0], site.settings(server=SHORT_DRAIN)) as service,
        service.get("/mkiso.php?accession_number=BENCH.200", stream=True),
    ):
        assert service.stop() == 0
        assert list(tmp_path.glob("work/dicomdir_*")) == []


def test_a_worker_that_is_killed_leaves_nothing_past_its_successors_start(tmp_path: Path) -> None:
    with slow_service(tmp_path, delay=0.1) as slow:
        job_id = str(uuid.uuid4())
        waiting = slow.ask(job_id)
        before = slow.service.workers()
        for worker in before:
            worker.kill()
        waiting.join()
        wait_until(lambda: not set(before) & set(slow.service.workers()), 10, str)
        wait_until(lambda: slow.left() == [], 10, lambda: f"{slow.left()}")
        wait_until(lambda: slow.state(job_id) == "failed", 10, lambda: f"{slow.job(job_id)}")
        assert slow.service.get("/mkiso.php?accession_number=SLOW.001").status_code == 200


def test_a_service_that_is_killed_leaves_nothing_past_the_next_start(tmp_path: Path) -> None:
    with slow_service(tmp_path, delay=0.1) as slow:
        job_id = str(uuid.uuid4())
        waiting = slow.ask(job_id)
        for process in (psutil.Process(slow.service.process.pid), *slow.service.workers()):
            process.kill()
        slow.service.process.wait()
        waiting.join()
        assert len(slow.left()) >= 2  # the directory and its storescp
        with running_service(tmp_path, free_ports(1)[0], slow.settings) as again:
            assert slow.left() == []
            assert again.get(f"/api/jobs/{job_id}").json()["state"] == "failed"
            assert again.get("/mkiso.php?accession_number=SLOW.001").status_code == 200


def test_a_job_that_waits_takes_over_from_a_killed_one(tmp_path: Path) -> None:
    with slow_service(tmp_path, delay=0.1) as slow, running_service(tmp_path, free_ports(1)[0], slow.settings) as other:
        first = slow.ask(str(uuid.uuid4()))
        job_id = str(uuid.uuid4())
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(other.get, f"/mkiso.php?accession_number=SLOW.001&job={job_id}")
            wait_until(lambda: other.get(f"/api/jobs/{job_id}").json().get("state") == "queued", 10, str)
            for process in (psutil.Process(slow.service.process.pid), *slow.service.workers()):
                process.kill()
            slow.service.process.wait()
            first.join()
            assert waiting.result().status_code == 200
        other.stop()


def test_a_query_ends_with_the_service_that_asked_it(tmp_path: Path) -> None:
    port, receiver, http = free_ports(3)
    ct_study(tmp_path / "held", RICHARD, "SLOW.001")
    configuration = settings(tmp_path, port, {"RECEIVER": receiver}, retrieve={"query_timeout": 60}, server=SHORT_DRAIN)
    with (
        running_archive(port, {"RECEIVER": receiver}, tmp_path / "held", "hang-find"),
        running_service(tmp_path, http, configuration) as service,
        ThreadPoolExecutor(1) as pool,
    ):
        asked = pool.submit(service.get, "/api/studies?accession_numbers=SLOW.001")
        wait_until(lambda: bool(list(tmp_path.glob("work/dicomdir_*"))), 10, str)
        service.stop()
        assert asked.result().json()["code"] == "cancelled"
        assert list(tmp_path.glob("work/dicomdir_*")) == []
