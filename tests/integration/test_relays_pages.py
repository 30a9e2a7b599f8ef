"""What people and programs see of queued relays.

Of one that runs to a destination that hangs, as long as a test; of some that wait for one that is away; of one that
somebody must look at.
"""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests.support.archive import running_archive
from tests.support.browser import SCROLLS
from tests.support.desk import Person, held_studies, person
from tests.support.destination import running_destination
from tests.support.ports import free_ports
from tests.support.service import Service, mkiso, running_service, settings
from tests.support.tools import wait_until

SCRIPT = "<script>alert(1)</script>"
ROBOT = "CD robot, ground floor"
PHONE = {"width": 320, "height": 640}
SMALL = "all => all.filter(one => one.offsetHeight && one.offsetHeight < 43.5).map(one => one.outerHTML)"


@dataclass
class Hall:
    """The service, and the ids of relays that stay as they are, by how they are."""

    service: Service
    robot: int
    ids: dict[str, str]

    def queue(self, accessions: str, destination: str) -> str:
        where = {"accession_numbers": accessions, "destination": destination, "queue": "1"}
        answer = self.service.get("/api/iso/relay", params=where)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["relay_id"])

    def relay(self, relay_id: str) -> dict[str, Any]:
        return dict(self.service.get(f"/api/relays/{relay_id}").json())

    def wait_for(self, relay_id: str, **values: Any) -> dict[str, Any]:
        """The relay as soon as it has these values."""
        told = self.relay
        wait_until(lambda: told(relay_id).items() >= values.items(), 60, lambda: f"{told(relay_id)}")
        return told(relay_id)

    def wait_for_error(self, relay_id: str) -> dict[str, Any]:
        wait_until(lambda: self.relay(relay_id)["error"] is not None, 60, lambda: f"{self.relay(relay_id)}")
        return self.relay(relay_id)

    def queue_of(self, destination: str) -> dict[str, Any]:
        found = self.service.get("/api/relays").json()["destinations"]
        return dict(next(one for one in found if one["destination"] == destination))

    def post(self, path: str, **headers: str) -> requests.Response:
        return requests.post(self.service.url + path, headers=headers, allow_redirects=False, timeout=60)

    def command(self, *words: str) -> Any:
        return mkiso("relays", "--config", self.service.config_file, *words)


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hall]:
    directory = tmp_path_factory.mktemp("hall")
    pacs, receiver, robot, archive, nobody, http = free_ports(6)
    held_studies(directory / "held")
    peers = {
        name: {"ae_title": "DESTINATION", "host": "127.0.0.1", "port": port, "title": title}
        for name, port, title in (("cd_publisher", robot, ROBOT), ("archive", archive, ""), ("relay", nobody, ""))
    }
    about = {"title": "RS Harapan", "helpdesk": "IT, extension 1234"}
    configuration = settings(directory, pacs, {"RECEIVER": receiver}, destinations=peers, server=about)
    with ExitStack() as running:
        running.enter_context(running_archive(pacs, {"RECEIVER": receiver}, directory / "held"))
        running.enter_context(running_destination(archive))
        opened = Hall(running.enter_context(running_service(directory, http, configuration)), robot, {})
        opened.ids["quarantined"] = opened.queue("RAD.101,RAD.301", "archive")
        opened.wait_for(opened.ids["quarantined"], state="quarantined")
        opened.ids["unknown"] = opened.queue(SCRIPT, "relay")
        opened.wait_for(opened.ids["unknown"], state="quarantined")
        opened.ids["away"] = opened.queue("RAD.201", "relay")
        opened.wait_for_error(opened.ids["away"])
        yield opened


@pytest.fixture
def sending(hall: Hall) -> Iterator[str]:
    """The id of a relay that sent two of its eight images, and hangs."""
    with running_destination(hall.robot, "silent"):
        relay_id = hall.queue("RAD.102", "cd_publisher")
        hall.wait_for(relay_id, state="running", files_sent=2)
        yield relay_id
        hall.post(f"/api/relays/{relay_id}/cancel")
        work = hall.service.config_file.parent / "work"
        wait_until(lambda: not list(work.glob("dicomdir_*")), 20, lambda: f"{hall.relay(relay_id)}")
        hall.wait_for(relay_id, state="cancelled")


@pytest.fixture
def clerk(browser: Browser, hall: Hall) -> Iterator[Person]:
    """Somebody whose browser has nothing to complain of in the end: a script of a peer's would open a dialog."""
    with person(browser, hall.service.url) as one:
        yield one
    assert one.complaints == []


def card(page: Page, title: str) -> Any:
    """What the page says of a destination."""
    return page.locator(".queue").filter(has=page.get_by_role("heading", name=title))


