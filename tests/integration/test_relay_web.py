"""Relays over HTTP and by command, to a destination that acknowledges or does not run."""

import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from mkiso.config import parse
from mkiso.installation import Installation
from tests.integration.conftest import Site
from tests.integration.test_lifecycle import slow_archive
from tests.support.destination import RunningDestination, running_destination
from tests.support.ports import free_ports
from tests.support.service import Service, mkiso, running_service, settings
from tests.support.testpacs import RunningPacs
from tests.support.tools import wait_until

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@dataclass
class Relaying:
    service: Service
    destination: RunningDestination

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.destination.port}"


@pytest.fixture(scope="module")
def relaying(pacs: RunningPacs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relaying]:
    directory = tmp_path_factory.mktemp("relaying")
    port, nobody, http = free_ports(3)
    peers = {
        name: {"ae_title": "DESTINATION", "host": "127.0.0.1", "port": to}
        for name, to in {"relay": port, "cd_publisher": port, "archive": port, "nobody": nobody}.items()
    }
    with (
        running_destination(port) as destination,
        running_service(directory, http, Site(directory, pacs).settings(destinations=peers)) as service,
    ):
        yield Relaying(service, destination)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("path", "accessions"),
    [
        ("/mkiso2.php?accession_number=MR.001", ["MR.001"]),
        ("/send_rimage_multiple.php?accession_number=MR.001,CT.001", ["MR.001", "CT.001"]),
        ("/api/iso/relay?accession_numbers=MR.001", ["MR.001"]),
        ("/api/iso/relay?accession_numbers=MR.001&destination=archive", ["MR.001"]),
        ("/api/iso/print?accession_number=MR.001", ["MR.001"]),
        ("/api/iso/print-multiple?accession_numbers=MR.001,CT.001", ["MR.001", "CT.001"]),
    ],
)
def test_every_relay_url_sends_and_counts(
    path: str, accessions: list[str], method: str, relaying: Relaying, pacs: RunningPacs
) -> None:
    answer = requests.request(method, relaying.service.url + path, timeout=60)
    sent = {uid for one in accessions for study in pacs.of(one) for uid in study.sop_instance_uids}
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "status": "ok",
        "job_id": answer.headers["X-Job-Id"],
        "accessions_sent": accessions,
        "patient_name": "JOHN DOE",
        "destination": relaying.address,
        "files_sent": len(sent),
    }
    assert sent <= relaying.destination.received()


def test_a_form_may_be_posted(relaying: Relaying) -> None:
    answer = requests.post(relaying.service.url + "/mkiso2.php", data={"accession_number": "SR.001"}, timeout=60)
    assert answer.json()["files_sent"] == 1


def page_of(relaying: Relaying, url: str) -> str:
    """The page that a browser is sent to, once its job has ended."""
    sent = relaying.service.get(url, headers=BROWSER, allow_redirects=False)
    assert sent.status_code == 303
    job_id = sent.headers["X-Job-Id"]
    assert sent.headers["Location"] == f"/jobs/{job_id}"
    job = lambda: relaying.service.get(f"/api/jobs/{job_id}").json()  # noqa: E731
    wait_until(lambda: job()["finished_at"] is not None, 20, lambda: f"{job()}")
    return relaying.service.get(sent.headers["Location"], headers=BROWSER).text


def test_a_person_sees_that_everything_was_sent_and_loading_it_again_sends_nothing(relaying: Relaying) -> None:
    page = page_of(relaying, "/send_rimage_multiple.php?accession_number=MR.001")
    for shown in ("Everything was sent", "confirmed all 4 images", "JOHN DOE", relaying.address):
        assert shown in page
    before = relaying.service.get("/api/jobs").json()
    (job_id,) = {before["jobs"][0]["id"]}
    assert "Everything was sent" in relaying.service.get(f"/jobs/{job_id}", headers=BROWSER).text
    assert relaying.service.get("/api/jobs").json() == before


def test_a_person_sees_what_to_do_where_nothing_was_sent(relaying: Relaying) -> None:
    page = page_of(relaying, "/api/iso/relay?accession_numbers=MR.001&destination=nobody")
    assert "The system that the images go to does not answer" in page
    assert "Sending again is safe" in page


