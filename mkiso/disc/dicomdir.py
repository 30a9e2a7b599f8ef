"""The DICOMDIR of a disc (PS3.10 8.6, PS3.3 F): made by dcmmkdir in chunks, whose records are joined.

dcmmkdir compares each file to all of its series, so that it is slow on a long one; chunks are not. What it refuses is
tried once more where it may invent the keys that a record must have and an instance may lack (type 1: PS3.3 F.5.2 to
F.5.4). Its inventions would be a study of today, and numbers that start again in each chunk: so they are taken out
again, the instances' own values are put in, and what then is still empty gets a value that nobody takes for true, of
which the log is told. What dcmmkdir cannot parse even so, it is given as a copy of its keys alone.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from pydicom.datadict import keyword_for_tag

from mkiso.dcmtk.dcmmkdir import NO_RECORD, Crashed, Indexer, index
from mkiso.dicom.datasets import is_date
from mkiso.dicom.encoding import INSTANCE_NUMBER, PATIENT_ID, SERIES_NUMBER
from mkiso.dicom.headers import read_keys
from mkiso.dicom.records import SYNTAX, Malformed, Record, flat, read, written
from mkiso.waiting import Checkpoint, pool_of
from mkiso.workspace import require_room

NAME = "DICOMDIR"
CHUNK, PROCESSES = 128, 2
REFUSED = "dcmmkdir refuses it"
STUDY_DATE, STUDY_TIME, STUDY_ID, ACCESSION = 0x00080020, 0x00080030, 0x00200010, 0x00080050
# A study's date and time are at best those of its series, of its acquisition, of its content.
MOMENTS = ((STUDY_DATE, STUDY_TIME), (0x00080021, 0x00080031), (0x00080022, 0x00080032), (0x00080023, 0x00080033))
NO_DATE, NO_TIME = b"19000101", b"000000"
TIME = re.compile(rb"(?:[01][0-9]|2[0-3])(?:[0-5][0-9](?:(?:[0-5][0-9]|60)(?:\.[0-9]{1,6})?)?)?")
KEYS = {"PATIENT": (), "STUDY": (STUDY_DATE, STUDY_TIME, STUDY_ID), "SERIES": (SERIES_NUMBER,)}
MAY_BE_EMPTY = "RAW DATA"  # PS3.3 F.5.28: InstanceNumber is of type 2 there
USED = [tag for pair in MOMENTS for tag in pair] + [PATIENT_ID, STUDY_ID, SERIES_NUMBER, INSTANCE_NUMBER]
LONGEST = 64
OwnValues = Mapping[int, bytes]  # an instance's, by tag
Identity = tuple[str, bytes]


@dataclass(frozen=True)
class Completed:
    """A key that instances leave empty, what the DICOMDIR says instead, and the first file that it is about."""

    file: str
    record: str
    key: str
    value: str


def own_values(file: Path) -> OwnValues | None:
    """What an instance itself has of these keys; None where its header cannot be read."""
    keys = read_keys(file, USED)
    if keys is None:
        return None
    values = {tag: keys.value(tag) for tag in keys.elements}
    return {tag: value for tag, value in values.items() if len(value) <= LONGEST}


def take_out(record: Record) -> None:
    """Empty each key that dcmmkdir may have invented."""
    for tag in _keys(record):
        record.put(tag, b"")


def put_in(record: Record, own: OwnValues) -> None:
    """Fill the empty keys of a record with an instance's own values."""
    for tag in _keys(record) if own else ():
        if _lacks(record, tag) and own.get(tag):
            record.put(tag, own[tag])


def complete(patients: Sequence[Record], owns: Mapping[str, OwnValues]) -> Iterator[Completed]:
    """Give each key of type 1 that is still empty a value; `owns` are instances' own values, by file."""
    for patient in patients:
        for study in patient.below:
            yield from _moments(study, [owns[leaf.file] for leaf in flat(study.below) if leaf.file in owns])
        yield from _numbers(patient.below, STUDY_ID)
        for study in patient.below:
            yield from _numbers(study.below, SERIES_NUMBER)
            for series in study.below:
                yield from _numbers([leaf for leaf in series.below if leaf.type != MAY_BE_EMPTY], INSTANCE_NUMBER)


def _keys(record: Record) -> Iterator[int]:
    return (tag for tag in KEYS.get(record.type, (INSTANCE_NUMBER,)) if tag in record.elements)


def _lacks(record: Record, tag: int) -> bool:
    return tag in record.elements and not record.value(tag)


