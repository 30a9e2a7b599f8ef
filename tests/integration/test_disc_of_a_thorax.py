"""A CT of 150 slices, a nodule of 10 mm on 16 of them, and its report: what a person finds by clicking, in Chromium."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from mkiso.browse.pages import write_pages
from mkiso.browse.shown import Picture
from tests.support import datasets
from tests.support.browser import Watched, watched_page
from tests.support.contents import Showing, grey_of, items
from tests.support.phantoms import (
    ACROSS,
    FINDING,
    NODULE,
    SLICES,
    WITH_NODULE,
    thorax,
    written_report,
)
from tests.support.shown import about
from tests.support.studies import JANE

SIDE = 160
SOFT_TISSUE, LUNG = "MEDIASTINUM", "LUNG"


@dataclass(frozen=True)
class Disc:
    index: Path
    web: Path
    pictures: list[Picture]


@pytest.fixture(scope="module")
def disc(tmp_path_factory: pytest.TempPathFactory) -> Disc:
    job, common = Showing(tmp_path_factory.mktemp("thorax")), datasets.study(JANE, "CT.150")
    job.put(*(thorax(common, 1, number, SIDE) for number in range(1, SLICES + 1)), written_report(common, 2, 1))
    patients = job.shown()
    write_pages(patients, about(), job.stage)
    return Disc(job.stage / "INDEX.HTM", job.web, [one for one in items(patients) if isinstance(one, Picture)])


@pytest.fixture
def opened(browser: Browser, disc: Disc) -> Iterator[Watched]:
    with watched_page(browser) as watched:
        watched.open(disc.index)
        yield watched
        assert watched.faults == []


def test_the_report_is_one_click_away(opened: Watched) -> None:
    opened.page.get_by_role("link", name="Radiology report").click()
    assert opened.page.get_by_text(FINDING).is_visible()


def test_the_next_image_is_one_click_away_and_the_last_has_none(opened: Watched, disc: Disc) -> None:
    opened.page.get_by_role("link", name="CT scan, Chest 0.6 mm").first.click()
    opened.page.get_by_role("link", name=re.compile("Image 1$")).click()
    seen = [_number(opened)]
    for _ in range(4):
        opened.page.get_by_role("link", name="Next image").click()
        seen.append(_number(opened))
    assert seen == [int(one.number) for one in disc.pictures[:5]] == [1, 4, 7, 11, 14]
    opened.open(disc.web / disc.pictures[-2].page)
    opened.page.get_by_role("link", name="Next image").click()
    assert _number(opened) == SLICES
    assert not opened.page.get_by_role("link", name="Next image").count()


def _number(watched: Watched) -> int:
    """Of the image whose page is open, and shows it."""
    watched.page.wait_for_load_state()
    assert watched.pictures_not_loaded() == []
    heading = watched.page.get_by_role("heading", name=re.compile(r"^Image \d+$"))
    return int(heading.inner_text().removeprefix("Image "))


def test_a_doctor_sees_the_nodule_and_lungs_through_both_windows(opened: Watched, disc: Disc, tmp_path: Path) -> None:
    with_it = [one for one in disc.pictures if int(one.number) in WITH_NODULE]
    assert len(with_it) >= 5
    through_its_middle = 0
    for one in (*with_it, *disc.pictures[::6]):
        assert one.other
        assert (one.window, one.other.window) == (SOFT_TISSUE, LUNG)
        soft, lung = (grey_of(disc.web / file, tmp_path) for file in (one.file, one.other.file))
        seen = _at_nodule(soft), _at_nodule(lung)
        if one in with_it:
            assert seen[1] > 120, (one.number, seen)
            through_its_middle += seen[0] > 60
        else:
            assert seen[0] < 10 < seen[1] < 100, (one.number, seen)
    assert through_its_middle >= 3
    opened.open(disc.web / with_it[len(with_it) // 2].page)
    assert opened.page.get_by_role("img").evaluate_all("all => all.map(one => one.naturalWidth > 100)") == [True, True]
    assert opened.page.get_by_text("Window: LUNG").is_visible()


def _at_nodule(grey: bytes) -> float:
    """The mean within 2 mm of where the nodule has its middle."""
    x, y = (SIDE / 2 + one * SIDE / ACROSS for one in NODULE[:2])
    around = range(-3, 4)
    places = [(round(x) + right, round(y) + down) for right in around for down in around]
    near = [grey[row * SIDE + column] for column, row in places if math.dist((column, row), (x, y)) < 2 * SIDE / ACROSS]
    return sum(near) / len(near)
