"""Archives that do with single series as they please: what they answer to a query for one, and what they send."""

from pydicom.dataset import Dataset

from tests.support.behaviours import Answers, Behaviour, found, send_all
from tests.support.moves import Archive, Move

DOES_NOT_MATCH = 0xA900
MOVED = "moved"


def _refuses_series(move: Move) -> None:
    if move.level == "SERIES":
        move.answer(DOES_NOT_MATCH)
    else:
        _sends(move)


def _sends(move: Move) -> None:
    send_all(move, move.instances)
    move.finish()


def _sends_whole_studies(move: Move) -> None:
    send_all(move, move.of_whole_studies)
    move.finish()


def _counts_two_more(move: Move) -> None:
    """From the second C-MOVE on; they are in no list, and never come."""
    send_all(move, move.instances)
    move.completed += 2 if MOVED in move.archive.kept else 0
    move.archive.kept.append(MOVED)
    move.finish()


def _breaks_at_the_second(move: Move) -> None:
    """The first try of the second C-MOVE loses all but its first instance."""
    move.archive.kept.append(MOVED)
    if move.archive.kept.count(MOVED) == 2:
        first, *others = move.instances
        send_all(move, [first], unsent=len(others))
        move.failed.extend(one.sop_instance_uid for one in others)
        move.finish()
    else:
        _sends(move)


def _any_series(archive: Archive, query: Dataset) -> Answers:
    """Takes no notice of the Series Instance UID."""
    return found(archive, query, ignored=("SeriesInstanceUID",))


def _says_no_series(archive: Archive, query: Dataset) -> Answers:
    """Nor does it tell of which series its answers are."""
    for status, answer in _any_series(archive, query):
        if query.QueryRetrieveLevel == "IMAGE" and answer is not None:
            answer.SeriesInstanceUID = ""
        yield status, answer


def _no_relations(archive: Archive, query: Dataset) -> Answers:
    """A series is asked for with its study, or not at all (PS3.4 C.4.1.3.1.1)."""
    if query.QueryRetrieveLevel == "SERIES" and not query.StudyInstanceUID:
        return iter([(DOES_NOT_MATCH, None)])
    return found(archive, query)


def _finds_all(archive: Archive, query: Dataset) -> Answers:
    """Takes no notice of a patient, or of days."""
    return found(archive, query, ignored=("PatientName", "PatientID", "StudyDate", "AccessionNumber"))


BEHAVIOURS = {
    "refuses-series": Behaviour(_refuses_series),
    "sends-whole-studies": Behaviour(_sends_whole_studies, _any_series),
    "says-no-series": Behaviour(_sends_whole_studies, _says_no_series),
    "breaks-at-the-second": Behaviour(_breaks_at_the_second),
    "counts-two-more": Behaviour(_counts_two_more),
    "no-relations": Behaviour(find=_no_relations),
    "finds-all": Behaviour(find=_finds_all),
}
