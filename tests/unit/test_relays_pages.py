"""The pages, URLs and lists of queued relays, as Flask and a terminal answer them."""

import re
import uuid
from typing import Any

import pytest
import yaml
from flask.testing import FlaskClient

from mkiso.checks import relays_go_out
from mkiso.commands.jobs import columns
from mkiso.config import Config
from mkiso.ledger.ledger import Ledger
from mkiso.ledger.relays import Claim
from mkiso.ledger.schema import now
from tests.support.pages import block
from tests.unit.test_metrics import SAMPLES
from tests.unit.test_web import BROWSER, ID, client, installation, ledger, service

__all__ = ("client", "installation", "service")  # fixtures
ELSEWHERE = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Origin": "https://elsewhere.example"}
SCRIPT = "<script>alert(1)</script>"
JSON = {"Accept": "application/json"}


def queue(client: FlaskClient, *accessions: str, destination: str = "relay") -> str:
    relay_id = str(uuid.uuid4())
    ledger(client).relays.add(relay_id, destination, accessions, requester="anna@10.0.0.3", give_up=3600)
    return relay_id


def claim(client: FlaskClient) -> Claim:
    found: Claim | None = ledger(client).claim_relay(str(uuid.uuid4()), {"relay": 9, "cd_publisher": 9}, PEERS)
    assert found is not None
    return found


PEERS = {"relay": "127.0.0.1:9", "cd_publisher": "127.0.0.1:9"}


def ended(client: FlaskClient, code: str, detail: str = "x", **more: Any) -> str:
    """The id of a relay of which an attempt ended so."""
    relay_id = queue(client, *more.pop("accessions", ("A",)))
    fields = {"state": "failed", "error": {"code": code, "detail": detail}, "finished_at": now(), **more}
    ledger(client).update(claim(client).job_id, **fields)
    return relay_id


def state(client: FlaskClient, relay_id: str) -> str:
    return str(client.get(f"/api/relays/{relay_id}").json["state"])


def test_a_relay_that_was_given_up_says_why_and_what_to_do(client: FlaskClient) -> None:
    relay_id = ended(client, "wrong_patient", patient_name="JOHN DOE", patient_id="P1")
    for url in ("/relays", f"/relays/{relay_id}"):
        page = client.get(url, headers=BROWSER).text
        for text in ("JOHN DOE", "Images of another patient came", "Do not try again.", "Send again", "Forget"):
            assert text in page


@pytest.mark.parametrize("code", ["wrong_patient", "relay_failed"])
def test_no_text_of_a_peer_is_markup(code: str, client: FlaskClient) -> None:
    relay_id = ended(client, code, SCRIPT, patient_name=SCRIPT, patient_id=SCRIPT, accessions=(SCRIPT,))
    for url in ("/relays", f"/relays/{relay_id}"):
        page = client.get(url, headers=BROWSER).text
        assert SCRIPT not in page
        assert "&lt;script&gt;" in page


def test_a_page_of_a_relay_that_is_not_there_is_not_found(client: FlaskClient) -> None:
    for url in (f"/relays/{ID}", "/relays/x", f"/api/relays/{ID}"):
        answer = client.get(url, headers=BROWSER)
        assert (answer.status_code, "There is no such relay" in answer.text) == (404, True)


def test_what_waits_says_for_what(client: FlaskClient) -> None:
    relay_id = queue(client, "A")

    def told() -> str:
        pages = [client.get(url, headers=BROWSER).text for url in ("/relays", f"/relays/{relay_id}")]
        texts = ("waits for its turn", "does not answer. It is sent", "is tried again at", "Somebody holds")
        (found,) = {next(text for text in texts if text in page) for page in pages}
        return found

    assert told() == "waits for its turn"
    attempt = claim(client)
    failed = {"state": "failed", "finished_at": now()}
    ledger(client).update(attempt.job_id, error={"code": "relay_failed", "detail": "x"}, **failed)
    assert told() == "is tried again at"
    ledger(client).relays.again(relay_id, 60)
    ledger(client).update(claim(client).job_id, error={"code": "destination_unreachable", "detail": "x"}, **failed)
    assert told() == "does not answer. It is sent"
    client.post("/relays/to/relay/pause")
    assert told() == "Somebody holds"


