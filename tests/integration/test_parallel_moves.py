"""Several C-MOVEs at once, of series: whatever one of them does, the disc is the right one, or there is none."""

import json
import logging
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydicom import dcmread

from mkiso import errors
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from mkiso.process import OWNER
from mkiso.retrieve import moves
from mkiso.waiting import Cancellation
from tests.support.archive import running_archive
from tests.support.ports import free_ports
from tests.support.service import MKISO, config, instances_of, instances_on, mkiso, read_disc, settings
from tests.support.studies import RICHARD, Study, series_study
from tests.support.tools import environment, wait_until

SERIES = 4
COUNT = 15 + 16 + 17 + 18


@dataclass(frozen=True)
class Held:
    root: Path
    study: Study


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Held:
    root = tmp_path_factory.mktemp("held")
    return Held(root, series_study(root, RICHARD, "SERIES.001", series=SERIES, count=15))


@dataclass(frozen=True)
class Before:
    """An installation before an archive of one behaviour, and what became of its C-MOVEs."""

    installation: Installation
    directory: Path
    records: list[logging.LogRecord]

    def disc(self, cancellation: Cancellation | None = None, **order: Any) -> dict[str, bytes]:
        disc = make_disc(self.installation, Order(("SERIES.001",), "test", **order), cancellation or Cancellation())
        return instances_on(read_disc(b"".join(disc), self.directory / "disc"))

    def refusal(self, kind: type[errors.MkisoError]) -> errors.MkisoError:
        with pytest.raises(kind) as refused:
            self.disc()
        assert left(self.directory / "work") == []
        return refused.value

    @property
    def moves(self) -> list[dict[str, Any]]:
        """What the log has of each C-MOVE."""
        return [one.fields for one in self.records if one.message == "a C-MOVE ended"]  # type: ignore[attr-defined]

    @property
    def whole(self) -> list[str]:
        """How those of the whole study ended."""
        return [one["ending"] for one in self.moves if one["series"] is None]

    @property
    def of_series(self) -> Counter[str]:
        """How often each series was moved."""
        return Counter(one["series"] for one in self.moves if one["series"] is not None)


def left(work_dir: Path) -> list[str]:
    """Directories and processes of jobs."""
    found = [path.name for path in work_dir.glob("dicomdir_*")]
    for process in psutil.process_iter():
        try:
            if process.environ().get(OWNER, "").startswith(str(work_dir)):
                found.append(process.name())
        except psutil.Error:
            continue
    return found


Start = Callable[..., Any]


