"""The site as it ships, asked by whoever likes to say more than a request: what mkiso is told, and whom it believes."""

import base64
import json
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import requests

from tests.support.nginx import OPEN, running_nginx, with_passwords
from tests.support.ports import free_ports
from tests.support.service import running_service, settings
from tests.support.tools import LOCALHOST

SMUGGLED = "GET /mkiso2.php?accession_number=SMUGGLED HTTP/1.1"  # the name ends at a colon
CHECKED = {"dr.chief": "right", "desk 2@ward": "right", "grün": "right", "a" * 129: "right"}
JOB, API_JOB = "/mkiso.php?accession_number=A", "/api/iso/download?accession_number=A"
TOKENS = [{"name": "his", "token": "s3cr3t"}]
BEARER = {"Authorization": "Bearer s3cr3t"}
ODD_NAMES = (
    f"x\r\n\r\n{SMUGGLED}",
    f"x\n\n{SMUGGLED}",
    "dr.chief\n",
    "dr.chief\r",
    "dr.chief\0",
    "dr.chief\x7f",
    "dr.chief\x85",
    "grün",
    '"dr.chief"',
    "<b>",
    "a,b",
    " ",
    "a" * 129,
)


class Upstream:
    """In mkiso's place: what nginx sends is kept byte by byte, a connection each; every one of them is answered."""

    def __init__(self, listener: socket.socket, path: Path) -> None:
        self.socket = path
        self._listener, self._kept = listener, list[bytes]()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                sent = b""
                while b"\r\n\r\n" not in sent:
                    sent += connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                while more := connection.recv(1 << 16):
                    sent += more
                self._kept.append(sent)

    def seen(self) -> list[bytes]:
        """All that came, once nginx is gone: whoever has an answer has it before the connection's end was read here."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        return self._kept

    def told(self) -> list[tuple[str, dict[str, str]]]:
        """Request lines and headers of all that came; fails where a connection had more than one request."""
        requests_ = [head.decode("latin-1").split("\r\n\r\n") for head in self.seen()]
        assert [rest for _, rest in requests_] == [""] * len(requests_)
        lines = [head.split("\r\n") for head, _ in requests_]
        return [(first, dict(line.split(": ", 1) for line in rest)) for first, *rest in lines]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with TemporaryDirectory(prefix="mkiso-") as short, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{short}/s")
        listener.listen()
        made = Upstream(listener, Path(short) / "s")
        yield made
        made.seen()


@contextmanager
def site(directory: Path, unix_socket: Path, users: dict[str, str] | None = None, **more: str) -> Iterator[str]:
    """The site in clear, open to every address, and to these users alone where there are any; its URL."""
    access = with_passwords(directory, users) if users else OPEN
    with running_nginx(directory / "nginx", free_ports(1)[0], unix_socket, access={**access, **more}) as url:
        yield url


def basic(user: str, password: str = "anything") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def raw(url: str, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes as they are, and read to the end of the connection; of the answer status, headers and body."""
    with socket.create_connection((LOCALHOST, int(url.rpartition(":")[2])), timeout=20) as connection:
        connection.sendall(request)
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body


def test_whatever_user_name_a_client_sends_mkiso_has_one_request_and_no_name(
    upstream: Upstream, tmp_path: Path
) -> None:
    with site(tmp_path, upstream.socket) as url:
        for name in (*ODD_NAMES, "dr.chief", ""):
            assert requests.get(f"{url}/healthz", headers=basic(name), timeout=20).text == "ok"
    told = upstream.told()
    assert [first for first, _ in told] == ["GET /healthz HTTP/1.1"] * (len(ODD_NAMES) + 2)
    assert [headers for _, headers in told if "X-Forwarded-User" in headers] == []
    assert "dr.chief" not in (tmp_path / "nginx" / "nginx.log").read_text()


