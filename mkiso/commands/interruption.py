"""A command that is told to stop: by Ctrl-C, by SIGTERM, or because its terminal is gone."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from mkiso.cancellation import Cancellation
from mkiso.errors import Cancelled

INTERRUPTED = 130
INTERRUPTION = "The command was interrupted."


def stop_on_signals() -> None:
    """Have every signal that ends a command end it as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


@contextmanager
def interruptible() -> Iterator[Cancellation]:
    """A job that is interrupted cleans up in peace, and a relay writes down what had arrived by then.

    A second signal gets through to where the job waits and cannot ask: a reader that does not read.
    """
    cancellation = Cancellation()

    def interrupt(_number: int, _frame: object) -> None:
        if cancellation.reason:
            raise KeyboardInterrupt
        cancellation.cancel(INTERRUPTION)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(one, interrupt) for one in signals]
    try:
        yield cancellation
    except Cancelled:
        if cancellation.reason == INTERRUPTION:
            raise KeyboardInterrupt from None
        raise
    finally:
        for one, handler in zip(signals, before, strict=True):
            signal.signal(one, handler)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
