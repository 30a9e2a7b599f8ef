"""The counter's look-up page in Chromium: scan, search, tick, and start what is ticked."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.support.browser import SCROLLS
from tests.support.datasets import Patient, uid
from tests.support.desk import Desk, Person, front_desk, person
from tests.support.service import instances_on, mkiso, read_disc
from tests.support.studies import Study, ct_study, series_study
from tests.support.tools import dcmtk_with, wait_until

KUSUMA = Patient("PAT501", "KUSUMA^INDAH", "19700102", "F")
HANA = Patient("PAT502", "YAMADA^HANA=山田^花=やまだ^はな", "19840229", "F", "ISO_IR 192")
MULLER = Patient("PAT503", "MÜLLER^JÖRG", "19550607", "M", "ISO_IR 192")
STATES = {
    "empty": "/",
    "series": "/?accession_numbers=CT5.1",
    "search": "/?patient_name=kusuma",
    "nobody": "/?patient_name=nobody",
    "short": "/?patient_name=mu",
    "two patients": "/?accession_numbers=SHARED.9",
    "bad entry": "/?accession_numbers=A*",
}
TICKED = (("CT5.1", 2, 1), ("CT5.1", 2, 2), ("CT5.1", 2, 3), ("CT5.2", 1, 1), ("CT5.2", 1, 2))
OTHER = Patient("PAT504", "MULLER^EVA", "19550607", "F")


def more_studies(held: Path) -> list[Study]:
    """Five studies of one patient, the first two of several series; and one number that two patients have."""
    first = [series_study(held, KUSUMA, f"CT5.{number}", series=3, count=2) for number in (1, 2)]
    rest = [ct_study(held, KUSUMA, f"CT5.{number}", count=2, side=64) for number in (3, 4, 5)]
    names = [ct_study(held, who, f"SPELT.{who.patient_id}", count=1, side=64) for who in (HANA, MULLER, OTHER)]
    shared = [ct_study(held, who, "SHARED.9", number=n, count=2, side=64) for n, who in ((1, KUSUMA), (2, HANA))]
    return [*first, *rest, *names, *shared]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    directory = tmp_path_factory.mktemp("desk")
    more_studies(directory / "held")
    with front_desk(directory, title="RS Harapan", helpdesk="IT, extension 1234") as opened:
        yield opened


@pytest.fixture
def clerk(browser: Browser, desk: Desk) -> Iterator[Person]:
    with person(browser, desk.url, bypass_csp=True) as one:
        yield one
    assert one.complaints == []


def shows_alone(page: Page, name: str) -> None:
    """Of one patient, and everything is ready for the next scan."""
    expect(page.locator("#make-a-disc")).to_contain_text(name)
    expect(page.locator("tr.study")).to_have_count(1)
    expect(page.get_by_label("Accession numbers")).to_be_focused()
    assert page.evaluate("getSelection().toString()") == page.get_by_label("Accession numbers").input_value()


def scan(page: Page, number: str) -> None:
    page.keyboard.type(number)
    page.keyboard.press("Enter")


def keeping(asked: list[Route]) -> Callable[[Route], None]:
    """Requests wait for who continues them."""

    def keep(route: Route) -> None:
        asked.append(route)

    return keep


def comes_to(page: Page, said: str | re.Pattern[str]) -> None:
    expect(page.locator("#total")).to_have_text(said)


def test_three_numbers_are_scanned_in_a_row(clerk: Person) -> None:
    page = clerk.page
    clerk.open()
    for number, name in (("RAD.101", "BUDI SANTOSO"), ("RAD.201", "DEWI LESTARI"), ("CT5.1", "INDAH KUSUMA")):
        scan(page, number)
        shows_alone(page, name)
        expect(page).to_have_title(re.compile(f"^{name} · Make or send"))
    page.get_by_role("button", name="Make disc").focus()
    scan(page, "RAD.101")
    shows_alone(page, "BUDI SANTOSO")
    assert page.url.endswith("/?accession_numbers=RAD.101")


def test_no_disc_of_the_patient_before_can_be_made_while_the_next_is_looked_up(clerk: Person, desk: Desk) -> None:
    page, before, asked = clerk.page, len(desk.jobs()), list[Route]()
    clerk.look_up("RAD.101")
    shows_alone(page, "BUDI SANTOSO")
    page.route("**/?accession_numbers=RAD.201", keeping(asked))
    page.keyboard.type("R")
    expect(page.get_by_role("button", name="Make disc")).to_have_count(0)
    scan(page, "AD.201")
    page.keyboard.press("Enter")
    expect(page.locator("#asking")).to_have_text("The PACS is being asked …")
    expect(page.get_by_role("button", name="Make disc")).to_have_count(0)
    asked[0].continue_()
    shows_alone(page, "DEWI LESTARI")
    assert (len(asked), len(desk.jobs())) == (1, before)
    expect(page.locator("#asking")).to_contain_text("1 study, 4 images. Make a disc: DEWI LESTARI (PAT008)")


def test_an_answer_that_comes_late_is_not_taken_for_the_next_number(clerk: Person) -> None:
    """Half a number is in the field as the answer to the one before arrives; neither is shown, or looked up."""
    page, asked = clerk.page, list[Route]()
    clerk.open()
    page.route("**/?accession_numbers=RAD.101", keeping(asked))
    scan(page, "RAD.101")
    wait_until(lambda: page.evaluate("1") and asked, 10, lambda: "it does not ask")
    page.keyboard.type("RAD.2")
    asked[0].abort()
    page.keyboard.type("01")
    page.keyboard.press("Enter")
    shows_alone(page, "DEWI LESTARI")


def test_a_look_up_that_fails_is_tried_again(browser: Browser, desk: Desk) -> None:
    with person(browser, desk.url, bypass_csp=True) as clerk:
        page = clerk.page
        clerk.open()
        page.route("**/?accession_numbers=RAD.101", lambda route: route.abort())
        scan(page, "RAD.101")
        expect(page.get_by_role("heading", name="mkiso does not answer")).to_be_visible()
        page.unroute("**/?accession_numbers=RAD.101")
        page.get_by_role("button", name="Try again").click()
        shows_alone(page, "BUDI SANTOSO")
        scan(page, "RAD.101; RAD*")
        expect(page.locator("#fault")).to_have_text("Check this entry: RAD*")
        expect(page.get_by_label("Accession numbers")).to_have_attribute("aria-invalid", "true")
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_label("Accession numbers")).to_be_focused()
    assert [one for one in clerk.complaints if "Failed to load resource" not in one] == []


@pytest.mark.parametrize(
    ("name", "found"), [("müller", "JÖRG MÜLLER"), ("山田", "HANA YAMADA"), ("kus", "INDAH KUSUMA")]
)
def test_a_patient_is_found_by_name_in_any_script(name: str, found: str, clerk: Person) -> None:
    page = clerk.page
    clerk.open()
    page.get_by_label("Name").fill(name)
    page.keyboard.press("Enter")
    expect(page.locator("tr.study").first).to_contain_text(found)
    expect(page.get_by_role("button", name="Make disc")).to_be_disabled()
    expect(page.locator("#reason")).to_have_text("Tick the studies that you want.")
    expect(page.get_by_label("Name")).to_have_value(name)
    scan(page, "RAD.101")
    shows_alone(page, "BUDI SANTOSO")
    expect(page.get_by_label("Name")).to_have_value("")


def test_a_name_of_two_letters_is_told_at_its_field(clerk: Person) -> None:
    clerk.open()
    clerk.page.get_by_label("Name").fill("mu")
    clerk.page.get_by_role("button", name="Search").click()
    expect(clerk.page.locator("#fault")).to_contain_text("at least three letters")
    expect(clerk.page.get_by_label("Name")).to_have_attribute("aria-describedby", "name-hint fault")
    clerk.complaints.clear()


def test_two_series_of_a_patient_with_five_studies_are_ticked_made_and_verified(clerk: Person, tmp_path: Path) -> None:
    page, of_study = clerk.page, {number: str(uid(number, 1)) for number in ("CT5.1", "CT5.2")}
    clerk.look_up("CT5.1")
    shows_alone(page, "INDAH KUSUMA")
    comes_to(page, "1 study, 9 images")
    page.get_by_role("link", name="Other studies of INDAH KUSUMA").click()
    expect(page.locator("tr.study")).to_have_count(6)
    expect(page.get_by_role("link", name="Other studies of INDAH KUSUMA")).to_be_hidden()
    comes_to(page, "1 study, 9 images")
    for study in ("CT5.1", "CT5.2"):
        row = page.locator("tr.study").filter(has_text=study)
        row.get_by_role("link", name="Choose series").click()
    expect(page.locator(".of-study")).to_have_count(2)
    page.get_by_role("button", name="Tick none").click()
    expect(page.get_by_role("button", name="Make disc")).to_be_disabled()
    first, second = (page.locator(f"[data-series-of='{one}'] input") for one in of_study.values())
    first.nth(1).focus()
    page.keyboard.press("Space")
    second.nth(0).check()
    comes_to(page, "2 studies, 5 images")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Make disc").click()
    expect(page.get_by_role("heading", name="The disc is complete")).to_be_visible()
    disc = tmp_path / "disc.iso"
    saved.value.save_as(disc)
    verified = mkiso("verify", disc)
    assert verified.returncode == 0, verified.stdout
    names = {str(uid(of_study[study], series, n)) for study, series, n in TICKED}
    assert set(instances_on(read_disc(disc, tmp_path / "read"))) == names
    clerk.look_up("CT5.1")
    comes_to(page, re.compile("^1 study, 9 images, about [0-9]+ MB, likely a CD$"))


def test_ticks_of_two_patients_make_nothing(clerk: Person) -> None:
    page = clerk.page
    clerk.open("/?from=2024-03-01&to=2024-03-01&modality=CT")
    page.get_by_role("button", name="Tick all").click()
    expect(page.locator("#reason")).to_contain_text("belong to different patients")
    for button in page.locator("[data-makes]").all():
        expect(button).to_be_disabled()
    page.get_by_role("button", name="Tick none").click()
    page.locator("tr.study").filter(has_text="RAD.201").locator("input").check()
    expect(page.get_by_role("button", name="Make disc")).to_be_enabled()
    comes_to(page, re.compile("^1 study, 4 images"))
    page.get_by_role("button", name="Send to cd_publisher").click()
    expect(page.get_by_text("confirmed all 4 images")).to_be_visible()


def test_of_one_number_with_two_patients_one_is_chosen(clerk: Person) -> None:
    page = clerk.page
    clerk.look_up("SHARED.9")
    expect(page.get_by_role("heading", name="These studies belong to different patients")).to_be_visible()
    page.get_by_role("link", name="Only INDAH KUSUMA (PAT501)").click()
    shows_alone(page, "INDAH KUSUMA")
    page.get_by_role("button", name="Send to cd_publisher").click()
    expect(page.get_by_text("confirmed all 2 images")).to_be_visible()


def test_a_password_is_for_a_zip_alone(clerk: Person) -> None:
    page = clerk.page
    clerk.look_up("RAD.101")
    page.get_by_label("ZIP with a password").check()
    expect(page.locator("input[value=zip]")).to_be_checked()
    page.locator("input[value=iso]").check()
    expect(page.get_by_label("ZIP with a password")).not_to_be_checked()


def test_the_list_of_everybodys_jobs_is_live(clerk: Person, desk: Desk) -> None:
    clerk.open()
    page = clerk.page
    assert desk.service.get("/mkiso.php?accession_number=RAD.401").ok
    job = desk.jobs()[0]["id"]
    expect(page.locator(f"#jobs table a[href='/jobs/{job}']")).to_be_visible(timeout=20_000)
    page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    asked = list[str]()
    page.on("request", lambda sent: asked.append(sent.url))
    page.wait_for_timeout(6000)
    assert asked == []


def test_it_works_without_scripts(browser: Browser, desk: Desk) -> None:
    with person(browser, desk.url, java_script_enabled=False) as one:
        page = one.page
        one.look_up("CT5.1")
        page.get_by_role("link", name="Choose series").click()
        page.locator("input[name=series_uids]").first.uncheck()
        page.get_by_role("button", name="Send to cd_publisher").click()
        wait_until(lambda: "confirmed all 7 images" in _reloaded(page), 20, lambda: _reloaded(page))


def _reloaded(page: Page) -> str:
    page.reload()
    return page.locator("main").inner_text()


SIZES = [{"width": 1280, "height": 800}, {"width": 320, "height": 640}, {"width": 640, "height": 512}]


@pytest.mark.parametrize("locale", ["en-GB", "id-ID"])
def test_every_new_state_is_accessible_and_fits(locale: str, browser: Browser, desk: Desk) -> None:
    with person(browser, desk.url, locale=locale, bypass_csp=True) as one:
        for state, path in STATES.items():
            one.open(path)
            if state == "series":
                one.page.locator(".opens").click()
                one.page.locator("#others").click()
                expect(one.page.locator(".of-study")).to_have_count(1)
                expect(one.page.locator("tr.study")).to_have_count(6)
            assert one.violations() == [], state
            for size in SIZES:
                one.page.set_viewport_size(size)
                assert one.page.evaluate(SCROLLS) == 0, (state, size)


def test_a_look_up_asks_the_archive_once_at_each_level(tmp_path: Path) -> None:
    log = tmp_path / "asked"
    each = f"case $one in QueryRetrieveLevel=*) echo $one >> {log};; esac"
    counting = f'#!/bin/sh\nfor one; do {each}; done\nexec /usr/bin/findscu "$@"\n'
    (study, *_) = more_studies(tmp_path / "held")
    with front_desk(tmp_path, sections={"tools": dcmtk_with(tmp_path / "tools", "findscu", counting)}) as desk:
        for path, levels in {
            "/?accession_numbers=CT5.1": ["STUDY", "IMAGE"],
            f"/?study_uids={study.study_uid}": ["STUDY", "IMAGE"],
            "/?patient_id=PAT501": ["STUDY"],
            "/?patient_name=KUSUMA": ["STUDY"],
            f"/series?study_uids={study.study_uid}": ["SERIES"],
        }.items():
            assert desk.service.get(path, headers={"Accept": "text/html"}).ok
            assert [line.rpartition("=")[2] for line in log.read_text().split()] == levels, path
            log.unlink()
