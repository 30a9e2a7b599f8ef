"""nginx as a hospital runs it in front of mkiso."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.tools import LOCALHOST, ROOT, end, start_listener

NGINX = """
daemon off; user root; pid {directory}/nginx.pid; error_log {directory}/nginx.log; worker_processes 1;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    include {directory}/mkiso.conf;
}}
"""


@contextmanager
def running_nginx(directory: Path, port: int, unix_socket: Path) -> Iterator[str]:
    """nginx with etc/nginx/mkiso.conf, of which only the port and the socket's path are replaced; its URL."""
    directory.mkdir()
    ours = (ROOT / "etc" / "nginx" / "mkiso.conf").read_text()
    ours = _replaced(ours, "listen 80;", f"listen {LOCALHOST}:{port};")
    ours = _replaced(ours, "unix:/run/mkiso/mkiso.sock", f"unix:{unix_socket}")
    (directory / "mkiso.conf").write_text(ours)
    (directory / "nginx.conf").write_text(NGINX.format(directory=directory))
    argv = ("/usr/sbin/nginx", "-p", directory, "-c", directory / "nginx.conf", "-e", directory / "nginx.log")
    process = start_listener(argv, port, directory / "start.log")
    try:
        yield f"http://{LOCALHOST}:{port}"
    finally:
        end(process)


def _replaced(text: str, old: str, new: str) -> str:
    assert old in text, f"etc/nginx/mkiso.conf has no {old!r}"
    return text.replace(old, new)
