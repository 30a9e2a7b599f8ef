from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from mkiso.dcmtk.association import Peer
from mkiso.dcmtk.movescu import (
    Ending,
    MoveResult,
    announced,
    combined,
    failure,
    move_argv,
    move_result,
)
from mkiso.errors import PacsRejected, PacsUnreachable

WARNING = "Warning: Sub-operations complete - One or more failures or warnings"


def test_the_argv_of_movescu(pacs: Peer) -> None:
    assert move_argv(Path("/opt/dcmtk"), pacs, "RECEIVER", "1.2.3", 3600) == (
        *("/opt/dcmtk/movescu", "-d", "-S", "-aet", "CDRECORD", "-aec", "ABPACS", "-to", "10", "-ta", "10"),
        *("-td", "3600", "-aem", "RECEIVER", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=1.2.3"),
        *("pacs.example", "11112"),
    )


def test_one_series_is_moved_at_its_own_level(pacs: Peer) -> None:
    argv = move_argv(Path("/opt/dcmtk"), pacs, "RECEIVER", "1.2.3", 3600, "1.2.3.4")
    keys = [word for flag, word in pairwise(argv) if flag == "-k"]
    assert keys == ["QueryRetrieveLevel=SERIES", "StudyInstanceUID=1.2.3", "SeriesInstanceUID=1.2.3.4"]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("movescu-success", 2),
        ("movescu-b000", 6),
        ("movescu-none", None),
        ("movescu-a801", None),
        ("movescu-busy", None),
    ],
)
def test_the_first_response_says_how_many_there_are(
    name: str, count: int | None, captured: Callable[[str], str]
) -> None:
    assert announced(captured(name)) == count


def test_a_first_response_that_is_not_written_to_its_end_says_nothing(captured: Callable[[str], str]) -> None:
    log = captured("movescu-success")
    for end in ("Completed Sub", "Failed Sub", "Warning Sub", "DIMSE Status"):
        assert announced(log[: log.index(end, log.index("C-MOVE RSP"))]) is None


@pytest.mark.parametrize(
    ("name", "is_without"),
    [("movescu-busy", True), ("movescu-rejected", True), ("movescu-refused", True), ("movescu-abort", False)],
)
def test_an_association_that_is_not_taken_is_told_from_one_that_broke(
    name: str, is_without: bool, captured: Callable[[str], str]
) -> None:
    assert (failure(captured(name)) is not None) == is_without


def test_several_come_to_the_worst_of_them_and_to_all_that_was_counted() -> None:
    one = MoveResult(Ending.SUCCESS, 3)
    other = MoveResult(Ending.WARNING, 2, 1, 0, frozenset({"1.5"}), "some failed", 1)
    assert combined([]).ending is Ending.LOST
    assert combined([other, one]) == MoveResult(Ending.WARNING, 5, 1, 0, frozenset({"1.5"}), "some failed", 1)
    assert combined([one, MoveResult(Ending.FAILURE, explanation="no"), other]).explanation == "no"


@pytest.mark.parametrize(
    ("name", "ending", "completed", "failed", "said"),
    [
        ("movescu-success", Ending.SUCCESS, 2, 0, ""),
        ("movescu-none", Ending.SUCCESS, 0, 0, ""),
        ("movescu-b000", Ending.WARNING, 4, 2, WARNING),
        ("movescu-b000-disk-full", Ending.WARNING, 1, 1, WARNING),
    ],
)
def test_the_final_response_says_how_it_ended(
    name: str, ending: Ending, completed: int, failed: int, said: str, captured: Callable[[str], str], pacs: Peer
) -> None:
    ended = move_result(pacs, "RECEIVER", captured(name))
    assert (ended.ending, ended.completed, ended.failed, ended.warning, ended.explanation) == (
        *(ending, completed, failed, 0),
        said,
    )
    assert len(ended.failed_uids) == failed
    assert all(uid in captured(name) for uid in ended.failed_uids)


@pytest.mark.parametrize(
    ("status", "ending", "said"),
    [
        ("0xb100: Unknown", Ending.WARNING, "Unknown"),
        ("0xb006", Ending.WARNING, "status B006"),
        ("0xfe00: Cancel: Sub-operations terminated", Ending.LOST, "nothing was cancelled"),
        ("0xc000: Error: Unable to process", Ending.FAILURE, "C000 (Error: Unable to process)"),
    ],
)
def test_other_statuses_say_how_it_ended(
    status: str, ending: Ending, said: str, captured: Callable[[str], str], pacs: Peer
) -> None:
    log = captured("movescu-b000").replace(f"0xb000: {WARNING}", status)
    ended = move_result(pacs, "RECEIVER", log)
    assert (ended.ending, ended.counted) == (ending, 6)
    assert said in ended.explanation


@pytest.mark.parametrize(
    ("name", "said"),
    [("movescu-abort", "Peer aborted Association"), ("movescu-timeout", "No data available")],
)
def test_without_a_final_response_the_association_was_lost(
    name: str, said: str, captured: Callable[[str], str], pacs: Peer
) -> None:
    ended = move_result(pacs, "RECEIVER", captured(name))
    assert (ended.ending, ended.completed, ended.failed) == (Ending.LOST, 2, 0)
    assert said in ended.explanation


@pytest.mark.parametrize("end", ["I: Received Move Response 2", "D: DIMSE Status", "I: Received Final Move Response\n"])
def test_output_that_was_cut_is_no_success(end: str, captured: Callable[[str], str], pacs: Peer) -> None:
    log = captured("movescu-success")
    assert move_result(pacs, "RECEIVER", log[: log.rindex(end)]).ending is Ending.LOST


@pytest.mark.parametrize(
    ("name", "said"), [("movescu-a801", "A801"), ("movescu-c001", "C001"), ("movescu-no-receiver", "A702")]
)
def test_a_failure_status_is_told_with_advice(name: str, said: str, captured: Callable[[str], str], pacs: Peer) -> None:
    ended = move_result(pacs, "RECEIVER", captured(name))
    assert ended.ending is Ending.FAILURE
    assert said in ended.explanation
    assert "RECEIVER" in ended.explanation


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("movescu-refused", PacsUnreachable),
        ("movescu-rejected", PacsRejected),
        ("movescu-no-context", PacsRejected),
    ],
)
def test_without_an_association_there_is_no_outcome(
    name: str, error: type[Exception], captured: Callable[[str], str], pacs: Peer
) -> None:
    with pytest.raises(error):
        move_result(pacs, "RECEIVER", captured(name))