def test_a_name_that_nginx_has_checked_is_told_where_it_is_plain(upstream: Upstream, tmp_path: Path) -> None:
    with site(tmp_path, upstream.socket, CHECKED) as url:
        for name in ODD_NAMES:
            assert requests.get(f"{url}/healthz", headers=basic(name), timeout=20).status_code == 401
        for name, password in CHECKED.items():
            assert requests.get(f"{url}/healthz", headers=basic(name, password), timeout=20).text == "ok"
        requests.get(f"{url}/metrics", headers=basic("dr.chief"), timeout=20)
    assert [headers.get("X-Forwarded-User") for _, headers in upstream.told()] == [*CHECKED][:2] + [None] * 3


def test_a_client_has_no_word_in_what_nginx_tells(upstream: Upstream, tmp_path: Path) -> None:
    """Not by the headers that nginx sets, nor by those that would be taken for them."""
    forged = {"X-Forwarded-User": "eve", "X-Forwarded-For": "6.6.6.6\t<b>", "X_Forwarded_User": "eve"}
    forged |= {"X-Forwarded-Proto": "https", "SCRIPT_NAME": "/api", "PATH_INFO": "/history"}
    hosts = ("mkiso:8443", "[::1]:80", "mkiso_2", 'a"b', "a b", "mkiso@evil", "mkiso:x", "gr\xfcn", "a" * 300)
    with site(tmp_path, upstream.socket) as url:
        requests.get(f"{url}/", headers=forged, timeout=20)
        for host in hosts:
            request = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1")
            assert raw(url, request)[0] in (200, 400), host
        assert raw(url, b"GET / HTTP/1.0\r\n\r\n")[0] == 200
        assert raw(url, b"GET http://evil/ HTTP/1.1\r\nHost: mkiso\r\nConnection: close\r\n\r\n")[0] == 200
    (_, first), *others = upstream.told()
    names = {name.lower() for name in first if name.lower().startswith(("x", "s", "p"))}
    assert names == {"x-forwarded-for", "x-forwarded-proto"}
    assert (first["X-Forwarded-For"], first["X-Forwarded-Proto"]) == (LOCALHOST, "http")
    assert [line for line, _ in others] == ["GET / HTTP/1.1"] * len(others)
    told = [headers.get("Host") for _, headers in others]
    assert told[:3] == [*hosts[:3]]
    assert told[-2:] == [None, "mkiso"]
    assert {*told[3:-3]} == {"?"}


@pytest.mark.parametrize(
    "coding",
    [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n",
        "Transfer-Encoding: chunked, identity\r\n\r\n",
        "Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5;x=\r\n0\r\n\r\n\r\n0\r\n\r\n",
    ],
)
def test_a_body_of_two_lengths_is_none_or_one(coding: str, upstream: Upstream, tmp_path: Path) -> None:
    with site(tmp_path, upstream.socket) as url:
        request = f"POST /mkiso2.php HTTP/1.1\r\nHost: mkiso\r\nConnection: close\r\n{coding}"
        raw(url, f"{request}{SMUGGLED}\r\n\r\n".encode())
    for sent in upstream.seen():
        head, _, body = sent.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        assert b"transfer-encoding" not in head.lower()
        assert b"SMUGGLED" not in body


@dataclass(frozen=True)
class Behind:
    """A service in front of no archive, behind the site: each of its jobs fails at once, and is in the ledger."""

    socket: Path
    ledger: Path

    def requesters(self) -> list[str]:
        """Of all jobs so far, forgotten by now."""
        with closing(sqlite3.connect(self.ledger)) as connection, connection:
            found = [row[0] for row in connection.execute("SELECT requester FROM jobs ORDER BY created_at")]
            for table in ("job_accessions", "jobs"):
                connection.execute(f"DELETE FROM {table}")
        return found


