"""The files of etc/stunnel as an administrator would run them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.certificates import Pair
from tests.support.tools import LOCALHOST, ROOT, listening

CONF = ROOT / "etc" / "stunnel" / "mkiso.conf"
PEERS = {"pacs": ("11112", "pacs.hospital.example"), "relay": ("11113", "archive.hospital.example")}


@contextmanager
def running_stunnel(
    directory: Path, own: Pair, trusted: Path, tunnels: Mapping[str, tuple[int, int]]
) -> Iterator[Path]:
    """stunnel with mkiso.conf, of which only ports, addresses and paths are replaced; `tunnels`: by section, from, to.

    Gives its log. A section that is not among the tunnels leads nowhere.
    """
    replacements = {"/etc/mkiso/tls/pacs-ca.pem": str(trusted), "setuid = stunnel4\nsetgid = stunnel4\n": ""}
    for section, (port, host) in PEERS.items():
        listens, leads = tunnels.get(section, (0, 9))
        replacements[f"accept = {LOCALHOST}:{port}"] = f"accept = {LOCALHOST}:{listens}"
        replacements[f"connect = {host}:2762"] = f"connect = {LOCALHOST}:{leads}"
    first = next(iter(tunnels.values()))[0]
    with _running(CONF, directory, own, replacements, first) as log:
        yield log


@contextmanager
def running_tunnel_of_hosts(directory: Path, own: Pair, here: int, between: int, unix_socket: Path) -> Iterator[Path]:
    """stunnel with mkiso-hosts.conf, as both hosts: from the port `here`, in TLS through `between`, to mkiso."""
    replacements = {
        "/etc/mkiso/tls/hospital-ca.pem": str(own.ca),
        "setuid = stunnel4\nsetgid = www-data\n": "",
        f"accept = {LOCALHOST}:8081": f"accept = {LOCALHOST}:{here}",
        "connect = other.hospital.example:8443": f"connect = {LOCALHOST}:{between}",
        "accept = 8443": f"accept = {LOCALHOST}:{between}",
        "/run/mkiso/mkiso.sock": str(unix_socket),
    }
    with _running(CONF.with_name("mkiso-hosts.conf"), directory, own, replacements, here) as log:
        yield log


@contextmanager
def _running(conf: Path, directory: Path, own: Pair, replacements: Mapping[str, str], port: int) -> Iterator[Path]:
    directory.mkdir()
    text = conf.read_text()
    certificate = {"/etc/mkiso/tls/mkiso.pem": str(own.certificate), "/etc/mkiso/tls/mkiso.key": str(own.key)}
    for old, new in {**certificate, **replacements}.items():
        assert old in text, f"{conf} has no {old!r}"
        text = text.replace(old, new)
    file, log = directory / conf.name, directory / "log"
    file.write_text(text)
    with listening(("/usr/bin/stunnel4", file), port, log):
        yield log
