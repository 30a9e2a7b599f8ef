"""Archives whose C-FIND answers are odd: repeated, in no character set, with identifiers that are none, or no data."""

from collections.abc import Callable, Iterator
from copy import deepcopy

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import service_class
from pynetdicom.dsutils import encode

from tests.support.behaviours import Answers, Behaviour, found
from tests.support.moves import PENDING, Archive

REFUSED = 0xA900
AS_SENT = "_as_sent"


def _encoded(dataset: Dataset, *how: bool) -> bytes | None:
    """As pynetdicom does (its VRs are implicit), and then with some bytes of an answer exchanged for others."""
    content = encode(dataset, *how)
    for old, new in getattr(dataset, AS_SENT, ()):
        assert content is not None
        assert old in content
        content = content.replace(old, new)
    return content


service_class.encode = _encoded


def sent_as(dataset: Dataset, *exchanged: tuple[bytes, bytes]) -> None:
    object.__setattr__(dataset, AS_SENT, exchanged)


def own(archive: Archive, query: Dataset) -> Iterator[Dataset]:
    """The right answers, which do not share their elements with what the archive holds."""
    return (deepcopy(answer) for _, answer in found(archive, query) if answer is not None)


def _with(level: str, change: Callable[[Dataset, int], object]) -> Behaviour:
    """What is right, but for a change of each answer at one level, the first being number 0."""

    def find(archive: Archive, query: Dataset) -> Answers:
        for number, answer in enumerate(own(archive, query)):
            if query.QueryRetrieveLevel == level:
                change(answer, number)
            yield PENDING, answer

    return Behaviour(find=find)


def _only_if_asked(archive: Archive, query: Dataset) -> Answers:
    """The Specific Character Set is a key like others: an answer has it where the query has."""
    for answer in own(archive, query):
        if "SpecificCharacterSet" not in query:
            sent_as(answer, (b"\x08\0\x05\0\x0a\0\0\0ISO_IR 192", b""))
        yield PENDING, answer


def _repeats(archive: Archive, query: Dataset) -> Answers:
    """Asked at once, each answer has the UID of the first."""
    answers = list(own(archive, query))
    for answer in answers:
        if query.QueryRetrieveLevel == "IMAGE" and not query.SeriesInstanceUID:
            answer.SOPInstanceUID = answers[0].SOPInstanceUID
        yield PENDING, answer


def _each_twice(archive: Archive, query: Dataset) -> Answers:
    for answer in own(archive, query):
        yield from [(PENDING, answer)] * (2 if query.QueryRetrieveLevel == "IMAGE" else 1)


def _no_series(find: Callable[[Archive, Dataset], Answers]) -> Callable[[Archive, Dataset], Answers]:
    """It refuses what is asked at SERIES level, or of a series."""

    def find_no_series(archive: Archive, query: Dataset) -> Answers:
        if query.QueryRetrieveLevel == "SERIES" or query.get("SeriesInstanceUID"):
            yield REFUSED, None
        else:
            yield from find(archive, query)

    return find_no_series


def _counts(archive: Archive, query: Dataset) -> Answers:
    """It counts what it neither lists nor sends."""
    for answer in own(archive, query):
        if query.QueryRetrieveLevel == "STUDY":
            answer.NumberOfStudyRelatedInstances += 5
        yield PENDING, answer


def _put(keyword: str, *values: str) -> Callable[[Dataset, int], object]:
    """In turn these values, as they are."""

    def put(answer: Dataset, number: int) -> None:
        setattr(answer, keyword, UID(values[number % len(values)], validation_mode=0))

    return put


def _take(keyword: str) -> Callable[[Dataset, int], object]:
    return lambda answer, _number: answer.pop(keyword)


def _exchange(*exchanged: tuple[bytes, bytes]) -> Callable[[Dataset, int], object]:
    return lambda answer, _number: sent_as(answer, *exchanged)


LATIN, NAME = b"ISO_IR 100", b"ROE^RICHARD"
LONG = "1.2." + "3" * 80
BEHAVIOURS = {
    "charset-if-asked": Behaviour(find=_only_if_asked),
    "repeats": Behaviour(find=_repeats),
    "each-twice": Behaviour(find=_each_twice),
    "each-twice-no-series": Behaviour(find=_no_series(_each_twice)),
    "counts-more": Behaviour(find=_counts),
    "counts-more-no-series": Behaviour(find=_no_series(_counts)),
    # The length of its first element reaches far behind the answer's end.
    "no-data-set": _with("STUDY", _exchange((b"\x08\0\x52\0\x06\0", b"\x08\0\x52\0\xfe\xff"))),
    "charset-nul": _with("STUDY", _exchange((LATIN, b"ISO_IR\x00100"))),
    "charset-nonsense": _with("STUDY", _exchange((LATIN, b"\xff\xfe\x1b$)C\\hex"))),
    "charset-undefined": _with("STUDY", _exchange((LATIN, b"undefined "), (b"RICHARD", b"RICH\xc4RD"))),
    "charset-utf-7": _with("STUDY", _exchange((LATIN, b"utf-7     "), (NAME, b"ROE+2AA-^\xff."))),
    "name-garbled": _with("STUDY", _exchange((NAME, b"\x00\x1b$\xff\x1b\xff<&>\x07\x9b"))),
    "series-missing": _with("IMAGE", _take("SeriesInstanceUID")),
    "series-empty": _with("IMAGE", _put("SeriesInstanceUID", "")),
    "series-long": _with("IMAGE", _put("SeriesInstanceUID", LONG)),
    "series-prefixed": _with("IMAGE", _put("SeriesInstanceUID", "LOCALIZER1.2.3", "1.2.3", "../../x", "1.2\\1.3")),
    "instance-long": _with("IMAGE", _put("SOPInstanceUID", LONG)),
    "instance-prefixed": _with("IMAGE", _put("SOPInstanceUID", "LOCALIZER1.2.3")),
    "instance-spaced": _with("IMAGE", lambda one, _: _put("SOPInstanceUID", f"{one.SOPInstanceUID} \0")(one, 0)),
    "study-prefixed": _with("STUDY", _put("StudyInstanceUID", "STUDY1.2.3")),
}
