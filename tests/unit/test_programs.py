"""Which programs are looked at, by what the configuration needs."""

from pathlib import Path
from typing import Any

import pytest

from mkiso import checks
from mkiso.config import parse

ALWAYS = (
    *("echoscu", "findscu", "movescu", "storescp", "storescu", "dcmsend"),
    *("dcmmkdir", "dcmj2pnm", "dsr2html", "dcm2pdf", "genisoimage", "pdftoppm"),
)
DECOMPRESSING = ("dcmconv", "dcmdjpeg", "dcmdjpls", "dcmdrle", "gdcmconv")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host that has each of them, and nothing else."""
    for name in (*ALWAYS, *DECOMPRESSING):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '$dcmtk: {name} 3.6 $'\n")
        (tmp_path / name).chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def found(programs: Path, **media: Any) -> dict[str, checks.Check]:
    tools = {"dcmtk_dir": str(programs), "genisoimage": str(programs / "genisoimage")}
    return {check.name: check for check in checks.tools(parse({"tools": tools, "media": media}))}


@pytest.mark.parametrize(
    ("media", "further"),
    [({"pictures": 0}, ()), ({}, ("gdcmconv",)), ({"uncompressed": True, "pictures": 0}, DECOMPRESSING)],
)
def test_what_the_configuration_needs_is_looked_at(
    media: dict[str, Any], further: tuple[str, ...], programs: Path
) -> None:
    looked_at = found(programs, **media)
    assert sorted(looked_at) == sorted((*ALWAYS, *further))
    assert {name: check.found for name, check in looked_at.items()} == {
        name: f"dcmtk: {name} 3.6" for name in looked_at
    }
    assert all(check.ok for check in looked_at.values())


@pytest.mark.parametrize("name", ["echoscu", "dcmdjpls", "pdftoppm", "gdcmconv", "genisoimage"])
def test_what_is_not_there_is_told_with_what_to_do(name: str, programs: Path) -> None:
    (programs / name).unlink()
    missing = [check for check in found(programs, uncompressed=True).values() if not check.ok]
    assert [check.name for check in missing] == [name]
    assert "is not there. Install" in missing[0].found


def test_a_disc_without_pictures_of_jpeg_2000_is_a_disc(programs: Path) -> None:
    (programs / "gdcmconv").unlink()
    check = found(programs)["gdcmconv"]
    assert (check.ok, "libgdcm-tools" in check.found) == (True, True)


def test_a_program_that_cannot_run_is_told_with_its_words(programs: Path) -> None:
    (programs / "gdcmconv").write_text("#!/bin/sh\necho 'no libgdcm' >&2\nexit 127\n")
    check = found(programs)["gdcmconv"]
    assert (check.ok, check.found) == (False, f"{programs}/gdcmconv ended with status 127: no libgdcm")
