"""Which studies are moved by series, and how many of these at once."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from mkiso.dcmtk.movescu import Ending, MoveResult
from mkiso.retrieve.moves import FEWEST, LEAST, Alone, NotBySeries, Pace, SideBySide, by_series
from mkiso.retrieve.scu import Part
from tests.unit.test_studies import study

MOST = 4


def listed(**series: int) -> dict[str, str]:
    """So many instances of each series."""
    uids = {name: f"1.4.{number}" for number, name in enumerate(series, start=1)}
    return {f"{uids[name]}.{n}": uids[name] for name, count in series.items() for n in range(1, count + 1)}


def test_a_study_of_several_series_is_moved_by_series() -> None:
    parts = by_series(study(instances=listed(a=60, b=40)))
    assert {part.series_uid: len(part.keys) for part in parts} == {"1.4.1": 60, "1.4.2": 40}


@pytest.mark.parametrize(
    "instances",
    [
        listed(a=FEWEST),
        listed(a=FEWEST - 2, b=1),
        {f"1.4.{n}": f"1.5.{n // (LEAST - 1)}" for n in range(FEWEST)},
        listed(a=60, b=40) | {"1.9": ""},
        listed(a=60, b=40) | {"1.9": "no UID"},
    ],
    ids=["one series", "few instances", "small series", "a series without a UID", "a series that cannot be asked for"],
)
def test_others_are_moved_as_a_whole(instances: dict[str, str]) -> None:
    assert by_series(study(instances=instances)) == []


class Archive:
    """It has a rate for so many C-MOVEs, each of which begins to send after 0.3 s; each image is of 1,000 bytes."""

    def __init__(self, *rates: float, begins: bool = True, alone: Alone | None = None) -> None:
        self.pace, self.rates, self.begins = Pace(MOST, 0.0, alone), rates, begins
        self.now, self.images, self.numbers = 0.0, 0.0, [self.pace.number]
        self.began = [self.now] * MOST

    def run(self, seconds: float, step: float = 0.05) -> list[int]:
        """Each number at once that there has been."""
        for _ in range(round(seconds / step)):
            self.now += step
            begun = self.began[: self.pace.number if self.begins else 1]
            sending = sum(self.now - began > 0.3 for began in begun)
            self.images += self.rates[sending - 1] * step if sending else 0
            self.pace.look(sending, int(self.images), 1000 * int(self.images), self.now)
            if self.numbers[-1] != self.pace.number:
                self.began[self.numbers[-1] :] = [self.now] * (MOST - self.numbers[-1])
                self.numbers.append(self.pace.number)
        return self.numbers


@pytest.mark.parametrize(
    ("rates", "numbers"),
    [
        ((100, 135, 170, 200), [1, 2, 3, 4]),
        ((100, 200, 300, 400), [1, 2, 4]),
        ((100, 105, 105, 105), [1, 2, 1]),
        ((100, 135, 140, 140), [1, 2, 3, 2]),
        ((20, 40, 60, 80), [1, 2, 3]),
    ],
    ids=["each helps", "each helps in full", "none helps", "the second helps", "what few images show is not believed"],
)
def test_one_more_is_begun_while_the_rate_grows_by_more_than_a_tenth(
    rates: tuple[float, ...], numbers: list[int]
) -> None:
    archive = Archive(*rates)
    assert archive.run(4)[: len(numbers)] == numbers
    assert max(archive.numbers) <= MOST


@pytest.mark.parametrize(
    ("rates", "numbers"),
    [((100, 200, 300, 400), [2, 4]), ((100, 135, 170, 200), [2, 3, 4]), ((100, 105, 105, 105), [2, 1])],
    ids=["each helps in full", "each helps", "none helps"],
)
def test_two_begin_where_it_is_known_what_one_does(rates: tuple[float, ...], numbers: list[int]) -> None:
    assert Archive(*rates, alone=Alone(0.3, 100, 100_000)).run(4)[: len(numbers)] == numbers


@pytest.mark.parametrize("alone", [None, Alone(0.3, 100, 100_000)])
def test_an_archive_that_lets_the_second_wait_is_given_all_that_it_takes(alone: Alone | None) -> None:
    assert Archive(100, begins=False, alone=alone).run(3) == ([2, 4] if alone else [1, 2, 4])


def test_one_that_was_refused_is_not_asked_for_again() -> None:
    archive = Archive(100, 200, 300, 400)
    archive.run(0.5)
    archive.pace.refused(1)
    assert archive.run(3) == [1, 2, 1]


class Refusing:
    """A C-MOVE SCU whose series end in this order, a look each, the refused ones with a failure status."""

    def __init__(self, order: str, refused: str) -> None:
        self.order, self.refused = list(order), refused
        self.config = SimpleNamespace(retrieve=SimpleNamespace(settle_timeout=60, stall_timeout=60))
        self.children: dict[str, Any] = {}

    def tick(self, _least: float) -> float:
        if self.order and self.order[0] in self.children:
            self.children[self.order.pop(0)].rc = 0
        return 0

    def begun(self, part: Part) -> Any:
        self.children[str(part.series_uid)] = child = SimpleNamespace(rc=None)
        return nullcontext(child)

    def failure(self, _part: Part) -> None:
        """It takes every association."""

    def announced(self, _part: Part) -> None:
        """It does not tell."""

    def result(self, part: Part) -> MoveResult:
        return (
            MoveResult(Ending.FAILURE) if part.series_uid == self.refused else MoveResult(Ending.SUCCESS, completed=1)
        )


def side_by_side(scu: Any, came: set[tuple[str, str]]) -> list[str | None]:
    """The series in the order in which they ended; two begin at once, and of their instances these have come."""
    inbox: Any = SimpleNamespace(keys=came, received=0, bytes=0, quiet=SimpleNamespace(seconds=lambda: 0.0))
    side = SideBySide(scu, inbox, scu.tick, lambda _silent: None)
    parts = [Part("1.2", uid, frozenset({("1.2", f"{uid}1"), ("1.2", f"{uid}2")})) for uid in "abc"]
    side.run(parts, 2, Alone(60.0, 1.0, 1.0))
    return [part.series_uid for part in side.results]


def test_a_series_that_is_refused_while_another_one_comes_is_one_series() -> None:
    assert side_by_side(Refusing("bac", refused="b"), {("1.2", "a1")}) == ["b", "a", "c"]


def test_an_archive_that_refuses_the_first_while_nothing_comes_gives_no_series() -> None:
    with pytest.raises(NotBySeries):
        side_by_side(Refusing("bac", refused="b"), set())
