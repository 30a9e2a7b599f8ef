"""What a person does at the front desk, in Chromium: see, make, watch, send, look back."""

import csv
import io
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import SCROLLS
from tests.support.desk import Desk, Person, front_desk, person
from tests.support.service import instances_of, instances_on, read_disc
from tests.support.tools import HANGING, dcmtk_with, wait_until

INDONESIAN = {"locale": "id-ID"}
PHONE = {"viewport": {"width": 320, "height": 640}}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with front_desk(tmp_path_factory.mktemp("desk"), title="RS Harapan", helpdesk="IT, extension 1234") as opened:
        yield opened


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk whose archive takes most of a second for each image."""
    with front_desk(tmp_path_factory.mktemp("slow"), "slow", 0.8) as opened:
        yield opened


@pytest.fixture
def clerk(browser: Browser, desk: Desk) -> Iterator[Person]:
    """Somebody whose browser has nothing to complain of in the end."""
    with person(browser, desk.url) as one:
        yield one
    assert one.complaints == []


@pytest.fixture
def patient_clerk(browser: Browser, slow: Desk) -> Iterator[Person]:
    with person(browser, slow.url) as one:
        yield one
    assert one.complaints == []


def job_of(page: Page) -> str:
    """The id of the job whose page it is."""
    page.wait_for_url("**/jobs/*")
    return page.url.rpartition("/")[2].partition("?")[0]


def shows(page: Page, *texts: str) -> None:
    for text in texts:
        expect(page.get_by_text(text).first).to_be_visible()


def test_one_number_is_looked_up_before_anything_moves(clerk: Person, desk: Desk) -> None:
    before = desk.jobs()
    clerk.look_up("RAD.101")
    row = clerk.page.locator("#found-section tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("BUDI SANTOSO")
    for text in ("PAT007", "1962-08-17", "2024-03-01", "Synthetic study RAD.101", "CT", "12"):
        expect(row).to_contain_text(text)
    assert desk.jobs() == before


@pytest.mark.parametrize("text", ["RAD.101\nRAD.102\n", "RAD.101\tRAD.102", "RAD.101, RAD.102", "RAD.101 RAD.102"])
def test_a_pasted_list_is_looked_up(text: str, clerk: Person) -> None:
    clerk.look_up(text)
    expect(clerk.page.locator("#found-section tbody tr")).to_have_count(2)


@pytest.mark.parametrize("kind", ["iso", "zip"])
def test_a_disc_is_made_and_saved_byte_for_byte_as_a_program_gets_it(
    kind: str, clerk: Person, desk: Desk, tmp_path: Path
) -> None:
    clerk.look_up("RAD.101 RAD.102")
    clerk.page.locator(f"input[value={kind}]").check()
    clerk.page.get_by_text("More").click()
    clerk.page.get_by_label("Layout of the disc").select_option("legacy")
    with clerk.page.expect_download() as saved:
        clerk.page.get_by_role("button", name="Make disc").click()
    file = Path(saved.value.path()).read_bytes()
    assert saved.value.suggested_filename == f"SANTOSOBUDI-RAD101RAD102.{kind}"
    expect(clerk.page.get_by_role("heading", name="The disc is complete")).to_be_visible()
    shows(clerk.page, "All 20 images are on it", "It needs a CD." if kind == "iso" else "It is for a USB stick")
    url = f"{desk.url}/mkiso_multiple.php?accession_number=RAD.101,RAD.102&format={kind}&layout=legacy"
    again = requests.get(url, timeout=60)
    assert len(file) == len(again.content)
    studies = [desk.studies["RAD.101"], desk.studies["RAD.102"]]
    assert instances_on(read_disc(file, tmp_path / "saved")) == instances_of(studies)
    if kind == "iso":
        assert instances_on(read_disc(again.content, tmp_path / "again")) == instances_of(studies)


def test_the_bar_moves_while_a_slow_archive_sends(patient_clerk: Person, slow: Desk) -> None:
    page = patient_clerk.page
    patient_clerk.look_up("RAD.101")
    with page.expect_download():
        page.get_by_role("button", name="Make disc").click()
        job_id, seen = job_of(page), set[float]()
        wait_until(lambda: _saw(page, seen) >= 3, 20, lambda: f"the bar had {seen}")
        shows(page, "Disc for BUDI SANTOSO", "Images are arriving from the PACS", "so far", "left")
        assert page.locator("#rate").inner_text().endswith("/s")
    expect(page.locator("#ended")).to_be_visible()
    assert seen <= set(range(13))
    assert slow.service.get(f"/api/jobs/{job_id}").json()["state"] == "done"


def _saw(page: Page, seen: set[float]) -> int:
    bar = page.locator("progress[value]")
    seen |= {float(value) for value in bar.evaluate_all("all => all.map(one => one.value)")}
    page.wait_for_timeout(100)
    return len(seen)


@pytest.mark.parametrize("phase", ["querying", "retrieving", "queued"])
def test_a_disc_is_cancelled_in_every_phase_of_waiting(phase: str, patient_clerk: Person, slow: Desk) -> None:
    page = patient_clerk.page
    with _busy(slow, str(uuid.uuid4())) if phase == "queued" else nullcontext():
        page.goto(f"{slow.url}/mkiso.php?accession_number=RAD.102&page=1")
        job_id = job_of(page)
        if phase != "querying":
            expect(page.locator("li[aria-current=step]")).to_have_attribute("data-phase", phase)
        if phase == "queued":
            shows(page, "Place in the queue: 1")
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("heading", name="Stopped")).to_be_visible()
    assert slow.service.get(f"/api/jobs/{job_id}").json()["state"] == "cancelled"
    expect(page.get_by_role("button", name="Try again")).to_be_visible()


def test_a_disc_is_cancelled_while_its_pictures_are_made(browser: Browser, tmp_path: Path) -> None:
    sections = {"tools": dcmtk_with(tmp_path / "tools", "dcmj2pnm", HANGING), "media": {"layout": "pdi"}}
    with front_desk(tmp_path, sections=sections) as desk, person(browser, desk.url) as clerk:
        clerk.open("/mkiso.php?accession_number=RAD.102&page=1")
        job_id = job_of(clerk.page)
        expect(clerk.page.locator("li[aria-current=step]")).to_have_attribute("data-phase", "mastering")
        clerk.page.get_by_role("button", name="Cancel").click()
        expect(clerk.page.get_by_role("heading", name="Stopped")).to_be_visible()
        assert desk.service.get(f"/api/jobs/{job_id}").json()["state"] == "cancelled"
        assert clerk.complaints == []


@contextmanager
def _busy(desk: Desk, job_id: str) -> Iterator[None]:
    """A relay that nobody waits for holds the receiver; it is cancelled in the end."""

    def state() -> str:
        return str(desk.service.get(f"/api/jobs/{job_id}").json()["state"])

    url = f"/send_rimage_multiple.php?accession_number=RAD.101&job={job_id}"
    assert desk.service.get(url, headers={"Accept": "text/html"}, allow_redirects=False).status_code == 303
    wait_until(lambda: state() == "retrieving", 20, state)
    yield
    requests.post(f"{desk.url}/jobs/{job_id}/cancel", timeout=10)
    wait_until(lambda: state() in ("cancelled", "done"), 20, state)


def test_a_relay_is_cancelled_by_its_page(patient_clerk: Person, slow: Desk) -> None:
    page = patient_clerk.page
    page.goto(f"{slow.url}/send_rimage_multiple.php?accession_number=RAD.101")
    job_id = job_of(page)
    expect(page.locator("progress[value]")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", name="Stopped")).to_be_visible()
    assert slow.service.get(f"/api/jobs/{job_id}").json()["state"] == "cancelled"


def test_a_sending_that_hangs_is_cancelled_by_its_page(browser: Browser, tmp_path: Path) -> None:
    with front_desk(tmp_path, publisher="silent") as desk, person(browser, desk.url) as one:
        one.look_up("RAD.101")
        one.page.get_by_role("button", name="Send to cd_publisher").click()
        expect(one.page.locator("progress[value='2'][max='12']")).to_be_visible()
        one.page.get_by_role("link", name="More about this try").click()
        expect(one.page.locator("li[aria-current=step]")).to_have_attribute("data-phase", "sending")
        expect(one.page.locator("#count")).to_have_text("Images: 2 of 12")
        one.page.get_by_role("button", name="Cancel").click()
        expect(one.page.get_by_role("heading", name="Stopped")).to_be_visible()
        expect(one.page.get_by_text("Images not sent")).to_be_visible()
        one.page.get_by_role("link", name="See how the sending goes on").last.click()
        expect(one.page.get_by_text("It is not tried again.")).to_be_visible()
        assert (desk.jobs()[0]["files_sent"], one.complaints) == (2, [])


def test_an_unknown_number_is_said_where_it_stands(clerk: Person) -> None:
    clerk.look_up("RAD.101 NONE.9")
    expect(clerk.page.locator("tr.bad")).to_contain_text("The PACS knows no study with this number")
    assert clerk.page.get_by_role("button", name="Make disc").count() == 0
    clerk.page.get_by_role("link", name="Go on with the numbers that were found").click()
    expect(clerk.page.get_by_role("button", name="Make disc")).to_be_visible()


def test_several_patients_are_said_and_one_is_chosen(clerk: Person) -> None:
    clerk.look_up("RAD.101 RAD.201")
    shows(clerk.page, "These studies belong to different patients")
    clerk.page.get_by_role("link", name="Only DEWI LESTARI (PAT008)").click()
    expect(clerk.page.get_by_role("button", name="Make disc")).to_be_visible()
    expect(clerk.page.locator("#found-section tbody tr")).to_have_count(1)


def test_an_archive_that_is_away_is_said_with_whom_to_call(browser: Browser, tmp_path: Path) -> None:
    with (
        front_desk(tmp_path, helpdesk="IT, extension 1234") as desk,
        person(browser, desk.url) as one,
    ):
        desk.end_archive()
        one.look_up("RAD.101")
        shows(one.page, "The PACS does not answer.", "Try again in a few minutes", "IT, extension 1234")
        one.open("/mkiso.php?accession_number=RAD.101&page=1")
        expect(one.page.get_by_role("heading", name="This did not work")).to_be_visible()
        shows(one.page, "The PACS does not answer.")
        one.page.locator("summary").click()
        shows(one.page, "pacs_unreachable")
        wait_until(lambda: "PACS does not answer" in _status(one.page), 40, lambda: _status(one.page))


def _status(page: Page) -> str:
    """The line of a page that is loaded anew, at most once a second."""
    page.wait_for_timeout(1000)
    page.goto(page.url.partition("/jobs")[0])
    return page.locator("#status").inner_text()


def test_a_relay_is_sent_once_however_often_its_page_is_loaded(clerk: Person, desk: Desk) -> None:
    clerk.open("/send_rimage_multiple.php?accession_number=RAD.201")
    job_id = job_of(clerk.page)
    shows(clerk.page, "Everything was sent", "cd_publisher confirmed all 4 images")
    before = desk.jobs()
    clerk.page.reload()
    clerk.page.reload()
    shows(clerk.page, "Everything was sent")
    assert desk.jobs() == before
    assert before[0]["id"] == job_id
    assert desk.destination.received() >= desk.studies["RAD.201"].sop_instance_uids


def test_a_form_sends_and_the_count_is_seen(clerk: Person) -> None:
    clerk.look_up("RAD.102")
    clerk.page.get_by_role("button", name="Send to cd_publisher").click()
    shows(clerk.page, "cd_publisher confirmed all 8 images")


def test_a_relay_to_nobody_waits_and_its_try_says_what_to_do(clerk: Person) -> None:
    clerk.look_up("RAD.102")
    clerk.page.get_by_role("button", name="Send to relay").click()
    shows(clerk.page, "The other system does not answer. It is sent when that does.")
    clerk.page.locator("section[aria-labelledby=tries] tbody a").click()
    shows(clerk.page, "This did not work", "See whether that system is switched on", "IT, extension 1234")
    expect(clerk.page.get_by_role("button", name="Try again")).to_have_count(0)
    clerk.page.get_by_role("link", name="See how the sending goes on").first.click()
    clerk.page.get_by_role("button", name="Cancel").click()
    shows(clerk.page, "It is not tried again.")


def test_the_same_set_asks_first_while_it_runs(patient_clerk: Person, slow: Desk) -> None:
    with _busy(slow, str(uuid.uuid4())):
        before = slow.jobs()
        patient_clerk.look_up("RAD.101")
        patient_clerk.page.get_by_role("button", name="Make disc").click()
        shows(patient_clerk.page, "The same studies are being worked on")
        patient_clerk.page.get_by_role("link", name="Follow the one that runs").click()
        assert job_of(patient_clerk.page) == before[0]["id"]
        assert len(slow.jobs()) == len(before)


def test_a_page_that_is_loaded_again_starts_no_second_job(patient_clerk: Person, slow: Desk) -> None:
    page = patient_clerk.page
    page.goto(f"{slow.url}/mkiso.php?accession_number=RAD.101&page=1")
    job_id = job_of(page)
    expect(page.locator("li[aria-current=step]")).to_have_attribute("data-phase", "retrieving")
    before = len(slow.jobs())
    page.reload()
    expect(page.get_by_role("heading", name="Stopped")).to_be_visible()
    assert len(slow.jobs()) == before
    assert slow.service.get(f"/api/jobs/{job_id}").json()["state"] == "cancelled"


def test_a_page_asks_once_a_second_and_not_while_nobody_looks(patient_clerk: Person, slow: Desk) -> None:
    page, asked = patient_clerk.page, list[str]()
    with _busy(slow, job_id := str(uuid.uuid4())):
        page.goto(f"{slow.url}/jobs/{job_id}")
        page.on("request", lambda sent: asked.append(sent.url) if "/jobs/" in sent.url else None)
        page.wait_for_timeout(2500)
        assert 1 <= len(asked) <= 3
        page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
        page.wait_for_timeout(1200)
        asked.clear()
        page.wait_for_timeout(1500)
        assert asked == []
        page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
        page.wait_for_timeout(1500)
        assert asked


def test_the_history_is_opened_filtered_and_saved(clerk: Person, desk: Desk) -> None:
    for accession in ("RAD.201", "RAD.301", "RAD.401"):
        assert desk.service.get(f"/mkiso.php?accession_number={accession}").ok
    clerk.open()
    clerk.page.get_by_role("link", name="History").click()
    page = clerk.page
    page.get_by_label("Patient's name or ID").fill("lestari")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**/history?*patient=lestari*")
    cells = page.locator('td[data-label="Patient"]')
    assert {text.split("\n")[0] for text in cells.all_inner_texts()} == {"DEWI LESTARI PAT008"} or all(
        "DEWI LESTARI" in text for text in cells.all_inner_texts()
    )
    with page.expect_download() as saved:
        page.get_by_role("link", name="Save as CSV").click()
    rows = _csv(saved.value.path())
    assert {row["patient_name"] for row in rows} == {"DEWI LESTARI"}
    assert {row["requester"] for row in rows} == {"127.0.0.1"}
    page.locator("tbody a").first.click()
    page.get_by_text("Technical detail").click()
    shows(page, "Images handed out", "Series Instance UID")


def _csv(file: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(Path(file).read_text("utf-8-sig"), newline="")))


@pytest.mark.parametrize(
    ("accession", "name", "patient_id"),
    [("RAD.301", "<script>alert(1)</script>", "HOST01"), ("RAD.401", 'HYPERLINK("x")', '\'=HYPERLINK("x")')],
)
def test_a_hostile_name_is_text_everywhere(
    accession: str, name: str, patient_id: str, clerk: Person, desk: Desk
) -> None:
    clerk.look_up(accession)
    expect(clerk.page.locator("#found-section tbody tr")).to_contain_text(name)
    with clerk.page.expect_download():
        clerk.page.get_by_role("button", name="Make disc").click()
    expect(clerk.page.locator("h1")).to_have_text(f"Disc for {name}")
    expect(clerk.page.locator("#ended")).to_be_visible()
    expect(clerk.page).to_have_title(re.compile(f"^✓ {re.escape(name)} .* RS Harapan$"))
    for path in ("/", "/history", clerk.page.url.removeprefix(desk.url)):
        clerk.open(path)
        shows(clerk.page, name)
    clerk.open(f"/history?accession_number={accession}")
    with clerk.page.expect_download() as saved:
        clerk.page.get_by_role("link", name="Save as CSV").click()
    assert {(row["patient_name"], row["patient_id"]) for row in _csv(saved.value.path())} == {(name, patient_id)}


def test_everything_is_done_with_the_keyboard_alone(clerk: Person) -> None:
    page = clerk.page
    clerk.open()
    page.keyboard.type("RAD.201")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?accession_numbers=RAD.201")
    _tab_to(page, lambda: page.evaluate("document.activeElement.value") == "iso")
    page.keyboard.press("ArrowDown")
    _tab_to(page, lambda: page.evaluate("document.activeElement.textContent") == "Make disc")
    with page.expect_download() as saved:
        page.keyboard.press("Enter")
    assert saved.value.suggested_filename.endswith(".zip")
    expect(page.get_by_role("heading", name="The disc is complete")).to_be_focused()
    _tab_to(page, lambda: page.evaluate("document.activeElement.textContent") == "Next patient")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{clerk.url}/")


def _tab_to(page: Page, is_there: Callable[[], bool]) -> None:
    for _ in range(30):
        page.keyboard.press("Tab")
        if is_there():
            return
    raise AssertionError("the keyboard does not lead there")


def test_the_pages_speak_indonesian(browser: Browser, desk: Desk) -> None:
    with person(browser, desk.url, **INDONESIAN) as one:
        one.open()
        one.page.get_by_label("Nomor aksesi").fill("RAD.201")
        one.page.get_by_role("button", name="Cari").click()
        with one.page.expect_download():
            one.page.get_by_role("button", name="Buat cakram").click()
        shows(one.page, "Cakram sudah lengkap")
        one.page.get_by_role("link", name="Riwayat").click()
        shows(one.page, "Siapa menerima apa")
        one.open("/jobs/17")
        shows(one.page, "Pekerjaan ini tidak ada.")
        assert [one for one in one.complaints if "404" not in one] == []


SPACED = "document.body.style.letterSpacing = '0.12em'"  # WCAG 1.4.12, or a wider font


def test_the_pages_fit_a_phone(browser: Browser, desk: Desk) -> None:
    assert desk.service.get("/mkiso.php?accession_number=RAD.301").ok
    done = desk.jobs()[0]["id"]
    with person(browser, desk.url, **PHONE) as one:
        paths = ("/", "/?accession_numbers=RAD.101+RAD.201+NONE.9", "/?accession_numbers=RAD.101", "/history")
        for path in (*paths, f"/jobs/{done}", f"/jobs/{uuid.uuid4()}"):
            one.open(path)
            assert one.page.evaluate(SCROLLS) == 0, path
            one.page.evaluate(SPACED)
            assert one.page.evaluate(SCROLLS) == 0, path
        one.look_up("RAD.201")
        with one.page.expect_download():
            one.page.get_by_role("button", name="Make disc").click()
        shows(one.page, "The disc is complete")


def test_text_of_twice_the_size_fits(browser: Browser, desk: Desk) -> None:
    with person(browser, desk.url, viewport={"width": 640, "height": 512}, device_scale_factor=2) as one:
        for path in ("/?accession_numbers=RAD.101+NONE.9", "/history"):
            one.open(path)
            assert one.page.evaluate(SCROLLS) == 0, path


def test_what_is_not_seen_in_the_dark_is_found(browser: Browser, desk: Desk) -> None:
    with person(browser, desk.url, bypass_csp=True) as one:
        one.open()
        one.page.add_style_tag(
            content="@media (prefers-color-scheme: dark) { label { color: #333; background: #222 } }"
        )
        assert [each.split(":")[0] for each in one.violations()] == ["color-contrast"]


def test_axe_finds_nothing_on_any_page_in_any_state(browser: Browser, desk: Desk, slow: Desk) -> None:
    with person(browser, desk.url, bypass_csp=True) as one:
        states = _every_state(desk)
        found = {name: violations for name, path in states.items() if (violations := _violations(one, path))}
        with _busy(slow, job_id := str(uuid.uuid4())):
            one.url = slow.url
            found |= {"retrieving": _violations(one, f"/jobs/{job_id}")}
            one.look_up("RAD.101")
            one.page.get_by_role("button", name="Make disc").click()
            found |= {"asks": one.violations()}
        found |= {"cancelled": _violations(one, f"/jobs/{job_id}")}
    assert {name: violations for name, violations in found.items() if violations} == {}


def _violations(one: Person, path: str) -> list[str]:
    one.open(path)
    one.page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    return one.violations()


def _every_state(desk: Desk) -> dict[str, str]:
    """A page for each state that a page can be in, but for those of a job under way."""
    get = desk.service.get
    done = get("/mkiso.php?accession_number=RAD.101").headers["X-Job-Id"]
    failed = get("/mkiso2.php?accession_number=RAD.101").headers["X-Job-Id"]
    relayed = get("/send_rimage_multiple.php?accession_number=RAD.201").headers["X-Job-Id"]
    return {
        "start": "/",
        "found": "/?accession_numbers=RAD.101+RAD.102",
        "unknown": "/?accession_numbers=RAD.101+NONE.9",
        "several": "/?accession_numbers=RAD.101+RAD.201",
        "invalid": "/?accession_numbers=*",
        "done": f"/jobs/{done}",
        "failed": f"/jobs/{failed}",
        "relayed": f"/jobs/{relayed}",
        "history": "/history",
        "none": "/history?patient=nobody",
        "error": "/mkiso.php?accession_number=NONE.9",
    }
