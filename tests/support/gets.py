"""Archives that are asked by C-GET: what goes wrong on the one association on which they answer, and send."""

import threading
from collections.abc import Callable

from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.support.behaviours import Answers, Behaviour, found, send_all
from tests.support.moves import Archive, Move
from tests.support.service import data_set
from tests.support.slow_store import DATA, begin_store, hang_up, send


def _in_the_midst(then: Callable[[Move], object]) -> Behaviour:
    """Of the last instance the first half is sent."""

    def move_half(move: Move) -> None:
        *others, last = move.instances
        data = data_set(last.path)
        with move.receiver(move.instances) as sender:
            for one in others:
                move.store(sender, one)  # without a response, which might come in the midst, too
            begin_store(sender, last)
            send(sender, last, data[: len(data) // 4 * 2], DATA)
        then(move)

    return Behaviour(move_half)


def _differing(move: Move) -> None:
    """The first instance comes twice, with two descriptions."""
    first, *others = move.instances
    dataset, path = dcmread(first.path), move.archive.scratch / "differing.dcm"
    dataset.SeriesDescription = "Another"
    dataset.save_as(path)
    send_all(move, [first, *others], unsent=1)
    with move.receiver([first]) as sender:
        move.store(sender, first, path)
    move.finish()


def _no_classes(archive: Archive, query: Dataset) -> Answers:
    for status, answer in found(archive, query):
        if answer is not None and "SOPClassUID" in answer:
            del answer.SOPClassUID
        yield status, answer


BEHAVIOURS = {
    "takes-no-get": Behaviour(gets=False),
    "tells-no-class": Behaviour(find=_no_classes),
    "differing": Behaviour(_differing),
    "hangs-in-an-instance": _in_the_midst(lambda _move: threading.Event().wait()),
    "hangs-up-in-an-instance": _in_the_midst(lambda move: hang_up(move.association)),
}
