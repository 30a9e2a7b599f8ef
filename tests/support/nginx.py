"""nginx as a hospital runs it in front of mkiso."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.ports import free_ports
from tests.support.tools import LOCALHOST, ROOT, listening, wait_until

NGINX = """
daemon off; user root; pid {directory}/nginx.pid; error_log {directory}/nginx.log; worker_processes 1;
events {{ }}
http {{
    log_format asked '$http_x_request_id|$upstream_addr|$upstream_status|$status|$request_time';
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    server {{ listen {localhost}:{port} default_server; server_name _; return 200 "another site"; }}
    include {directory}/mkiso.conf;
}}
"""
OPEN = {"\ndeny all;": "\nallow all;"}
SELF_SIGNED = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=mkiso")


@dataclass(frozen=True)
class Front:
    """The site: what it answers at, what redirects to it beside another site, and its files."""

    url: str
    redirecting: str
    directory: Path

    @property
    def certificate(self) -> Path:
        return self.directory / "mkiso.crt"

    def admit(self, address: str) -> None:
        """What an administrator does: name who may come in, and have the file read again; it has been, then."""
        workers = psutil.Process(int((self.directory / "nginx.pid").read_text())).children()
        _replace(self.directory / "mkiso-access.conf", {"\ndeny all;": f"\nallow {address};\ndeny all;"})
        subprocess.run((*_argv(self.directory), "-s", "reload"), check=True, capture_output=True)
        wait_until(lambda: not any(worker.is_running() for worker in workers), 10, str)


def with_passwords(directory: Path, users: Mapping[str, str]) -> dict[str, str]:
    """What an administrator replaces in mkiso-access.conf so that these users come in, each with a password."""
    file = directory / "mkiso.htpasswd"
    file.write_bytes(b"".join(f"{user}:{{PLAIN}}{password}\n".encode() for user, password in users.items()))
    return {**OPEN, "\n# auth_basic": "\nauth_basic", "/etc/nginx/mkiso.htpasswd": str(file)}


@contextmanager
def running_front(directory: Path, port: int, unix_socket: Path) -> Iterator[Front]:
    """nginx with the site as it ships, of which only addresses and paths are replaced."""
    listen = {"listen 443 ssl;": f"listen {LOCALHOST}:{port} ssl;", "[::]:443": f"[::1]:{port}"}
    front = _written(directory, port, unix_socket, listen, "mkiso")
    with listening(_argv(directory), port, directory / "start.log"):
        yield front


@contextmanager
def running_nginx(
    directory: Path,
    port: int,
    unix_socket: Path,
    other_host: str | None = None,
    address: str = LOCALHOST,
    inside: Sequence[str] = (),
    access: Mapping[str, str] = OPEN,
) -> Iterator[str]:
    """nginx with the site in clear, perhaps with another host (ADDRESS:PORT); its URL.

    What is replaced of mkiso-access.conf opens it to everybody, if nothing else is said.

    `access.log` beside the site has a line a request: its X-Request-Id, whom nginx asked, and what came of it.
    """
    listen = {"listen 443 ssl;": f"listen {address}:{port};", "listen [::]:443 ssl;": ""}
    _written(directory, port, unix_socket, listen, "asked")
    _replace(directory / "mkiso-access.conf", access)
    if other_host:
        _replace(directory / "mkiso.conf", {"# server 127.0.0.1:8081;": f"server {other_host};"})
    with listening((*inside, *_argv(directory)), port, directory / "start.log"):
        yield f"http://{address}:{port}"


def _written(directory: Path, port: int, unix_socket: Path, listen: Mapping[str, str], log_format: str) -> Front:
    directory.mkdir()
    other = free_ports(1)[0]
    front = Front(f"https://{LOCALHOST}:{port}", f"http://{LOCALHOST}:{other}", directory)
    key, access = directory / "mkiso.key", directory / "mkiso-access.conf"
    named = ("-addext", f"subjectAltName=IP:{LOCALHOST}", "-keyout", key, "-out", front.certificate)
    subprocess.run(("openssl", *SELF_SIGNED, *named), check=True, capture_output=True)
    for name in ("mkiso.conf", "mkiso-access.conf"):
        (directory / name).write_text((ROOT / "etc" / "nginx" / name).read_text())
    addresses = {"listen 80;": f"listen {LOCALHOST}:{other};", "[::]:80": f"[::1]:{other}", "$host$": f"$host:{port}$"}
    paths = {
        "/etc/nginx/mkiso-access.conf": str(access),
        "unix:/run/mkiso/mkiso.sock": f"unix:{unix_socket}",
        "access_log /var/log/nginx/access.log mkiso;": f"access_log {directory}/access.log {log_format};",
    }
    _replace(directory / "mkiso.conf", {**listen, **addresses, **paths})
    snakeoil = "/etc/ssl/{}/ssl-cert-snakeoil.{}"
    own = {snakeoil.format("certs", "pem"): str(front.certificate), snakeoil.format("private", "key"): str(key)}
    _replace(access, own)
    (directory / "nginx.conf").write_text(NGINX.format(directory=directory, localhost=LOCALHOST, port=other))
    return front


def _argv(directory: Path) -> tuple[str | Path, ...]:
    return "/usr/sbin/nginx", "-p", directory, "-c", directory / "nginx.conf", "-e", directory / "nginx.log"


def _replace(file: Path, replacements: Mapping[str, str]) -> None:
    text = file.read_text()
    for old, new in replacements.items():
        assert old in text, f"{file} has no {old!r}"
        text = text.replace(old, new)
    file.write_text(text)
