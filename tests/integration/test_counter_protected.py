"""A protected ZIP at the counter: its password is chosen, shown once, and nowhere else."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
import requests
from playwright.sync_api import Browser, Download, Page, expect

from tests.support.browser import SCROLLS
from tests.support.desk import Desk, Person, front_desk, person
from tests.support.service import instances_of, instances_on
from tests.support.tools import wait_until

ID = "123e4567-e89b-12d3-a456-4266141740{:02}"
LOOKS = {
    "a window": {},
    "twice as large": {"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2},
    "Indonesian": {"locale": "id-ID", "viewport": {"width": 320, "height": 640}},
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with front_desk(tmp_path_factory.mktemp("desk"), "slow", 0.3) as opened:
        yield opened


@pytest.fixture
def clerk(browser: Browser, desk: Desk) -> Iterator[Person]:
    """Somebody whose browser has nothing to complain of in the end."""
    with person(browser, desk.url) as one:
        yield one
    assert one.complaints == []


def choose(clerk: Person, number: str, **more: str) -> Page:
    """As the form of the page does that was looked up: a ZIP with a password."""
    clerk.open()
    fields = {"accession_numbers": number, "format": "zip", "protect": "1"} | more
    inputs = "".join(f'<input name="{name}" value="{value}">' for name, value in fields.items())
    form = f'<form method="post" action="/jobs">{inputs}</form>'
    clerk.page.evaluate("form => { document.body.innerHTML = form; document.forms[0].submit(); }", form)
    clerk.page.wait_for_url("**/jobs/*protect=1*")
    return clerk.page


def wait_until_it_retrieves(desk: Desk) -> None:
    """The newest job."""
    wait_until(lambda: [one["state"] for one in desk.jobs()[:1]] == ["retrieving"], 20, lambda: str(desk.jobs()))


def unpacked(archive: Path, password: str, directory: Path) -> dict[str, Path]:
    """By 7-Zip, with the password."""
    done = subprocess.run(
        ("/usr/bin/7z", "x", f"-p{password}", f"-o{directory}", "-y", archive), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return {str(file.relative_to(directory)): file for file in directory.rglob("*") if file.is_file()}


def saved(download: Download, directory: Path) -> Path:
    file = directory / download.suggested_filename
    download.save_as(file)
    return file


def test_four_words_are_suggested_make_a_zip_and_stay_until_the_page_is_left(
    clerk: Person, desk: Desk, tmp_path: Path
) -> None:
    page = clerk.page
    clerk.look_up("RAD.101")
    page.get_by_label("with a password").check()
    page.get_by_role("button", name="Make disc").click()
    field = page.get_by_label("Password", exact=True)
    first = field.input_value()
    assert re.fullmatch(r"[a-z]+(-[a-z]+){3}", first)
    page.get_by_role("link", name="Suggest another one").click()
    expect(field).not_to_have_value(first)
    password = field.input_value()
    assert desk.jobs() == []
    with page.expect_download() as downloaded:
        page.get_by_role("button", name="Make the ZIP").click()
        expect(page.get_by_text(password, exact=True)).to_be_visible()
        expect(page.locator("#progress")).to_be_visible()
    expect(page.get_by_role("heading", level=2).first).to_be_focused()
    file = saved(downloaded.value, tmp_path)
    assert file.suffix == ".zip"
    assert instances_on(unpacked(file, password, tmp_path / "disc")) == instances_of([desk.studies["RAD.101"]])
    (job,) = desk.jobs()
    assert (job["state"], job["encrypted"], job["format"]) == ("done", True, "zip")
    expect(page.get_by_text(password, exact=True)).to_be_visible()
    assert page.locator(".word").evaluate("one => parseFloat(getComputedStyle(one).fontSize)") >= 28
    assert page.locator("input[name=password]").count() == 0
    page.reload()
    assert password not in page.content()
    expect(page.locator("#ended")).to_be_visible()
    assert [one["id"] for one in desk.jobs()] == [job["id"]]
    assert password.encode() not in (desk.service.log.read_bytes() + b"".join(ledger_files(desk)))


def ledger_files(desk: Desk) -> list[bytes]:
    return [file.read_bytes() for file in desk.service.config_file.parent.glob("ledger.db*")]


def test_a_typed_password_is_the_one_that_opens_the_zip(clerk: Person, desk: Desk, tmp_path: Path) -> None:
    """Signs that a URL, a form or a page would change stay as they are."""
    password = "a+b%20 &amp; <i>\"c\"='d'"
    page = choose(clerk, "RAD.201")
    page.get_by_label("Password", exact=True).fill(password)
    with page.expect_download() as downloaded:
        page.keyboard.press("Enter")
    expect(page.locator(".word")).to_have_text(password)
    file = saved(downloaded.value, tmp_path)
    assert instances_on(unpacked(file, password, tmp_path / "disc")) == instances_of([desk.studies["RAD.201"]])


@pytest.mark.parametrize("text", ["", "abcdefg", " with a space", "Müllers Hündchen"])
def test_the_page_asks_for_another_password_where_this_is_none(text: str, clerk: Person, desk: Desk) -> None:
    before, page = desk.jobs(), choose(clerk, "RAD.201")
    page.get_by_label("Password", exact=True).fill(text)
    page.get_by_role("button", name="Make the ZIP").click()
    assert page.locator("#password:invalid").count() == 1
    expect(page.locator("#progress")).to_have_count(0)
    assert desk.jobs() == before


def test_what_keeps_the_zip_from_being_made_is_told(browser: Browser, desk: Desk) -> None:
    before = desk.jobs()
    with person(browser, desk.url) as one:
        page = choose(one, "RAD.201")
        page.locator("#protect form").evaluate("form => { form.noValidate = true; }")
        page.get_by_label("Password", exact=True).fill("Müllers Hündchen")
        page.get_by_role("button", name="Make the ZIP").click()
        expect(page.locator("#job")).to_contain_text("Not every program could open the ZIP with it")
        assert one.complaints == []
    assert desk.jobs() == before


def test_a_reload_while_it_is_made_starts_nothing_again_and_shows_no_word(clerk: Person, desk: Desk) -> None:
    before, page = len(desk.jobs()), choose(clerk, "RAD.102")
    password = page.get_by_label("Password", exact=True).input_value()
    page.get_by_role("button", name="Make the ZIP").click()
    wait_until_it_retrieves(desk)
    page.reload()
    assert password not in page.content()
    expect(page.get_by_label("Password", exact=True)).to_have_count(0)
    expect(page.locator("#ended")).to_be_visible()  # its download ended with the page
    assert [job["state"] for job in desk.jobs()[: len(desk.jobs()) - before]] == ["cancelled"]


def test_what_was_stopped_and_is_started_again_asks_for_a_password_again(clerk: Person, desk: Desk) -> None:
    page = choose(clerk, "RAD.101")
    page.get_by_role("button", name="Make the ZIP").click()
    wait_until_it_retrieves(desk)
    page.locator("#cancel button").click()
    expect(page.locator("#ended")).to_be_visible()
    assert desk.jobs()[0]["state"] == "cancelled"
    page.locator("#ended form button").click()
    expect(page.get_by_label("Password", exact=True)).to_be_visible()


def test_the_same_that_runs_already_is_asked_about_first(clerk: Person, desk: Desk) -> None:
    """And what is started anyway is protected, too."""
    page = choose(clerk, "RAD.101")
    page.get_by_role("button", name="Make the ZIP").click()
    wait_until_it_retrieves(desk)
    with person(page.context.browser, desk.url) as other:
        other.open()
        other.page.evaluate(
            "query => fetch('/jobs', {method: 'POST', body: new URLSearchParams(query)})"
            ".then(answer => answer.text()).then(text => { document.body.innerHTML = text; })",
            urlencode({"accession_numbers": "RAD.101", "format": "zip", "protect": "1"}),
        )
        other.page.locator("form button.second").first.click()
        other.page.wait_for_url("**/jobs/*protect=1*")
    page.locator("#cancel button").click()
    expect(page.locator("#ended")).to_be_visible()


def test_without_javascript_a_form_makes_the_zip(browser: Browser, desk: Desk, tmp_path: Path) -> None:
    with person(browser, desk.url, java_script_enabled=False) as one:
        one.open(f"/jobs/{ID.format(1)}?accession_numbers=RAD.201&format=zip&layout=pdi&protect=1")
        password = one.page.get_by_label("Password", exact=True).input_value()
        with one.page.expect_download() as downloaded:
            one.page.get_by_role("button", name="Make the ZIP").click()
        assert one.page.get_by_label("Password", exact=True).input_value() == password
        assert "PHONE.HTM" in unpacked(saved(downloaded.value, tmp_path), password, tmp_path / "disc")


def test_no_name_within_the_zip_has_the_patients(desk: Desk, tmp_path: Path) -> None:
    """Names are not encrypted."""
    for layout in ("pdi", "legacy"):
        url = f"{desk.url}/mkiso.php?accession_number=RAD.201&format=zip&layout={layout}"
        (tmp_path / layout).write_bytes(requests.post(url, data={"password": "mask-of-no-name"}, timeout=60).content)
        listed = subprocess.run(("/usr/bin/7z", "l", "-ba", "-slt", tmp_path / layout), capture_output=True, check=True)
        names = re.findall(rb"^Path = (.+)", listed.stdout, re.M)
        assert len(names) >= 4
        assert re.search(rb"LESTARI|DEWI|PAT008|19910402|RAD", b" ".join(names), re.I) is None


@pytest.mark.parametrize("look", LOOKS)
def test_the_page_is_for_everybody_in_each_of_its_states(
    look: str, browser: Browser, desk: Desk, tmp_path: Path
) -> None:
    with person(browser, desk.url, bypass_csp=True, **LOOKS[look]) as one:
        page = choose(one, "RAD.201")
        for state in ("asks", "follows", "done"):
            page.screenshot(path=tmp_path / f"{look} {state}.png", full_page=True)
            assert (state, one.violations(), page.evaluate(SCROLLS)) == (state, [], 0)
            if state == "asks":
                page.locator("#protect button").click()
                expect(page.locator("#progress")).to_be_visible()
            elif state == "follows":
                expect(page.locator("#ended")).to_be_visible()
        targets = page.evaluate("[...document.querySelectorAll('main button, main a.button')].map(x => x.offsetHeight)")
        assert min(targets) >= 44
        assert one.complaints == []
