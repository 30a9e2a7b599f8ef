"""`make demo`: a disc from an embedded PACS, fetched by curl, and what is on it.

It runs with what a host of mkiso has: none of it needs the libraries of developers.
"""

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import yaml

from tests.support.ports import free_ports
from tests.support.testpacs import running_testpacs
from tests.support.tools import LOCALHOST, ROOT, listening

ACCESSION = "CT.001"
MKISO = ROOT / "bin" / "mkiso"
say = partial(print, flush=True)  # in order with curl's own output


def main() -> int:
    """Make the disc, leave it in `demo/`, stop what was started; the exit status."""
    pacs_port, receiver, port = free_ports(3)
    iso = ROOT / "demo" / f"{ACCESSION}.iso"
    iso.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mkiso-demo-") as name:
        directory = Path(name)
        say(f"Starting a PACS with synthetic studies on port {pacs_port} …")
        with running_testpacs(directory / "pacs", pacs_port, {"CDRECORD": receiver}):
            say(f"Starting mkiso on port {port} …")
            serve = (MKISO, "serve", "--config", _configuration(directory, pacs_port, receiver, port))
            with listening(serve, port, directory / "service.log"):
                fetched = _fetch(f"http://{LOCALHOST}:{port}/mkiso.php?accession_number={ACCESSION}", iso)
    return _show(iso) if fetched else 1


def _configuration(directory: Path, pacs_port: int, receiver: int, port: int) -> Path:
    configuration = {
        "pacs": {"port": pacs_port},
        "receivers": [{"ae_title": "CDRECORD", "port": receiver}],
        "storage": {"work_dir": f"{directory}/work", "ledger": f"sqlite:///{directory}/ledger.db", "min_free": "1MB"},
        "server": {"bind": f"{LOCALHOST}:{port}"},
    }
    file = directory / "mkiso.yaml"
    file.write_text(yaml.safe_dump(configuration))
    return file


def _fetch(url: str, iso: Path) -> bool:
    say(f"\n$ curl -o {iso} '{url}'")
    return subprocess.run(("curl", "--fail-with-body", "-o", iso, url), check=False).returncode == 0


def _show(iso: Path) -> int:
    say("\nOn the disc:")
    subprocess.run(("isoinfo", "-R", "-f", "-i", iso), check=True)
    say(f"\n$ bin/mkiso verify {iso}")
    status = subprocess.run((MKISO, "verify", iso), check=False).returncode
    say(f"\nThe disc is {iso} ({iso.stat().st_size} bytes).")
    return status


if __name__ == "__main__":
    sys.exit(main())
