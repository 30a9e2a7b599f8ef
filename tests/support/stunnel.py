"""etc/stunnel/mkiso.conf as an administrator would run it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.certificates import Pair
from tests.support.tools import LOCALHOST, ROOT, listening

PEERS = {"pacs": ("11112", "pacs.hospital.example"), "relay": ("11113", "archive.hospital.example")}
CONF = ROOT / "etc" / "stunnel" / "mkiso.conf"


@contextmanager
def running_stunnel(
    directory: Path, own: Pair, trusted: Path, tunnels: Mapping[str, tuple[int, int]]
) -> Iterator[Path]:
    """stunnel with the file, of which only ports, addresses and paths are replaced; `tunnels`: by section, from, to.

    Gives its log. A section that is not among the tunnels leads nowhere.
    """
    directory.mkdir()
    text = CONF.read_text()
    for old, new in _replacements(own, trusted, tunnels).items():
        assert old in text, f"{CONF} has no {old!r}"
        text = text.replace(old, new)
    file, log = directory / "mkiso.conf", directory / "log"
    file.write_text(text)
    first = next(iter(tunnels.values()))[0]
    with listening(("/usr/bin/stunnel4", file), first, log):
        yield log


def _replacements(own: Pair, trusted: Path, tunnels: Mapping[str, tuple[int, int]]) -> dict[str, str]:
    found = {
        "/etc/mkiso/tls/mkiso.pem": str(own.certificate),
        "/etc/mkiso/tls/mkiso.key": str(own.key),
        "/etc/mkiso/tls/pacs-ca.pem": str(trusted),
        "setuid = stunnel4\nsetgid = stunnel4\n": "",
    }
    for section, (port, host) in PEERS.items():
        listens, leads = tunnels.get(section, (0, 9))
        found[f"accept = {LOCALHOST}:{port}"] = f"accept = {LOCALHOST}:{listens}"
        found[f"connect = {host}:2762"] = f"connect = {LOCALHOST}:{leads}"
    return found
