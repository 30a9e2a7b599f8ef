"""A disc handed over, in Chromium: who follows it, its receipt, its sheet on paper, and who collected it."""

import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.support.browser import SCROLLS
from tests.support.desk import Desk, Person, front_desk, person
from tests.support.tools import wait_until

LOGO = "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><path fill='#00f' d='M0 0h9v9H0'/></svg>"
YOURS, OTHERS = "Your browser has the file", "Its file went to the browser in which that was started"
MILLIMETRE = 96 / 25.4  # pixels of CSS
FOUND_ON = "element => { const { width, height } = element.getBoundingClientRect(); return [width, height]; }"


def user(name: str) -> dict[str, Any]:
    """Whom nginx lets in."""
    return {"extra_http_headers": {"X-Forwarded-User": name}}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk whose archive takes its time with each image."""
    directory = tmp_path_factory.mktemp("desk")
    (directory / "logo.svg").write_text(LOGO)
    server = {"title": "RS Harapan", "helpdesk": "IT, 1234", "logo_file": str(directory / "logo.svg")}
    with front_desk(directory, "slow", 0.3, sections={"media": {"layout": "pdi"}}, **server) as opened:
        yield opened


@pytest.fixture
def anna(browser: Browser, desk: Desk) -> Iterator[Person]:
    with person(browser, desk.url, **user("anna")) as one:
        yield one
    assert one.complaints == []


@pytest.fixture
def budi(browser: Browser, desk: Desk) -> Iterator[Person]:
    """A colleague at another browser."""
    with person(browser, desk.url, **user("budi")) as one:
        yield one
    assert one.complaints == []


def begun(one: Person, accession: str) -> str:
    """The path of the page of a disc that a person has begun, once it is known how many images there are."""
    one.open(f"/mkiso_multiple.php?accession_number={accession}&page=1")
    one.page.wait_for_url("**/jobs/*")
    expect(one.page.locator("progress[value]")).to_be_visible()
    return one.page.url.removeprefix(one.url).partition("?")[0]


def made(desk: Desk, accession: str, kind: str = "iso") -> str:
    """The path of the page of a disc that a program had made."""
    answer = desk.service.get(f"/mkiso.php?accession_number={accession}&format={kind}")
    return f"/jobs/{answer.headers['X-Job-Id']}"


def test_a_colleague_reads_who_makes_it_and_has_no_file(anna: Person, budi: Person) -> None:
    with anna.page.expect_download() as saved:
        path = begun(anna, "RAD.101")
        budi.open(path)
        expect(anna.page).to_have_title(re.compile(r"^[0-9]+ % · BUDI SANTOSO .* RS Harapan$"))
        expect(budi.page).to_have_title(re.compile(r"^[0-9]+ % · BUDI SANTOSO .* RS Harapan$"))
        expect(anna.page.get_by_text("Keep this page open")).to_be_visible()
        expect(budi.page.get_by_text("anna had this disc started")).to_be_visible()
        seen = set[str]()
        wait_until(lambda: _saw(budi.page, seen) >= 3, 20, lambda: f"the tab said {seen}")
    for one, said, unsaid in ((anna, YOURS, OTHERS), (budi, OTHERS, YOURS)):
        expect(one.page.get_by_role("heading", name="The disc is complete")).to_be_visible()
        expect(one.page).to_have_title(re.compile(r"^✓ BUDI SANTOSO .* RS Harapan$"))
        expect(one.page.locator("#ended")).to_contain_text(said)
        expect(one.page.locator("#ended")).not_to_contain_text(unsaid)
    expect(anna.page.locator(".receipt")).to_contain_text(saved.value.suggested_filename)
    anna.page.reload()
    expect(anna.page.locator("#ended")).to_contain_text(YOURS)
    with budi.page.expect_download() as again:
        budi.page.get_by_role("button", name="Make again").click()
    assert again.value.suggested_filename == saved.value.suggested_filename == "SANTOSOBUDI-RAD101.iso"
    expect(budi.page.locator("#ended")).to_contain_text(YOURS)


def test_a_window_whose_disc_another_one_began_follows_that(anna: Person, budi: Person) -> None:
    url, held = f"/jobs/{uuid.uuid4()}?accession_numbers=RAD.101&format=iso&layout=pdi", list[Route]()

    def hold(route: Route) -> None:
        held.append(route)

    budi.page.route("**/mkiso_multiple.php*", hold)
    budi.open(url)
    wait_until(lambda: _held(budi.page, held), 20, lambda: "it asks for no disc")
    with anna.page.expect_download():
        anna.open(url)
        expect(anna.page.locator("progress[value]")).to_be_visible()
        held[0].continue_()
        expect(budi.page.get_by_text("anna had this disc started")).to_be_visible()
        expect(anna.page.get_by_text("Keep this page open")).to_be_visible()
    expect(budi.page.locator("#ended")).to_contain_text(OTHERS)


def _held(page: Page, held: list[Route]) -> bool:
    page.wait_for_timeout(100)
    return bool(held)


def _saw(page: Page, seen: set[str]) -> int:
    seen.add(page.title())
    page.wait_for_timeout(100)
    return len(seen)


def test_stopped_says_by_whom(anna: Person, budi: Person) -> None:
    budi.open(begun(anna, "RAD.101"))
    budi.page.get_by_role("button", name="Cancel").click()
    for one in (anna, budi):
        expect(one.page.get_by_text("budi stopped it before it was complete")).to_be_visible()
        expect(one.page).to_have_title(re.compile("^✗ BUDI SANTOSO"))
    budi.page.get_by_role("link", name="Back to the start").click()
    expect(budi.page).to_have_url(f"{budi.url}/")


def test_stopped_says_by_what(anna: Person, budi: Person) -> None:
    path = begun(anna, "RAD.101")
    budi.open(path)
    anna.page.close(run_before_unload=False)
    expect(budi.page.locator("#ended > p").first).to_contain_text("went away before it had everything")


def test_a_receipt_says_how_to_burn_and_leads_to_the_next_patient(anna: Person) -> None:
    with anna.page.expect_download():
        anna.open("/mkiso_multiple.php?accession_number=RAD.301&page=1")
    receipt = anna.page.locator(".receipt")
    for text in ("2 images, 1 series", "HOST01", "CD", "-RAD301.iso", "anna"):
        expect(receipt).to_contain_text(text)
    expect(anna.page.locator(".burn li")).to_have_count(6)
    for text in ("Burn disc image", "xorriso -as cdrecord -v dev=/dev/sr0"):
        expect(anna.page.locator(".burn")).to_contain_text(text)
    expect(anna.page.get_by_text("SOP Instance UID")).to_be_hidden()
    anna.page.get_by_role("link", name="Next patient").click()
    expect(anna.page.get_by_label("Accession numbers")).to_be_focused()
    expect(anna.page.get_by_label("Accession numbers")).to_have_value("")


def test_who_collected_it_is_written_down_and_corrected(browser: Browser, desk: Desk) -> None:
    path = made(desk, "RAD.201")
    with person(browser, desk.url, **user("rina")) as clerk:
        page = clerk.page
        clerk.open(path)
        page.get_by_text("Write down who collected it").click()
        expect(page.get_by_label("Handed over by")).to_have_value("rina")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("alert")).to_contain_text("This is not written down yet")
        expect(page.get_by_text("Enter the name of the person who collected it.")).to_be_visible()
        page.get_by_label("Name of who collected it").fill("山田 Lestari")
        page.get_by_label("a relative").check()
        page.get_by_label("Note").fill("her sister, <b>shown her card</b>")
        page.get_by_role("button", name="Save").click()
        rows = page.locator(".collected tbody tr")
        expect(rows).to_have_count(1)
        for text in ("山田 Lestari", "a relative", "rina", "her sister, <b>shown her card</b>", "valid"):
            expect(rows.first).to_contain_text(text)
        page.reload()
        expect(rows).to_have_count(1)
        page.get_by_text("Correct", exact=True).click()
        page.get_by_label("the patient").check()
        page.get_by_role("button", name="Save").click()
        expect(rows).to_have_count(2)
        expect(rows.first).to_contain_text("corrected later")
        expect(rows.last).to_contain_text("the patient")
        assert [one for one in clerk.complaints if "400" not in one] == []


@pytest.fixture(scope="module")
def printed(browser: Browser, desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sheet of a disc, as a printer gets it."""
    file = tmp_path_factory.mktemp("printed") / "sheet.pdf"
    answer = desk.service.get("/mkiso_multiple.php?accession_number=RAD.301")
    with person(browser, desk.url, **user("anna")) as clerk:
        clerk.open(f"/jobs/{answer.headers['X-Job-Id']}/sheet")
        expect(clerk.page.get_by_role("button", name="Print")).to_be_visible()
        clerk.page.pdf(path=file, prefer_css_page_size=True)
    return file


