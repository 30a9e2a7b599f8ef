"""Queued relays: told at once, sent in their turn, tried until they have arrived or a person has to look."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.conftest import Site
from tests.support.destination import running_destination
from tests.support.ports import free_ports
from tests.support.service import Service, running_service
from tests.support.testpacs import RunningPacs
from tests.support.tools import wait_until

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
OVER = ("done", "quarantined", "cancelled")
RELAY = {
    *("id", "state", "destination", "accessions", "study_uids", "attempts", "next_at", "error", "jobs", "files_sent"),
    *("files_confirmed", "requester", "created_at", "finished_at"),
}


class Queueing:
    """A service with destinations that run, or are away until a test starts them."""

    def __init__(self, service: Service, ports: dict[str, int]) -> None:
        self.service, self.ports = service, ports

    def queue(self, accession: str, destination: str) -> str:
        url = f"/api/iso/relay?accession_numbers={accession}&destination={destination}&queue=1"
        answer = self.service.get(url)
        assert answer.status_code == 202, answer.text
        relay_id: str = answer.json()["relay_id"]
        return relay_id

    def relay(self, relay_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.service.get(f"/api/relays/{relay_id}").json()
        return found

    def wait_for(self, relay_id: str, *states: str, seconds: float = 60) -> dict[str, Any]:
        wait_until(lambda: self.relay(relay_id)["state"] in states, seconds, lambda: f"{self.relay(relay_id)}")
        return self.relay(relay_id)


@pytest.fixture(scope="module")
def queueing(pacs: RunningPacs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queueing]:
    directory = tmp_path_factory.mktemp("queueing")
    names = ("relay", "refusing", "away", "late")
    *ports, http = free_ports(len(names) + 1)
    at = dict(zip(names, ports, strict=True))
    peers = {name: {"ae_title": "DESTINATION", "host": "127.0.0.1", "port": port} for name, port in at.items()}
    with ExitStack() as running:
        running.enter_context(running_destination(at["relay"]))
        running.enter_context(running_destination(at["refusing"], "status", 0xA700))
        configuration = Site(directory, pacs).settings(destinations=peers)
        service = running.enter_context(running_service(directory, http, configuration))
        yield Queueing(service, at)


def test_a_queued_relay_is_told_at_once_and_sent(queueing: Queueing, pacs: RunningPacs) -> None:
    relay_id = str(uuid.uuid4())
    answer = queueing.service.get(f"/mkiso2.php?accession_number=MR.001&queue=1&job={relay_id}")
    assert answer.status_code == 202
    assert answer.json() == {"status": "queued", "relay_id": relay_id}
    assert answer.headers["Location"] == f"/relays/{relay_id}"
    relay = queueing.wait_for(relay_id, *OVER)
    assert relay.keys() >= RELAY
    assert queueing.service.get("/api/relays?destination=relay&limit=1").json()["relays"] == [relay]
    (job_id,) = relay["jobs"]
    job = queueing.service.get(f"/api/jobs/{job_id}").json()
    count = sum(len(study.sop_instance_uids) for study in pacs.of("MR.001"))
    assert (relay["state"], relay["attempts"], relay["error"]) == ("done", 1, None)
    assert (job["relay_id"], job["state"], job["kind"], job["files_sent"]) == (relay_id, "done", "relay", count)


def test_a_relay_of_an_id_that_is_there_is_refused(queueing: Queueing) -> None:
    relay_id = queueing.queue("SR.001", "relay")
    again = queueing.service.get(f"/mkiso2.php?accession_number=SR.001&queue=1&job={relay_id}")
    assert (again.status_code, again.json()["code"]) == (409, "job_exists")
    queueing.wait_for(relay_id, "done")


def test_what_fails_is_tried_again_after_a_pause(queueing: Queueing) -> None:
    relay_id = queueing.queue("MR.001", "refusing")
    wait_until(lambda: queueing.relay(relay_id)["counted"] > 0, 30, lambda: f"{queueing.relay(relay_id)}")
    relay = queueing.relay(relay_id)
    assert (relay["state"], relay["counted"], relay["error"]["code"]) == ("waiting", 1, "relay_failed")
    assert relay["next_at"] > relay["created_at"]
    cancelled = requests.post(f"{queueing.service.url}/api/relays/{relay_id}/cancel", timeout=60)
    assert cancelled.json()["state"] == "cancelled"


def test_a_number_that_nobody_knows_is_not_tried_again(queueing: Queueing) -> None:
    relay = queueing.wait_for(queueing.queue("NOBODY.1", "relay"), "quarantined")
    assert (relay["attempts"], relay["error"]["code"]) == (1, "accession_not_found")


def test_a_destination_that_was_away_gets_everything_in_the_order_asked_and_holds_no_other_up(
    queueing: Queueing, pacs: RunningPacs
) -> None:
    waiting = [queueing.queue(accession, "late") for accession in ("MR.001", "CT.001", "SR.001")]
    wait_until(lambda: queueing.relay(waiting[0])["error"] is not None, 30, lambda: f"{queueing.relay(waiting[0])}")
    queueing.wait_for(queueing.queue("SR.001", "relay"), "done")
    assert queueing.relay(waiting[0])["error"]["code"] == "destination_unreachable"
    with running_destination(queueing.ports["late"]) as late:
        ended = [queueing.wait_for(relay_id, *OVER) for relay_id in waiting]
        assert [(relay["state"], relay["counted"]) for relay in ended] == [("done", 0)] * 3
        begun = [queueing.service.get(f"/api/jobs/{one['jobs'][-1]}").json()["created_at"] for one in ended]
        assert begun == sorted(begun)
        studies = [study for number in ("MR.001", "CT.001", "SR.001") for study in pacs.of(number)]
        assert late.received() == {uid for study in studies for uid in study.sop_instance_uids}


def test_always_queues_what_a_program_asks_for_without_saying_so(pacs: RunningPacs, tmp_path: Path) -> None:
    port, http = free_ports(2)
    peers = {"relay": {"ae_title": "DESTINATION", "host": "127.0.0.1", "port": port}}
    configuration = Site(tmp_path, pacs).settings(destinations=peers, relay={"queue": "always"})
    with running_destination(port), running_service(tmp_path, http, configuration) as service:
        answer = service.get("/mkiso2.php?accession_number=MR.001")
        assert (answer.status_code, answer.json()["status"]) == (202, "queued")
        Queueing(service, {}).wait_for(answer.json()["relay_id"], "done")


def test_what_a_stopping_service_breaks_off_is_sent_by_the_next_one(pacs: RunningPacs, tmp_path: Path) -> None:
    port, http = free_ports(2)
    peers = {"relay": {"ae_title": "DESTINATION", "host": "127.0.0.1", "port": port}}
    configuration = Site(tmp_path, pacs).settings(destinations=peers, server={"drain_timeout": 0.5})
    with running_service(tmp_path, http, configuration) as service:
        queueing = Queueing(service, {"relay": port})
        with running_destination(port, "silent"):
            relay_id = queueing.queue("MR.001", "relay")
            wait_until(lambda: queueing.relay(relay_id)["files_sent"] == 2, 30, lambda: f"{queueing.relay(relay_id)}")
            assert service.stop() == 0
    assert list((tmp_path / "work").glob("dicomdir_*")) == []
    with running_destination(port) as destination, running_service(tmp_path, http, configuration) as service:
        relay = Queueing(service, {}).wait_for(relay_id, *OVER)
        assert (relay["state"], relay["attempts"], relay["counted"]) == ("done", 2, 0)
        assert len(destination.received()) == 2  # the others were acknowledged before
