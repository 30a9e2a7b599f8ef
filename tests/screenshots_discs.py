"""Draws what a person sees of discs: `python -m tests.screenshots_discs [before|after]` writes docs/screenshots/discs.

Each disc comes from an archive as the service makes it. An older version draws the same with this file and
tests/support/phantoms.py beside its own: docs/gallery.md shows both side by side.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser
from pydicom import Dataset

from mkiso.browse.shown import WEB
from mkiso.config import parse
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from mkiso.waiting import Cancellation
from tests.support import datasets, phantoms
from tests.support.archive import running_archive
from tests.support.browser import Watched, chromium, watched_page
from tests.support.datasets import Patient
from tests.support.phantoms import SLICES, WITH_NODULE
from tests.support.ports import free_ports
from tests.support.service import read_disc, settings
from tests.support.tools import ROOT

TARGET = ROOT / "docs" / "screenshots" / "discs"
RECEIVER = "RECEIVER"
HEIGHTS = {1280: 960, 768: 960, 375: 812}
SCALES = {1280: 0.7, 768: 0.7, 375: 0.9}
QUALITY = 65
BOTH = ("series", "picture")
LETTER = """<body style="font: 12pt Helvetica, sans-serif"><h1>Example Hospital</h1><p>1 March 2024</p><h2>Discharge
letter</h2><p>Dear colleague,</p><p>we report on the above patient, who was in our care from 26 February to 1 March.</p>
<h3>Diagnosis</h3><p>Community-acquired pneumonia of the right lower lobe.</p><h3>Course</h3><p>Afebrile since the
third day of treatment. Walking without help. Appetite good.</p><h3>Medication</h3><table border="1" cellpadding="6">
<tr><td>Amoxicillin</td><td>1 g</td><td>three times daily, until 5 March</td></tr></table>
<p style="page-break-before: always">Please repeat the X-ray of the chest in six weeks.</p><p>Yours sincerely</p>"""


@dataclass(frozen=True)
class Shown:
    """A study, what its disc is to say of it, and the pages that are drawn beside INDEX.HTM."""

    patient: Patient
    description: str
    instances: Callable[[Dataset], Iterable[Dataset]]
    pages: Sequence[str] = ("series",)
    language: str = "en"


JANE = Patient("PAT101", "DOE^JANE", "19620304", "F")
ARABIC = Patient("PAT102", "قباني^نزار", "19530322", "M", "ISO_IR 127")
JAPANESE = Patient("PAT103", "YAMADA^HANAKO=山田^花子=やまだ^はなこ", "19710506", "F", "\\ISO 2022 IR 87")
INDONESIAN = Patient("PAT104", "SANTOSO^DEWI AYU", "19850817", "F")
JOHN = Patient("PAT105", "DOE^JOHN", "19581112", "M")


def thorax_with_report(common: Dataset) -> Iterator[Dataset]:
    yield from (phantoms.thorax(common, 1, number) for number in range(1, SLICES + 1))
    yield phantoms.written_report(common, 2, 1)


def shown(letter: bytes) -> dict[str, Shown]:
    return {
        "ct": Shown(JANE, "CT of the chest", thorax_with_report, ("series", "picture", "report")),
        "x-ray": Shown(ARABIC, "Chest PA", lambda common: [phantoms.chest(common, 1, 1)]),
        "mammogram": Shown(JAPANESE, "Mammography", lambda common: phantoms.breasts(common, 1), BOTH),
        "ultrasound": Shown(
            INDONESIAN, "Ekokardiografi", lambda common: [phantoms.heart_loop(common, 1, 1)], language="id"
        ),
        "ecg": Shown(JOHN, "Resting ECG", lambda common: [phantoms.electrocardiogram(common, 1, 1)], BOTH),
        "pdf": Shown(JOHN, "Letters", lambda common: [phantoms.letter(common, 1, 1, letter)], BOTH),
    }


def main(version: str = "after") -> None:
    with TemporaryDirectory() as name, chromium() as browser:
        for case, disc in discs(Path(name), shown(_printed(browser))):
            for width in HEIGHTS:
                _draw(browser, disc, (), width, TARGET / version / f"{case[0]}-{width}.jpg")
            for page in case[1].pages:
                _draw(browser, disc, (page,), 1280, TARGET / version / f"{case[0]}-{page}.jpg")


def discs(directory: Path, cases: dict[str, Shown]) -> Iterator[tuple[tuple[str, Shown], Path]]:
    """The files of each disc, as a person sees them."""
    held = directory / "held"
    for name, one in cases.items():
        common = datasets.study(one.patient, name.upper())
        common.StudyDescription = one.description
        (held / name).mkdir(parents=True)
        for number, instance in enumerate(one.instances(common)):
            instance.save_as(held / name / f"{number}.dcm", enforce_file_format=True)
    with _counter(directory, held) as make:
        for name, one in cases.items():
            yield (name, one), make(name.upper(), one.language)


@contextmanager
def _counter(directory: Path, held: Path) -> Iterator[Callable[[str, str], Path]]:
    """Makes the disc of an accession number in a language."""
    port, receiver = free_ports(2)

    def make(accession: str, language: str) -> Path:
        own = directory / accession
        own.mkdir()
        told = {"layout": "pdi", "institution": "Example Hospital", "contact": "Example Street 1, +00 000 000"}
        media = {"media": {**told, "language": language}}
        installation = Installation(parse(settings(own, port, {RECEIVER: receiver}, **media)))
        try:
            (own / "disc.iso").write_bytes(
                b"".join(make_disc(installation, Order((accession,), "test"), Cancellation()))
            )
        finally:
            installation.ledger.close()
        read_disc(own / "disc.iso", own / "disc")
        return own / "disc"

    with running_archive(port, {RECEIVER: receiver}, held):
        yield make


def _printed(browser: Browser) -> bytes:
    with watched_page(browser) as watched:
        watched.page.set_content(LETTER)
        return watched.page.pdf(format="A4")


def _draw(browser: Browser, disc: Path, pages: Sequence[str], width: int, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    viewport = {"width": width, "height": HEIGHTS[width]}
    with watched_page(browser, viewport=viewport, device_scale_factor=SCALES[width]) as watched:
        watched.open(disc / "INDEX.HTM")
        for page in pages:
            _go(watched, disc, page)
        watched.page.wait_for_load_state()
        assert watched.pictures_not_loaded() == []
        watched.page.screenshot(path=file, type="jpeg", quality=QUALITY)
    print(file, file.stat().st_size)


def _go(watched: Watched, disc: Path, page: str) -> None:
    watched.open(disc / WEB / {"report": "r0000001.htm"}.get(page, "s0000001.htm"))
    if page == "picture":
        pictures = watched.page.locator("main a:has(img)")
        of_nodule = [one for one in pictures.all() if number_of(one.locator("img").get_attribute("alt")) in WITH_NODULE]
        if pictures.count():
            (of_nodule[len(of_nodule) // 2] if of_nodule else pictures.first).click()


def number_of(alternative: str | None) -> int:
    """The instance's number, as a picture's alternative text tells it last; 0 where it tells none."""
    found = re.search(r"Image (\d+)$", (alternative or "").split(",")[-1].strip())
    return int(found[1]) if found else 0


if __name__ == "__main__":
    main(*sys.argv[1:])
