"""A hospital's front desk: the service before an archive and a destination, and a person at a browser there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from tests.support.archive import running_archive
from tests.support.browser import AXE, axe
from tests.support.datasets import Patient
from tests.support.destination import RunningDestination, running_destination
from tests.support.ports import free_ports
from tests.support.service import Service, running_service, settings
from tests.support.studies import Study, ct_study

PATIENCE = 60_000  # milliseconds, on a busy machine
expect.set_options(timeout=PATIENCE)
SCRIPT = Patient("HOST01", "<script>alert(1)</script>", "19800229")
FORMULA = Patient('=HYPERLINK("x")', '=HYPERLINK("x")', "19751231")
ADAM = Patient("PAT007", "SANTOSO^BUDI", "19620817", "M")
EVE = Patient("PAT008", "LESTARI^DEWI", "19910402", "F")


@dataclass
class Desk:
    """What stands behind the page: `studies` by accession number."""

    service: Service
    destination: RunningDestination
    studies: dict[str, Study]
    end_archive: Callable[[], None]

    @property
    def url(self) -> str:
        return self.service.url

    def jobs(self) -> list[dict[str, Any]]:
        return list(self.service.get("/api/jobs").json()["jobs"])


def held_studies(root: Path) -> dict[str, Study]:
    """Studies of four patients, two of whom have names that are no mere text to a browser or a spreadsheet."""
    studies = [
        ct_study(root, ADAM, "RAD.101", count=12, side=64),
        ct_study(root, ADAM, "RAD.102", count=8, side=64),
        ct_study(root, EVE, "RAD.201", count=4, side=64),
        ct_study(root, SCRIPT, "RAD.301", count=2, side=64),
        ct_study(root, FORMULA, "RAD.401", count=2, side=64),
    ]
    return {study.accession: study for study in studies}


@contextmanager
def front_desk(
    directory: Path,
    behaviour: str = "normal",
    delay: float = 0.0,
    publisher: str = "normal",
    sections: Mapping[str, Any] | None = None,
    titles: Mapping[str, str] | None = None,
    **server: Any,
) -> Iterator[Desk]:
    """The desk of a hospital whose archive and CD publisher behave so.

    `sections` of its configuration are as these, `titles` are the destinations', `server` are settings of that one.
    """
    pacs, receiver, destination, nobody, http = free_ports(5)
    studies = held_studies(directory / "held")
    peers = {
        name: {"ae_title": "DESTINATION", "host": "127.0.0.1", "port": port, "title": (titles or {}).get(name, "")}
        for name, port in {"cd_publisher": destination, "relay": nobody}.items()
    }
    configuration = settings(
        directory, pacs, {"RECEIVER": receiver}, destinations=peers, server=server, **sections or {}
    )
    with ExitStack() as stack:
        archive = stack.enter_context(ExitStack())
        archive.enter_context(running_archive(pacs, {"RECEIVER": receiver}, directory / "held", behaviour, delay=delay))
        to = stack.enter_context(running_destination(destination, publisher))
        service = stack.enter_context(running_service(directory, http, configuration))
        yield Desk(service, to, studies, archive.close)


COLOURS = ["color-contrast", "link-in-text-block"]  # axe-core's rules that the dark can break


@dataclass
class Person:
    """Somebody at a browser: `complaints` is what its console and its network had to say."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str = "/") -> None:
        self.page.goto(self.url + path)

    def look_up(self, text: str) -> None:
        self.open()
        self.page.get_by_label("Accession numbers").fill(text)
        self.page.get_by_role("button", name="Look up").click()
        self.page.wait_for_url("**/?accession_numbers=*")

    def violations(self) -> list[str]:
        """What axe-core finds, and in the dark of what is seen; needs a context with `bypass_csp`."""
        self.page.evaluate(axe())
        found = list(self.page.evaluate(AXE))
        self.page.emulate_media(color_scheme="dark")
        found += self.page.evaluate(AXE, COLOURS)
        self.page.emulate_media(color_scheme="light")
        return found


@contextmanager
def person(browser: Browser, url: str, **options: Any) -> Iterator[Person]:
    """A browser of one's own; `options` are playwright's."""
    context = browser.new_context(locale=options.pop("locale", "en-GB"), accept_downloads=True, **options)
    context.set_default_timeout(PATIENCE)
    one = Person(context.new_page(), url)

    def console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            one.complaints.append(f"console {message.type}: {message.text}")

    one.page.on("console", console)
    one.page.on("pageerror", lambda error: one.complaints.append(f"script: {error}"))
    one.page.on("dialog", lambda opened: _accepted(one, opened))
    try:
        yield one
    finally:
        context.close()


def _accepted(one: Person, opened: Any) -> None:
    if opened.type != "beforeunload":
        one.complaints.append(f"dialog: {opened.message}")
    opened.accept()
