"""A service that tells whether it is ready, and what it has done."""

import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.integration.conftest import Site
from tests.support.ports import free_ports
from tests.support.service import Service, running_service
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