def _text(file: Path, *options: str) -> str:
    run = subprocess.run(["pdftotext", *options, file, "-"], check=True, capture_output=True, text=True, timeout=60)
    return " ".join(run.stdout.split())


def test_the_sheet_prints_on_two_pages_of_a4(printed: Path) -> None:
    information = subprocess.run(["pdfinfo", printed], check=True, capture_output=True, text=True, timeout=60).stdout
    assert re.search(r"Pages: +2\n", information)
    assert re.search(r"Page size: +59[45]\.?[0-9]* x 84[12]\.?[0-9]* pts \(A4\)", information)
    cover, outside = _text(printed, "-l", "1"), _text(printed, "-f", "2")
    for text in ("RS Harapan", "<script>alert(1)</script>", "HOST01", "1980-02-29", "2024-03-01", "2 images, 1 series"):
        assert text in cover
        assert text in outside
    for text in ("CD with medical images (DICOM)", "Synthetic study RAD.301", "RAD.301", "Signature", "INDEX.HTM"):
        assert text in cover
    for text in ("Print", "History", "PACS reachable", "Back to the job", "S."):
        assert text not in cover + outside


def test_what_is_printed_is_where_it_is_to_be_cut(printed: Path, tmp_path: Path) -> None:
    """Each pixel is a tenth of a millimetre: the frames of the square and the circle, and the hole's room is empty."""
    picture = tmp_path / "page"
    command = ["pdftoppm", "-r", "254", "-f", "2", "-l", "2", "-gray", printed, picture]
    subprocess.run(command, check=True, timeout=60)
    (file,) = tmp_path.glob("page*.pgm")
    columns, height = map(int, file.read_bytes().split(maxsplit=3)[1:3])
    pixels = file.read_bytes()[-columns * height :]
    rows = [pixels[at : at + columns] for at in range(0, len(pixels), columns)]
    dark = [[at for at, pixel in enumerate(row) if pixel < 160] for row in rows]
    top = next(at for at, row in enumerate(dark) if len(row) > 1150)
    bottom = next(at for at, row in enumerate(dark) if at > top + 100 and len(row) > 1150)
    assert bottom - top == pytest.approx(1200, abs=6)
    assert dark[top][-1] - dark[top][0] == pytest.approx(1200, abs=6)
    circle = [row for row in dark[bottom + 20 :] if row]
    below = [at for at, row in enumerate(dark) if row and at > bottom + 20]
    assert below[-1] - below[0] == pytest.approx(1160, abs=6)
    assert max(row[-1] - row[0] for row in circle) == pytest.approx(1160, abs=6)
    middle, across = (below[0] + below[-1]) // 2, (dark[top][0] + dark[top][-1]) // 2
    for at in range(middle - 200, middle + 201):
        for column in dark[at]:
            far = ((at - middle) ** 2 + (column - across) ** 2) ** 0.5
            assert far > 200 or far == pytest.approx(75, abs=5), (at, column)


