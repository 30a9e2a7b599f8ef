"""`make demo`: a disc from an embedded PACS, fetched by curl, and what is on it."""

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from tests.support.ports import free_ports
from tests.support.service import mkiso, running_service, settings
from tests.support.testpacs import running_testpacs
from tests.support.tools import ROOT

ACCESSION = "CT.001"
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
            configuration = settings(directory, pacs_port, {"CDRECORD": receiver}, media={"layout": "pdi"})
            with running_service(directory, port, configuration) as service:
                fetched = _fetch(f"{service.url}/mkiso.php?accession_number={ACCESSION}", iso)
    if not fetched:
        return 1
    say(f"\nOn the disc:\n{_listing(iso)}\n$ bin/mkiso verify {iso}\n{mkiso('verify', iso).stdout.decode()}")
    say(f"The disc is {iso} ({iso.stat().st_size} bytes).")
    return 0


def _fetch(url: str, iso: Path) -> bool:
    say(f"\n$ curl -o {iso} '{url}'")
    return subprocess.run(("curl", "--fail-with-body", "-o", iso, url), check=False).returncode == 0


def _listing(iso: Path) -> str:
    return subprocess.run(("isoinfo", "-R", "-f", "-i", iso), capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
