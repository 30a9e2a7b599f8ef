"""The ways in, in Chromium: windows that the hospital's own page opens, the name of who is there, and the language."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Download, Page, Route, expect

from tests.integration.test_behind_nginx import behind, site
from tests.integration.test_pages_of_others import EMBEDDED, Elsewhere, elsewhere
from tests.support.browser import SCROLLS
from tests.support.desk import Desk, front_desk, person
from tests.support.tools import wait_until

__all__ = ("elsewhere",)  # a fixture
DISC = "/mkiso.php?accession_number=RAD.101"
ENGLISH, INDONESIAN = "English", "Bahasa Indonesia"
SIZES = "buttons => buttons.flatMap(one => [one.offsetWidth, one.offsetHeight])"
THUMB = 44
ROBOT = "CD robot, ground floor"
STATES: tuple[dict[str, Any], ...] = (
    {},
    {"viewport": {"width": 320, "height": 640}},
    {"viewport": {"width": 640, "height": 480}, "device_scale_factor": 2},
)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk whose `.php` URLs give a browser the job's page, and whose archive takes its time."""
    about: dict[str, Any] = {"php_page": True, "title": "RS Harapan", "titles": {"cd_publisher": ROBOT}}
    with front_desk(tmp_path_factory.mktemp("desk"), "slow", 0.3, **about) as opened:
        yield opened


@pytest.fixture
def hospital(whole_browser: Browser, desk: Desk, elsewhere: Elsewhere) -> Iterator[Page]:
    """The hospital's own page, which is another site's, with a button for a disc in a window."""
    elsewhere.body = f"<button onclick=\"window.open('{desk.url}{DISC}')\">Disc</button>"
    with person(whole_browser, elsewhere.url) as one:
        one.open("")
        yield one.page


def downloads_of(page: Page) -> list[Download]:
    """Whatever any window of this browser saves from here on."""
    saved: list[Download] = []

    def note(one: Download) -> None:
        saved.append(one)

    page.context.on("page", lambda window: window.on("download", note))
    page.on("download", note)
    return saved


def windows_of(page: Page, count: int) -> list[Page]:
    """The windows that a page opened, once there are so many and each shows a page of ours."""
    wait_until(lambda: _waited(page) and len(page.context.pages) > count, 20, lambda: "no window opened")
    opened = page.context.pages[1:]
    for window in opened:
        expect(window.locator("main")).to_be_visible()
    return opened


def page_of(window: Page) -> str:
    return window.url.partition("?")[0]


def _waited(page: Page) -> bool:
    page.wait_for_timeout(50)
    return True


def test_two_clicks_on_the_hospitals_page_make_one_disc_and_a_third_is_asked_about(hospital: Page, desk: Desk) -> None:
    before, saved, held = len(desk.jobs()), downloads_of(hospital), list[Route]()

    def hold(route: Route) -> None:
        held.append(route)

    hospital.context.route("**/mkiso*.php*job=*", hold)  # however slow the second click is
    for _ in range(2):
        hospital.get_by_role("button").click()
    first, second = windows_of(hospital, 2)
    for window in (first, second):
        window.wait_for_url("**/jobs/*")
    wait_until(lambda: _waited(hospital) and len(held) == 2, 20, lambda: f"downloads that began: {held}")
    for download in held:
        download.continue_()
    hospital.context.unroute_all()
    for window in (first, second):
        expect(window.locator("progress[value]")).to_be_visible()
    pages = {page_of(window) for window in (first, second)}
    hospital.get_by_role("button").click()
    third = windows_of(hospital, 3)[-1]
    expect(third.get_by_role("heading", name="The same studies are being worked on")).to_be_visible()
    third.get_by_role("link", name="Follow the one that runs").click()
    third.wait_for_url("**/jobs/*")
    for window in (first, second, third):
        expect(window.get_by_role("heading", name="The disc is complete")).to_be_visible()
    assert {page_of(window) for window in (first, second, third)} == pages
    assert len(pages) == 1
    assert [one.suggested_filename for one in saved] == ["RAD.101.iso"]
    saved[0].failure()
    first.reload()
    expect(first.get_by_role("heading", name="The disc is complete")).to_be_visible()
    assert (len(desk.jobs()), len(saved)) == (before + 1, 1)
    hospital.get_by_role("button").click()
    again = windows_of(hospital, 4)[-1]
    again.wait_for_url("**/jobs/*")
    assert page_of(again) not in pages
    expect(again.get_by_role("heading", name="The disc is complete")).to_be_visible()
    assert len(desk.jobs()) == before + 2


