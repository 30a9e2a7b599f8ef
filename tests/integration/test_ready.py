"""A service that tells whether it is ready, and what it has done."""

import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from mkiso import checks
from mkiso.config import parse
from tests.integration.conftest import Site
from tests.support.destination import running_destination
from tests.support.ports import free_ports
from tests.support.service import Service, mkiso, running_service
from tests.support.tools import LOCALHOST, wait_until

ONE = {"workers": 1, "threads": 32}


@contextmanager
def serving(site: Site, **sections: Any) -> Iterator[Service]:
    port = free_ports(1)[0]
    with running_service(site.directory, port, site.settings(server=ONE, **sections)) as service:
        yield service


def failing(answer: requests.Response) -> list[str]:
    told = answer.json()
    failed = [check["name"] for check in told["checks"] if not check["ok"]]
    assert (answer.status_code, told["ready"]) == ((503, False) if failed else (200, True))
    return failed


@contextmanager
def silent_peer() -> Iterator[int]:
    """A port that takes connections, on which nobody ever says anything."""
    with closing(socket.create_server((LOCALHOST, 0), backlog=64)) as listening:
        yield listening.getsockname()[1]


def echoes(service: Service) -> int:
    """How many C-ECHOs are under way."""
    processes = psutil.Process(service.process.pid).children(recursive=True)
    return sum(_name(process) == "echoscu" for process in processes)


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""


def test_a_service_that_has_all_it_needs_is_ready(site: Site) -> None:
    with serving(site) as service:
        answer = service.get("/readyz")
        assert failing(answer) == []
        assert {check["name"] for check in answer.json()["checks"]} >= {"storescp", "genisoimage", "pacs"}
        assert requests.head(f"{service.url}/readyz", timeout=60).status_code == 200


def test_a_pacs_that_is_away_is_named(site: Site) -> None:
    pacs = {"port": free_ports(1)[0]}
    with serving(site, pacs=pacs) as service:
        answer = service.get("/readyz")
        assert failing(answer) == ["pacs"]
        assert str(pacs["port"]) not in answer.text
        assert f":{pacs['port']}" in service.log.read_text()


def test_a_tool_that_is_missing_is_named(site: Site, tmp_path: Path) -> None:
    tools = {"genisoimage": f"{tmp_path}/genisoimage"}
    with serving(site, tools=tools) as service:
        answer = service.get("/readyz")
        assert failing(answer) == ["genisoimage"]
        assert str(tmp_path) not in answer.text


def test_poppler_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {check.name: check for check in checks.tools(parse({}))}
    assert (found["genisoimage"].ok, found["pdftoppm"].ok) == (True, False)
    assert "poppler-utils" in found["pdftoppm"].found


def test_a_ledger_that_goes_away_is_named_within_seconds(site: Site, tmp_path: Path) -> None:
    storage = site.settings()["storage"] | {"ledger": f"sqlite:///{tmp_path}/kept/ledger.db"}
    with serving(site, storage=storage) as service:
        assert failing(service.get("/readyz")) == []
        shutil.move(tmp_path / "kept", tmp_path / "elsewhere")
        wait_until(lambda: failing(service.get("/readyz")) == ["storage.ledger"], 15, lambda: "it is still ready")
        shutil.move(tmp_path / "elsewhere", tmp_path / "kept")
        wait_until(lambda: failing(service.get("/readyz")) == [], 15, lambda: "it is not ready again")


def test_however_many_ask_a_pacs_that_hangs_is_asked_once_at_a_time(site: Site) -> None:
    """Beside the one C-ECHO that the pages' state may have under way."""
    with silent_peer() as port, serving(site, pacs={"port": port}) as service, ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(service.get, "/readyz") for _ in range(40)]
        most = 0
        while not all(one.done() for one in asked):
            most = max(most, echoes(service))
        assert {tuple(failing(one.result())) for one in asked} == {("pacs",)}
        assert max(one.result().elapsed.total_seconds() for one in asked) < 10
        assert 1 <= most <= 2
        assert service.get("/healthz").elapsed.total_seconds() < 1


def samples(service: Service) -> dict[tuple[str, ...], float]:
    """Name and labels' values of each sample, by the labels' names, to its value."""
    families = text_string_to_metric_families(service.get("/metrics").text)
    found = [one for family in families for one in family.samples]
    return {(one.name, *(one.labels[label] for label in sorted(one.labels))): one.value for one in found}


def ended(service: Service) -> dict[tuple[str, ...], float]:
    """Jobs by code, kind and state."""
    return {key[1:]: value for key, value in samples(service).items() if key[0] == "mkiso_jobs_total"}


def test_a_disc_a_relay_a_failed_job_and_a_command_are_counted(site: Site, tmp_path: Path) -> None:
    port = free_ports(1)[0]
    peers = {"relay": {"ae_title": "DESTINATION", "host": LOCALHOST, "port": port}}
    with serving(site, destinations=peers) as service, running_destination(port):
        assert ended(service) == {}
        size = len(service.get("/mkiso.php?accession_number=CT.001").content)
        relayed = service.get("/api/iso/relay?accession_numbers=CT.001").json()
        assert service.get("/mkiso.php?accession_number=NONE.001").status_code == 404
        command = mkiso("iso", "CT.001", "-o", tmp_path / "disc.iso", "--config", service.config_file)
        assert command.returncode == 0, command.stderr
        wait_until(lambda: sum(ended(service).values()) == 4, 10, lambda: str(ended(service)))
        assert ended(service) == {
            ("", "iso", "done"): 2,
            ("", "relay", "done"): 1,
            ("accession_not_found", "iso", "failed"): 1,
        }
        found = samples(service)
    assert found["mkiso_instances_total",] == 3 * relayed["files_sent"]
    assert found["mkiso_handed_out_bytes_total",] > 2 * size
    assert found["mkiso_phase_seconds_total", "retrieving"] > 0
    assert (found["mkiso_jobs_running",], found["mkiso_receivers", "free"]) == (0, 1)
    assert (found["mkiso_check_ok", "pacs"], found["mkiso_check_ok", "storescp"]) == (1, 1)


def test_every_worker_tells_the_same(site: Site) -> None:
    with running_service(site.directory, free_ports(1)[0], site.settings(server={"workers": 2})) as service:
        service.get("/mkiso.php?accession_number=CT.001")
        wait_until(lambda: ended(service) == {("", "iso", "done"): 1}, 10, lambda: str(ended(service)))
        assert [ended(service) for _ in range(10)] == [{("", "iso", "done"): 1}] * 10


def test_figures_are_told_while_the_pacs_hangs(site: Site) -> None:
    with silent_peer() as port, serving(site, pacs={"port": port}) as service:
        assert service.get("/metrics").elapsed.total_seconds() < 2
        assert failing(service.get("/readyz")) == ["pacs"]
        assert samples(service)["mkiso_check_ok", "pacs"] == 0
