"""The texts of the operator's pages, and how times, dates and sizes are written there."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

import mkiso.web
from mkiso.ledger.ledger import STATES
from mkiso.ledger.schema import UNFINISHED
from mkiso.texts import texts
from mkiso.web.answers import LANGUAGES, duration, language, local_time, size
from mkiso.web.following import shown_name
from tests.unit.test_errors import CLASSES, TABLE

WEB = Path(mkiso.web.__file__).parent
SOURCES = "".join(file.read_text() for pattern in ("templates/*.html", "*.py") for file in WEB.glob(pattern))


@pytest.fixture
def english() -> Iterator[None]:
    with Flask(__name__).test_request_context(headers={"Accept-Language": "en"}):
        yield


@pytest.mark.parametrize("one", LANGUAGES)
def test_every_error_says_what_happened_and_what_to_do_now(one: str) -> None:
    codes = {*CLASSES, *(code for _, code, _ in TABLE)}
    assert {
        code for code in codes if not (texts(one)["errors"].get(code) and texts(one)["remedies"].get(code))
    } == set()


@pytest.mark.parametrize("one", LANGUAGES)
def test_every_state_has_its_word_and_every_phase_its_sentence(one: str) -> None:
    assert set(texts(one)["states"]) == set(STATES)
    assert set(texts(one)["phases"]) == set(UNFINISHED)


def test_the_pages_use_every_text() -> None:
    used = set(re.findall(r"\bt\.(\w+)", SOURCES)) | set(re.findall(r'"(\w+)"', SOURCES))
    assert set(texts("en")["web"]) - used == set()
    of_header = set(re.findall(r"texts\.header\.(\w+)", SOURCES))
    assert set(texts("en")["header"]) == of_header


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("id", "id"),
        ("id-ID,id;q=0.9,en;q=0.5", "id"),
        ("en-GB", "en"),
        ("en;q=0.5,id;q=0.9", "id"),
        ("de-DE,de;q=0.9", "en"),
        ("de,id;q=0.3", "id"),
        ("*", "en"),
        ("", "en"),
        (";;;q=x", "en"),
    ],
)
def test_a_page_is_in_the_language_that_the_browser_prefers(asked: str, given: str) -> None:
    with Flask(__name__).test_request_context(headers={"Accept-Language": asked}):
        assert language() == given


@pytest.mark.parametrize(("kept", "given"), [("id", "id"), ("en", "en"), ("de", "en"), ("", "en"), ("ID", "en")])
def test_a_language_that_somebody_chose_goes_before_the_browsers(kept: str, given: str) -> None:
    headers = {"Accept-Language": "en" if kept == "id" else "en;q=0.9", "Cookie": f"mkiso_language={kept}"}
    with Flask(__name__).test_request_context(headers=headers):
        assert language() == given


@pytest.mark.parametrize(
    ("requester", "shown"),
    [("anna@10.0.0.3", "anna"), ("desk 2@ward@::1", "desk 2@ward"), ("10.0.0.3", "10.0.0.3"), ("local", "local")],
)
def test_who_asked_is_told_without_the_address_where_there_is_a_name(requester: str, shown: str) -> None:
    assert shown_name(requester) == shown


def test_a_time_is_the_clocks_on_the_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Jakarta")
    time.tzset()
    assert local_time("2026-01-31T20:00:00.000000Z") == "2026-02-01 03:00"
    assert local_time(None) == ""
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("english")
@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0.0 kB"), (9_400, "9.4 kB"), (499_712, "500 kB"), (6_300_000, "6.3 MB"), (71 * 10**9, "71 GB")],
)
def test_a_size_has_a_unit(count: int, shown: str) -> None:
    assert size(count) == shown


def test_a_size_is_written_as_the_language_does() -> None:
    with Flask(__name__).test_request_context(headers={"Accept-Language": "id"}):
        assert size(6_300_000) == "6,3 MB"


@pytest.mark.usefixtures("english")
@pytest.mark.parametrize(("seconds", "shown"), [(0.21, "0.2 s"), (12.4, "12 s"), (59.4, "59 s"), (125.2, "2:05 min")])
def test_a_duration_is_that_of_a_stop_watch(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
