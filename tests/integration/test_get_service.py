"""A service that has everything by C-GET: no receiver is looked at, waited for or shown, and no port listened on."""

import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml

from tests.integration.test_parallel_moves import left
from tests.support.archive import running_archive
from tests.support.ports import free_ports
from tests.support.service import (
    Service,
    instances_of,
    instances_on,
    mkiso,
    read_disc,
    running_service,
    settings,
)
from tests.support.studies import RICHARD, Study, ct_study
from tests.support.tools import LOCALHOST, wait_until

SLOW = "SLOW.001"


@dataclass(frozen=True)
class Getting:
    """A service, whose configuration names a receiver on a port that a stranger has."""

    service: Service
    study: Study
    work_dir: Path

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.service.get(f"/api/jobs/{job_id}").json()
        return found

    def state(self, job_id: str) -> str:
        return str(self.job(job_id).get("state"))

    def begun(self, client: socket.socket) -> str:
        """A job that a client waits for, of which the first instances are there."""
        job_id = str(uuid.uuid4())
        path = f"/mkiso.php?accession_number={SLOW}&job={job_id}"
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        wait_until(lambda: bool(self.job(job_id).get("received")), 20, lambda: f"{self.job(job_id)}")
        return job_id

    def connected(self) -> socket.socket:
        host, port = self.service.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)))

    def require_nothing_left(self) -> None:
        wait_until(lambda: left(self.work_dir) == [], 10, lambda: f"{left(self.work_dir)}")


@pytest.fixture(scope="module")
def getting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Getting]:
    directory = tmp_path_factory.mktemp("getting")
    study = ct_study(directory / "held", RICHARD, SLOW, count=20, side=16)
    port, http, taken = free_ports(3)
    configuration = settings(directory, port, {"RECEIVER": taken})
    configuration["pacs"] |= {"retrieve": "get"}
    with (
        socket.create_server((LOCALHOST, taken)),
        running_archive(port, {}, directory / "held", pace=0.1),
        running_service(directory, http, configuration) as service,
    ):
        yield Getting(service, study, directory / "work")


def listening(pids: set[int]) -> list[Any]:
    return [one for one in psutil.net_connections("inet") if one.status == psutil.CONN_LISTEN and one.pid in pids]


def test_no_port_is_listened_on_and_no_receiver_taken(getting: Getting, tmp_path: Path) -> None:
    with getting.connected() as client:
        job_id = getting.begun(client)
        ours = {one.pid for one in psutil.Process(getting.service.process.pid).children(recursive=True)}
        http = int(getting.service.url.rpartition(":")[2])
        assert {one.laddr.port for one in listening(ours)} <= {http}
        assert left(getting.work_dir) != []
        assert list(getting.work_dir.glob("receiver_*")) == []
        wait_until(lambda: getting.state(job_id) != "retrieving", 20, lambda: f"{getting.job(job_id)}")
    disc = getting.service.get(f"/mkiso.php?accession_number={SLOW}")
    assert instances_on(read_disc(disc.content, tmp_path / "disc")) == instances_of([getting.study])
    assert list(getting.work_dir.glob("receiver_*")) == []


def test_the_checks_know_of_no_receiver(getting: Getting) -> None:
    ready = getting.service.get("/readyz")
    assert ready.status_code == 200, ready.text
    assert [one["name"] for one in ready.json()["checks"] if "receiver" in one["name"]] == []
    done = mkiso("check", "--config", getting.service.config_file)
    configured = yaml.safe_load(getting.service.config_file.read_text())["receivers"]
    assert [one["ae_title"] for one in configured] == ["RECEIVER"]
    assert b"receiver" not in (done.stdout + done.stderr).lower(), done.stdout


def test_the_pages_and_figures_show_none(getting: Getting) -> None:
    wait_until(lambda: "PACS reachable" in getting.service.get("/").text, 20, lambda: getting.service.get("/").text)
    assert "Receivers busy" not in getting.service.get("/").text
    figures = getting.service.get("/metrics").text
    assert 'mkiso_receivers{state="busy"} 0.0' in figures
    assert 'mkiso_receivers{state="free"} 0.0' in figures


def test_a_client_that_leaves_ends_the_job(getting: Getting) -> None:
    with getting.connected() as client:
        job_id = getting.begun(client)
    wait_until(lambda: getting.state(job_id) == "cancelled", 10, lambda: f"{getting.job(job_id)}")
    getting.require_nothing_left()


def test_a_cancel_ends_the_job(getting: Getting) -> None:
    with getting.connected() as client:
        job_id = getting.begun(client)
        requests.post(f"{getting.service.url}/api/jobs/{job_id}/cancel", timeout=10).raise_for_status()
        wait_until(lambda: getting.state(job_id) == "cancelled", 10, lambda: f"{getting.job(job_id)}")
        assert b" 410 " in client.recv(1 << 16)
    getting.require_nothing_left()


def test_a_worker_that_is_killed_leaves_nothing_past_its_successors_start(getting: Getting) -> None:
    with getting.connected() as client:
        job_id, before = getting.begun(client), getting.service.workers()
        for worker in before:
            worker.kill()
        wait_until(lambda: not set(before) & set(getting.service.workers()), 10, str)
    getting.require_nothing_left()
    wait_until(lambda: getting.state(job_id) == "failed", 10, lambda: f"{getting.job(job_id)}")