def test_a_page_has_its_data_for_programs(client: FlaskClient) -> None:
    relay_id = queue(client, "A")
    attempt = claim(client)
    told = client.get(f"/relays/{relay_id}", headers=JSON).json
    assert (told["id"], told["attempt"]["id"], told["jobs"]) == (relay_id, attempt.job_id, [attempt.job_id])
    told = client.get("/relays", headers=JSON).json
    assert [one["id"] for one in told["relays"]] == [relay_id]
    assert [one["destination"] for one in told["destinations"]] == ["cd_publisher", "relay"]
    assert [one["id"] for one in told["jobs"]] == [attempt.job_id]


@pytest.mark.parametrize("destination", ["relay", "cd_publisher"])
@pytest.mark.parametrize("of_state", ["waiting", "cancelled", "quarantined"])
def test_a_page_shows_what_meets_its_filters(of_state: str, destination: str, client: FlaskClient) -> None:
    ids = {(to, what): queue(client, f"{to}.{what}", destination=to) for to in PEERS for what in ("waits", "ends")}
    for to in PEERS:
        client.post(f"/relays/{ids[to, 'ends']}/cancel")
    query = f"/relays?state={of_state}&destination={destination}"
    found = {"waiting": [ids[destination, "waits"]], "cancelled": [ids[destination, "ends"]]}.get(of_state, [])
    assert [one["id"] for one in client.get(query, headers=JSON).json["relays"]] == found
    page = client.get(query, headers=BROWSER).text
    assert [one for one in ids.values() if one in page] == found
    assert ("meets this filter" in page) == (not found)
    assert f'<option value="{of_state}" selected>' in page
    assert client.get("/relays?destination=moon", headers=JSON).json["relays"] == []
    for headers in (JSON, BROWSER):
        assert client.get("/relays?state=over", headers=headers).status_code == 400


@pytest.mark.parametrize("action", ["again", "cancel", "forget"])
@pytest.mark.parametrize("prefix", ["", "/api"])
def test_another_sites_page_changes_no_relay(prefix: str, action: str, client: FlaskClient) -> None:
    relay_id = ended(client, "wrong_patient")
    assert client.post(f"{prefix}/relays/{relay_id}/{action}", headers=ELSEWHERE).status_code == 403
    assert client.get(f"{prefix}/relays/{relay_id}/{action}").status_code == 405
    assert state(client, relay_id) == "quarantined"
    assert client.post(f"{prefix}/relays/{relay_id}/{action}").status_code == (200 if prefix else 303)
    assert state(client, relay_id) != "quarantined"


@pytest.mark.parametrize("url", ["/relays/to/relay/", "/api/destinations/relay/"])
def test_another_sites_page_holds_no_destination(url: str, client: FlaskClient) -> None:
    def holder() -> Any:
        return next(one["paused_by"] for one in client.get("/api/relays").json["destinations"][1:])

    assert client.post(f"{url}pause", headers=ELSEWHERE).status_code == 403
    assert holder() is None
    assert client.post(f"{url}pause").status_code == (200 if "api" in url else 303)
    assert holder() == "127.0.0.1"
    assert client.post(f"{url}resume", headers=ELSEWHERE).status_code == 403
    assert holder() == "127.0.0.1"
    client.post(f"{url}resume")
    assert holder() is None


@pytest.mark.parametrize("name", ["moon", "relay%2Fx", "..%2Frelay", "%3Cb%3E"])
@pytest.mark.parametrize("action", ["pause", "resume"])
def test_what_is_no_destination_is_neither_held_nor_kept(name: str, action: str, client: FlaskClient) -> None:
    for prefix in ("/relays/to", "/api/destinations"):
        answer = client.post(f"{prefix}/{name}/{action}", headers=JSON)
        assert (answer.status_code, answer.json["code"]) == (400, "bad_request")
    assert [one["destination"] for one in client.get("/api/relays").json["destinations"]] == ["cd_publisher", "relay"]


def test_who_ended_a_relay_is_said(client: FlaskClient) -> None:
    forgotten, cancelled = ended(client, "wrong_patient"), queue(client, "B")
    client.post(f"/api/relays/{cancelled}/cancel", environ_base={"REMOTE_ADDR": "10.0.0.7"})
    client.post(f"/api/relays/{forgotten}/forget", environ_base={"REMOTE_ADDR": "10.0.0.8"})
    details = [client.get(f"/api/relays/{one}").json["error"]["detail"] for one in (cancelled, forgotten)]
    assert details == ["Cancelled by 10.0.0.7.", "Forgotten by 10.0.0.8."]
    assert "10.0.0.7 stopped it." in client.get(f"/relays/{cancelled}", headers=BROWSER).text
    assert "10.0.0.8 forgot it." in client.get(f"/relays/{forgotten}", headers=BROWSER).text