def test_the_page_says_what_waits_runs_and_needs_somebody(clerk: Person, hall: Hall, sending: str) -> None:
    clerk.open()
    clerk.page.get_by_role("link", name="Sending", exact=True).click()
    needs = clerk.page.locator(f"#relay-{hall.ids['quarantined']}")
    expect(needs).to_contain_text("The studies belong to different patients. Check the numbers.")
    expect(needs).to_contain_text("RAD.101, RAD.301")
    needs.locator("summary").click()
    expect(needs).to_contain_text("The PACS names 2 patients")
    runs = clerk.page.locator(f"#relay-{sending}")
    expect(runs).to_contain_text(f"Images of BUDI SANTOSO to {ROBOT}")
    expect(runs.locator("progress[value='2'][max='8']")).to_be_visible()
    waits = clerk.page.locator("tr").filter(has_text="RAD.201")
    for text in ("DEWI LESTARI", "relay", "127.0.0.1", "The other system does not answer. It is sent when that does."):
        expect(waits).to_contain_text(text)
    expect(clerk.page.locator(f"#relay-{hall.ids['unknown']}")).to_contain_text(f"Images of {SCRIPT} to relay")
    expect(card(clerk.page, "relay")).to_contain_text("Does not answer. It is asked again at")
    expect(card(clerk.page, ROBOT)).to_contain_text("Takes images.")
    expect(card(clerk.page, ROBOT)).to_contain_text("Being sent: 1")


def test_a_relay_has_a_page_with_its_tries_and_they_lead_to_it(clerk: Person, hall: Hall, sending: str) -> None:
    clerk.open("/relays")
    clerk.page.get_by_role("link", name=f"Images of BUDI SANTOSO to {ROBOT}").click()
    clerk.page.wait_for_url(f"**/relays/{sending}")
    expect(clerk.page.locator("#relay")).to_contain_text("Sending the images")
    clerk.page.get_by_role("link", name="More about this try").click()
    clerk.page.wait_for_url("**/jobs/*")
    clerk.page.get_by_role("link", name="See how the sending goes on").click()
    clerk.page.wait_for_url(f"**/relays/{sending}")
    clerk.open(f"/relays/{hall.ids['unknown']}")
    expect(clerk.page.locator("h1")).to_have_text(f"Images of {SCRIPT} to relay")
    clerk.page.locator("summary").click()
    expect(clerk.page.locator("dd", has_text="The PACS knows no study with the accession number")).to_contain_text(
        SCRIPT
    )


def test_an_open_page_follows_by_itself_and_keeps_the_focus(clerk: Person, hall: Hall) -> None:
    clerk.open("/relays")
    opened = clerk.page.locator(f"#relay-{hall.ids['quarantined']} details")
    opened.locator("summary").click()
    expect(opened).to_have_attribute("open", "")
    hold = card(clerk.page, ROBOT).get_by_role("button", name="Hold")
    hold.focus()
    relay_id = hall.queue("RAD.401", "archive")
    line = clerk.page.locator(f"[href='/relays/{relay_id}']")
    expect(line).to_be_visible()
    expect(hold).to_be_focused()
    expect(opened).to_have_attribute("open", "")
    hall.wait_for(relay_id, state="done")
    expect(clerk.page.locator("tr").filter(has=line)).to_contain_text("arrived")


def test_a_destination_is_held_and_let_go_on_by_the_keyboard(clerk: Person, hall: Hall) -> None:
    clerk.open("/relays")
    clerk.page.keyboard.press("Tab")
    button = card(clerk.page, "archive").get_by_role("button", name="Hold")
    for _ in range(30):
        if button.evaluate("one => one === document.activeElement"):
            break
        clerk.page.keyboard.press("Tab")
    expect(button).to_be_focused()
    clerk.page.keyboard.press("Enter")
    expect(card(clerk.page, "archive")).to_contain_text("Held by 127.0.0.1: nothing is sent there")
    relay_id = hall.queue("RAD.401", "archive")
    clerk.open(f"/relays/{relay_id}")
    expect(clerk.page.locator("#relay")).to_contain_text("Somebody holds what goes to this system.")
    assert hall.queue_of("archive")["paused_by"] == "127.0.0.1"
    clerk.open("/relays")
    card(clerk.page, "archive").get_by_role("button", name="Let it go on").press("Enter")
    expect(card(clerk.page, "archive")).to_contain_text("Takes images.")
    clerk.open(f"/relays/{relay_id}")
    expect(clerk.page.get_by_text("archive confirmed all 2 images. You may close this page.")).to_be_visible()