def test_a_frame_of_the_hospitals_page_has_the_file_as_ever(hospital: Page, desk: Desk, elsewhere: Elsewhere) -> None:
    elsewhere.body = EMBEDDED["frame"].format(url=f"{desk.url}/mkiso.php?accession_number=RAD.201")
    with hospital.expect_download() as saved:
        hospital.reload()
    assert (saved.value.suggested_filename, saved.value.failure()) == ("RAD.201.iso", None)


def test_a_language_is_chosen_beside_the_browsers_own_and_stays(browser: Browser, desk: Desk) -> None:
    with person(browser, desk.url) as clerk:
        clerk.open("/history?patient=nobody")
        expect(clerk.page.get_by_role("heading", name="Who was given what")).to_be_visible()
        clerk.page.get_by_role("button", name=INDONESIAN).click()
        expect(clerk.page.get_by_role("heading", name="Siapa menerima apa")).to_be_visible()
        assert clerk.page.url == f"{desk.url}/history?patient=nobody"
        assert clerk.page.evaluate("document.documentElement.lang") == "id"
        assert clerk.page.evaluate("document.cookie") == ""
        clerk.open("/mkiso.php?accession_number=RAD.999&page=0")
        expect(clerk.page.get_by_text("PACS tidak mengenal pemeriksaan").first).to_be_visible()
        clerk.page.get_by_role("button", name=ENGLISH).click()
        expect(clerk.page.get_by_role("heading", name="Look up studies")).to_be_visible()
        assert [one for one in clerk.complaints if "404" not in one] == []


@pytest.mark.parametrize("options", STATES)
def test_the_header_is_for_everybody(options: dict[str, Any], browser: Browser, desk: Desk) -> None:
    headers = {"X-Forwarded-User": "a.very.long.name.of.somebody@radiology.hospital"}
    with person(browser, desk.url, bypass_csp=True, extra_http_headers=headers, **options) as clerk:
        clerk.open()
        buttons = clerk.page.locator(".languages button")
        expect(buttons).to_have_text([ENGLISH, INDONESIAN])
        assert min(buttons.evaluate_all(SIZES)) >= THUMB
        assert [one.get_attribute("lang") for one in buttons.all()] == ["en", "id"]
        assert clerk.page.evaluate(SCROLLS) == 0
        assert clerk.violations() == []


def test_who_is_logged_in_is_told_and_no_address_beside_it(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    with behind(tmp_path / "service") as service, site(tmp_path, service.socket, {"anna": "right"}) as url:
        credentials = {"username": "anna", "password": "right"}
        with person(browser, url, http_credentials=credentials) as anna:
            anna.open("/mkiso.php?accession_number=A")
            anna.open()
            expect(anna.page.locator("header")).to_contain_text("Logged in as anna")
            row = anna.page.locator("main tbody tr")
            expect(row.locator("td[data-label=Who]")).to_have_text("anna")
            row.get_by_role("link").click()
            expect(anna.page.locator("main")).to_contain_text("anna@127.0.0.1")
            anna.page.get_by_role("button", name=INDONESIAN).click()
            expect(anna.page.locator("header")).to_contain_text("Masuk sebagai anna")


def test_nobody_is_named_where_no_password_is_asked_for(browser: Browser, desk: Desk) -> None:
    with person(browser, desk.url) as clerk:
        clerk.open()
        expect(clerk.page.locator("header")).not_to_contain_text("Logged in")


def test_a_destination_has_its_title_for_people_and_its_address_for_programs(browser: Browser, desk: Desk) -> None:
    with person(browser, desk.url) as clerk:
        clerk.look_up("RAD.201")
        clerk.page.get_by_role("button", name=f"Send to {ROBOT}").click()
        expect(clerk.page.get_by_text(f"{ROBOT} confirmed all 4 images")).to_be_visible()
        expect(clerk.page.locator("h1")).to_have_text(f"Images of DEWI LESTARI to {ROBOT}")
        expect(clerk.page).to_have_url(re.compile("/relays/[0-9a-f-]+$"))
        relay = desk.service.get(f"/api/relays/{clerk.page.url.rpartition('/')[2]}").json()
        job = desk.service.get(f"/api/jobs/{relay['job_id']}").json()
        assert re.fullmatch(r"127\.0\.0\.1:[0-9]+", job["destination"])
        clerk.open()
        row = clerk.page.locator("#jobs tbody tr", has_text="DEWI LESTARI").first
        expect(row).to_contain_text(f"Sending to {ROBOT}")


def test_a_page_that_downloads_offers_no_way_to_leave_it(browser: Browser, desk: Desk) -> None:
    with person(browser, desk.url) as clerk, clerk.page.expect_download():
        clerk.open(DISC)
        expect(clerk.page.locator("progress[value]")).to_be_visible()
        expect(clerk.page.locator(".languages")).to_have_count(0)
        expect(clerk.page.get_by_role("heading", name="The disc is complete")).to_be_visible()
