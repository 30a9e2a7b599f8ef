"""Archives that are asked for several series at once: what one of the C-MOVEs does."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from pydicom.dataset import Dataset

from tests.support.behaviours import Answers, Behaviour, found, send_all
from tests.support.moves import PENDING, Archive, Move

ODD = 2  # the number of the series that is not sent as it should
FIRST, LAST = 1, 4
DONE = "a series has come"


def _number(move: Move) -> int:
    """Of the series that is asked for; none of a whole study."""
    return int(move.instances[0].header.SeriesNumber) if move.level == "SERIES" else 0


def _odd(how: Callable[[Move], None], times: int = 1) -> Callable[[Move], None]:
    """One series is sent in that way the first `times`; all else is right."""

    def move_as_it_is(move: Move) -> None:
        if _number(move) == ODD and move.archive.kept.count(how) < times:
            move.archive.kept.append(how)
            how(move)
            return
        send_all(move, move.instances)
        move.finish()
        if _number(move):
            move.archive.kept.append(DONE)

    return move_as_it_is


def _aborts(move: Move) -> None:
    send_all(move, move.instances[:3], unsent=len(move.instances) - 3)
    move.association.abort(block=False)


def _hangs(move: Move) -> None:
    send_all(move, move.instances[:3], unsent=len(move.instances) - 3)
    threading.Event().wait()


def _refuses(move: Move) -> None:
    """Once another series has come."""
    deadline = time.monotonic() + 20
    while DONE not in move.archive.kept and time.monotonic() < deadline:
        time.sleep(0.05)
    move.answer(move.options.status)


def _sends_another(move: Move) -> None:
    """One that has fewer instances."""
    others = [one for one in move.of_whole_studies if one.header.SeriesNumber == FIRST]
    send_all(move, others)
    move.finish()


def _counts_two_more(move: Move) -> None:
    send_all(move, move.instances)
    move.completed += 2
    move.finish()


def _goes_on(move: Move) -> None:
    """Whoever asked has gone, and that is no reason to stop."""
    with move.receiver(move.instances) as sender:
        for number, instance in enumerate(move.instances, start=1):
            move.store(sender, instance)
            with suppress(Exception):
                move.answer(PENDING, len(move.instances) - number)
    move.answer(0, 0)


def _hides_the_last(archive: Archive, query: Dataset) -> Answers:
    """One series is in no list, and not counted."""
    for status, answer in found(archive, query):
        if answer is not None and "NumberOfStudyRelatedInstances" in answer:
            answer.NumberOfStudyRelatedInstances = None
        hidden = query.QueryRetrieveLevel != "STUDY" and answer is not None and _is_last(archive, answer)
        if not hidden:
            yield status, answer


def _is_last(archive: Archive, answer: Dataset) -> bool:
    headers = (one.header for one in archive.holdings.instances)
    return any(one.SeriesInstanceUID == answer.SeriesInstanceUID and one.SeriesNumber == LAST for one in headers)


BEHAVIOURS = {
    "one-aborts": Behaviour(_odd(_aborts)),
    "one-hangs": Behaviour(_odd(_hangs)),
    "one-hangs-always": Behaviour(_odd(_hangs, 99)),
    "one-is-refused": Behaviour(_odd(_refuses)),
    "one-is-refused-always": Behaviour(_odd(_refuses, 99)),
    "one-sends-another": Behaviour(_odd(_sends_another)),
    "one-sends-another-always": Behaviour(_odd(_sends_another, 99)),
    "one-counts-two-more": Behaviour(_odd(_counts_two_more, 99)),
    "goes-on": Behaviour(_goes_on),
    "hides-a-series": Behaviour(find=_hides_the_last),
    "two-at-most": Behaviour(most=2),
}
