"""A patient API over HTTP, which answers by the accession number that it is asked for."""

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.support.tools import LOCALHOST

TOKEN = "Bearer invented-token"
ANSWERS: dict[str, tuple[int, bytes]] = {
    "CT.001": (200, json.dumps({"data": {"patient": [{"name": "Søren Ångström"}]}}).encode()),
    "NONE.001": (404, b'{"error": "not found"}'),
    "FAILS.001": (500, b"oops"),
    "HTML.001": (200, b"<html>please log in</html>"),
    "BROKEN.001": (200, b'{"data": '),
    "FIELD.001": (200, b'{"data": {"patient": []}}'),
    "NULL.001": (200, b'{"data": {"patient": [{"name": null}]}}'),
    "LOGIN.001": (302, b""),
    "SURROGATE.001": (200, b'{"data": {"patient": [{"name": "\\ud800"}]}}'),
}


ENDLESS = {
    "TRICKLE.001": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b" "),
    "DRIP.001": (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
    "CONTINUE.001": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


class Api(ThreadingHTTPServer):
    """`asked` is every accession number that came, `release` ends an answer that is held back.

    `left` tells that a client has gone away from an endless one.
    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__((LOCALHOST, port), Handler)
        self.asked: list[str] = []
        self.release, self.left = threading.Event(), threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        (accession,) = parse_qs(urlsplit(self.path).query)["accession"]
        self.server.asked.append(accession)
        if self.headers["Authorization"] != TOKEN:
            return self._answer(401, b"")
        if accession == "SLOW.001":
            self.server.release.wait(30)
        if accession in ENDLESS:
            return self._send_forever(*ENDLESS[accession])
        if accession == "CLOSED.001" or (accession == "ONCE.001" and self.server.asked.count(accession) == 1):
            self.close_connection = True
            return None
        return self._answer(*ANSWERS.get("CT.001" if accession == "ONCE.001" else accession, (404, b"")))

    def _send_forever(self, first: bytes, then: bytes) -> None:
        try:
            self.wfile.write(first)
            while not self.server.release.wait(0.02):
                self.wfile.write(then)
        except OSError:
            self.server.left.set()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/login")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def running_api(port: int, certificate: Path | None = None) -> Iterator[Api]:
    """The API, over TLS where it has a certificate (with its key in the same file)."""
    server = Api(port)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


def self_signed(directory: Path) -> Path:
    """A certificate for 127.0.0.1 that nobody vouches for, and its key."""
    file = directory / "api.pem"
    subject = ("-subj", "/CN=patient-api", "-addext", f"subjectAltName=IP:{LOCALHOST}")
    argv = (
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        file,
        "-out",
        f"{file}.crt",
        *subject,
    )
    subprocess.run(argv, check=True, capture_output=True)
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return file
