"""Archives whose lists are cut, and archives whose C-MOVE does not end as it should: what they answer, and send."""

import threading
import time
from collections.abc import Callable

from pydicom.dataset import Dataset

from tests.support.behaviours import (
    Answers,
    Behaviour,
    early,
    found,
    new_instance,
    partial,
    send_all,
)
from tests.support.moves import CANCELLED, PENDING, SOME_FAILED, Archive, Move

ODD_WARNING, FAILURE = 0xB100, 0xC000


def cut(archive: Archive, query: Dataset) -> Answers:
    """At most `n` answers to a query for instances, those that are sent first, and then Success."""
    if query.QueryRetrieveLevel != "IMAGE":
        return found(archive, query)
    first = [instance.sop_instance_uid for instance in archive.holdings.matching(query)][: archive.options.n]
    return ((status, answer) for status, answer in found(archive, query) if answer.SOPInstanceUID in first)


def cut_whole_studies(archive: Archive, query: Dataset) -> Answers:
    """As `cut`, but of one series it lists all."""
    return (found if query.get("SeriesInstanceUID") else cut)(archive, query)


def _counts_what_it_keeps(move: Move) -> None:
    """Sends what its cut list has, and counts all as completed."""
    send_all(move, move.instances[: move.options.n])
    move.completed = len(move.instances)
    move.finish()


def _new_one_fails(move: Move) -> None:
    """The study grows while it is sent, and just the new instance cannot be."""
    instances = move.instances
    added = new_instance(instances[0], len(instances) + 1, move.archive.scratch)
    move.archive.holdings.add(added)
    send_all(move, instances)
    move.failed.append(added.sop_instance_uid)
    move.finish()


def _resent(move: Move) -> None:
    """Counts each of its two copies."""
    send_all(move, [instance for instance in move.instances for _ in range(2)])
    move.answer(SOME_FAILED)


def _pending_for_ever(move: Move) -> None:
    send_all(move, move.instances)
    while not move.is_over:
        move.answer(PENDING, 0)
        time.sleep(0.1)


def _never_answers(move: Move) -> None:
    with move.receiver(move.instances) as sender:
        for instance in move.instances:
            move.store(sender, instance)
    threading.Event().wait()


def _ending(status: int) -> Callable[[Move], None]:
    def move_and_say(move: Move) -> None:
        send_all(move, move.instances)
        move.answer(status)

    return move_and_say


BEHAVIOURS = {
    "cut": Behaviour(find=cut),
    "cut-whole-studies": Behaviour(find=cut_whole_studies),
    "cut-and-early": Behaviour(early, cut_whole_studies),
    "cut-and-failed": Behaviour(partial, cut),
    "cut-and-kept": Behaviour(_counts_what_it_keeps, cut),
    "new-one-fails": Behaviour(_new_one_fails),
    "resent": Behaviour(_resent),
    "pending-for-ever": Behaviour(_pending_for_ever),
    "never-answers": Behaviour(_never_answers),
    "cut-and-never-answers": Behaviour(_never_answers, cut),
    "odd-warning": Behaviour(_ending(ODD_WARNING)),
    "odd-cancel": Behaviour(_ending(CANCELLED)),
    "fails-in-the-end": Behaviour(_ending(FAILURE)),
}
