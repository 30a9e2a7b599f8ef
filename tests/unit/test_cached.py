"""What is cached: looked at beside who asks, one look at a time, and never given when it is too old."""

import threading
import time
from collections.abc import Callable

import pytest

from mkiso.errors import LedgerUnavailable
from mkiso.installation import Cached


class Looks:
    """A look that takes as long as it is held."""

    def __init__(self) -> None:
        self.count = 0
        self.may_end = threading.Event()
        self.fails = False

    def __call__(self) -> str:
        self.count += 1
        assert self.may_end.wait(10)
        if self.fails:
            raise LedgerUnavailable("It is away.")
        return "good"


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest.fixture
def cached(looks: Looks) -> Cached[str]:
    return Cached(looks, renewed=10, oldest=30)


def test_who_asks_never_waits_and_one_thread_looks(
    looks: Looks, cached: Cached[str], eventually: Callable[..., None]
) -> None:
    assert [cached.known() for _ in range(20)] == [None] * 20
    looks.may_end.set()
    eventually(lambda: cached.known() == "good")
    assert looks.count == 1


def test_a_state_is_looked_at_again_after_a_while(
    looks: Looks, cached: Cached[str], eventually: Callable[..., None]
) -> None:
    looks.may_end.set()
    eventually(lambda: cached.known() == "good")
    cached.renewed = 0
    eventually(lambda: cached.known() == "good" and looks.count > 1)


def test_an_old_state_is_not_given_but_to_who_takes_it(
    looks: Looks, cached: Cached[str], eventually: Callable[..., None]
) -> None:
    looks.may_end.set()
    eventually(lambda: cached.known() == "good")
    looks.may_end.clear()
    cached.renewed = cached.oldest = 0
    assert cached.known() is None
    assert cached.known(oldest=60) == "good"
    looks.may_end.set()


def test_a_look_that_fails_leaves_the_state_unknown(
    looks: Looks, cached: Cached[str], eventually: Callable[..., None]
) -> None:
    looks.fails = True
    looks.may_end.set()
    cached.known()
    eventually(lambda: cached.known() is None and looks.count > 1)
    looks.fails = False
    eventually(lambda: cached.known() == "good")


def test_the_first_who_ask_wait_for_the_one_look(looks: Looks, cached: Cached[str]) -> None:
    given: list[str | None] = []
    waiting = [threading.Thread(target=lambda: given.append(cached.awaited(10))) for _ in range(20)]
    for one in waiting:
        one.start()
    looks.may_end.set()
    for one in waiting:
        one.join()
    assert (given, looks.count) == (["good"] * 20, 1)


def test_nobody_waits_longer_than_they_will(looks: Looks, cached: Cached[str]) -> None:
    began = time.monotonic()
    assert [cached.awaited(0.05) for _ in range(3)] == [None] * 3
    assert (time.monotonic() - began < 5, looks.count) == (True, 1)
    looks.may_end.set()


def test_what_is_known_is_given_while_a_look_hangs(
    looks: Looks, cached: Cached[str], eventually: Callable[..., None]
) -> None:
    looks.may_end.set()
    assert cached.awaited(10) == "good"
    looks.may_end.clear()
    cached.renewed = 0
    eventually(lambda: cached.awaited(0.01) == "good" and looks.count == 2)
    assert [cached.awaited(10) for _ in range(5)] == ["good"] * 5
    assert looks.count == 2
    looks.may_end.set()
