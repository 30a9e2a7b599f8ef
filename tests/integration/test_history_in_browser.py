"""The history as a person looks back in it: names in any script, who stopped a job, and who collected a disc."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from mkiso.ledger.history import search_key
from mkiso.ledger.ledger import Ledger
from mkiso.waiting import LEFT
from tests.support.desk import Person, person
from tests.support.ports import free_ports
from tests.support.service import running_service, settings
from tests.unit.test_history import fill

NAMES = {
    "Müller^Jörg": "Jörg Müller",
    "YAMADA^TARO=山田^太郎=やまだ^たろう": "TARO YAMADA",
    "SANTOSO^BUDI": "BUDI SANTOSO",
}
FILTER = "Patient's name or ID"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Ledger]]:
    """A service's URL, and its ledger: a disc for each of the patients, and two jobs that were stopped."""
    directory = tmp_path_factory.mktemp("history")
    pacs, receiver, http = free_ports(3)
    configuration = settings(directory, pacs, {"RECEIVER": receiver})
    ledger = Ledger(configuration["storage"]["ledger"], lambda: "W", set)
    for number, (name, shown) in enumerate(NAMES.items(), start=1):
        patient = {"patient_id": f"P{number}", "patient_name": shown, "folded": search_key(f"P{number}", name)}
        fill(ledger, number, f"RAD.{number}", format="iso", **patient)
    for number, why in enumerate(("Cancelled by anna@10.0.0.3.", LEFT), start=4):
        fill(ledger, number, "RAD.9", state="cancelled", error={"code": "cancelled", "detail": why})
    with running_service(directory, http, configuration) as service:
        yield service.url, ledger
    ledger.close()


@pytest.fixture
def url(house: tuple[str, Ledger]) -> str:
    return house[0]


def search(clerk: Person, words: str) -> list[str]:
    """The patients whose jobs the history shows for these words."""
    clerk.page.get_by_label(FILTER).fill(words)
    clerk.page.get_by_role("button", name="Show").click()
    clerk.page.wait_for_load_state()
    return [" ".join(one.split()) for one in clerk.page.locator("td[data-label=Patient]").all_inner_texts()]


def test_a_patient_is_found_in_any_script_with_accents_or_without(browser: Browser, url: str) -> None:
    with person(browser, url) as clerk:
        clerk.open("/history")
        for words in ("Müller", "muller", "JORG müller", "Müller, Jörg"):
            assert search(clerk, words) == ["Jörg Müller P1"]
        for words in ("山田", "taro yamada", "やまだ"):
            assert search(clerk, words) == ["TARO YAMADA P2"]
        assert search(clerk, "mueller") == []
        clerk.page.get_by_role("link", name="Clear the filter").click()
        expect(clerk.page.get_by_label(FILTER)).to_have_value("")
        assert len(clerk.page.locator("td[data-label=Patient]").all()) == 5
        assert "built-in" not in clerk.page.inner_text("body")
        assert clerk.complaints == []


def test_who_stopped_a_job_and_who_collected_it_stands_beside_it(browser: Browser, house: tuple[str, Ledger]) -> None:
    url, ledger = house
    said = {"relation": "relative", "given_by": "Anna", "note": "", "requester": "anna@10.0.0.3"}
    for name in ("Dewi", "<b>Dewi Lestari"):
        ledger.collect(f"{3:08x}-0000-4000-8000-000000000000", by=name, **said)
    with person(browser, url) as clerk:
        clerk.open("/history")
        left, cancelled, collected, *_others = clerk.page.locator("td[data-label=Result]").all_inner_texts()
        assert cancelled.split("\n") == ["stopped", "by anna"]
        assert left.split("\n") == ["stopped", "The browser or program that was to have it went away."]
        assert collected.startswith("done\nCollected by <b>Dewi Lestari, ")
        assert collected.endswith(" (corrected)")
    with person(browser, url, locale="id-ID") as clerk:
        clerk.open("/history")
        assert "dihentikan\noleh anna" in clerk.page.inner_text("main")
        assert "Diambil oleh <b>Dewi Lestari" in clerk.page.inner_text("main")


@pytest.mark.parametrize("size", [(320, 640), (640, 480)], ids=["320 pixels", "200 percent of 1280 pixels"])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(
    size: tuple[int, int], browser: Browser, url: str
) -> None:
    width, height = size
    viewport = {"width": width, "height": height}
    with person(browser, url, bypass_csp=True, viewport=viewport) as clerk:
        clerk.open("/history?patient=P")
        assert clerk.violations() == []
        assert clerk.page.evaluate("document.documentElement.scrollWidth") <= width
