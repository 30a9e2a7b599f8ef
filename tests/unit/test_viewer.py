"""The viewer's files on a disc: which one a person opens, and which would cover one of ours."""

from pathlib import Path

import pytest

from mkiso.config import LayoutName, Media
from mkiso.disc.layout import found_viewer, unusable


@pytest.fixture
def media(tmp_path: Path) -> Media:
    (tmp_path / "viewer").mkdir()
    return Media(viewer_dir=tmp_path / "viewer")


def put(media: Media, *names: str, autorun: str = "") -> None:
    assert media.viewer_dir
    for name in names:
        (media.viewer_dir / name).write_text(autorun if name.lower() == "autorun.inf" else "")


@pytest.mark.parametrize(
    ("names", "autorun", "start"),
    [
        (("AutoRun.inf", "View.exe", "setup.exe"), "[autorun]\r\n Open = view.EXE /cd\r\nicon=x.ico", "View.exe"),
        (("autorun.inf", "a.exe", "b.exe"), 'open="b.exe"', "b.exe"),
        (("autorun.inf", "a.exe"), "open=gone.exe", "a.exe"),
        (("a.exe", "help.htm"), "", "a.exe"),
        (("a.exe", "b.exe", "start.htm"), "", "start.htm"),
        (("a.exe", "b.exe"), "", None),
        (("data",), "", None),
        (("VIEWER.HTM", "a.exe"), "", "a.exe"),
        (("VIEWER.HTM", "a.exe", "b.exe", "help.htm"), "", "VIEWER.HTM"),
        (("VIEWER", "Viewer.htm"), "", "Viewer.htm"),
    ],
)
def test_what_autorun_opens_is_the_viewer_else_the_only_likely_file(
    names: tuple[str, ...], autorun: str, start: str | None, media: Media
) -> None:
    put(media, *names, autorun=autorun)
    viewer = found_viewer(media)
    assert viewer.start == start
    assert viewer.entries == tuple(sorted(names))


def test_the_page_that_any_browser_opens_is_found_beside_a_program(media: Media) -> None:
    put(media, "a.exe", "start.htm")
    assert found_viewer(media).in_browser is None
    put(media, "VIEWER.HTM")
    assert found_viewer(media).start == "a.exe"
    assert found_viewer(media).in_browser == "VIEWER.HTM"


def test_without_a_viewer_there_are_no_entries() -> None:
    assert found_viewer(Media()).entries == ()
    assert unusable(Media(), "pdi") is None


def test_a_viewer_that_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "mount").mkdir()
    for name, why in (("gone", "No such file or directory"), ("file", "Not a directory"), ("mount", "it is empty")):
        told = unusable(Media(viewer_dir=tmp_path / name), "legacy")
        assert told == f"media.viewer_dir: {tmp_path / name}: {why}. Put the viewer there, or take the key away."


@pytest.mark.parametrize(
    ("layout", "covering"),
    [("pdi", ["DICOMDIR", "Index.htm", "ihe_pdi", "images"]), ("legacy", ["DICOMDIR"])],
)
def test_what_would_cover_a_file_of_ours_is_told_in_whatever_capitals(
    layout: LayoutName, covering: list[str], media: Media
) -> None:
    put(media, "images", "ihe_pdi", "Index.htm", "DICOMDIR", "viewer.exe")
    told = unusable(media, layout)
    assert told is not None
    assert f"holds {', '.join(covering)}, where" in told
