"""The institution's logo on a disc: what every browser shows, and nothing else of the operator's file."""

from pathlib import Path

import pytest

from mkiso.browse.logo import LARGEST, copied_logo
from mkiso.browse.shown import WEB, Logo
from mkiso.verify.medium import directory_medium
from mkiso.verify.verify import DiscRead, web_content
from tests.support.shown import ct_jpeg

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (960).to_bytes(4) + (480).to_bytes(4)
GIF = b"GIF89a" + (30).to_bytes(2, "little") + (60).to_bytes(2, "little")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    (tmp_path / "stage" / WEB).mkdir(parents=True)
    return tmp_path / "stage"


def faults(stage: Path) -> list[str]:
    """What `mkiso verify` finds wrong with the folder."""
    with directory_medium(stage) as medium:
        return list(web_content(DiscRead(medium)))


def put(stage: Path, content: bytes) -> Path:
    file = stage.parent / "hospital.svg"
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    ("content", "expected"),
    [(PNG, Logo("logo.png", 144, 72)), (GIF, Logo("logo.gif", 30, 60))],
)
def test_a_logo_lies_beside_the_pictures_and_is_as_large_as_there_is_room(
    content: bytes, expected: Logo, stage: Path
) -> None:
    assert copied_logo(put(stage, content), stage) == expected
    assert (stage / WEB / expected.file).read_bytes() == content
    assert faults(stage) == []


def test_a_jpeg_is_one_too(stage: Path) -> None:
    logo = copied_logo(put(stage, ct_jpeg()), stage)
    assert logo is not None
    assert (logo.file, faults(stage)) == ("logo.jpg", [])


@pytest.mark.parametrize("content", [SVG, b"", b"\x89PNG\r\n\x1a\n", PNG.ljust(LARGEST + 1, b"\0"), GIF[:6] + bytes(4)])
def test_what_may_hold_script_or_is_no_small_picture_is_left_out(content: bytes, stage: Path) -> None:
    assert copied_logo(put(stage, content), stage) is None
    assert list((stage / WEB).iterdir()) == []


def test_a_disc_goes_without_a_logo_that_is_not_there(stage: Path) -> None:
    assert copied_logo(stage / "away.png", stage) is None
    assert copied_logo(None, stage) is None


@pytest.mark.parametrize("name", ["logo.png", "logo.gif", "logo.svg"])
def test_what_only_calls_itself_a_picture_is_a_fault_of_the_disc(name: str, stage: Path) -> None:
    (stage / WEB / name).write_bytes(SVG)
    assert len(faults(stage)) == 1
