"""What gunicorn would answer or log itself: in the contract's JSON, and no word of what a request held."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import Site
from tests.support.ports import free_ports
from tests.support.service import Service, running_service, settings
from tests.support.tools import LOCALHOST, wait_until

SECRET = b"s3cr3t-t0ken"
GET = b"GET /mkiso.php HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /mkiso2.php HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
BEARER = b"Authorization: Bearer " + SECRET
REFUSED = {
    "a header without a colon": (400, GET + b"Authorization Bearer " + SECRET + b"\r\n\r\n"),
    "a header with a null": (400, GET + BEARER + b"\x00\r\n\r\n"),
    "a header's name": (400, GET + SECRET + b"/: x\r\n\r\n"),
    "a folded header": (400, GET + b"Authorization: Bearer\r\n " + SECRET + b"\r\n\r\n"),
    "a length": (400, GET + b"Content-Length: " + SECRET + b"\r\n\r\n"),
    "an expectation": (400, GET + b"Expect: " + SECRET + b"\r\n\r\n"),
    "a coding": (400, GET + b"Transfer-Encoding: " + SECRET + b"\r\n\r\n"),
    "a long header": (431, GET + BEARER + b"A" * 9000 + b"\r\n\r\n"),
    "many headers": (431, GET + (BEARER + b"\r\n") * 200 + b"\r\n"),
    "a long request line": (414, b"GET /mkiso.php?token=" + SECRET + b"A" * 9000 + b" HTTP/1.1\r\n\r\n"),
    "no request": (400, SECRET + b"\r\n\r\n"),
    "a method": (400, SECRET + b" /mkiso.php HTTP/1.1\r\n\r\n"),
    "a version": (400, b"GET /mkiso.php HTTP/" + SECRET + b"\r\n\r\n"),
    "a handshake": (400, b"\x16\x03\x01\x02\x00\x01\x00" + SECRET + b"\r\n\r\n"),
    "a chunk": (400, POST + SECRET + b"\r\n"),
    "a trailer": (400, POST + b"0\r\n" + BEARER + b"\r\n\r\n"),
    "a body": (413, GET + BEARER + b"\r\nContent-Length: 70000\r\n\r\n" + SECRET + b"A" * 70000),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service in front of no archive: what is asked here does not come so far."""
    directory = tmp_path_factory.mktemp("refusing")
    port, nobody, receiver = free_ports(3)
    with running_service(directory, port, settings(directory, nobody, {"CDRECORD": receiver})) as running:
        yield running


def said(service: Service, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes as they are; status, headers and body of the only answer."""
    with socket.create_connection((LOCALHOST, int(service.url.rpartition(":")[2]))) as connection:
        connection.sendall(request)
        connection.settimeout(20)
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(status.split()[1]), headers, body


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_request_is_answered_in_json_and_not_logged(what: str, service: Service) -> None:
    wanted, request = REFUSED[what]
    status, headers, body = said(service, request)
    told = json.loads(body)
    assert (status, told["code"], told["job_id"]) == (wanted, "bad_request", None)
    assert set(told) == {"error", "code", "detail", "job_id"}
    assert (headers["content-type"], headers["cache-control"]) == ("application/json", "no-store")
    assert int(headers["content-length"]) == len(body)
    assert SECRET not in body
    log = service.log.read_bytes()
    assert SECRET not in log
    assert b"Traceback" not in log


@pytest.mark.parametrize(
    ("wanted", "request_"),
    [
        (200, b"GET /history HTTP/1.1\r\nHost: localhost\r\n"),
        (200, b"GET http://127.0.0.1:80/history HTTP/1.1\r\nHost: LOCALHOST.\r\n"),
        (200, b"GET /history HTTP/1.0\r\n"),
        (200, b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n"),
        (403, b"GET /history HTTP/1.1\r\nHost: evil.example\r\n"),
        (403, b"GET http://evil.example/history HTTP/1.1\r\nHost: localhost\r\n"),
        (403, b"GET http://localhost/history HTTP/1.1\r\nHost: evil.example\r\n"),
        (403, b"POST /mkiso2.php?accession_number=A HTTP/1.1\r\nHost: evil.example\r\n"),
        (400, b"GET /history HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n"),
        (400, b"GET /history HTTP/1.1\r\nHost: localhost, evil.example\r\n"),
        (400, b"GET /history HTTP/1.1\r\nHost: \xff\r\n"),
        (400, b"GET /history HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-User: a\r\nX-Forwarded-User: b\r\n"),
        (200, b"GET /history HTTP/1.1\r\nHost: localhost\r\nX_Forwarded_User: a,b\r\n"),
        (404, b"GET /api/history HTTP/1.1\r\nHost: localhost\r\nSCRIPT_NAME: /api\r\n"),
        (400, b"GET /static/%00 HTTP/1.1\r\nHost: localhost\r\n"),
    ],
)
def test_at_a_port_it_is_told_from_the_bytes_for_whom_a_request_is(
    wanted: int, request_: bytes, service: Service
) -> None:
    status, _, body = said(service, request_ + b"Connection: close\r\n\r\n")
    assert status == wanted, body
    if wanted >= 400:
        assert json.loads(body)["code"] in ("forbidden", "bad_request")


def disc_by(script: str, site: Site) -> dict[str, object]:
    """A configuration whose genisoimage says 1 MB, and does what the script does."""
    program = site.directory / "genisoimage"
    program.write_text(f'#!/bin/sh\ncase "$*" in *-print-size*) echo 512; exit;; esac\n{script}\n')
    program.chmod(0o755)
    return site.settings(tools={"genisoimage": str(program)})


def traces(log: Path) -> int:
    return log.read_text().count("Traceback (most recent call last)")


def test_a_disc_that_fails_behind_its_first_bytes_is_an_answer_where_none_were_sent(site: Site) -> None:
    configuration = disc_by("head -c 4096 /dev/zero; echo 'it broke' >&2; exit 1", site)
    with running_service(site.directory, free_ports(1)[0], configuration) as service:
        answer = service.get("/mkiso.php?accession_number=SR.001")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert answer.json()["job_id"] == answer.headers["X-Job-Id"]
        assert traces(service.log) == 1


def test_a_disc_that_fails_behind_bytes_that_were_sent_breaks_the_connection(site: Site) -> None:
    configuration = disc_by("head -c 900000 /dev/zero; echo 'it broke' >&2; exit 1", site)
    with running_service(site.directory, free_ports(1)[0], configuration) as service:
        status, headers, body = said(service, GET.replace(b".php", b".php?accession_number=SR.001") + b"\r\n")
        assert (status, headers["content-length"]) == (200, "1048576")
        assert 0 < len(body) < 1048576
        assert body == bytes(len(body))  # and no word of an error in it
        wait_until(lambda: traces(service.log) == 1, 10, service.log.read_text)
        url = f"/api/jobs/{headers['x-job-id']}"
        assert service.get(url).json()["state"] == "failed"
    assert traces(service.log) == 1
