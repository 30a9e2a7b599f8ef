from collections.abc import Callable

import pytest

from mkiso.dcmtk.association import Failure, Peer, association_argv, association_failure, whole_seconds, words
from mkiso.dcmtk.pacs import association_error, silent_error

TEXTS = {
    "findscu-refused": Failure.UNREACHABLE,
    "movescu-refused": Failure.UNREACHABLE,
    "echoscu-refused": Failure.UNREACHABLE,
    "findscu-rejected": Failure.REJECTED,
    "movescu-rejected": Failure.REJECTED,
    "echoscu-rejected": Failure.REJECTED,
    "movescu-no-context": Failure.NO_CONTEXT,
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
        ("movescu-success", "it said nothing"),
    ],
)
def test_a_programs_words_are_one_sentence_without_codes(name: str, said: str, captured: Callable[[str], str]) -> None:
    assert words(captured(name)) == said


def test_a_peer_that_hung_up_may_be_a_tunnel(captured: Callable[[str], str]) -> None:
    assert "a TLS tunnel" in words(captured("echoscu-hung-up"))
    assert "tunnel" not in words(captured("echoscu-refused"))


def test_words_do_not_show_the_query(captured: Callable[[str], str]) -> None:
    assert "TWO.001" not in words(captured("findscu-timeout"))
    assert "PatientName" not in words(captured("findscu-timeout"))


@pytest.mark.parametrize(("seconds", "whole"), [(0.1, "1"), (1, "1"), (1.5, "2"), (10.0, "10")])
def test_a_timeout_is_in_whole_seconds_and_never_none(seconds: float, whole: str) -> None:
    assert whole_seconds(seconds) == whole


def test_an_association_says_who_calls_whom_and_for_how_long(pacs: Peer) -> None:
    assert association_argv(pacs, 60.5) == (
        *("-aet", "CDRECORD", "-aec", "ABPACS", "-to", "10", "-ta", "10", "-td", "61"),
    )
