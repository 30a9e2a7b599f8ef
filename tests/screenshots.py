"""Draws the pages of a disc for the documentation: `python -m tests.screenshots` writes docs/screenshots."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser

from mkiso.browse.pages import write_pages
from mkiso.browse.shown import WEB, Marks, Picture, ShownReport, Viewer
from tests.support import datasets
from tests.support.browser import chromium, watched_page
from tests.support.shown import BODY, about, jpeg, patient, picture, series
from tests.support.tools import ROOT

TARGET = ROOT / "docs" / "screenshots"
LARGEST = 150_000
SIDE = 256
SIDES = Marks(left="R", right="L")
# An invented body from above: middle x, y, half axes (of 1), and what it adds, in Hounsfield units from air.
BODY_PARTS = (
    (0, 0, 0.88, 0.66, 1000),
    (0, 0, 0.82, 0.60, 40),
    (-0.40, -0.06, 0.29, 0.42, -850),
    (0.42, -0.06, 0.27, 0.40, -850),
    (0.10, -0.06, 0.20, 0.24, 90),
    (0, 0.34, 0.12, 0.12, 420),
    (0, 0.50, 0.04, 0.09, 320),
    (-0.06, 0.16, 0.06, 0.06, 160),
    (0, -0.57, 0.13, 0.04, 380),
    (-0.46, 0.10, 0.05, 0.04, 700),
)


def main() -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as directory, chromium() as browser:
        stage = Path(directory) / "disc"
        slices = _disc(stage)
        for name, width, height in (("index", 1280, 960), ("index-tablet", 768, 960), ("index-phone", 375, 812)):
            _draw(browser, stage / "INDEX.HTM", name, width, height)
        _draw(browser, stage / WEB / "s0000002.htm", "series", 900, 760)
        _draw(browser, stage / WEB / slices[6].page, "image", 1280, 960)
        _draw(browser, stage / WEB / "r0000001.htm", "report", 768, 640)
        _draw(browser, stage / "PHONE.HTM", "phone", 375, 812)


def _disc(stage: Path) -> list[Picture]:
    """A disc of a CT with its report; the pictures of its slices."""
    topogram = [picture(1)]
    slices = [picture(at, number=str(at * 15), place=at * 15, places=200, marks=SIDES) for at in range(2, 14)]
    report = ShownReport("1", "Radiology Report", BODY)
    everything = patient(
        series(1, *topogram, description="Topogram", instances=1, body_part="CHEST"),
        series(2, *slices, description="Thorax venous 3.0", body_part="CHEST"),
        series(3, report, modality="SR", description="Findings", instances=1),
    )
    (stage / WEB).mkdir(parents=True)
    (stage / "viewer.exe").touch()
    _picture(topogram, stage, 0)
    for at, one in enumerate(slices):
        _picture([one], stage, 0.1 + at / len(slices))
    write_pages((everything,), about(viewer=Viewer(("viewer.exe",), "viewer.exe")), stage)
    return slices


def _picture(pictures: Sequence[Picture], stage: Path, height: float) -> None:
    image = datasets.ct(datasets.study(datasets.Patient("PAT001", "DOE^JOHN"), "CT.000200"), 1, 1, side=SIDE)
    image.PixelData = _slice(height)
    for one in pictures:
        (stage / WEB / one.file).write_bytes(jpeg(image, "+Ww", "-200", "1500"))


def _slice(height: float) -> bytes:
    """The body at a height from 0 to 1: the lungs open and close, the rest stays nearly as it is."""
    parts = [_part(at, part, height) for at, part in enumerate(BODY_PARTS)]
    steps = [2 * (at + 0.5) / SIDE - 1 for at in range(SIDE)]
    values = (
        sum(add for mx, my, rx, ry, add in parts if ((x - mx) / rx) ** 2 + ((y - my) / ry) ** 2 < 1)
        for y in steps
        for x in steps
    )
    return array("H", (max(0, int(value) + 24) for value in values)).tobytes()


def _part(at: int, part: tuple[float, ...], height: float) -> tuple[float, ...]:
    x, y, rx, ry, add = part
    lung = at in (2, 3)
    grown = 1 - abs(height - 0.55) * (1.1 if lung else 0.12)
    return x, y, rx * grown, ry * grown, add


def _draw(browser: Browser, page: Path, name: str, width: int, height: int) -> None:
    file = TARGET / f"{name}.png"
    with watched_page(browser, viewport={"width": width, "height": height}) as watched:
        watched.open(page)
        watched.screenshot(file)
        assert watched.faults == []
    assert file.stat().st_size < LARGEST, f"{file} is too large: {file.stat().st_size} bytes"


if __name__ == "__main__":
    main()
