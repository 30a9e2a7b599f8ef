"""The DICOMDIR of a disc: made by dcmmkdir in chunks, whose records are joined (PS3.10 8.6, PS3.3 F).

dcmmkdir compares each file to all of its series, so that it is slow on a long one; chunks are not. What
it refuses is tried once more where it may invent, and what it invented is replaced (`completion`); what it
cannot parse even so, by a copy of its keys (`keys`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mkiso.dcmtk.dcmmkdir import NO_RECORD, Crashed, Indexer, index
from mkiso.disc.completion import Completed, Own, complete, own_values, put_in, take_out
from mkiso.disc.product import Check
from mkiso.disc.records import SYNTAX, Malformed, Record, read, written
from mkiso.exhaustion import pool_of
from mkiso.retrieve.encoding import PATIENT_ID
from mkiso.retrieve.keys import read_keys
from mkiso.workspace import require_room

NAME = "DICOMDIR"
CHUNK, PROCESSES = 128, 2
REFUSED = "dcmmkdir refuses it"

Key = tuple[str, bytes]


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


def make_dicomdir(indexer: Indexer, files: Sequence[str], directory: Path, check: Check) -> Dicomdir:
    """Write the stage's DICOMDIR, of these files below it and in their order, within the job's `directory`.

    It refers to nothing but what is `indexed`: what is not may be moved. `check` is asked from two threads.
    Raises Internal where dcmmkdir could not do its work, ToolTimeout, and whatever `check` raises.
    """
    with tempfile.TemporaryDirectory(prefix="records-", dir=directory) as work:
        chunks = _Chunks(indexer, directory, Path(work), check)
        made = chunks.made(files, invent=False)
        owns = _own_values(indexer.stage, [file for file in files if file not in made.found], check)
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


def _own_values(stage: Path, files: Iterable[str], check: Check) -> dict[str, Own]:
    owns = {}
    for file in files:
        check()
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
    check: Check

    def made(self, files: Sequence[str], *, invent: bool) -> _Made:
        whole = _Made()
        parts = [files[at : at + CHUNK] for at in range(0, len(files), CHUNK)]
        with pool_of(PROCESSES, self.check) as pool:
            for part in pool.map(lambda part: self._made(part, invent), parts):
                whole.add(part)
        return whole

    def _made(self, files: Sequence[str], invent: bool) -> _Made:
        """One chunk. Of files that crash dcmmkdir, or make it write nonsense, halves: one takes no other with it."""
        self.check()
        product = self.work / f"{files[0].replace('/', '_')}-{len(files)}-{invent:d}.dicomdir"
        try:
            said = index(self.indexer, files, product, invent=invent, directory=self.directory, check=self.check)
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
        chunks.check()
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
