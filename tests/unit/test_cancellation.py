import pytest

from mkiso.errors import Cancelled
from mkiso.waiting import Cancellation


def test_a_job_that_nobody_stopped_goes_on() -> None:
    cancellation = Cancellation()
    cancellation.checkpoint()
    assert cancellation.reason is None


def test_the_first_reason_stands() -> None:
    cancellation = Cancellation()
    cancellation.cancel("first")
    cancellation.cancel("second")
    assert cancellation.reason == "first"
    with pytest.raises(Cancelled) as raised:
        cancellation.checkpoint()
    assert raised.value.detail == "first"


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_callback_is_called_once_whether_it_comes_before_or_after_the_cancel(order: str) -> None:
    cancellation, called = Cancellation(), []
    steps = [lambda: cancellation.on_cancel(lambda: called.append(1)), lambda: cancellation.cancel("stop")]
    for step in steps if order == "before" else reversed(steps):
        step()
    cancellation.cancel("again")
    assert called == [1]


def test_a_callback_may_ask_for_the_reason() -> None:
    cancellation, heard = Cancellation(), []
    cancellation.on_cancel(lambda: heard.append(cancellation.reason))
    cancellation.cancel("stop")
    assert heard == ["stop"]
