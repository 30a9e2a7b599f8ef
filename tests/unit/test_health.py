"""Whether the service lives, and whether it is ready: what an outsider is told, and what not."""

from types import SimpleNamespace
from typing import Any

import pytest
from flask.testing import FlaskClient

from mkiso.checks import Check
from tests.unit.test_web import client, installation, service

__all__ = ("client", "installation", "service")  # fixtures
GOOD = (Check("storescp", True, "/opt/x/storescp v3"), Check("pacs", True, "ABPACS at 10.1.2.3:11112 answers"))
BAD = (GOOD[0], Check("pacs", False, "ABPACS at 10.1.2.3:11112: refused"), Check("storage.ledger", False, "/var/x"))


def ready_as(client: FlaskClient, found: Any) -> None:
    client.application.extensions["mkiso"][0].readiness = SimpleNamespace(awaited=lambda _seconds: found)


def test_ready_is_told_with_each_check(client: FlaskClient) -> None:
    ready_as(client, GOOD)
    answer = client.get("/readyz")
    checks = [
        {"name": "storescp", "ok": True, "found": "runs"},
        {"name": "pacs", "ok": True, "found": "answers a C-ECHO"},
    ]
    assert (answer.status_code, answer.json) == (200, {"ready": True, "checks": checks})
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_check_that_fails_is_503_and_tells_nothing_of_the_host(client: FlaskClient) -> None:
    ready_as(client, BAD)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json["ready"]) == (503, False)
    assert answer.json["checks"][1:] == [
        {"name": "pacs", "ok": False, "found": "does not answer a C-ECHO"},
        {"name": "storage.ledger", "ok": False, "found": "does not answer"},
    ]
    assert "10.1.2.3" not in answer.text
    assert "/" not in answer.text


def test_what_is_not_known_in_time_is_not_ready(client: FlaskClient) -> None:
    ready_as(client, None)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json["ready"], answer.json["checks"][0]["ok"]) == (503, False, False)


@pytest.mark.parametrize(("found", "status"), [(GOOD, 200), (BAD, 503)])
def test_head_answers_the_status_alone(found: Any, status: int, client: FlaskClient) -> None:
    ready_as(client, found)
    answer = client.head("/readyz")
    assert (answer.status_code, answer.data) == (status, b"")


def test_relays_that_need_a_person_warn_and_keep_nothing_from_being_ready(client: FlaskClient) -> None:
    ready_as(client, (*GOOD, Check("relays", False, "relay was paused by anna@10.1.2.3")))
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json["ready"], answer.json["checks"][-1]["ok"]) == (200, True, False)
    assert "anna" not in answer.text
