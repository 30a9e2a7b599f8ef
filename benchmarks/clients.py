"""The soak's clients: what people and programs ask of a service, what they break off, and what they should not send.

Each act raises what is wrong with an answer.
"""

import http.client
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from random import Random

import requests

from benchmarks.desk import LIMIT, Desk, Wish, take
from benchmarks.samples import MB
from tests.support.tools import LOCALHOST

LARGE = "BENCH.200"
SINGLE = ("CT.001", "MR.001", "US.001", "SR.001", "PDF.001", "JPG.001", "UTF8.001", "GB.001", "TWO.001", "BENCH.003")
LISTS = (("CT.001", "MR.001"), ("US.001", "SR.001", "PDF.001", "JPG.001"), ("TWO.001",), ("BENCH.003",))
DESTINATIONS = ("relay", "cd_publisher")
NOWHERE = "nowhere"
SLOW = 0.1  # s after each megabyte
REFUSED: tuple[tuple[str, int], ...] = (
    ("/mkiso.php", 400),
    ("/mkiso.php?accession_number=*", 400),
    ("/mkiso.php?accession_number=CT.001,MR.001", 400),
    ("/mkiso_multiple.php?accession_number=CT.001,,MR.001", 400),
    ("/mkiso.php?accession_number=CT.001&layout=round", 400),
    ("/mkiso.php?accession_number=CT.001&job=1", 400),
    ("/api/iso/relay?accession_numbers=CT.001&destination=elsewhere", 400),
    ("/api/jobs?limit=0", 400),
    ("/api/jobs/00000000-0000-4000-8000-000000000000", 404),
    ("/jobs/00000000-0000-4000-8000-000000000000", 404),
    ("/nothing", 404),
    ("/mkiso.php?accession_number=UNKNOWN", 404),
    ("/mkiso_multiple.php?accession_number=CT.001,UNKNOWN", 404),
    ("/mkiso2.php?accession_number=UNKNOWN", 404),
    ("/mkiso_multiple.php?accession_number=CT.001,US.001", 409),
    ("/mkiso.php?accession_number=SHARED.001", 409),
    (f"/api/iso/relay?accession_numbers=CT.001&destination={NOWHERE}", 502),
    (f"/{'x' * 9000}", 414),
)
LOOKS = (
    "/",
    "/?accession_numbers=CT.001+MR.001",
    "/metrics",
    "/readyz",
    "/healthz",
    "/history",
    "/history?state=cancelled&patient=doe",
    "/history?format=csv",
    "/api/jobs?limit=1000",
    "/api/jobs?state=failed",
    "/api/studies?accession_numbers=CT.001,TWO.001",
)
GARBAGE = (
    b"",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    b"\x01\x00\x00\x00\x00\xcd" + bytes(205),  # an A-ASSOCIATE-RQ
    b"\r\n\r\nnonsense\r\n\r\n",
    b"GET /mkiso.php?accession_number=CT.001 HTT",
    b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\naccession",
    b"GET / HTTP/1.1\r\n" + b"X-Header: " + b"y" * 20_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
)


def wish(chance: Random, *accessions: str) -> Wish:
    layout, disc_format = chance.choice(("legacy", "pdi")), chance.choice(("iso", "zip"))
    return Wish(accessions, layout, disc_format, str(uuid.UUID(int=chance.getrandbits(128), version=4)))


def disc(desk: Desk, chance: Random) -> None:
    take(desk, wish(chance, LARGE if chance.random() < 1 / 12 else chance.choice(SINGLE)))


def disc_of_several(desk: Desk, chance: Random) -> None:
    take(desk, wish(chance, *chance.choice(LISTS)))


def slow_disc(desk: Desk, chance: Random) -> None:
    take(desk, wish(chance, LARGE), SLOW)


def relay(desk: Desk, chance: Random) -> None:
    """By a program, which waits for it."""
    accessions = chance.choice(LISTS)
    query = f"accession_numbers={','.join(accessions)}&destination={chance.choice(DESTINATIONS)}"
    answer = desk.service.get(f"/api/iso/relay?{query}").json()
    assert answer.get("files_sent") == desk.count(accessions), answer


def relay_of_operator(desk: Desk, chance: Random) -> None:
    """By a form, which queues it; some are cancelled there."""
    accessions = chance.choice(LISTS)
    form = {"accession_numbers": ",".join(accessions), "destination": chance.choice(DESTINATIONS), "again": "1"}
    answer = requests.post(f"{desk.service.url}/jobs", data=form, timeout=LIMIT)
    assert answer.status_code == http.client.ACCEPTED, answer.text
    relay_id, is_cancelled = answer.json()["relay_id"], chance.random() < 1 / 4
    if is_cancelled:
        time.sleep(chance.random() / 2)
        requests.post(f"{desk.service.url}/api/relays/{relay_id}/cancel", timeout=LIMIT).raise_for_status()
    sent = desk.relayed(relay_id)
    assert sent["state"] == "done" or (is_cancelled and sent["state"] == "cancelled"), sent
    assert sent["state"] == "cancelled" or sent["files_sent"] == desk.count(accessions), sent