@pytest.fixture
def before(held: Held, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Few and small as the images are, it is worth while to move them by series."""
    for limit, value in {
        "WORTH": 0,
        "SHORTEST": 0.01,
        "EARLY": 0.9,
        "FEWEST": 40,
        "FAST": 1_000_000,
        "LOOK": 0.005,
    }.items():
        monkeypatch.setattr(moves, limit, value)
    caplog.set_level(logging.INFO, "mkiso.retrieve")

    @contextmanager
    def start(behaviour: str, retrieve: dict[str, Any] | None = None, **options: object) -> Iterator[Before]:
        port, receiver = free_ports(2)
        sections = {"media": {"pictures": 0}, "retrieve": {"settle_timeout": 1, **(retrieve or {})}}
        made = config(tmp_path, port, {"RECEIVER": receiver}, **sections)
        with running_archive(port, {"RECEIVER": receiver}, held.root, behaviour, **{"pace": 0.01} | options):
            installation = Installation(made)
            yield Before(installation, tmp_path, caplog.records)
            installation.ledger.close()

    return start


def test_the_series_come_side_by_side_once_the_archive_has_said_how_many_there_are(before: Start, held: Held) -> None:
    with before("normal") as it:
        assert it.disc() == instances_of([held.study])
        assert it.whole == ["lost"]  # ended
        assert sorted(it.of_series.values()) == [1] * SERIES
        assert {one["ending"] for one in it.moves if one["series"]} == {"success"}


@pytest.mark.parametrize("behaviour", ["one-aborts", "one-hangs", "one-is-refused", "one-sends-another"])
def test_a_series_whose_move_fails_is_moved_once_more(behaviour: str, before: Start, held: Held) -> None:
    with before(behaviour, retrieve={"stall_timeout": 3 if "hangs" in behaviour else 60}) as it:
        assert it.disc() == instances_of([held.study])
        assert sorted(it.of_series.values()) == [1] * (SERIES - 1) + [2]
        assert it.whole == ["lost"]


@pytest.mark.parametrize("behaviour", ["one-hangs-always", "one-is-refused-always", "one-sends-another-always"])
def test_where_that_fails_too_the_study_comes_as_a_whole(behaviour: str, before: Start, held: Held) -> None:
    with before(behaviour, retrieve={"stall_timeout": 3 if "hangs" in behaviour else 60}) as it:
        assert it.disc() == instances_of([held.study])
        assert it.whole == ["lost", "success"]


def test_an_archive_that_refuses_series_gives_the_study(before: Start, held: Held) -> None:
    with before("refuses-series") as it:
        assert it.disc() == instances_of([held.study])
        assert (it.whole, sum(it.of_series.values())) == (["lost", "success"], 1)


def test_an_archive_that_sends_the_study_for_each_series_gives_it_once(before: Start, held: Held) -> None:
    with before("sends-whole-studies") as it:
        assert it.disc() == instances_of([held.study])
        assert it.whole == ["lost", "success"]


def test_an_archive_that_goes_on_with_a_c_move_that_was_ended_fails_nothing(before: Start, held: Held) -> None:
    with before("goes-on") as it:
        assert it.disc() == instances_of([held.study])


@pytest.mark.parametrize(("behaviour", "whole"), [("early", ["success"]), ("never-answers", ["lost"])])
def test_an_archive_that_does_not_say_how_many_are_to_come_gives_the_study(
    behaviour: str, whole: list[str], before: Start, held: Held
) -> None:
    with before(behaviour, retrieve={"settle_timeout": 2}) as it:
        assert it.disc() == instances_of([held.study])
        assert (it.whole, it.of_series) == (whole, Counter())


@pytest.mark.parametrize(("limit", "value"), [("WORTH", 60), ("FAST", 0)])
def test_a_study_that_is_soon_done_or_comes_fast_comes_as_a_whole(
    limit: str, value: float, before: Start, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moves, limit, value)
    with before("normal") as it:
        assert it.disc() == instances_of([held.study])
        assert (it.whole, it.of_series) == (["success"], Counter())


def test_a_series_that_is_in_no_list_is_missed(before: Start) -> None:
    """By C-MOVEs of the others nobody would know of it."""
    with before("hides-a-series") as it:
        error = it.refusal(errors.Incomplete)
        assert "list is cut" in error.detail
        assert error.fields["expected"] == COUNT - 18


def test_more_than_a_series_lists_and_sends_is_not_explained_by_the_others(before: Start) -> None:
    with before("one-counts-two-more") as it:
        error = it.refusal(errors.Incomplete)
        assert f"counted {COUNT + 2} when it sent them" in error.detail


def test_an_instance_that_came_into_the_archive_meanwhile_is_on_the_disc_too(before: Start) -> None:
    with before("extra") as it:
        assert len(it.disc()) == COUNT + 1


def test_an_archive_that_takes_two_associations_and_no_third_fails_nothing(before: Start, held: Held) -> None:
    with before("two-at-most") as it:
        assert it.disc() == instances_of([held.study])
        assert sorted(it.of_series.values()) == [1] * SERIES
        assert it.whole == ["lost"]


def test_chosen_series_come_side_by_side(before: Start, held: Held) -> None:
    with before("normal") as it:
        instances = instances_of([held.study])
        numbers = {str(one.SeriesInstanceUID): int(one.SeriesNumber) for one in map(dcmread, held.study.files)}
        found = it.disc(series_uids=tuple(uid for uid, number in numbers.items() if number < SERIES))
        assert (len(found), found.items() <= instances.items()) == (COUNT - 18, True)
        assert (it.whole, sorted(it.of_series.values())) == ([], [1, 1, 1])


def test_a_cancel_in_the_middle_leaves_nothing(before: Start, tmp_path: Path) -> None:
    cancellation = Cancellation()
    with before("slow", delay=0.05) as it, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(it.disc, cancellation)
        wait_until(lambda: left(tmp_path / "work").count("movescu") > 1, 20, lambda: f"{left(tmp_path / 'work')}")
        cancellation.cancel("enough")
        with pytest.raises(errors.Cancelled):
            asked.result(20)
        assert left(tmp_path / "work") == []


def test_a_worker_that_is_killed_in_the_middle_leaves_nothing_past_a_sweep(tmp_path: Path) -> None:
    port, receiver = free_ports(2)
    series_study(tmp_path / "held", RICHARD, "SERIES.001", series=SERIES, count=25)
    file = tmp_path / "mkiso.yaml"
    file.write_text(json.dumps(settings(tmp_path, port, {"RECEIVER": receiver})))  # JSON is YAML
    with running_archive(port, {"RECEIVER": receiver}, tmp_path / "held", "slow", delay=0.05):
        argv = (MKISO, "iso", "SERIES.001", "-o", tmp_path / "x.iso", "--config", file)
        process = subprocess.Popen(argv, stderr=subprocess.DEVNULL, env=environment())
        wait_until(lambda: left(tmp_path / "work").count("movescu") > 1, 20, lambda: f"{left(tmp_path / 'work')}")
        process.kill()
        process.wait()
        assert b"cleared away after job" in mkiso("sweep", "--config", file).stdout
        assert left(tmp_path / "work") == []
