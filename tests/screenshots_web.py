"""Draws the operator's pages for the documentation: `python -m tests.screenshots_web` writes docs/screenshots."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Browser, expect

from tests.support.browser import chromium
from tests.support.desk import ADAM, Desk, Person, front_desk, person
from tests.support.studies import series_study
from tests.support.tools import ROOT

TARGET = ROOT / "docs" / "screenshots"
LARGEST = 150_000
WIDE = {"viewport": {"width": 960, "height": 720}}
NARROW = {"viewport": {"width": 390, "height": 844}}
LOGO = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40">
<rect width="40" height="40" rx="8" fill="#0b6a82"/><path d="M17 8h6v9h9v6h-9v9h-6v-9H8v-6h9z" fill="#fff"/></svg>"""


def main() -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as name, chromium() as browser:
        logo = Path(name) / "logo.svg"
        logo.write_text(LOGO)
        about = {"title": "RS Harapan Sehat", "logo_file": str(logo), "helpdesk": "IT helpdesk, extension 1234"}
        series_study(Path(name) / "held", ADAM, "RAD.103", series=4, count=3)
        titled = {"cd_publisher": "CD robot, ground floor", "relay": "Teaching archive"}
        with front_desk(Path(name), "slow", 0.4, titles=titled, **about) as desk:
            _teach(browser, desk)
            _tell_a_story(browser, desk)
            _look_back(browser, desk)


def _teach(browser: Browser, desk: Desk) -> None:
    """The pictures of front-desk.md, in its order: from a scan to who collected the disc."""
    with person(browser, desk.url, **WIDE, extra_http_headers={"X-Forwarded-User": "rina"}) as rina:
        rina.open()
        expect(rina.page.get_by_text("PACS reachable")).to_be_visible(timeout=15_000)
        _draw(rina, "start", "counter")
        rina.look_up("RAD.101 RAD.103")
        expect(rina.page.locator("#total")).not_to_be_empty()
        _draw(rina, "found", "counter")
        rina.open("/?patient_name=santoso")
        expect(rina.page.locator("tr.study").first).to_be_visible()
        _scroll_to(rina, ".by-patient")
        _draw(rina, "search", "counter")
        rina.look_up("RAD.101 RAD.103")
        rina.page.locator("tr.study").filter(has_text="RAD.103").get_by_role("link", name="Choose series").click()
        expect(rina.page.locator("input[name=series_uids]")).to_have_count(4)
        for one in rina.page.locator("input[name=series_uids]").all()[2:]:
            one.uncheck()
        _scroll_to(rina, "#found")
        _draw(rina, "tick", "counter")
        with rina.page.expect_download():
            rina.page.get_by_role("button", name="Make disc").click()
            expect(rina.page.locator("#count")).to_have_text(re.compile("Images: (7|8|9|10|11|12) of"), timeout=15_000)
            _draw(rina, "progress", "counter")
        expect(rina.page.locator("#ended")).to_be_visible()
        _draw(rina, "receipt", "counter", full_page=True)
        made = rina.page.url
        rina.page.get_by_text("Write down who collected it").click()
        rina.page.get_by_label("Name of who collected it").fill("Dewi Santoso")
        rina.page.get_by_label("a relative").check()
        rina.page.get_by_label("Note").fill("his daughter, showed her card")
        rina.page.get_by_role("button", name="Save").click()
        expect(rina.page.locator(".collected tbody tr")).to_have_count(1)
        _scroll_to(rina, "#collected")
        _draw(rina, "collected", "counter")
        rina.page.goto(f"{made}/sheet")
        _scroll_to(rina, ".paper")
        _draw(rina, "sheet", "counter")
        rina.open("/history")
        _draw(rina, "history", "counter")
        rina.look_up("RAD.201")
        rina.page.get_by_label("ZIP with a password").check()
        rina.page.get_by_role("button", name="Make disc").click()
        expect(rina.page.get_by_role("button", name="Make the ZIP")).to_be_visible()
        with rina.page.expect_download():
            rina.page.get_by_role("button", name="Make the ZIP").click()
            expect(rina.page.get_by_text("Write the password down now")).to_be_visible()
            _draw(rina, "protected", "counter")
        expect(rina.page.locator("#ended")).to_be_visible()


def _tell_a_story(browser: Browser, desk: Desk) -> None:
    """From an empty page to a disc, and what may go wrong."""
    with person(browser, desk.url, **WIDE) as one:
        one.open()
        expect(one.page.get_by_text("PACS reachable")).to_be_visible(timeout=15_000)
        _draw(one, "start")
        one.look_up("RAD.101\nRAD.102")
        _draw(one, "found")
        with one.page.expect_download():
            one.page.get_by_role("button", name="Make disc").click()
            expect(one.page.locator("#count")).to_have_text(re.compile("Images: (7|8|9) of"), timeout=15_000)
            _draw(one, "progress")
        expect(one.page.locator("#ended")).to_be_visible()
        _draw(one, "done")
        one.look_up("RAD.101 RAD.201 RAD.999")
        _draw(one, "several-patients")
        one.open("/send_rimage_multiple.php?accession_number=RAD.201")
        expect(one.page.locator("#ended")).to_be_visible()
        _draw(one, "sent")
        one.open("/mkiso2.php?accession_number=RAD.201")
        expect(one.page.locator("#ended")).to_be_visible()
        _draw(one, "failed")
        one.page.goto(f"{desk.url}/mkiso.php?accession_number=RAD.102&page=1")
        expect(one.page.locator("li[aria-current=step]")).to_have_attribute("data-phase", "retrieving")
        one.page.get_by_role("button", name="Cancel").click()
        expect(one.page.locator("#ended")).to_be_visible()
        _draw(one, "cancelled")
        one.open("/mkiso.php?accession_number=RAD.999")
        _draw(one, "error")


def _look_back(browser: Browser, desk: Desk) -> None:
    """The history, and pages in the dark, in Indonesian and on a phone."""
    with person(browser, desk.url, **WIDE) as one:
        one.open("/history")
        _draw(one, "history")
    with person(browser, desk.url, **WIDE, color_scheme="dark") as one:
        one.open("/?accession_numbers=RAD.101+RAD.102")
        _draw(one, "found-dark")
    with person(browser, desk.url, **WIDE, locale="id-ID") as one:
        one.open("/?accession_numbers=RAD.101+RAD.102")
        _draw(one, "found-indonesian")
    with person(browser, desk.url, **NARROW) as one:
        one.open("/?accession_numbers=RAD.101+RAD.102")
        _draw(one, "found-phone")


def _scroll_to(one: Person, selector: str) -> None:
    one.page.locator(selector).first.evaluate("element => element.scrollIntoView()")


def _draw(one: Person, name: str, kind: str = "desk", **options: Any) -> None:
    file = TARGET / f"{kind}-{name}.png"
    one.page.screenshot(path=file, **options)
    assert file.stat().st_size < LARGEST, f"{file.name} is too large"
    print(file.relative_to(ROOT))


if __name__ == "__main__":
    main()
