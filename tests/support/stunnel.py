"""stunnel as an administrator would run it: etc/stunnel/mkiso.conf, and docs/hosts.md between two hosts."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.certificates import Pair
from tests.support.pages import block
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


@contextmanager
def running_end(file: Path, end: str, own: Pair, trusted: Path, replaced: Mapping[str, str]) -> Iterator[None]:
    """One of docs/hosts.md's two ends, `first` or `second`, of which only addresses, paths and users are replaced."""
    paths = {"mkiso.pem": own.certificate, "mkiso.key": own.key, "pacs-ca.pem": trusted}
    files = {f"/etc/mkiso/tls/{name}": str(path) for name, path in paths.items()}
    text = block("hosts", "ini both") + block("hosts", f"ini {end}")
    for old, new in {**files, "setuid = stunnel4\nsetgid = www-data\n": "", **replaced}.items():
        assert old in text, f"the page has no {old!r}"
        text = text.replace(old, new)
    file.write_text(text)
    port = int(text.partition("accept = ")[2].partition("\n")[0].rpartition(":")[2])
    with listening(("/usr/bin/stunnel4", file), port, file.with_suffix(".log")):
        yield


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