def _moments(study: Record, owns: Iterable[OwnValues]) -> Iterator[Completed]:
    """StudyDate and StudyTime, of the same origin; StudyID from AccessionNumber, which has the same VR."""
    # As ACR-NEMA wrote them: 1997.04.24, 14:04:38
    for tag, is_valid, separator in ((STUDY_DATE, _is_date, b"."), (STUDY_TIME, TIME.fullmatch, b":")):
        if tag in study.elements:
            value = study.value(tag).replace(separator, b"")
            study.put(tag, value if is_valid(value) else b"")
    found = [(own.get(day, b""), own.get(time, b"")) for day, time in MOMENTS for own in owns]
    if _lacks(study, STUDY_DATE):
        yield _completed(study, STUDY_DATE, next((day for day, _ in found if _is_date(day)), NO_DATE))
    if _lacks(study, STUDY_TIME):
        day = study.value(STUDY_DATE)
        yield _completed(study, STUDY_TIME, next((time for same, time in found if same == day and time), NO_TIME))
    if _lacks(study, STUDY_ID) and study.value(ACCESSION):
        yield _completed(study, STUDY_ID, study.value(ACCESSION))


def _is_date(value: bytes) -> bool:
    return is_date(value.decode("latin-1"))


def _numbers(entity: Sequence[Record], tag: int) -> Iterator[Completed]:
    """The lowest numbers that none of the others has, in their order."""
    taken = {record.value(tag).lstrip(b"0") for record in entity}
    free = (number for number in (str(one).encode() for one in count(1)) if number not in taken)
    for record in entity:
        if _lacks(record, tag):
            yield _completed(record, tag, next(free))


def _completed(record: Record, tag: int, value: bytes) -> Completed:
    record.put(tag, value)
    file = next(one.file for one in flat([record]) if one.file)
    return Completed(file, record.type, keyword_for_tag(tag), value.decode("latin-1"))


@dataclass(frozen=True)
class Dicomdir:
    """What a DICOMDIR holds: the files that it refers to, why it does not to others, and what it had to make up."""

    indexed: tuple[str, ...]
    not_indexed: dict[str, str]
    completed: tuple[Completed, ...]


@dataclass
class _Indexed:
    """What dcmmkdir made of files: the records of each, from its patient's to its own, and why there are none."""

    records: dict[str, tuple[Record, ...]] = field(default_factory=dict)
    complaints: dict[str, str] = field(default_factory=dict)

    def add(self, other: _Indexed) -> None:
        self.records |= other.records
        self.complaints |= other.complaints

    def without_inventions(self) -> _Indexed:
        """The same, the keys emptied that dcmmkdir may have invented."""
        for records in self.records.values():
            for record in records:
                take_out(record)
        return self


def make_dicomdir(indexer: Indexer, files: Sequence[str], directory: Path, checkpoint: Checkpoint) -> Dicomdir:
    """Write the stage's DICOMDIR, of these files below it and in their order, within the job's `directory`.

    It refers to nothing but what is `indexed`: what is not may be moved. `checkpoint` is called from two threads.
    Raises Internal where dcmmkdir could not do its work, ToolTimeout, and whatever `checkpoint` raises.
    """
    with tempfile.TemporaryDirectory(prefix="records-", dir=directory) as work:
        chunks = _Chunks(indexer, directory, Path(work), checkpoint)
        made = chunks.index(files, invent=False)
        owns = _own_values(indexer.stage, [file for file in files if file not in made.records], checkpoint)
        refused = [file for file in owns if owns[file].get(PATIENT_ID)]
        made.add(chunks.index(refused, invent=True).without_inventions())
        complaints = made.complaints
        unread = [one for one in refused if one not in made.records and NO_RECORD not in complaints.get(one, "")]
        made.add(_index_copies(chunks, unread).without_inventions())
    hierarchy = _Hierarchy(made.records.values())
    added = {file: hierarchy.add(made.records[file], owns.get(file, {})) for file in files if file in made.records}
    left_out = {file: added.get(file, complaints.get(file, REFUSED)) for file in files}
    not_indexed = {file: why for file, why in left_out.items() if why is not None}
    completed = tuple(complete(hierarchy.root, owns))
    (indexer.stage / NAME).write_bytes(written(hierarchy.root, indexer.file_set_id))
    return Dicomdir(tuple(file for file in files if file not in not_indexed), not_indexed, completed)


def _own_values(stage: Path, files: Iterable[str], checkpoint: Checkpoint) -> dict[str, OwnValues]:
    owns = {}
    for file in files:
        checkpoint()
        owns[file] = own_values(stage / file) or {}
    return owns