@contextmanager
def behind(directory: Path, **server: Any) -> Iterator[Behind]:
    nobody, receiver = free_ports(2)
    with TemporaryDirectory(prefix="mkiso-") as short:  # a socket's path is to be short (unix(7))
        unix_socket = Path(short) / "s"
        sections = {"bind": f"unix:{unix_socket}", "workers": 1, "threads": 8, **server}
        configuration = settings(directory, nobody, {"CDRECORD": receiver}, server=sections)
        with site(directory, unix_socket) as url, running_service(directory, nobody, configuration, url=url):
            yield Behind(unix_socket, directory / "ledger.db")


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    with behind(tmp_path_factory.mktemp("free")) as service:
        yield service


@pytest.fixture(scope="module")
def tokened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    with behind(tmp_path_factory.mktemp("tokened"), api_tokens=TOKENS) as service:
        yield service


def get(url: str, headers: dict[str, str] | None = None) -> requests.Response:
    return requests.get(url, headers=headers, timeout=30)


def test_the_ledger_is_signed_with_no_name_that_nobody_checked(free: Behind, tmp_path: Path) -> None:
    with site(tmp_path, free.socket) as url:
        for name in ("dr.chief", ODD_NAMES[0]):
            assert get(f"{url}{JOB}", basic(name)).json()["code"] == "pacs_unreachable"
    assert free.requesters() == [LOCALHOST] * 2


def test_the_ledger_is_signed_with_a_name_that_nginx_checked(free: Behind, tmp_path: Path) -> None:
    with site(tmp_path, free.socket, CHECKED) as url:
        assert get(f"{url}{JOB}").status_code == 401
        assert get(f"{url}{JOB}", basic("dr.chief", "wrong")).status_code == 401
        for name, password in CHECKED.items():
            assert get(f"{url}{JOB}", basic(name, password)).status_code == 502
    assert free.requesters() == [f"{name}@{LOCALHOST}" for name in [*CHECKED][:2]] + [LOCALHOST] * 2


def test_an_access_file_of_before_lets_the_same_people_in_and_tells_no_name(free: Behind, tmp_path: Path) -> None:
    with site(tmp_path, free.socket, CHECKED, **{" set $mkiso_user $remote_user;": ""}) as url:
        assert get(f"{url}{JOB}", basic("dr.chief")).status_code == 401
        assert get(f"{url}{JOB}", basic("dr.chief", "right")).status_code == 502
    assert free.requesters() == [LOCALHOST]


def test_the_api_takes_a_token_or_a_password_and_nothing_else_does(tokened: Behind, tmp_path: Path) -> None:
    with site(tmp_path, tokened.socket, CHECKED) as url:
        for path in ("/api/jobs", API_JOB):
            for wrong in ({}, basic("dr.chief"), {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}):
                refused = get(url + path, wrong)
                assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized"), wrong
                assert refused.headers["WWW-Authenticate"] in ('Basic realm="mkiso"', "Bearer")
        for headers in (BEARER, basic("dr.chief", "right")):
            assert get(f"{url}/api/jobs", headers).status_code == 200
            assert get(f"{url}{API_JOB}", headers).json()["code"] == "pacs_unreachable"
        for path in ("/", "/history", JOB, "/api/../history", "/api/%2e%2e/history", "//api/../history", "/apix"):
            asked = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer s3cr3t\r\n\r\n"
            assert raw(url, asked.encode())[0] == 401, path
    assert tokened.requesters() == [f"his@{LOCALHOST}", f"dr.chief@{LOCALHOST}"]


def test_without_tokens_none_opens_the_api_past_the_password(free: Behind, tmp_path: Path) -> None:
    with site(tmp_path, free.socket, CHECKED) as url:
        for given in ("Bearer garbage", "bearer x", "Bearer  dr.chief", "BEARER x"):
            refused = get(f"{url}/api/jobs", {"Authorization": given})
            assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized"), given
        assert get(f"{url}/api/jobs", basic("dr.chief", "right")).status_code == 200