def test_the_square_and_the_label_have_their_size_on_the_screen_and_the_outside_may_be_discreet(
    browser: Browser, desk: Desk
) -> None:
    path = made(desk, "RAD.201")
    with person(browser, desk.url) as clerk:
        clerk.open(f"{path}/sheet")
        for name, millimetres in ((".case", 120), (".label", 116)):
            size = clerk.page.locator(name).evaluate(FOUND_ON)
            assert [one / MILLIMETRE for one in size] == pytest.approx([millimetres] * 2, abs=0.1)
            expect(clerk.page.locator(name).get_by_text("D. L.")).to_be_hidden()
        clerk.page.get_by_label("the initials alone").check()
        for name in (".case", ".label"):
            expect(clerk.page.locator(name).get_by_text("D. L.")).to_be_visible()
            expect(clerk.page.locator(name).get_by_text("DEWI LESTARI")).to_be_hidden()
            expect(clerk.page.locator(name).get_by_text("1991-04-02")).to_be_hidden()
        expect(clerk.page.locator(".cover").get_by_text("DEWI LESTARI")).to_be_visible()
        clerk.page.evaluate("window.print = () => { document.title = 'printed'; }")
        clerk.page.get_by_role("button", name="Print").click()
        expect(clerk.page).to_have_title("printed")
        assert clerk.complaints == []


def test_the_pages_speak_indonesian(browser: Browser, desk: Desk) -> None:
    with person(browser, desk.url, locale="id-ID") as clerk:
        clerk.open(made(desk, "RAD.301", "zip"))
        for text in ("Pasien berikutnya", "Buat lagi", "Ini untuk USB atau diunggah", "2 gambar, 1 seri"):
            expect(clerk.page.get_by_text(text).first).to_be_visible()
        clerk.page.get_by_role("link", name="Lembar untuk dicetak").click()
        expect(clerk.page.get_by_role("heading", name="Berkas ZIP berisi gambar medis (DICOM)").first).to_be_visible()
        assert clerk.complaints == []


def test_axe_finds_nothing_and_nothing_is_too_wide(browser: Browser, desk: Desk) -> None:
    path = made(desk, "RAD.301")
    found = {}
    with person(browser, desk.url, bypass_csp=True) as clerk:
        for name, where in (("receipt", path), ("sheet", f"{path}/sheet"), ("error", "/mkiso.php?accession_number=NO")):
            clerk.open(where)
            clerk.page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
            if name == "receipt":
                clerk.page.get_by_role("button", name="Save").click()
                clerk.page.get_by_role("alert").wait_for()
            found[name] = clerk.violations()
            for viewport in ({"width": 320, "height": 640}, {"width": 640, "height": 512}):
                clerk.page.set_viewport_size(viewport)  # type: ignore[arg-type]
                assert clerk.page.evaluate(SCROLLS) == 0, (name, viewport)
    assert {name: violations for name, violations in found.items() if violations} == {}
