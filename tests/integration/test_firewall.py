"""docs/security.md: the receivers' firewall leaves their ports to the PACS, and all else as it was."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.pages import block
from tests.support.tools import ROOT

RECEIVERS, OTHER = ("10104", "10105"), "8080"


def test_the_firewall_of_the_page_leaves_the_receivers_to_the_pacs(tmp_path: Path) -> None:
    rules = tmp_path / "mkiso.nft"
    rules.write_text(block("security", "nft receivers"))
    argv = ("unshare", "--net", sys.executable, "-m", "tests.support.firewall", rules, *RECEIVERS, OTHER)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    got = {(who, port) for who, port in json.loads(done.stdout)}
    receiving = {(who, port) for who in ("127.0.0.1", "10.1.2.3") for port in RECEIVERS}
    elsewhere = {(who, OTHER) for who in ("127.0.0.1", "10.1.2.3", "10.1.2.99", "fd00::3")}
    assert got == receiving | elsewhere