def leaves_early(desk: Desk, chance: Random) -> None:
    """Before the first byte, somewhere between the request and the answer; the row is looked at in the end."""
    with desk.asked(wish(chance, chance.choice((*SINGLE, LARGE))).path):
        time.sleep(chance.random())


def leaves_in_mid_stream(desk: Desk, chance: Random) -> None:
    wanted = wish(chance, LARGE)
    with desk.asked(wanted.path) as connection:
        answer = connection.getresponse()
        assert answer.status == http.client.OK, answer.read()
        answer.read(chance.randrange(1, 40 * MB))
    job = desk.finished(wanted.job_id)
    assert job["state"] == "cancelled", job


def stops_reading(desk: Desk, chance: Random) -> None:
    """And stays, until the service has lost its patience (`server.send_timeout`)."""
    wanted = wish(chance, LARGE)
    with desk.asked(wanted.path) as connection:
        assert connection.getresponse().read(1)
        job = desk.finished(wanted.job_id)
    assert job["state"] == "cancelled", job


def cancelled(desk: Desk, chance: Random) -> None:
    """A disc that another one cancels, sooner or later: it is whole only where the job was done before that."""
    wanted, path = wish(chance, chance.choice((*SINGLE[:3], LARGE))), chance.choice(("/jobs/", "/api/jobs/"))
    with desk.asked(wanted.path) as connection:
        time.sleep(1.5 * chance.random())
        deadline = time.monotonic() + LIMIT
        while not desk.job(wanted.job_id) and time.monotonic() < deadline:
            time.sleep(0.1)
        requests.post(f"{desk.service.url}{path}{wanted.job_id}/cancel", timeout=LIMIT).raise_for_status()
        is_whole = False
        with suppress(http.client.RemoteDisconnected):  # the disc was about to be sent
            answer = connection.getresponse()
            assert answer.status in (http.client.OK, http.client.GONE), answer.status
            is_whole = _is_read_whole(answer)
    job = desk.finished(wanted.job_id)
    assert job["state"] == ("done" if is_whole else job["state"]), job
    assert job["state"] in ("done", "cancelled"), job


def _is_read_whole(answer: http.client.HTTPResponse) -> bool:
    with suppress(http.client.IncompleteRead, ConnectionError):
        while answer.read(MB):
            pass
        return answer.status == http.client.OK and answer.length == 0
    return False


def cancel_of_nobody(desk: Desk, chance: Random) -> None:
    """Of a job that does not exist."""
    job_id = uuid.UUID(int=chance.getrandbits(128), version=4)
    answer = requests.post(f"{desk.service.url}/api/jobs/{job_id}/cancel", timeout=LIMIT)
    assert answer.status_code == http.client.NOT_FOUND, answer.text


def refused(desk: Desk, chance: Random) -> None:
    path, status = chance.choice(REFUSED)
    answer = desk.service.get(path)
    assert answer.status_code == status, f"{path[:100]}: {answer.status_code} {answer.text}"


def asks_for_headers(desk: Desk, chance: Random) -> None:
    answer = requests.head(desk.service.url + wish(chance, chance.choice(SINGLE)).path, timeout=LIMIT)
    assert answer.ok, answer.status_code


def looks(desk: Desk, chance: Random) -> None:
    path, accept = chance.choice(LOOKS), chance.choice(("text/html", "application/json"))
    answer = desk.service.get(path, headers={"Accept": accept})
    assert answer.ok, f"{path}: {answer.status_code} {answer.text}"


def garbage(desk: Desk, chance: Random) -> None:
    """No request: some hang up, some wait for what the service says of it, some for longer than it has patience."""
    patience = chance.choice((0.1, 2, 15))
    with socket.create_connection((LOCALHOST, desk.port), timeout=patience) as connection, suppress(OSError):
        connection.sendall(chance.choice((*GARBAGE, chance.randbytes(500))))
        while connection.recv(1 << 16):
            pass


Act = Callable[[Desk, Random], None]
ACTS: dict[Act, int] = {  # and how often each is done, beside the others
    disc: 12,
    disc_of_several: 5,
    slow_disc: 1,
    relay: 3,
    relay_of_operator: 4,
    leaves_early: 5,
    leaves_in_mid_stream: 2,
    stops_reading: 1,
    cancelled: 4,
    cancel_of_nobody: 1,
    refused: 6,
    asks_for_headers: 1,
    looks: 12,
    garbage: 4,
}
