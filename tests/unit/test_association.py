from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from mkiso.dcmtk.association import (
    Failure,
    Peer,
    association_argv,
    association_error,
    association_failure,
    attempts,
    error_text,
    silent_error,
    whole_seconds,
)

TEXTS = {
    "findscu-refused": Failure.UNREACHABLE,
    "movescu-refused": Failure.UNREACHABLE,
    "echoscu-refused": Failure.UNREACHABLE,
    "findscu-rejected": Failure.REJECTED,
    "movescu-rejected": Failure.REJECTED,
    "echoscu-rejected": Failure.REJECTED,
    "movescu-no-context": Failure.NO_CONTEXT,
    "storescu-rejected": Failure.REJECTED,
    "dcmsend-rejected": Failure.REJECTED,
    "findscu-limit-for-good": Failure.REJECTED,
    "findscu-busy": Failure.BUSY,
    "findscu-busy-congestion": Failure.BUSY,
    "findscu-busy-no-reason": Failure.BUSY,
    "movescu-busy": Failure.BUSY,
    "echoscu-busy": Failure.BUSY,
    "storescu-busy": Failure.BUSY,
    "dcmsend-busy": Failure.BUSY,
    "movescu-success": None,
    "findscu-success": None,
    "movescu-abort": None,
    "movescu-timeout": None,
    "findscu-timeout": None,
}


@pytest.mark.parametrize(("name", "failure"), TEXTS.items())
def test_an_association_that_failed_is_told_from_one_that_came_about(
    name: str, failure: Failure | None, captured: Callable[[str], str]
) -> None:
    assert association_failure(captured(name)) is failure


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("movescu-refused", "pacs_unreachable"),
        ("movescu-rejected", "pacs_rejected"),
        ("movescu-no-context", "pacs_rejected"),
    ],
)
def test_an_association_that_failed_is_an_error_that_names_the_peer(
    name: str, code: str, captured: Callable[[str], str], pacs: Peer
) -> None:
    error = association_error(pacs, captured(name))
    assert error is not None
    assert error.code == code
    assert "ABPACS at pacs.example:11112" in error.detail


@pytest.mark.parametrize("name", ["findscu-busy", "findscu-busy-congestion", "movescu-busy", "findscu-limit-for-good"])
def test_a_busy_archive_is_told_as_such_and_without_advice_on_ae_titles(
    name: str, captured: Callable[[str], str], pacs: Peer
) -> None:
    error = association_error(pacs, captured(name))
    assert error is not None
    assert (error.code, "AE title" in error.detail) == ("pacs_rejected", False)
    assert "as many associations as it takes" in error.detail
    assert "Try again later" in error.detail


class Clock:
    """Time that passes only where somebody sleeps, and is looked at."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock.monotonic)
    monkeypatch.setattr("time.sleep", clock.sleep)
    return clock


@pytest.mark.parametrize("seconds", [0.05, 1, 10, 60])
def test_a_busy_peer_is_asked_at_once_ever_more_rarely_and_once_more_when_its_time_is_over(
    seconds: float, clock: Clock, pacs: Peer
) -> None:
    turns = [clock.now for _ in attempts(replace(pacs, connect_timeout=seconds), lambda: None)]
    pauses = [after - before for before, after in pairwise(turns)]
    assert turns[0] == 0
    assert turns[-1] == pytest.approx(seconds, abs=0.3)
    assert pauses[0] < 0.2
    assert max(pauses) < 2.2
    assert sum(pause < 1 for pause in pauses[:-1]) < 5


def test_who_waits_for_a_busy_peer_can_be_called_away(clock: Clock, pacs: Peer) -> None:
    def checkpoint() -> None:
        if clock.now > 0.2:
            raise KeyError

    with pytest.raises(KeyError):
        list(attempts(pacs, checkpoint))
    assert clock.now < 0.4


def test_silence_is_unreachable(pacs: Peer) -> None:
    assert silent_error(pacs).code == "pacs_unreachable"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("findscu-refused", "Association Request Failed: TCP Initialization Error: Connection refused"),
        ("movescu-refused", "Association Request Failed; TCP Initialization Error: Connection refused"),
        (
            "findscu-rejected",
            "Association Rejected; Result: Rejected Permanent, Source: Service User;"
            " Reason: Called AE Title Not Recognized",
        ),
        ("storescp-port-in-use", "cannot create network: TCP Initialization Error: Address already in use"),
        (
            "dcmsend-rejected",
            "Result: Rejected Permanent, Source: Service User; Reason: Called AE Title Not Recognized;"
            " cannot negotiate network association: DUL Association Rejected",
        ),
        ("movescu-success", "it said nothing"),
    ],
)
def test_a_programs_words_are_one_sentence_without_codes(name: str, said: str, captured: Callable[[str], str]) -> None:
    assert error_text(captured(name)) == said


def test_a_peer_that_hung_up_may_be_a_tunnel(captured: Callable[[str], str]) -> None:
    assert "a TLS tunnel" in error_text(captured("echoscu-hung-up"))
    assert "tunnel" not in error_text(captured("echoscu-refused"))


def test_words_do_not_show_the_query(captured: Callable[[str], str]) -> None:
    assert "TWO.001" not in error_text(captured("findscu-timeout"))
    assert "PatientName" not in error_text(captured("findscu-timeout"))


@pytest.mark.parametrize(("seconds", "whole"), [(0.1, "1"), (1, "1"), (1.5, "2"), (10.0, "10")])
def test_a_timeout_is_in_whole_seconds_and_never_none(seconds: float, whole: str) -> None:
    assert whole_seconds(seconds) == whole


def test_an_association_says_who_calls_whom_and_for_how_long(pacs: Peer) -> None:
    assert association_argv(pacs, 60.5) == (
        *("-aet", "CDRECORD", "-aec", "ABPACS", "-to", "10", "-ta", "10", "-td", "61"),
    )
