"""What the misbehaving archive holds, and how it answers a C-FIND (PS3.4 C.4.1)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID

_IDENTIFIERS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_KEYS = ("AccessionNumber", "PatientID", "PatientName", "PatientBirthDate", "StudyDate", *_IDENTIFIERS)
_LEVELS = {"STUDY": _IDENTIFIERS[:1], "SERIES": _IDENTIFIERS[:2], "IMAGE": _IDENTIFIERS}


@dataclass(frozen=True)
class Instance:
    """One stored file and its header."""

    path: Path
    header: Dataset

    @property
    def sop_class(self) -> UID:
        return UID(self.header.SOPClassUID)

    @property
    def transfer_syntax(self) -> UID:
        return UID(self.header.file_meta.TransferSyntaxUID)

    @property
    def sop_instance_uid(self) -> str:
        return str(self.header.SOPInstanceUID)

    @property
    def study_uid(self) -> str:
        return str(self.header.StudyInstanceUID)


def read(path: Path) -> Instance:
    """The instance in a DICOM file; what is sent is the odd one beside it, where there is one."""
    odd = path.with_suffix(".odd")
    return Instance(odd if odd.exists() else path, dcmread(path, stop_before_pixels=True))


def _identifiers(instance: Instance) -> tuple[str, ...]:
    return tuple(str(instance.header[keyword].value) for keyword in _IDENTIFIERS)


def _place(instance: Instance) -> tuple[object, ...]:
    return (*_identifiers(instance)[:2], instance.header.get("InstanceNumber") or 0)


class Holdings:
    """All instances under a directory, in the order of their identifiers and InstanceNumber."""

    def __init__(self, directory: Path) -> None:
        self.instances = [read(path) for path in sorted(directory.rglob("*.dcm"))]
        self.instances.sort(
            key=lambda instance: (*_identifiers(instance)[:2], instance.header.get("InstanceNumber") or 0)
        )

    def add(self, instance: Instance) -> None:
        """Takes a further instance in; from now on C-FIND lists it."""
        self.instances = [*self.instances, instance]

    def matching(self, query: Dataset, ignored: Iterable[str] = ()) -> list[Instance]:
        """The instances whose attributes match the query's (PS3.4 C.2.2.2), capitals as they are."""
        wanted = {key: _values(query, key) for key in _KEYS if key not in ignored}
        return [
            instance
            for instance in self.instances
            if all(_matches(_text(instance.header, key), values) for key, values in wanted.items())
        ]

    def answers(self, query: Dataset, ignored: Iterable[str] = ()) -> list[Dataset]:
        """The identifiers with which a C-FIND is answered, one each study, series or instance."""
        depth = len(_LEVELS[query.QueryRetrieveLevel])
        found = sorted(self.matching(query, ignored), key=_identifiers)
        groups = groupby(found, key=lambda instance: _identifiers(instance)[:depth])
        return [self._answer(query, list(group)) for _, group in groups]

    def _answer(self, query: Dataset, group: list[Instance]) -> Dataset:
        header, answer = group[0].header, Dataset()
        study = [instance for instance in self.instances if instance.study_uid == group[0].study_uid]
        for keyword in (element.keyword for element in query):
            if keyword in _COUNTED:
                setattr(answer, keyword, _COUNTED[keyword](study))
            elif keyword == "NumberOfSeriesRelatedInstances":
                setattr(answer, keyword, len(group))
            elif keyword in header:
                answer[keyword] = header[keyword]
            else:
                setattr(answer, keyword, None)
        answer.QueryRetrieveLevel = query.QueryRetrieveLevel
        if "SpecificCharacterSet" in header:
            answer.SpecificCharacterSet = header.SpecificCharacterSet
        return answer


def _different(instances: Iterable[Instance], keyword: str) -> list[str]:
    return sorted({_text(instance.header, keyword) for instance in instances})


_COUNTED: dict[str, Callable[[list[Instance]], object]] = {
    "ModalitiesInStudy": lambda study: _different(study, "Modality"),
    "NumberOfStudyRelatedSeries": lambda study: len(_different(study, "SeriesInstanceUID")),
    "NumberOfStudyRelatedInstances": len,
}


def _text(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword, "") or "")


def _matches(text: str, values: list[str]) -> bool:
    if not values:
        return True
    first, dash, last = values[0].partition("-")
    if dash and len(text) == len("20240301") and text.isdecimal():
        return first <= text <= (last or text)
    return any(fnmatchcase(text, value.replace("[", "[[]")) for value in values)  # DICOM has * and ? alone


def _values(query: Dataset, keyword: str) -> list[str]:
    if keyword in _IDENTIFIERS and keyword in query:
        value = query[keyword].value or []
        return [value] if isinstance(value, str) else list(value)
    return [text] if (text := _text(query, keyword)) else []
