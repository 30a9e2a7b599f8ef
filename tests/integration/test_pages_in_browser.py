"""A disc's pages in Debian's Chromium, opened by file:// as a patient opens them."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from mkiso.browse.pages import NOT_XML, write_pages
from mkiso.browse.shown import About, NotIndexed, ShownPatient, Viewer
from tests.support.browser import Watched, accessibility_violations, watched_page
from tests.support.shown import HOSTILE, about, ct_jpeg, everything, hostile, hostile_about, patient, put_files, series

SERIES, IMAGE, REPORT = "ihe_pdi/s0000002.htm", "ihe_pdi/i0000009.htm", "ihe_pdi/r0000001.htm"
NARROW, ZOOMED = {"width": 320, "height": 640}, {"width": 640, "height": 480}
LONG = "Thorax_Abdomen_Becken_mit_Kontrastmittel_venoes_und_Rekonstruktion_0.6mm"


def disc(stage: Path, patients: tuple[ShownPatient, ...], told: About) -> Path:
    """The pages of a disc with pictures as DCMTK makes them, in a folder whose name is no easy URL."""
    stage.mkdir()
    put_files(patients, stage, ct_jpeg())
    for name in told.viewer.entries:
        (stage / name.replace("/", "_").replace("\0", "_")).touch()
    write_pages(patients, told, stage)
    return stage


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    told = about(viewer=Viewer(("viewer.exe",), "viewer.exe"), not_indexed=(NotIndexed("OTHER/A", "1.2"),))
    long = series(1, *everything().studies[0].series[0].items, description=LONG, modality="CT")
    return disc(tmp_path_factory.mktemp("disc") / "a disc", (everything(), patient(long, name=LONG)), told)


def pages(tree: Path) -> list[Path]:
    """One of an image, which are all alike, and all others."""
    found = sorted(file for file in tree.rglob("*") if file.suffix.lower() == ".htm")
    return [file for file in found if not file.name.startswith("i0") or file == tree / IMAGE]


def test_a_patient_walks_from_the_overview_to_pictures_and_a_report(browser: Browser, tree: Path) -> None:
    with watched_page(browser) as watched:
        watched.open(tree / "INDEX.HTM")
        watched.page.get_by_role("link", name="Thorax 2", exact=True).click()
        assert watched.page.url.endswith("/ihe_pdi/s0000002.htm")
        watched.page.get_by_role("link", name="CT scan, Thorax 2, Image 9").click()
        watched.page.get_by_role("link", name="Next image").click()
        assert watched.page.get_by_role("heading", name="Image 10").is_visible()
        watched.page.get_by_role("link", name="Whole series").click()
        watched.page.get_by_role("link", name="Next series").click()
        watched.page.get_by_role("link", name="Overview").click()
        watched.page.get_by_role("link", name="Radiology report").click()
        assert watched.page.get_by_text("A synthetic finding.").is_visible()
        assert watched.faults == []


def test_every_page_shows_its_pictures_and_the_browser_has_nothing_to_say(browser: Browser, tree: Path) -> None:
    shown = {}
    with watched_page(browser) as watched:
        for file in pages(tree):
            watched.open(file)
            assert watched.pictures_not_loaded() == []
            assert watched.faults == []
            shown[file.name] = watched.pictures()
    assert shown["INDEX.HTM"] == shown["index.htm"] == 4
    assert shown["s0000002.htm"] == 12
    assert shown["i0000009.htm"] == 1
    assert shown["PHONE.HTM"] == 6 + 12 + 3 + 6
    assert shown["r0000001.htm"] == 0


def test_a_picture_stands_large_where_its_small_one_leads(browser: Browser, tree: Path) -> None:
    with watched_page(browser) as watched:
        small, large = (_width(watched, tree / file, "Image 9") for file in (SERIES, IMAGE))
        assert large > 2 * small


def _width(watched: Watched, file: Path, name: str) -> float:
    watched.open(file)
    box = watched.page.get_by_role("img", name=name).first.bounding_box()
    assert box is not None
    return box["width"]


@pytest.mark.parametrize(("width", "side_by_side"), [(1280, 3), (768, 2), (375, 1)])
def test_cards_stand_side_by_side_as_far_as_there_is_room(
    browser: Browser, tree: Path, width: int, side_by_side: int
) -> None:
    with watched_page(browser, viewport={"width": width, "height": 800}) as watched:
        watched.open(tree / "INDEX.HTM")
        boxes = [one.bounding_box() for one in watched.page.locator("table[align=left]").all()[:3]]
        places = [(box["x"], box["y"]) for box in boxes if box]
        assert len({x for x, _ in places}) == side_by_side
        assert len({y for _, y in places}) == 4 - side_by_side
        assert watched.scrolls_sideways_by() == 0


def test_a_page_fills_a_narrow_window_and_stands_in_the_middle_of_a_wide_one(browser: Browser, tree: Path) -> None:
    seen = {}
    for width in (320, 1600):
        with watched_page(browser, viewport={"width": width, "height": 800}) as watched:
            watched.open(tree / IMAGE)
            box = watched.page.locator("header").bounding_box()
            assert box is not None
            seen[width] = box
            left, right = box["x"], width - box["x"] - box["width"]
            assert abs(left - right) <= 1
    assert seen[320]["width"] > 280
    assert seen[1600]["width"] < 1100


def test_the_phone_s_page_needs_no_neighbour(browser: Browser, tree: Path, tmp_path: Path) -> None:
    alone = tmp_path / "PHONE.HTM"
    alone.write_bytes((tree / "PHONE.HTM").read_bytes())
    with watched_page(browser, viewport=NARROW, is_mobile=True, has_touch=True) as watched:
        watched.open(alone)
        assert watched.pictures() == 27
        assert watched.pictures_not_loaded() == []
        assert watched.faults == []


def test_the_policy_stops_a_script_that_came_through(browser: Browser, tree: Path, tmp_path: Path) -> None:
    """What the whitelist and the escaping hold off would not run either."""
    for name in ("INDEX.HTM", SERIES, REPORT, "PHONE.HTM"):
        file = tmp_path / "page.htm"
        script = "<script>alert(1)</script><img src='x:y' onerror='alert(2)' alt='' /></main>"
        file.write_text((tree / name).read_text().replace("</main>", script, 1))
        with watched_page(browser) as watched:
            watched.open(file)
            assert [fault for fault in watched.faults if fault.startswith("dialog")] == []
            assert any("Content Security Policy" in fault for fault in watched.faults), name


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_shows_as_text_and_runs_nothing(browser: Browser, tmp_path: Path, text: str) -> None:
    told = hostile_about(text, not_indexed=(NotIndexed("OTHER/A", text),))
    stage = disc(tmp_path / "disc", (hostile(text),), told)
    as_shown = " ".join(NOT_XML.sub("\ufffd", text).split())
    with watched_page(browser) as watched:
        for file in (file for file in stage.rglob("*") if file.suffix.lower() == ".htm"):
            watched.open(file)
            assert as_shown in " ".join(watched.page.inner_text("body").split())
            assert watched.pictures_not_loaded() == []
            assert watched.faults == []


def test_axe_finds_nothing_on_any_page(browser: Browser, tree: Path) -> None:
    found = accessibility_violations(browser, pages(tree))
    assert {name: violations for name, violations in found.items() if violations} == {}


def test_axe_finds_what_is_wrong(browser: Browser, tree: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.htm"
    file.write_text(re.sub(r' alt="[^"]*"', "", (tree / "INDEX.HTM").read_text()).replace(' lang="en"', ""))
    assert {one.split(":")[0] for one in accessibility_violations(browser, [file])[file.name]} == {
        "html-has-lang",
        "image-alt",
        "link-name",
    }


@pytest.mark.parametrize("viewport", [NARROW, ZOOMED], ids=["320 pixels", "200 percent of 1280 pixels"])
def test_no_page_scrolls_sideways(browser: Browser, tree: Path, viewport: dict[str, int]) -> None:
    with watched_page(browser, viewport=viewport) as watched:
        for file in pages(tree):
            watched.open(file)
            assert watched.scrolls_sideways_by() == 0, file.name


def test_an_indonesian_disc_is_as_narrow(browser: Browser, tmp_path: Path) -> None:
    tree = disc(tmp_path / "disc", (everything(), patient(series(1))), about(language="id"))
    with watched_page(browser, viewport=NARROW) as watched:
        for file in pages(tree):
            watched.open(file)
            assert watched.scrolls_sideways_by() == 0, file.name