def test_what_needs_somebody_is_sent_again_and_forgotten(clerk: Person, hall: Hall) -> None:
    relay_id = hall.queue("RAD.101,RAD.401", "archive")
    hall.wait_for(relay_id, state="quarantined")
    clerk.open(f"/relays/{relay_id}")
    expect(clerk.page.get_by_text("IT, extension 1234")).to_be_visible()
    clerk.page.get_by_role("button", name="Send again").click()
    hall.wait_for(relay_id, state="quarantined", attempts=2)
    expect(clerk.page.locator("section[aria-labelledby=tries] tbody tr")).to_have_count(2)
    clerk.open("/relays")
    clerk.page.locator(f"#relay-{relay_id}").get_by_role("button", name="Forget").click()
    expect(clerk.page).to_have_url(re.compile("/relays$"))
    expect(clerk.page.locator("tr").filter(has_text="RAD.101, RAD.401")).to_contain_text("127.0.0.1 forgot it.")
    assert hall.relay(relay_id)["error"]["detail"] == "Forgotten by 127.0.0.1."


@pytest.mark.parametrize(
    ("locale", "viewport"),
    [("en-GB", {"width": 1280, "height": 800}), ("id-ID", PHONE)],
)
def test_every_page_is_accessible_and_fits(
    locale: str, viewport: Any, browser: Browser, hall: Hall, sending: str
) -> None:
    with person(browser, hall.service.url, locale=locale, viewport=viewport, bypass_csp=True) as one:
        for path in ("/relays", *(f"/relays/{one}" for one in (sending, *hall.ids.values()))):
            one.open(path)
            assert one.violations() == [], path
            assert one.page.evaluate(SCROLLS) == 0, path
            assert one.page.locator("main button").evaluate_all(SMALL) == [], path
        assert one.complaints == []


def test_it_speaks_indonesian(browser: Browser, hall: Hall) -> None:
    with person(browser, hall.service.url, locale="id-ID") as one:
        one.open("/relays")
        expect(one.page.locator("h1")).to_have_text("Pengiriman ke sistem lain")
        expect(one.page.locator(f"#relay-{hall.ids['quarantined']}")).to_contain_text("milik beberapa pasien")
        expect(card(one.page, "relay")).to_contain_text("Tidak menjawab. Akan dihubungi lagi pada")
        one.page.get_by_role("button", name="English").click()
        expect(one.page).to_have_url(re.compile("/relays$"))


def test_it_works_without_scripts(browser: Browser, hall: Hall) -> None:
    with person(browser, hall.service.url, java_script_enabled=False) as one:
        one.look_up("RAD.401")
        one.page.get_by_role("button", name="Send to archive").click()
        one.page.wait_for_url("**/relays/*")
        relay_id = one.page.url.rpartition("/")[2]
        hall.wait_for(relay_id, state="done")
        one.page.reload()
        assert "archive confirmed all 2 images" in one.page.locator("main").inner_text()
        one.open("/relays")
        card(one.page, "archive").get_by_role("button", name="Hold").click()
        card(one.page, "archive").get_by_role("button", name="Let it go on").click()
        assert "Takes images." in card(one.page, "archive").inner_text()


def test_the_same_that_waits_asks_first(clerk: Person, hall: Hall) -> None:
    clerk.look_up("RAD.201")
    clerk.page.get_by_role("button", name="Send to relay").click()
    expect(clerk.page.get_by_text("The same studies are being worked on")).to_be_visible()
    clerk.page.get_by_role("link", name="Follow the one that runs").click()
    clerk.page.wait_for_url(f"**/relays/{hall.ids['away']}")
    clerk.page.reload()
    assert len(hall.service.get("/api/relays?destination=relay").json()["relays"]) == 2


def test_another_sites_page_changes_nothing(hall: Hall) -> None:
    before = hall.service.get("/api/relays").json()["destinations"]
    changes = [f"relays/{hall.ids['quarantined']}/{word}" for word in ("again", "forget")]
    changes += [f"relays/{hall.ids['away']}/cancel", "relays/to/archive/pause", "relays/to/relay/resume"]
    changes += [f"api/{one}" for one in changes[:3]] + ["api/destinations/archive/pause"]
    for path in changes:
        for elsewhere in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://elsewhere.example"}):
            assert hall.post(f"/{path}", **elsewhere).json()["code"] == "forbidden"
    after = hall.service.get("/api/relays").json()["destinations"]
    assert [{**one, "next_at": None} for one in before] == [{**one, "next_at": None} for one in after]


