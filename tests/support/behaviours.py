"""How the archive misbehaves: a table from a behaviour's name to what it does to a C-FIND, and a C-MOVE or C-GET."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom.association import Association

from tests.support import datasets
from tests.support.holdings import Instance, read
from tests.support.moves import PENDING, SUCCESS, Archive, Move
from tests.support.slow_store import store_with_pause

Answers = Iterator[tuple[int, Dataset | None]]


def _hang() -> None:
    threading.Event().wait()


def _send(move: Move, sender: Association, instances: Sequence[Instance], unsent: int = 0, delay: float = 0) -> None:
    for number, instance in enumerate(instances, start=1):
        if move.is_over:
            return
        time.sleep(delay)
        move.store(sender, instance)
        move.answer(PENDING, len(instances) - number + unsent)


def send_all(move: Move, instances: Sequence[Instance], unsent: int = 0, delay: float = 0) -> None:
    if instances:
        with move.receiver(instances) as sender:
            _send(move, sender, instances, unsent, delay)


def _normal(move: Move) -> None:
    send_all(move, move.instances)
    move.finish()


def early(move: Move) -> None:
    instances = move.instances
    move.completed = len(instances)
    move.finish()
    threading.Thread(target=_send_late, args=(move, instances), daemon=True).start()


def _send_late(move: Move, instances: Sequence[Instance]) -> None:
    with move.receiver(instances) as sender:
        for instance in instances:
            time.sleep(0.05)
            move.store(sender, instance)


def _foreign(move: Move) -> None:
    asked = move.instances
    studies = {instance.study_uid for instance in asked}
    others = [one for one in move.archive.holdings.instances if one.study_uid not in studies]
    send_all(move, [*asked, *others[:1]])
    move.finish()


def _late_pixels(move: Move) -> None:
    instances = move.instances
    move.completed = len(instances)
    move.finish()
    threading.Thread(target=_send_late_pixels, args=(move, instances), daemon=True).start()


def _send_late_pixels(move: Move, instances: Sequence[Instance]) -> None:
    with move.receiver(instances) as sender:
        for instance in instances[:-1]:
            move.store(sender, instance)
        store_with_pause(sender, instances[-1], lambda: time.sleep(move.archive.options.delay))


def _withhold(move: Move) -> None:
    *sent, _ = move.instances
    send_all(move, sent, unsent=1)
    move.completed += 1
    move.finish()


def _extra(move: Move) -> None:
    first, *_ = asked = move.instances
    added = new_instance(first, len(asked) + 1, move.archive.scratch)
    if added.sop_instance_uid not in {instance.sop_instance_uid for instance in asked}:
        move.archive.holdings.add(added)
    _normal(move)


def new_instance(like: Instance, number: int, directory: Path) -> Instance:
    dataset = dcmread(like.path)
    dataset.SOPInstanceUID = datasets.uid(like.study_uid, "arrived during the C-MOVE")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.InstanceNumber = number
    path = directory / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path)
    return read(path)


def _stall(move: Move) -> None:
    instances, n = move.instances, move.options.n
    with move.receiver(instances) as sender:
        _send(move, sender, instances[:n], unsent=len(instances[n:]))
        _hang()


def _abort(move: Move) -> None:
    instances, n = move.instances, move.options.n
    send_all(move, instances[:n], unsent=len(instances[n:]))
    move.association.abort(block=False)


def _status(move: Move) -> None:
    move.answer(move.options.status)


def _duplicate(move: Move) -> None:
    send_all(move, [instance for instance in move.instances for _ in range(2)])
    move.finish()


def _two_associations(move: Move) -> None:
    instances = move.instances
    halves = instances[::2], instances[1::2]
    with ExitStack() as stack:
        senders = [stack.enter_context(move.receiver(instances)) for _ in halves]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda sender, half: _store_each(move, sender, half), senders, halves))
    move.finish()


def _store_each(move: Move, sender: Association, instances: Sequence[Instance]) -> None:
    for instance in instances:
        move.store(sender, instance)


def _truncate(move: Move) -> None:
    instances = move.instances
    *whole, last = instances
    with move.receiver(instances) as sender:
        _send(move, sender, whole, unsent=1)
        move.store(sender, last, _shortened(last, move.archive.scratch))
    move.finish()


def _shortened(instance: Instance, directory: Path) -> Path:
    content, path = instance.path.read_bytes(), directory / "truncated.dcm"
    pixels = dcmread(instance.path).get("PixelData", content)
    # A data set's fragments are of even length (PS3.8 E.1).
    missing = len(pixels) // 4 * 2 + len(content) % 2
    path.write_bytes(content[:-missing])
    return path


def _of_no_study(move: Move) -> None:
    """One instance does not tell its study; the status is given."""
    instances = move.instances
    *others, last = instances
    with move.receiver(instances) as sender:
        _send(move, sender, others, unsent=1)
        move.store(sender, last, _without_study(last, move.archive.scratch))
    move.answer(move.options.status)


def _without_study(instance: Instance, directory: Path) -> Path:
    dataset, path = dcmread(instance.path), directory / "of-no-study.dcm"
    del dataset.StudyInstanceUID
    dataset.save_as(path)
    return path


def _hold_open(move: Move) -> None:
    move.archive.kept.append(socket.create_connection(move.peer))
    _normal(move)


def partial(move: Move) -> None:
    instances, failing = move.instances, min(move.options.n, len(move.instances))
    sent = instances[: len(instances) - failing]
    send_all(move, sent, unsent=failing)
    move.failed += [instance.sop_instance_uid for instance in instances[len(sent) :]]
    move.finish()


def _late_request(move: Move) -> None:
    """A busy archive: what it wants of the receiver it says a while after it has connected."""
    instances = move.instances
    with move.receiver(instances, lambda _connected: time.sleep(move.options.delay)) as sender:
        _send(move, sender, instances)
    move.finish()


def _breaks_once(move: Move) -> None:
    """The first association with the receiver breaks after n instances: the others fail. The next holds."""
    if "broken" in move.archive.kept:
        _normal(move)
        return
    move.archive.kept.append("broken")
    instances, n = move.instances, move.options.n
    send_all(move, instances[:n], unsent=len(instances) - n)
    move.failed += [one.sop_instance_uid for one in instances[n:]]
    move.finish()


def _slow(move: Move) -> None:
    send_all(move, move.instances, delay=move.options.delay)
    move.finish()


def found(archive: Archive, query: Dataset, ignored: Sequence[str] = ()) -> Answers:
    for answer in archive.holdings.answers(query, ignored):
        yield PENDING, answer


def _any_accession(archive: Archive, query: Dataset) -> Answers:
    return found(archive, query, ["AccessionNumber"])


def _older_patient_id(archive: Archive, query: Dataset) -> Answers:
    """The patient was given another ID since the files were written."""
    for status, answer in found(archive, query):
        if answer is not None and "PatientID" in answer:
            answer.PatientID = "NEW001"
        yield status, answer


def _no_patient_id(archive: Archive, query: Dataset) -> Answers:
    for status, answer in found(archive, query):
        if answer is not None and "PatientID" in answer:
            answer.PatientID = ""
        yield status, answer


def _endless_answers(level: str) -> Callable[[Archive, Dataset], Answers]:
    """The same answers at one level again and again, until nobody listens."""

    def find(archive: Archive, query: Dataset) -> Answers:
        yield from found(archive, query)
        while query.QueryRetrieveLevel == level:
            yield from found(archive, query)

    return find


def _find_status(archive: Archive, _query: Dataset) -> Answers:
    yield archive.options.status, None


def _refuses_whole_studies(archive: Archive, query: Dataset) -> Answers:
    if query.QueryRetrieveLevel == "IMAGE" and not query.SeriesInstanceUID:
        yield 0xA900, None
    else:
        yield from found(archive, query)


def _ignores_whole_studies(archive: Archive, query: Dataset) -> Answers:
    if query.QueryRetrieveLevel == "IMAGE" and not query.SeriesInstanceUID:
        yield SUCCESS, None
    else:
        yield from found(archive, query)


def _hang_find(_archive: Archive, _query: Dataset) -> Answers:
    _hang()
    yield SUCCESS, None


@dataclass(frozen=True)
class Behaviour:
    """What the archive does with each kind of request; by default, what is right."""

    move: Callable[[Move], None] = _normal
    find: Callable[[Archive, Dataset], Answers] = found
    rejects: bool = False
    associates: bool = True
    most: int = 100  # associations at once
    gets: bool = True  # whether it takes C-GETs


BEHAVIOURS = {
    "normal": Behaviour(),
    "early": Behaviour(early),
    "foreign": Behaviour(_foreign),
    "late-pixels": Behaviour(_late_pixels),
    "withhold": Behaviour(_withhold),
    "extra": Behaviour(_extra),
    "hang-associate": Behaviour(associates=False),
    "reject": Behaviour(rejects=True),
    "hang-find": Behaviour(find=_hang_find),
    "hang-move": Behaviour(lambda _move: _hang()),
    "stall": Behaviour(_stall),
    "abort": Behaviour(_abort),
    "move-status": Behaviour(_status),
    "find-status": Behaviour(find=_find_status),
    "any-accession": Behaviour(find=_any_accession),
    "endless-studies": Behaviour(find=_endless_answers("STUDY")),
    "endless-instances": Behaviour(find=_endless_answers("IMAGE")),
    "older-patient-id": Behaviour(_slow, _older_patient_id),
    "no-patient-id": Behaviour(_slow, _no_patient_id),
    "refuses-whole-studies": Behaviour(find=_refuses_whole_studies),
    "ignores-whole-studies": Behaviour(find=_ignores_whole_studies),
    "duplicate": Behaviour(_duplicate),
    "two-associations": Behaviour(_two_associations),
    "truncate": Behaviour(_truncate),
    "of-no-study": Behaviour(_of_no_study),
    "hold-open": Behaviour(_hold_open),
    "partial": Behaviour(partial),
    "slow": Behaviour(_slow),
    "breaks-once": Behaviour(_breaks_once),
    "late-request": Behaviour(_late_request),
    "none": Behaviour(Move.finish),
}
