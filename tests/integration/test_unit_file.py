"""The systemd unit, as systemd itself judges it."""

import re
import subprocess
from pathlib import Path

from tests.support.tools import ROOT

UNIT = ROOT / "etc" / "systemd" / "mkiso.service"
AT_MOST = "20"  # of 100: an exposure of 2.0


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ("/usr/bin/systemd-analyze", *arguments), capture_output=True, text=True, timeout=60, check=False
    )


def test_the_unit_is_exposed_little() -> None:
    done = analyze("security", "--offline=true", f"--threshold={AT_MOST}", UNIT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_systemd_has_nothing_to_say_about_the_unit(tmp_path: Path) -> None:
    """Only what the package installs stands elsewhere here: the program, and its page."""
    text = UNIT.read_text()
    assert "ExecStart=/usr/bin/mkiso " in text
    there = tmp_path / UNIT.name
    there.write_text(text.replace("ExecStart=/usr/bin/mkiso ", f"ExecStart={ROOT / 'bin' / 'mkiso'} "))
    done = analyze("verify", "--man=no", there)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_checkout_and_the_unit_give_the_service_the_same_heaps() -> None:
    unit = dict(re.findall(r"^Environment=(MALLOC_\w+)=(\w+)$", UNIT.read_text(), re.M))
    checkout = dict(re.findall(r'(MALLOC_\w+)="\$\{MALLOC_\w+:-(\w+)\}"', (ROOT / "bin" / "mkiso").read_text()))
    assert set(unit) == {"MALLOC_ARENA_MAX"}
    assert checkout == unit
