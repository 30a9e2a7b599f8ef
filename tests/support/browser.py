"""Debian's Chromium, opened on pages of a disc by file://, and what it had to say about them.

Its shell is the same engine without the browser around it: a context costs a third of what it costs there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import axe_playwright_python
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Playwright, Request, sync_playwright

from tests.support.allowance import require_room_for_a_browser

DEBIANS = "/usr/bin/chromium"
SHELL = "/usr/bin/chromium-headless-shell"
INSTEAD = os.environ.get("CHROMIUM")  # of either, where the host's limits do not let Debian's start
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
)
NOT_LOADED = "[...document.images].filter(one => !(one.complete && one.naturalWidth > 0)).map(one => one.alt)"
SCROLLS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
AXE = """async (rules) => {
    const found = await axe.run({ resultTypes: ["violations"], ...(rules && { runOnly: rules }) })
    const where = one => one.nodes.map(node => node.html.slice(0, 200)).join(" | ")
    return found.violations.map(one => `${one.id}: ${one.help}: ${where(one)}`)
}"""


@dataclass
class Watched:
    """A page, and whatever it did that a page of a disc never does: `faults` is to stay empty."""

    page: Page
    faults: list[str] = field(default_factory=list)

    def open(self, file: Path) -> None:
        self.page.goto(file.as_uri())

    def pictures(self) -> int:
        return self.page.locator("img").count()

    def pictures_not_loaded(self) -> list[str]:
        """The alternative texts of the pictures that are not shown."""
        return list(self.page.evaluate(NOT_LOADED))

    def scrolls_sideways_by(self) -> int:
        return int(self.page.evaluate(SCROLLS))

    def screenshot(self, file: Path) -> None:
        self.page.screenshot(path=file)


@contextmanager
def chromium() -> Iterator[Browser]:
    with driver() as playwright, launched(playwright) as browser:
        yield browser


@contextmanager
def driver() -> Iterator[Playwright]:
    """What drives browsers, where there is room for one: a process has one of it."""
    if not INSTEAD:
        require_room_for_a_browser()
    with sync_playwright() as playwright:
        yield playwright


@contextmanager
def launched(playwright: Playwright, program: str = DEBIANS) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=INSTEAD or program, args=list(ARGUMENTS))
    try:
        yield browser
    finally:
        browser.close()


@contextmanager
def watched_page(browser: Browser, **options: Any) -> Iterator[Watched]:
    """A page in a context of its own (`options` are playwright's), which is offline but for files."""
    context = browser.new_context(offline=True, **options)
    watched = Watched(context.new_page())
    _watch(watched)
    try:
        yield watched
    finally:
        context.close()


def accessibility_violations(browser: Browser, files: Iterable[Path]) -> dict[str, list[str]]:
    """What axe-core finds, by page. Its script needs a context without the pages' Content-Security-Policy."""
    found: dict[str, list[str]] = {}
    with watched_page(browser, bypass_csp=True) as watched:
        for file in files:
            watched.open(file)
            watched.page.evaluate(axe())
            found[file.name] = list(watched.page.evaluate(AXE))
    return found


@cache
def axe() -> str:
    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()


def _watch(watched: Watched) -> None:
    def console(message: ConsoleMessage) -> None:
        watched.faults.append(f"console {message.type}: {message.text}")

    def dialog(opened: Dialog) -> None:
        watched.faults.append(f"dialog: {opened.message}")
        opened.dismiss()

    def request(sent: Request) -> None:
        if not sent.url.startswith(("file:", "data:")):
            watched.faults.append(f"request: {sent.url}")

    watched.page.on("console", console)
    watched.page.on("dialog", dialog)
    watched.page.on("request", request)
    watched.page.on("pageerror", lambda error: watched.faults.append(f"script: {error}"))
