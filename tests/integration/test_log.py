"""What the service writes from its first line to its last: events, and a line for each request."""

import json
import re
import socket
import uuid
from typing import Any

import pytest

from tests.integration.conftest import Site
from tests.support.ports import free_ports
from tests.support.service import Service, running_service
from tests.support.tools import LOCALHOST, wait_until

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"
LINE = re.compile(rf"{TIME} [A-Z]+ +\S.*|  .*")
FAILS = '#!/bin/sh\ncase "$*" in *-print-size*) echo 512; exit;; esac\nexit 1\n'
SECRET = "s3cr3t-t0ken"
ODD = "/%0a2026-11-21%20INFO%20job%20ended%1b%5b2J%00"
DISC, FAILED = str(uuid.uuid4()), str(uuid.uuid4())


def life(site: Site) -> tuple[Service, int]:
    """A service that makes a disc, fails at one, refuses, is asked odd things, loses its worker, and is stopped."""
    (site.directory / "genisoimage").write_text(FAILS)
    (site.directory / "genisoimage").chmod(0o755)
    configuration = site.settings(
        tools={"genisoimage": str(site.directory / "genisoimage")},
        server={"workers": 1, "api_tokens": [{"name": "his", "token": SECRET}]},
    )
    token = {"Authorization": f"Bearer {SECRET}"}
    with running_service(site.directory, free_ports(1)[0], configuration) as service:
        one = f"accession_number=SR.001&token={SECRET}"
        disc = service.get(f"/api/iso/download?{one}&format=zip&job={DISC}", headers=token)
        assert (
            service.get(f"/mkiso.php?{one}&job={FAILED}", headers={"X-Forwarded-User": "dr job 1"}).status_code == 500
        )
        assert service.get("/api/jobs").status_code == 401
        assert service.get(ODD + "/x" * 3900).status_code == 400
        assert service.get(f"/jobs/{DISC}", headers={"Accept": "application/json"}).status_code == 200
        refused(service)
        (worker,) = service.workers()
        worker.kill()
        wait_until(lambda: service.log.read_text().count("worker started") == 2, 20, service.log.read_text)
        assert service.stop() == 0
    return service, len(disc.content)


def refused(service: Service) -> None:
    with socket.create_connection((LOCALHOST, int(service.url.rpartition(":")[2]))) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost\x00: x\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 400 ")


def test_every_line_is_an_event_from_the_first_to_the_last(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKISO_LOG", "json")
    service, size = life(site)
    text = service.log.read_text()
    events = [json.loads(line) for line in text.splitlines()]
    assert all({"time", "level", "event"} <= set(event) for event in events)
    names = [event["event"] for event in events]
    assert (names[0], names[-2:]) == ("ready", ["stopping", "stopped"])
    assert [name for name in names if "SIGKILL" in name]
    assert {"worker started", "request refused"} <= set(names)
    study = site.pacs.study("SR.001")
    for name in (study.patient_id, *study.patient_name.split("^")):
        assert name.upper() not in text.upper()
    assert SECRET not in text
    job_ended(events, site, size)
    requests(events, size)


def job_ended(events: list[dict[str, Any]], site: Site, size: int) -> None:
    disc, failed = (event for event in events if event["event"] == "job ended")
    count = len(site.pacs.study("SR.001").files)
    told = {"kind": "iso", "accession": ["SR.001"], "received": count, "expected": count}
    wanted = {"job": DISC, "requester": f"his@{LOCALHOST}", "state": "done", "bytes": size, **told}
    assert disc == disc | wanted
    assert failed == failed | {"job": FAILED, "state": "failed", "code": "internal", "level": "ERROR", **told}
    assert "Traceback" in failed["trace"]
    assert {"queued", "querying", "retrieving", "verifying", "mastering"} == set(disc["phases"])
    assert disc["seconds"] >= sum(disc["phases"].values()) - 0.01


def requests(events: list[dict[str, Any]], size: int) -> None:
    asked = {event["path"]: event for event in events if event["event"] == "request"}  # as they ended: in any order
    health, disc = asked.pop("/healthz"), asked.pop("/api/iso/download")
    failed, unknown = asked.pop("/mkiso.php"), asked.pop("/api/jobs")
    (odd,) = asked.values()  # and no poll
    assert health == health | {"method": "GET", "status": 200}
    assert disc == disc | {"status": 200, "job": DISC, "bytes": size, "requester": f"his@{LOCALHOST}"}
    assert failed == failed | {"status": 500, "job": FAILED, "requester": f"dr job 1@{LOCALHOST}"}
    assert unknown == unknown | {"method": "GET", "status": 401, "requester": LOCALHOST}
    assert odd == odd | {"method": "GET", "status": 400}
    assert "job" not in odd
    assert all(event["seconds"] >= 0 for event in asked.values())


def test_every_line_in_a_terminal_is_an_event_or_of_its_trace(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MKISO_LOG", raising=False)
    service, _ = life(site)
    lines = service.log.read_bytes().decode().split("\n")
    assert lines.pop() == ""
    assert [line for line in lines if not (LINE.fullmatch(line) and line.isprintable())] == []
    assert len([line for line in lines if " job ended " in line]) == 2
    assert [line for line in lines if line.startswith("  Traceback")]
    assert [line for line in lines if ' requester="dr job 1@' in line]