def test_only_what_was_given_up_is_forgotten(client: FlaskClient) -> None:
    waiting = queue(client, "A")
    assert client.post(f"/api/relays/{waiting}/forget").json["state"] == "waiting"
    claim(client)
    assert client.post(f"/api/relays/{waiting}/forget").json["state"] == "running"
    (job_id,) = client.post(f"/api/relays/{waiting}/cancel").json["jobs"]
    assert ledger(client).cancel_requested([job_id]) == {job_id: "127.0.0.1"}


def test_a_button_of_the_list_leads_back_to_it(client: FlaskClient) -> None:
    relay_id = queue(client, "A")
    assert client.post(f"/relays/{relay_id}/again").headers["Location"] == f"/relays/{relay_id}"
    assert client.post(f"/relays/{relay_id}/again", data={"list": "1"}).headers["Location"] == "/relays"


def test_the_list_for_programs_is_filtered(client: FlaskClient) -> None:
    first, second = queue(client, "A"), queue(client, "B", destination="cd_publisher")
    given_up = ended(client, "wrong_patient")

    def ids(query: str = "") -> list[str]:
        return [one["id"] for one in client.get(f"/api/relays{query}").json["relays"]]

    assert set(ids()) == {first, second, given_up}
    assert ids("?destination=cd_publisher") == [second]
    assert len(ids("?state=quarantined") + ids("?state=waiting")) == 3
    assert ids("?state=done") == []
    assert len(ids("?limit=2")) == 2
    for query in ("?state=lost", "?limit=0", "?limit=1001", "?limit=x", "?state=done&state=done"):
        assert client.get(f"/api/relays{query}").status_code == 400


def test_a_destination_that_is_configured_no_more_is_shown_as_long_as_it_has_relays(client: FlaskClient) -> None:
    relay_id = queue(client, "A", destination="moon")
    page = client.get("/relays", headers=BROWSER).text
    assert "It is not set up here any more." in page
    assert "/relays/to/moon" not in page
    assert client.get(f"/relays/{relay_id}", headers=BROWSER).status_code == 200
    client.post(f"/api/relays/{relay_id}/cancel")
    assert "not set up here" not in client.get("/relays", headers=BROWSER).text


def test_a_job_tells_of_which_relay_it_is(client: FlaskClient) -> None:
    relay_id = ended(client, "relay_failed", confirmed=3)
    (job_id,) = client.get(f"/api/relays/{relay_id}").json["jobs"]
    page = client.get(f"/jobs/{job_id}", headers=BROWSER).text
    assert f'href="/relays/{relay_id}"' in page
    assert "<dt>Found at the other system afterwards</dt><dd>3</dd>" in page
    assert f'href="/jobs/{job_id}"' in client.get(f"/relays/{relay_id}", headers=BROWSER).text


def test_a_check_warns_of_what_needs_a_person(client: FlaskClient) -> None:
    config: Config = client.application.extensions["mkiso"][0].config
    store: Ledger = ledger(client)
    queue(client, "A")
    assert relays_go_out(config, store) == "1 wait, and every destination is open"
    claim(client)
    ended(client, "wrong_patient")
    store.relays.pause("cd_publisher", "anna@10.0.0.3")
    with pytest.raises(Exception, match=r"paused by anna@10\.0\.0\.3 .*; relay: 1 were given up"):
        relays_go_out(config, store)


def test_the_rules_for_prometheus_are_of_figures_that_there_are() -> None:
    (group,) = yaml.safe_load(block("relays", "yaml prometheus"))["groups"]
    named = {name for rule in group["rules"] for name in re.findall(r"mkiso_\w+", rule["expr"])}
    assert len(group["rules"]) == len(named) == 3
    assert named <= SAMPLES


def test_no_cell_commands_a_terminal() -> None:
    header, line = columns([["AAAAAAAAAAAA", "B"], ["\x1b[2J\n", None]]).splitlines()
    assert "\x1b" not in line
    assert line.index("-") == header.index("B")
