"""What storescu and dcmsend say of each instance, read while they say it."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from mkiso.dcmtk.sending import (
    DcmsendProgress,
    Outcome,
    StoreProgress,
    StoreResult,
    StorescuProgress,
    store_result,
)

FILES = [Path("sent", f"1.2.3.{number}") for number in range(5)]
NO_REPORT = Path("/nonexistent/report.txt")
# As the captured programs sent: 1.2.3.1, .0, .2, .3.
ANSWERED = [Outcome.ACKNOWLEDGED, Outcome.WARNED, Outcome.WARNED, Outcome.REFUSED]
Start = Callable[..., StoreProgress]


def sending(tool: str, files: Iterable[Path] = FILES, report: Path = NO_REPORT) -> StoreProgress:
    return StorescuProgress(files) if tool == "storescu" else DcmsendProgress(files, report)


def outcomes(progress: StoreProgress) -> list[Outcome]:
    return [progress.results[FILES[number]].outcome for number in (1, 0, 2, 3)]


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_each_answer_counts_when_it_is_there(tool: str, captured: Callable[[str], str]) -> None:
    progress, counts = sending(tool), []
    for line in captured(f"{tool}-statuses").splitlines():
        progress.take(line)
        counts.append(progress.arrived)
    assert sorted(set(counts)) == [0, 1, 2, 3]
    assert progress.news() == [FILES[number] for number in (1, 0, 2)]
    assert progress.news() == []
    assert counts == sorted(counts)
    assert outcomes(progress) == ANSWERED
    assert progress.results[FILES[4]] == StoreResult(Outcome.NOT_TRIED)
    assert progress.associated


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_a_peer_that_is_busy_has_taken_nothing(tool: str, captured: Callable[[str], str]) -> None:
    progress = sending(tool)
    for line in captured(f"{tool}-busy").splitlines():
        progress.take(line)
    assert not progress.associated
    assert set(progress.final_results().values()) == {StoreResult(Outcome.NOT_TRIED)}


def test_an_answer_that_does_not_name_its_instance_is_of_the_one_that_was_sent(captured: Callable[[str], str]) -> None:
    progress = sending("dcmsend")
    answering = False
    for line in captured("dcmsend-statuses").splitlines():
        if "Message Type" in line:
            answering = line.endswith("C-STORE RSP")
        named = line.startswith("D: Affected SOP Instance UID")
        progress.take("D: Affected SOP Instance UID     : none" if answering and named else line)
    assert outcomes(progress) == ANSWERED


def test_dcmsends_report_has_the_last_word(captured: Callable[[str], str], tmp_path: Path) -> None:
    report = tmp_path / "report.txt"
    report.write_text(captured("dcmsend-statuses-report"))
    told = sending("dcmsend", report=report).final_results()
    assert [told[FILES[number]].outcome for number in (1, 0, 2, 3)] == ANSWERED
    assert told[FILES[0]].why == "Warning: CoercionOfDataElements"


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("Success", Outcome.ACKNOWLEDGED),
        ("Warning", Outcome.WARNED),
        ("Unknown Status: 0xb123", Outcome.WARNED),
        ("Unknown Status: 0x110", Outcome.REFUSED),
        ("Unknown Status: 0x111", Outcome.ALREADY_THERE),
        ("Refused: 0x0111", Outcome.ALREADY_THERE),
        ("Unknown Status: 0xc111", Outcome.REFUSED),
        ("Refused: OutOfResources", Outcome.REFUSED),
    ],
)
def test_only_success_warnings_and_a_duplicate_say_that_an_instance_is_there(text: str, outcome: Outcome) -> None:
    assert store_result(text).outcome is outcome
