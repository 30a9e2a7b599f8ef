"""Who goes first where a receiver has too many peers, or its disk too little room."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mkiso.config import Config, Receiver, Storage
from mkiso.dcmtk.storescp import Transfers
from mkiso.retrieve import receiver
from mkiso.retrieve.receiver import MOST, MOST_LOG, MOST_SMALL, MOST_YOUNG, UNASSOCIATED, YOUNG, Strangers

MIN_FREE, RECEIVERS = 1000, 2
NAME = "CT.X.1.2.{}.9.1"


class Receiving:
    """A receiver and its inbox, of which each test says what they know."""

    def __init__(self) -> None:
        self.transfers = Transfers(Path("/dev/null"))
        self.alive: list[int] = []
        self.sizes: dict[str, int] = {}
        self.torn: set[str] = set()
        self.expected: dict[str, bool | None] = {}
        self.senders: set[int] = set()

        self.shortened = 0

    def shorten_log(self) -> None:
        self.shortened += 1

    def children(self) -> list[int]:
        return list(self.alive)

    def end(self, child: int) -> None:
        self.alive.remove(child)

    def unended(self) -> set[str]:
        self.torn = set(self.sizes)
        return self.torn

    def size(self, name: str) -> int:
        return self.sizes.get(name, 0)

    def is_expected(self, name: str) -> bool | None:
        return self.expected[name]

    def remove(self, name: str) -> None:
        self.sizes.pop(name, None)
        self.torn.discard(name)


class Moments:
    """Time as a test tells it."""

    now = 0.0

    def seconds(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def time(monkeypatch: pytest.MonkeyPatch) -> Moments:
    moments = Moments()
    monkeypatch.setattr(receiver, "Stopwatch", lambda: moments)
    return moments


@pytest.fixture
def it() -> Receiving:
    return Receiving()


@pytest.fixture
def keep(it: Receiving, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Strangers]:
    receivers = tuple(Receiver(ae_title=f"R{number}", port=number) for number in range(1, RECEIVERS + 1))
    config = Config(storage=Storage(min_free=MIN_FREE), receivers=receivers)
    made = Strangers(it, it, config)  # type: ignore[arg-type]

    def kept(free: int = 1 << 40) -> Strangers:
        monkeypatch.setattr(receiver, "free_space", lambda _directory: free)
        made.keep_in_bounds(it.unended())
        return made

    return kept


Keep = Callable[..., Strangers]


def test_of_too_many_that_have_sent_nothing_the_oldest_go(it: Receiving, keep: Keep, time: Moments) -> None:
    it.alive = list(range(MOST + 8))
    it.transfers.associated |= set(it.alive)
    keep()
    assert len(it.alive) == MOST + 8  # an archive's first image may still come
    time.now = YOUNG + 1
    it.sizes, it.expected = {NAME.format(1): 400, NAME.format(9): 400}, {NAME.format(1): None, NAME.format(9): False}
    made = keep()
    assert (made.ended, made.removed) == (8, 400)
    assert it.alive == list(range(8, MOST + 8)) == sorted(it.transfers.associated)
    assert list(it.sizes) == [NAME.format(9)]  # nothing is left of what they began


def test_a_flood_is_bounded_at_once_and_who_has_no_association_goes_first(it: Receiving, keep: Keep) -> None:
    it.alive = list(range(MOST_YOUNG + 8))
    it.transfers.associated |= {0, 1, 2, 3}
    keep()
    assert it.alive == [0, 1, 2, 3, *range(12, MOST_YOUNG + 8)]


def test_who_has_sent_what_is_expected_or_sends_it_stays(it: Receiving, keep: Keep, time: Moments) -> None:
    it.alive = list(range(3 * MOST))
    it.senders, it.sizes, it.expected = {0}, {NAME.format(1): 8192}, {NAME.format(1): True}
    keep()
    time.now = YOUNG + 1
    keep()
    assert it.alive == [0, 1, *range(2 * MOST, 3 * MOST)]


def test_a_connection_gets_its_association_in_time_or_ends(it: Receiving, keep: Keep, time: Moments) -> None:
    it.alive = [1, 2]
    it.transfers.associated.add(2)
    keep()
    it.alive.append(3)
    time.now = UNASSOCIATED - 1
    keep()
    assert it.alive == [1, 2, 3]
    time.now = UNASSOCIATED + 1
    keep()
    assert it.alive == [2, 3]


def test_who_writes_the_log_full_goes(it: Receiving, keep: Keep) -> None:
    it.alive = [1, 2, 3]
    it.senders = {1}
    it.transfers.small.update({1: MOST_SMALL + 1, 2: MOST_SMALL + 1, 3: MOST_SMALL})
    keep()
    assert (it.alive, it.shortened) == ([1, 3], 0)
    it.transfers.read = MOST_LOG + 1
    keep()
    assert it.shortened == 1


def test_the_number_of_a_process_that_ended_may_be_anothers(it: Receiving, keep: Keep) -> None:
    it.alive = [1]
    it.senders, it.transfers.associated = {1}, {1}
    keep()
    it.alive = []
    keep()
    assert (it.senders, it.transfers.associated) == (set(), set())


def growing(it: Receiving, **sizes: int) -> None:
    """What each sends: an expected instance, a foreign one, another, and one that does not tell yet."""
    of = {"expected": True, "foreign": False, "other": False, "untold": None}
    for child, (kind, size) in enumerate(sizes.items()):
        it.alive.append(child)
        it.sizes[NAME.format(child)] = size
        it.expected[NAME.format(child)] = of[kind]


@pytest.mark.parametrize(
    ("free", "left"),
    [(1 << 40, [0, 1, 2, 3]), (MIN_FREE + 20_000, [0, 1, 2, 3]), (MIN_FREE + 4000, [0, 2, 3]), (0, [0, 3])],
)
def test_what_is_foreign_has_its_share_of_what_is_free(free: int, left: list[int], it: Receiving, keep: Keep) -> None:
    growing(it, expected=90_000, foreign=8000, other=2000, untold=4096)
    made = keep(free)
    assert it.alive == left
    assert sorted(it.sizes) == [NAME.format(child) for child in left]
    assert made.removed == (0 if 1 in left else 8000) + (0 if 2 in left else 2000)


def test_an_archives_own_association_is_not_cut_for_something_else_that_it_sends(it: Receiving, keep: Keep) -> None:
    growing(it, foreign=8000)
    it.senders = {0}
    keep(0)
    assert it.alive == [0]
