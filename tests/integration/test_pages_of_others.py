"""What another site's page can do from somebody's browser: open a window, have a disc in a frame, and nothing else."""

import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Download, Page, Response, expect

from tests.support.desk import Desk, front_desk, person
from tests.support.tools import wait_until

RELAY = "/send_rimage_multiple.php?accession_number=RAD.201"
RELAYS = (RELAY, "/api/iso/relay?accession_numbers=RAD.201&destination=cd_publisher")
DISC = "/mkiso.php?accession_number=RAD.201"
EMBEDDED = {
    "image": '<img src="{url}">',
    "script": '<script src="{url}"></script>',
    "style": '<link rel="stylesheet" href="{url}">',
    "frame": '<iframe src="{url}"></iframe>',
    "object": '<object data="{url}"></object>',
    "embed": '<embed src="{url}">',
    "video": '<video src="{url}" preload="auto"></video>',
    "audio": '<audio src="{url}" preload="auto"></audio>',
    "prefetch": '<link rel="prefetch" href="{url}">',
    "fetch": '<script>fetch("{url}", {{ mode: "no-cors" }})</script>',
    "beacon": '<script>navigator.sendBeacon("{url}")</script>',
    "form in a frame": '<iframe name="f"></iframe><form target="f" action="{url}"></form>'
    "<script>document.forms[0].submit()</script>",
}


class Elsewhere(ThreadingHTTPServer):
    """Another site: `localhost`, where mkiso is `127.0.0.1`."""

    body = ""

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: Elsewhere

    def do_GET(self) -> None:
        body = f"<!doctype html><title>Elsewhere</title>{self.server.body}".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture(scope="module")
def browser(whole_browser: Browser) -> Browser:
    return whole_browser


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    server = Elsewhere(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with front_desk(tmp_path_factory.mktemp("desk"), "slow", 0.5) as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, elsewhere: Elsewhere) -> Iterator[Page]:
    with person(browser, elsewhere.url) as one:
        yield one.page


@pytest.fixture(scope="module")
def visited(browser: Browser, elsewhere: Elsewhere) -> Iterator[Page]:
    """One that shows page after page of the other site."""
    with person(browser, elsewhere.url) as one:
        yield one.page


def answers_of(page: Page, desk: Desk) -> list[int]:
    """The statuses of whatever mkiso answers this page from here on."""
    seen: list[int] = []

    def note(answer: Response) -> None:
        if answer.url.startswith(desk.url) and "/static/" not in answer.url:
            seen.append(answer.status)

    page.context.on("response", note)
    return seen


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        *((path, kind) for path in RELAYS for kind in EMBEDDED),
        *((DISC, kind) for kind in EMBEDDED if "frame" not in kind),
    ],
)
def test_nothing_is_started_by_what_a_page_embeds(
    path: str, kind: str, visited: Page, desk: Desk, elsewhere: Elsewhere
) -> None:
    before = desk.jobs()
    # Each asks for a job of its own: no answer is one that the browser has kept.
    elsewhere.body = EMBEDDED[kind].format(url=f"{desk.url}{path}&job={uuid.uuid4()}")
    statuses = answers_of(visited, desk)
    visited.goto(elsewhere.url)
    visited.wait_for_timeout(600)
    assert desk.jobs() == before
    assert [status for status in statuses if status not in (403, 405)] == []


def test_a_frame_that_nobody_sees_downloads_a_disc(page: Page, desk: Desk, elsewhere: Elsewhere) -> None:
    elsewhere.body = EMBEDDED["frame"].format(url=desk.url + DISC)
    with page.expect_download() as download:
        page.goto(elsewhere.url)
    assert Path(download.value.path()).stat().st_size > 0
    assert download.value.suggested_filename == "RAD.201.iso"


def test_a_form_of_another_site_starts_and_cancels_nothing(page: Page, desk: Desk, elsewhere: Elsewhere) -> None:
    job_id = str(uuid.uuid4())
    headers = {"Accept": "text/html"}
    assert desk.service.get(f"{RELAY}&job={job_id}", headers=headers, allow_redirects=False).status_code == 303
    before = len(desk.jobs())
    for action in ("/jobs", "/mkiso2.php", f"/jobs/{job_id}/cancel", f"/api/jobs/{job_id}/cancel"):
        elsewhere.body = (
            f'<form method="post" action="{desk.url}{action}"><input name="accession_numbers" value="RAD.101">'
            '<input name="accession_number" value="RAD.101"><input name="destination" value="cd_publisher"></form>'
            "<script>document.forms[0].submit()</script>"
        )
        statuses = answers_of(page, desk)
        page.goto(elsewhere.url)
        page.wait_for_url(desk.url + action)
        assert set(statuses) == {403}
    elsewhere.body = f'<script>fetch("{desk.url}/jobs/{job_id}/cancel", {{ method: "POST", mode: "no-cors" }})</script>'
    page.goto(elsewhere.url)
    page.wait_for_timeout(600)
    assert len(desk.jobs()) == before
    state = lambda: desk.service.get(f"/api/jobs/{job_id}").json()["state"]  # noqa: E731
    wait_until(lambda: state() == "done", 20, state)


def test_a_window_relays_as_the_hospitals_own_pages_do(page: Page, desk: Desk, elsewhere: Elsewhere) -> None:
    before = len(desk.jobs())
    elsewhere.body = f"<button onclick=\"window.open('{desk.url}{RELAY}')\">Send</button>"
    page.goto(elsewhere.url)
    with page.expect_popup() as opened:
        page.get_by_role("button").click()
    window = opened.value
    window.wait_for_url("**/jobs/*")
    expect(window.get_by_text("Everything was sent")).to_be_visible(timeout=15_000)
    assert len(desk.jobs()) == before + 1


@pytest.mark.parametrize("query", ["", "&page=1"])
def test_a_window_has_its_disc(query: str, page: Page, desk: Desk, elsewhere: Elsewhere, tmp_path: Path) -> None:
    elsewhere.body = f"<button onclick=\"window.open('{desk.url}{DISC}{query}')\">Disc</button>"
    page.goto(elsewhere.url)
    downloads: list[Download] = []

    def note(one: Download) -> None:
        downloads.append(one)

    page.on("download", note)
    page.context.on("page", lambda window: window.on("download", note))
    page.get_by_role("button").click()
    wait_until(lambda: _waited(page) and bool(downloads), 20, lambda: "no disc came")
    downloads[0].save_as(tmp_path / "saved.iso")
    assert (downloads[0].suggested_filename, (tmp_path / "saved.iso").stat().st_size > 0) == ("RAD.201.iso", True)


def _waited(page: Page) -> bool:
    page.wait_for_timeout(100)
    return True


def test_no_page_of_ours_is_framed_elsewhere(page: Page, desk: Desk, elsewhere: Elsewhere) -> None:
    for path in ("/", "/history", "/nothing"):
        elsewhere.body = f'<iframe src="{desk.url}{path}"></iframe>'
        page.goto(elsewhere.url)
        page.wait_for_timeout(300)
        assert page.frames[1].locator("main").count() == 0