def test_a_relay_that_was_chosen_twice_is_told_at_once(relaying: Relaying) -> None:
    url = f"/mkiso2.php?accession_number=MR.001&job={uuid.uuid4()}"
    page_of(relaying, url)
    again = relaying.service.get(url, headers=BROWSER, allow_redirects=False)
    assert (again.status_code, "This job was started already" in again.text) == (409, True)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/mkiso2.php", 400, "missing_accession"),
        ("/mkiso2.php?accession_number=A,B", 400, "invalid_accession"),
        ("/send_rimage_multiple.php?accession_number=A,,B", 400, "empty_accession"),
        ("/api/iso/relay?accession_numbers=A&destination=moon", 400, "bad_request"),
        ("/api/iso/print?accession_number=NONE.001", 404, "accession_not_found"),
        ("/api/iso/relay?accession_numbers=A&destination=", 400, "bad_request"),
        ("/send_rimage_multiple.php?accession_number=SHARED.001", 409, "several_patients"),
        ("/api/iso/relay?accession_numbers=SR.001&destination=nobody", 502, "destination_unreachable"),
    ],
)
def test_what_cannot_be_relayed_is_told(path: str, status: int, code: str, relaying: Relaying) -> None:
    answer = relaying.service.get(path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_without_destinations_the_relays_are_not_configured_and_nothing_is_asked(site: Site, tmp_path: Path) -> None:
    (http,) = free_ports(1)
    with running_service(tmp_path, http, site.settings(destinations={})) as service:
        for path in (
            "/mkiso2.php?accession_number=MR.001",
            "/send_rimage_multiple.php?accession_number=MR.001",
            "/api/iso/relay?accession_numbers=MR.001",
            "/api/iso/print?accession_number=MR.001",
            "/api/iso/print-multiple?accession_numbers=MR.001",
        ):
            answer = service.get(path)
            told = (answer.status_code, answer.json()["code"], answer.json()["error"])
            assert told == (501, "not_configured", "not configured"), path
        assert service.get("/api/iso/relay?accession_numbers=MR.001&destination=moon").status_code == 400
        assert service.get("/api/jobs").json() == {"jobs": []}


def test_head_sends_nothing(relaying: Relaying) -> None:
    before = relaying.service.get("/api/jobs").json()
    answer = requests.head(relaying.service.url + "/mkiso2.php?accession_number=MR.001", timeout=10)
    assert (answer.status_code, answer.content) == (200, b"")
    assert relaying.service.get("/api/jobs").json() == before


def test_a_relay_goes_on_where_its_window_is_closed(relaying: Relaying) -> None:
    job_id = str(uuid.uuid4())
    url = f"/api/jobs/{job_id}"
    host, port = relaying.service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as window:
        window.sendall(
            f"GET /mkiso2.php?accession_number=CT.001&job={job_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
        wait_until(lambda: relaying.service.get(url).status_code == 200, 10, str)
    state = lambda: relaying.service.get(url).json()  # noqa: E731
    wait_until(lambda: state()["finished_at"] is not None, 20, lambda: f"{state()}")
    assert (state()["state"], state()["files_sent"], state()["kind"]) == ("done", 12, "relay")


def test_the_relay_command_sends_and_says_how_much(relaying: Relaying) -> None:
    config = relaying.service.config_file
    done = mkiso("relay", "MR.001", "CT.001", "--to", "archive", "--config", config)
    assert (done.returncode, done.stdout.decode()) == (0, f"16 instances sent to {relaying.address}\n")
    failed = mkiso("relay", "MR.001", "--to", "nobody", "--config", config)
    assert (failed.returncode, b"destination unreachable" in failed.stderr) == (1, True)
    assert mkiso("relay", "MR.001", "--to", "moon", "--config", config).returncode == 2


def test_a_cancelled_relay_writes_down_what_had_arrived(pacs: RunningPacs, tmp_path: Path) -> None:
    port, http = free_ports(2)
    peers = {"relay": {"ae_title": "DESTINATION", "host": "127.0.0.1", "port": port}}
    job_id = str(uuid.uuid4())
    with (
        running_destination(port, "silent"),
        running_service(tmp_path, http, Site(tmp_path, pacs).settings(destinations=peers)) as service,
        socket.create_connection(("127.0.0.1", http)) as client,
    ):
        client.sendall(
            f"GET /mkiso2.php?accession_number=CT.001&job={job_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
        job = lambda: service.get(f"/api/jobs/{job_id}").json()  # noqa: E731
        wait_until(lambda: job().get("files_sent") == 2, 20, lambda: f"{job()}")
        assert job()["state"] == "sending"
        requests.post(f"{service.url}/api/jobs/{job_id}/cancel", timeout=10)
        assert b"410" in client.recv(100)
        assert (job()["state"], job()["files_sent"], job()["files_failed"]) == ("cancelled", 2, 10)


@pytest.mark.parametrize(("drain", "state"), [(20, "done"), (0.5, "cancelled")])
def test_a_stopping_service_waits_for_a_relay_that_no_request_waits_for(
    drain: float, state: str, tmp_path: Path
) -> None:
    short = {"drain_timeout": drain}
    with slow_archive(tmp_path, 0.1) as (pacs, receiver, study):
        port, http = free_ports(2)
        peers = {"relay": {"ae_title": "DESTINATION", "host": "127.0.0.1", "port": port}}
        configuration = settings(tmp_path, pacs, {"RECEIVER": receiver}, destinations=peers, server=short)
        with running_destination(port) as destination:
            with running_service(tmp_path, http, configuration) as service:
                url = f"/mkiso2.php?accession_number={study.accession}"
                job_id = service.get(url, headers=BROWSER, allow_redirects=False).headers["X-Job-Id"]
                assert service.stop() == 0
            ledger = Installation(parse(configuration)).ledger
            assert ledger.job(job_id)["state"] == state
            ledger.close()
            assert (destination.received() == study.sop_instance_uids) == (state == "done")
