"""The DICOMDIR of a disc: made by dcmmkdir in chunks, whose records are joined (PS3.10 8.6, PS3.3 F).

dcmmkdir compares each file to all of its series, so that it is slow on a long one; chunks are not. What
it refuses is tried once more where it may invent, and what it invented is replaced (`completion`); what it
cannot parse even so, by a copy of its keys (`keys`).

The keys that a directory record must have and an instance may lack (type 1: PS3.3 F.5.2, F.5.3, F.5.4).

dcmmkdir takes such an instance only where it may invent: a study of today, numbers that start again in
each chunk. So what it may have invented is taken out again, the instances' own values are put in, and
what then is still empty gets a value that nobody takes for true, of which it is told.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import count
from pathlib import Path

from pydicom.datadict import keyword_for_tag

from mkiso.dcmtk.dcmmkdir import NO_RECORD, Crashed, Indexer, index
from mkiso.dicom.encoding import INSTANCE_NUMBER, PATIENT_ID, SERIES_NUMBER
from mkiso.dicom.headers import read_keys
from mkiso.dicom.records import SYNTAX, Malformed, Record, flat, read, written
from mkiso.disc.product import Check
from mkiso.exhaustion import pool_of
from mkiso.workspace import require_room

STUDY_DATE, STUDY_TIME, STUDY_ID, ACCESSION = 0x00080020, 0x00080030, 0x00200010, 0x00080050
# A study's day and time are at best those of its series, of its acquisition, of its content.
DAYS = ((STUDY_DATE, STUDY_TIME), (0x00080021, 0x00080031), (0x00080022, 0x00080032), (0x00080023, 0x00080033))
NO_DAY, NO_TIME = b"19000101", b"000000"
DAY = re.compile(rb"[0-9]{8}")
TIME = re.compile(rb"(?:[01][0-9]|2[0-3])(?:[0-5][0-9](?:(?:[0-5][0-9]|60)(?:\.[0-9]{1,6})?)?)?")
KEYS = {"PATIENT": (), "STUDY": (STUDY_DATE, STUDY_TIME, STUDY_ID), "SERIES": (SERIES_NUMBER,)}
MAY_BE_EMPTY = "RAW DATA"  # PS3.3 F.5.28: InstanceNumber is of type 2 there
USED = [tag for pair in DAYS for tag in pair] + [PATIENT_ID, STUDY_ID, SERIES_NUMBER, INSTANCE_NUMBER]
LONGEST = 64
Own = Mapping[int, bytes]
NAME = "DICOMDIR"
CHUNK, PROCESSES = 128, 2
REFUSED = "dcmmkdir refuses it"
Key = tuple[str, bytes]


@dataclass(frozen=True)
class Completed:
    """A key that instances leave empty, what the DICOMDIR says instead, and the first file that it is about."""

    file: str
    record: str
    key: str
    value: str


def own_values(file: Path) -> Own | None:
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


def put_in(record: Record, own: Own) -> None:
    """Fill the empty keys of a record with an instance's own values."""
    for tag in _keys(record) if own else ():
        if _lacks(record, tag) and own.get(tag):
            record.put(tag, own[tag])


def complete(patients: Sequence[Record], owns: Mapping[str, Own]) -> Iterator[Completed]:
    """Give each key of type 1 that is still empty a value; `owns` are instances' own values, by file."""
    for patient in patients:
        for study in patient.below:
            yield from _days(study, [owns[leaf.file] for leaf in flat(study.below) if leaf.file in owns])
        yield from _numbers(patient.below, STUDY_ID)
        for study in patient.below:
            yield from _numbers(study.below, SERIES_NUMBER)
            for series in study.below:
                yield from _numbers([leaf for leaf in series.below if leaf.type != MAY_BE_EMPTY], INSTANCE_NUMBER)


def _keys(record: Record) -> Iterator[int]:
    return (tag for tag in KEYS.get(record.type, (INSTANCE_NUMBER,)) if tag in record.elements)


def _lacks(record: Record, tag: int) -> bool:
    return tag in record.elements and not record.value(tag)


def _days(study: Record, owns: Iterable[Own]) -> Iterator[Completed]:
    """StudyDate and StudyTime, of the same origin; StudyID from AccessionNumber, which has the same VR."""
    for tag, is_valid, separator in ((STUDY_DATE, _is_day, b"."), (STUDY_TIME, TIME.fullmatch, b":")):
        if tag in study.elements:
            value = study.value(tag).replace(separator, b"")  # as ACR-NEMA wrote them: 1997.04.24, 14:04:38
            study.put(tag, value if is_valid(value) else b"")
    told = [(own.get(day, b""), own.get(time, b"")) for day, time in DAYS for own in owns]
    if _lacks(study, STUDY_DATE):
        yield _completed(study, STUDY_DATE, next((day for day, _ in told if _is_day(day)), NO_DAY))
    if _lacks(study, STUDY_TIME):
        day = study.value(STUDY_DATE)
        yield _completed(study, STUDY_TIME, next((time for same, time in told if same == day and time), NO_TIME))
    if _lacks(study, STUDY_ID) and study.value(ACCESSION):
        yield _completed(study, STUDY_ID, study.value(ACCESSION))


def _is_day(value: bytes) -> bool:
    """Whether it is a day of the calendar (VR DA, PS3.5 6.2)."""
    try:
        return bool(DAY.fullmatch(value) and date.fromisoformat(value.decode()))
    except ValueError:
        return False


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
class _Made:
    """What dcmmkdir made of files: the records of each, from its patient's to its own, and what it said of others."""

    found: dict[str, tuple[Record, ...]] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    def add(self, other: _Made) -> None:
        self.found |= other.found
        self.said |= other.said


