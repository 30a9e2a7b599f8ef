"""The state of the service: looked at beside who asks, never while they wait."""

import threading
from collections.abc import Callable

import pytest

from mkiso import status
from mkiso.errors import LedgerUnavailable
from mkiso.status import LastStatus, Status

GOOD = Status(True, 0, 1, 0, 10**9)


class Looks:
    """A look that takes as long as it is held."""

    def __init__(self) -> None:
        self.count = 0
        self.may_end = threading.Event()
        self.fails = False

    def __call__(self) -> Status:
        self.count += 1
        assert self.may_end.wait(10)
        if self.fails:
            raise LedgerUnavailable("It is away.")
        return GOOD


@pytest.fixture
def looks() -> Looks:
    return Looks()


def test_who_asks_never_waits_and_one_thread_looks(looks: Looks, eventually: Callable[..., None]) -> None:
    last = LastStatus(looks)
    assert [last.known() for _ in range(20)] == [None] * 20
    looks.may_end.set()
    eventually(lambda: last.known() == GOOD)
    assert looks.count == 1


def test_a_state_is_looked_at_again_after_a_while(
    looks: Looks, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    looks.may_end.set()
    last = LastStatus(looks)
    eventually(lambda: last.known() == GOOD)
    monkeypatch.setattr(status, "RENEWED", 0.0)
    eventually(lambda: last.known() == GOOD and looks.count > 1)


def test_an_old_state_is_not_shown(
    looks: Looks, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    looks.may_end.set()
    last = LastStatus(looks)
    eventually(lambda: last.known() == GOOD)
    looks.may_end.clear()
    monkeypatch.setattr(status, "RENEWED", 0.0)
    monkeypatch.setattr(status, "OLDEST", 0.0)
    assert last.known() is None
    looks.may_end.set()


def test_a_look_that_fails_leaves_the_state_unknown(looks: Looks, eventually: Callable[..., None]) -> None:
    looks.fails = True
    looks.may_end.set()
    last = LastStatus(looks)
    last.known()
    eventually(lambda: last.known() is None and looks.count > 1)
    looks.fails = False
    eventually(lambda: last.known() == GOOD)
