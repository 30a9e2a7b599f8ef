"""A DICOMDIR's records as they are reached by their offsets, and what is wrong with these (PS3.3 F.3)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from struct import error

from mkiso.dicom.encoding import value
from mkiso.dicom.records import (
    FILE_SET_ID,
    FIRST,
    IDENTIFIERS,
    LAST,
    LOWER,
    NEXT,
    Content,
    Malformed,
    Record,
    number,
    taken_apart,
)

PREAMBLE, PREFIX = 128, b"DICM"


@dataclass(frozen=True)
class Entry:
    """A record where it was reached first."""

    offset: int
    record: Record
    above: Entry | None

    @cached_property
    def type(self) -> str:
        return self.record.type

    @property
    def label(self) -> str:
        """How a person finds the record: its type, and its file or its offset."""
        return f"{self.type or 'record'} {self.record.file or f'at {self.offset}'}"

    def ancestor(self, kind: str) -> Record | None:
        """The record of a type above it, where it is as near as it may be (PS3.3 F.4)."""
        entry, steps = self.above, len(IDENTIFIERS)
        while entry and entry.type != kind and steps:
            entry, steps = entry.above, steps - 1
        return entry.record if entry and entry.type == kind else None


@dataclass(frozen=True)
class Directory:
    """A DICOMDIR's parts, its records entity by entity, and what is wrong with their offsets."""

    content: Content
    entries: tuple[Entry, ...]
    lost: tuple[str, ...]

    @cached_property
    def leaves(self) -> tuple[Entry, ...]:
        """The records that refer to a file."""
        return tuple(entry for entry in self.entries if entry.record.file)

    @cached_property
    def file_set_id(self) -> str:
        return value(self.content.head.get(FILE_SET_ID, b"")).decode("latin-1")

    def of(self, *types: str) -> Iterator[Entry]:
        return (entry for entry in self.entries if entry.type in types)


def parse(data: bytes, most: int = sys.maxsize) -> Directory:
    """The directory in a DICOMDIR's bytes.

    Raises Malformed where it has none, or lengths that do not fit, or more than so many elements.
    """
    if data[PREAMBLE : PREAMBLE + len(PREFIX)] != PREFIX:
        raise Malformed
    content = taken_apart(data, most)
    walk = _Walk(content)
    try:
        walk.to_end(number(content.head[FIRST]), number(content.head[LAST]))
    except (KeyError, error) as wrong:
        raise Malformed from wrong
    return Directory(content, tuple(walk.entries.values()), tuple(walk.lost))


class _Walk:
    """Follows each offset once; what is wrong is noted, and the rest goes on."""

    def __init__(self, content: Content) -> None:
        self._records = content.records
        self.entries: dict[int, Entry] = {}
        self.lost: list[str] = []

    def to_end(self, first: int, last: int) -> None:
        root = self._entity(first, None)
        if last != (true := root[-1].offset if root else 0):
            self.lost.append(f"the last record of the root is at {true}, and is said to be at {last}")
        todo = root[::-1]
        while todo:
            entry = todo.pop()
            todo += self._entity(number(entry.record.elements[LOWER]), entry)[::-1]
        unreached = self._records.keys() - self.entries.keys()
        self.lost += (f"the record at {offset} is never reached" for offset in sorted(unreached))

    def _entity(self, offset: int, above: Entry | None) -> list[Entry]:
        """The records of a directory entity, from one to the next."""
        found: list[Entry] = []
        while offset:
            if (record := self._records.get(offset)) is None:
                self.lost.append(f"an offset is {offset}, where no record begins")
                break
            if offset in self.entries:
                self.lost.append(f"the record at {offset} is reached twice")
                break
            self.entries[offset] = Entry(offset, record, above)
            found.append(self.entries[offset])
            offset = number(record.elements[NEXT])
        return found


def doubled(identities: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Each that comes again, as often as it does."""
    seen = set()
    for one in identities:
        if one in seen:
            yield one
        seen.add(one)