def make_dicomdir(indexer: Indexer, files: Sequence[str], directory: Path, checkpoint: Check) -> Dicomdir:
    """Write the stage's DICOMDIR, of these files below it and in their order, within the job's `directory`.

    It refers to nothing but what is `indexed`: what is not may be moved. `checkpoint` is asked from two threads.
    Raises Internal where dcmmkdir could not do its work, ToolTimeout, and whatever `checkpoint` raises.
    """
    with tempfile.TemporaryDirectory(prefix="records-", dir=directory) as work:
        chunks = _Chunks(indexer, directory, Path(work), checkpoint)
        made = chunks.made(files, invent=False)
        owns = _own_values(indexer.stage, [file for file in files if file not in made.found], checkpoint)
        refused = [file for file in owns if owns[file].get(PATIENT_ID)]
        made.add(_without_inventions(chunks.made(refused, invent=True)))
        unread = [file for file in refused if file not in made.found and NO_RECORD not in made.said.get(file, "")]
        made.add(_without_inventions(_made_of_keys(chunks, unread)))
    tree = _Tree(made.found.values())
    added = {file: tree.add(made.found[file], owns.get(file, {})) for file in files if file in made.found}
    left_out = {file: added.get(file, made.said.get(file, REFUSED)) for file in files}
    not_indexed = {file: why for file, why in left_out.items() if why is not None}
    completed = tuple(complete(tree.root, owns))
    (indexer.stage / NAME).write_bytes(written(tree.root, indexer.file_set_id))
    return Dicomdir(tuple(file for file in files if file not in not_indexed), not_indexed, completed)


def _own_values(stage: Path, files: Iterable[str], checkpoint: Check) -> dict[str, Own]:
    owns = {}
    for file in files:
        checkpoint()
        owns[file] = own_values(stage / file) or {}
    return owns


def _without_inventions(made: _Made) -> _Made:
    for records in made.found.values():
        for record in records:
            take_out(record)
    return made


@dataclass(frozen=True)
class _Chunks:
    """dcmmkdir on many files: some at a time, and as many at once as there are PROCESSES."""

    indexer: Indexer
    directory: Path
    work: Path
    checkpoint: Check

    def made(self, files: Sequence[str], *, invent: bool) -> _Made:
        whole = _Made()
        parts = [files[at : at + CHUNK] for at in range(0, len(files), CHUNK)]
        with pool_of(PROCESSES, self.checkpoint) as pool:
            for part in pool.map(lambda part: self._made(part, invent), parts):
                whole.add(part)
        return whole

    def _made(self, files: Sequence[str], invent: bool) -> _Made:
        """One chunk. Of files that crash dcmmkdir, or make it write nonsense, halves: one takes no other with it."""
        self.checkpoint()
        product = self.work / f"{files[0].replace('/', '_')}-{len(files)}-{invent:d}.dicomdir"
        try:
            said = index(
                self.indexer, files, product, invent=invent, directory=self.directory, checkpoint=self.checkpoint
            )
            return _Made(dict(_leaves(_read(product), ())), said)
        except (Crashed, Malformed):
            return self._halves(files, invent)

    def _halves(self, files: Sequence[str], invent: bool) -> _Made:
        if len(files) == 1:
            require_room(self.work)
            return _Made(said={files[0]: "dcmmkdir crashes on it"})
        halves = _Made()
        for half in (files[: len(files) // 2], files[len(files) // 2 :]):
            halves.add(self._made(half, invent))
        return halves


def _made_of_keys(chunks: _Chunks, files: Iterable[str]) -> _Made:
    """What dcmmkdir makes of files that it could not parse: of copies of their keys, under the same names."""
    copies, syntaxes = chunks.work / "copies", dict[str, bytes]()
    for file in files:
        chunks.checkpoint()
        if keys := read_keys(chunks.indexer.stage / file):
            copy = copies / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(keys.file())
            syntaxes[file] = keys.transfer_syntax
    made = replace(chunks, indexer=replace(chunks.indexer, stage=copies), work=copies).made([*syntaxes], invent=True)
    for file, (*_, leaf) in made.found.items():
        leaf.put(SYNTAX, syntaxes[file])
    return made


def _read(dicomdir: Path) -> list[Record]:
    return read(dicomdir.read_bytes()) if dicomdir.exists() else []


def _leaves(entity: Iterable[Record], above: tuple[Record, ...]) -> Iterator[tuple[str, tuple[Record, ...]]]:
    """Each file's own record behind those above it."""
    for record in entity:
        if record.file:
            yield record.file, (*above, record)
        yield from _leaves(record.below, (*above, record))


class _Tree:
    """The joined records: each patient, study, series and instance once, with the first one's keys (PS3.3 F.5)."""

    def __init__(self, paths: Iterable[Sequence[Record]]) -> None:
        """`paths` tell which record of a patient, study or series counts."""
        self.root: list[Record] = []
        self._branches: dict[Key, Record] = {}
        self._above: dict[Key, Key | None] = {}
        for *branches, _leaf in paths:
            for branch in branches:
                self._branches.setdefault(branch.identity, branch)
        for branch in self._branches.values():
            branch.below = []

    def add(self, path: Sequence[Record], own: Own) -> str | None:
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

    def _contradiction(self, lineage: Sequence[tuple[Key, Key | None]]) -> str | None:
        if lineage[-1][0] in self._above:
            return "an instance with its SOP Instance UID is indexed already"
        for key, parent in lineage:
            if not key[1]:
                return f"its {key[0]} has no identifier"
            if self._above.get(key, parent) != parent:
                return f"its {key[0]} belongs to another {parent[0] if parent else 'file-set'}, too"
        return None
