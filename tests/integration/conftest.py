"""A test PACS for the whole session, and the service in front of it; programs in Python start from a parent."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Playwright

from mkiso.config import Config, parse
from tests.support import preloaded
from tests.support.browser import SHELL, driver, launched
from tests.support.ports import free_ports
from tests.support.service import Service, running_service, settings
from tests.support.testpacs import RunningPacs, running_testpacs

RECEIVERS = ("CDRECORD", "CDRECORD2")


@pytest.fixture(scope="session", autouse=True)
def _preloaded() -> Iterator[None]:
    with preloaded.parent():
        yield


@pytest.fixture(scope="session")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPacs]:
    port, *receivers = free_ports(1 + len(RECEIVERS))
    ae_titles = dict(zip(RECEIVERS, receivers, strict=True))
    with running_testpacs(tmp_path_factory.mktemp("testpacs"), port, ae_titles, bench=True) as running:
        yield running


@dataclass(frozen=True)
class Site:
    """A place for one test's configuration in front of the test PACS, with one receiver of it."""

    directory: Path
    pacs: RunningPacs

    def settings(self, **sections: Any) -> dict[str, Any]:
        return settings(self.directory, self.pacs.port, {"CDRECORD": self.pacs.ae_titles["CDRECORD"]}, **sections)

    def config(self, **sections: Any) -> Config:
        return parse(self.settings(**sections))


@pytest.fixture
def site(pacs: RunningPacs, tmp_path: Path) -> Site:
    return Site(tmp_path, pacs)


@pytest.fixture(scope="module")
def site_of_module(pacs: RunningPacs, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"), pacs)


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with driver() as started:
        yield started


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """One for all: who uses it opens a context of its own."""
    with launched(playwright, SHELL) as opened:
        yield opened


@pytest.fixture(scope="session")
def whole_browser(playwright: Playwright) -> Iterator[Browser]:
    """As people have it, for tests of what it does around its pages: windows, other sites, files."""
    with launched(playwright) as opened:
        yield opened


@pytest.fixture(scope="module")
def service(pacs: RunningPacs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that the tests of a module share, with a viewer on its discs."""
    directory = tmp_path_factory.mktemp("service")
    viewer = directory / "viewer"
    (viewer / "docs").mkdir(parents=True)
    (viewer / "viewer.exe").write_bytes(b"MZ\x00viewer")
    (viewer / "docs" / "a=b é.txt").write_text("how to")
    site = Site(directory, pacs)
    media = {"viewer_dir": str(viewer), "volume_id": "STUDIES"}
    with running_service(directory, free_ports(1)[0], site.settings(media=media)) as running:
        yield running