@dataclass(frozen=True)
class _Chunks:
    """dcmmkdir on many files: some at a time, and as many at once as there are PROCESSES."""

    indexer: Indexer
    directory: Path
    work: Path
    checkpoint: Checkpoint

    def index(self, files: Sequence[str], *, invent: bool) -> _Indexed:
        """Of all files; dcmmkdir may invent keys where it is to."""
        whole = _Indexed()
        count = math.ceil(len(files) / CHUNK)
        count += -count % PROCESSES if count > 1 else 0  # none ends before the others by half of its work
        size = math.ceil(len(files) / max(1, count))
        parts = [files[at : at + size] for at in range(0, len(files), max(1, size))]
        with pool_of(PROCESSES, self.checkpoint) as pool:
            for part in pool.map(lambda part: self._index(part, invent), parts):
                whole.add(part)
        return whole

    def _index(self, files: Sequence[str], invent: bool) -> _Indexed:
        """One chunk. Of files that crash dcmmkdir, or make it write nonsense, halves: one takes no other with it."""
        self.checkpoint()
        product = self.work / f"{files[0].replace('/', '_')}-{len(files)}-{invent:d}.dicomdir"
        try:
            complaints = index(
                self.indexer, files, product, invent=invent, directory=self.directory, checkpoint=self.checkpoint
            )
            root = read(product.read_bytes()) if product.exists() else []
            return _Indexed(dict(_leaves(root, ())), complaints)
        except (Crashed, Malformed):
            return self._index_halves(files, invent)

    def _index_halves(self, files: Sequence[str], invent: bool) -> _Indexed:
        if len(files) == 1:
            require_room(self.work)
            return _Indexed(complaints={files[0]: "dcmmkdir crashes on it"})
        halves = _Indexed()
        for half in (files[: len(files) // 2], files[len(files) // 2 :]):
            halves.add(self._index(half, invent))
        return halves


def _index_copies(chunks: _Chunks, files: Iterable[str]) -> _Indexed:
    """What dcmmkdir makes of files that it could not parse: of copies of their keys, under the same names."""
    copies, syntaxes = chunks.work / "copies", dict[str, bytes]()
    for file in files:
        chunks.checkpoint()
        if keys := read_keys(chunks.indexer.stage / file):
            copy = copies / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(keys.file())
            syntaxes[file] = keys.transfer_syntax
    of_copies = replace(chunks, indexer=replace(chunks.indexer, stage=copies), work=copies)
    made = of_copies.index([*syntaxes], invent=True)
    for file, (*_, leaf) in made.records.items():
        leaf.put(SYNTAX, syntaxes[file])
    return made


def _leaves(entity: Iterable[Record], above: tuple[Record, ...]) -> Iterator[tuple[str, tuple[Record, ...]]]:
    """Each file's own record behind those above it."""
    for record in entity:
        if record.file:
            yield record.file, (*above, record)
        yield from _leaves(record.below, (*above, record))


class _Hierarchy:
    """The joined records: each patient, study, series and instance once, with the first one's keys (PS3.3 F.5)."""

    def __init__(self, paths: Iterable[Sequence[Record]]) -> None:
        """`paths` tell which record of a patient, study or series counts."""
        self.root: list[Record] = []
        self._branches: dict[Identity, Record] = {}
        self._above: dict[Identity, Identity | None] = {}
        for *branches, _leaf in paths:
            for branch in branches:
                self._branches.setdefault(branch.identity, branch)
        for branch in self._branches.values():
            branch.below = []

    def add(self, path: Sequence[Record], own: OwnValues) -> str | None:
        """Hang in an instance behind those before it; why not, where it contradicts one of them."""
        keys = [record.identity for record in path]
        lineage = list(zip(keys, [None, *keys[:-1]], strict=True))
        if contradiction := self._contradiction(lineage):
            return contradiction
        records = [*(self._branches[key] for key in keys[:-1]), path[-1]]
        for record, (key, parent) in zip(records, lineage, strict=True):
            put_in(record, own)
            if key not in self._above:
                self._above[key] = parent
                (self._branches[parent].below if parent else self.root).append(record)
        return None

    def _contradiction(self, lineage: Sequence[tuple[Identity, Identity | None]]) -> str | None:
        if lineage[-1][0] in self._above:
            return "an instance with its SOP Instance UID is indexed already"
        for key, parent in lineage:
            if not key[1]:
                return f"its {key[0]} has no identifier"
            if self._above.get(key, parent) != parent:
                return f"its {key[0]} belongs to another {parent[0] if parent else 'file-set'}, too"
        return None
