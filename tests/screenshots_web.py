"""Draws the operator's pages for the documentation: `python -m tests.screenshots_web` writes docs/screenshots."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Browser, expect

from tests.support.browser import chromium
from tests.support.desk import Desk, Person, front_desk, person
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
        with front_desk(Path(name), "slow", 0.4, **about) as desk:
            _tell_a_story(browser, desk)
            _look_back(browser, desk)


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


def _draw(one: Person, name: str, **options: Any) -> None:
    file = TARGET / f"desk-{name}.png"
    one.page.screenshot(path=file, **options)
    assert file.stat().st_size < LARGEST, f"{file.name} is too large"
    print(file.relative_to(ROOT))


if __name__ == "__main__":
    main()