def test_a_token_and_a_password_at_once_are_no_request(tokened: Behind, tmp_path: Path) -> None:
    """nginx and mkiso might each believe another one of the two."""
    given = [f"Authorization: {one['Authorization']}\r\n" for one in (BEARER, basic("dr.chief"))]
    with site(tmp_path, tokened.socket, CHECKED) as url:
        for both in (given, given[::-1]):
            asked = f"GET /api/jobs HTTP/1.1\r\nHost: x\r\n{''.join(both)}Connection: close\r\n\r\n"
            assert raw(url, asked.encode())[0] == 400


def test_an_unchecked_name_is_no_token(tokened: Behind, tmp_path: Path) -> None:
    with site(tmp_path, tokened.socket) as url:
        for headers in (basic("his", "s3cr3t"), {"X-Forwarded-User": "his"}, {**basic("his"), "X-Forwarded-User": "a"}):
            assert get(f"{url}/api/jobs", headers).status_code == 401
        assert get(f"{url}/api/jobs", BEARER).status_code == 200


def test_an_address_that_is_not_admitted_stays_out_whatever_it_has(tokened: Behind, tmp_path: Path) -> None:
    with site(tmp_path, tokened.socket, CHECKED, **{"allow all;": "deny all;"}) as url:
        for headers in (BEARER, basic("dr.chief", "right"), {**BEARER, "Accept": "text/html"}):
            refused = get(f"{url}/api/jobs", headers)
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize("accept", ["*/*", "text/html"])
@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ("GET /api/%00 HTTP/1.1\r\nHost: x\r\n", 400, "bad_request"),
        ("GET /api/jobs HTTP/1.1\r\nHost: x\r\nHost: y\r\n", 400, "bad_request"),
        ("GET /api/jobs HTTP/1.1\r\n", 400, "bad_request"),
        ("GET /api/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n", 400, "bad_request"),
        ("GET /api/jobs HTTP/3.0\r\nHost: x\r\n", 400, "bad_request"),
        ("TRACE /api/jobs HTTP/1.1\r\nHost: x\r\n", 405, "bad_request"),
        ("POST /api/iso/relay HTTP/1.1\r\nHost: x\r\nContent-Length: 66000\r\n", 413, "bad_request"),
        (f"GET /api/{'a' * 9000} HTTP/1.1\r\nHost: x\r\n", 414, "bad_request"),
        (f"GET /api/jobs HTTP/1.1\r\nHost: x\r\nX: {'a' * 9000}\r\n", 431, "bad_request"),
        ("GET /api/jobs HTTP/1.1\r\nHost: x\r\n", 502, "internal"),
    ],
)
def test_what_nginx_refuses_of_the_api_is_the_contracts_json(
    request_: str, status: int, code: str, accept: str, away: str
) -> None:
    body = b"x" * 66000 if status == 413 else b""
    asked = f"{request_}Accept: {accept}\r\nConnection: close\r\n\r\n".encode()
    answered, headers, told = raw(away, asked + body)
    assert (answered, headers["Content-Type"]) == (status, "application/json")
    assert json.loads(told).keys() == {"error", "code", "detail", "job_id"}
    assert json.loads(told)["code"] == code


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The site, while mkiso is away."""
    directory = tmp_path_factory.mktemp("away")
    with site(directory, directory / "none") as url:
        yield url


def test_a_browser_has_a_page_where_nginx_refuses_it(away: str, tmp_path: Path) -> None:
    with site(tmp_path, tmp_path / "none", CHECKED) as url:
        refused = get(url, {"Accept": "text/html"})
        assert (refused.status_code, "<h1>No password" in refused.text) == (401, True)
        assert refused.headers["WWW-Authenticate"] == 'Basic realm="mkiso"'
    waiting = get(away, {"Accept": "text/html"})
    assert (waiting.status_code, 'http-equiv="refresh"' in waiting.text) == (502, True)