def test_programs_see_and_act(hall: Hall) -> None:
    found = hall.service.get("/api/relays", params={"state": "quarantined", "destination": "archive"}).json()
    assert hall.ids["quarantined"] in [one["id"] for one in found["relays"]]
    assert {one["state"] for one in found["relays"]} == {"quarantined"}
    assert [one["destination"] for one in found["destinations"]] == ["archive", "cd_publisher", "relay"]
    assert hall.post("/api/destinations/archive/pause").json()["paused_by"] == "127.0.0.1"
    relay_id = hall.queue("RAD.301", "archive")
    assert hall.queue_of("archive")["waiting"] == 1
    assert hall.post(f"/api/relays/{relay_id}/cancel").json()["error"]["detail"] == "Cancelled by 127.0.0.1."
    assert hall.post("/api/destinations/archive/resume").json()["paused_by"] is None
    assert hall.post("/api/destinations/moon/pause").status_code == 400


def test_commands_see_and_act(hall: Hall, sending: str) -> None:
    sent = mkiso("relay", "RAD.401", "--to", "archive", "--queue", "--config", hall.service.config_file)
    relay_id = re.fullmatch(rb"relay (\S+) waits, and the service sends it: mkiso relays \1\n", sent.stdout)[1].decode()
    assert hall.wait_for(relay_id, state="done")["requester"].endswith("@mkiso-relay")
    table, _, queues = hall.command().stdout.decode().partition("\n\n")
    line = next(one for one in table.splitlines() if relay_id in one)
    assert line.split()[2:5] == ["done", "archive", "1"]
    assert re.search(r"^relay +away +1 +0 +1 ", queues, re.M)
    assert re.search(r"^cd_publisher +yes +0 +1 +0 ", queues, re.M)
    assert re.search(rf"^\S+ +{sending} +running +cd_publisher +1 +- +2/8 ", table, re.M)
    assert json.loads(hall.command("--json", relay_id).stdout) == hall.relay(relay_id)
    told = json.loads(hall.command("--json", "--state", "quarantined").stdout)
    assert {one["state"] for one in told["relays"]} == {"quarantined"}
    assert hall.command("pause", "archive").stdout == b"archive is paused: mkiso relays resume archive\n"
    waiting = hall.queue("RAD.301", "archive")
    assert hall.command("forget", waiting).stdout == f"relay {waiting} is waiting\n".encode()
    assert hall.command("again", waiting).stdout == f"relay {waiting} is waiting\n".encode()
    assert hall.command("cancel", waiting).stdout == f"relay {waiting} is cancelled\n".encode()
    assert hall.command("resume", "archive").stdout == b"archive takes what waits: 0\n"
    told = f"relay {sending} (was told to stop|is cancelled)\n".encode()  # as it may be by then
    assert re.fullmatch(told, hall.command("cancel", sending).stdout)
    assert [hall.command(*words).returncode for words in (("x",), ("pause", "moon"), ("cancel",))] == [1, 2, 2]


@pytest.mark.usefixtures("sending")
def test_a_monitor_is_warned_and_nothing_fails(hall: Hall) -> None:
    text = hall.service.get("/metrics").text
    for line in (
        'mkiso_relays{destination="cd_publisher",state="running"} 1.0',
        'mkiso_relays{destination="relay",state="waiting"} 1.0',
        'mkiso_relays{destination="relay",state="quarantined"} 1.0',
        'mkiso_relay_queue_open{destination="relay"} 0.0',
        'mkiso_relay_queue_open{destination="cd_publisher"} 1.0',
    ):
        assert line in text
    assert re.search(r'^mkiso_relays_oldest_seconds\{destination="relay"\} [0-9.]+$', text, re.M)
    assert re.search(r'^mkiso_relays_next_seconds\{destination="relay"\} [0-9.]+$', text, re.M)
    wait_until(lambda: not _check(hall)["ok"], 30, lambda: f"{_check(hall)}")
    answer = hall.service.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)
    shown = mkiso("check", "--config", hall.service.config_file).stdout.decode()
    line = next(one for one in shown.splitlines() if " relays: " in one)
    assert line.startswith("warn  relays: archive: 1 were given up and need a person")
    assert "relay does not answer, and is asked again at" in line


def _check(hall: Hall) -> dict[str, Any]:
    return dict(next(one for one in hall.service.get("/readyz").json()["checks"] if one["name"] == "relays"))


def test_what_runs_is_cancelled_by_its_page(clerk: Person, hall: Hall, sending: str) -> None:
    clerk.open(f"/relays/{sending}")
    clerk.page.get_by_role("button", name="Cancel").click()
    expect(clerk.page.get_by_role("heading", name="Stopped")).to_be_visible()
    expect(clerk.page.locator("#relay")).to_contain_text("127.0.0.1 stopped it. It is not tried again.")
    assert hall.relay(sending)["state"] == "cancelled"
