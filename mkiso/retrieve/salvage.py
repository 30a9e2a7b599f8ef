"""What can be read of a data set whose elements do not fit: as much of its identity as other readers make of it.

The walk (`walker`) proves, and stops where something is wrong. Archives hold such files all the same, and hand
them out; then this tells whose they are. Where an element may end in several places, it ends where one follows that
may come after it (PS3.5 7.1: in the ascending order of their tags): that is how a VR that is none, a sequence whose
length is wrong, and a delimiter too many are got over. Only the beginning is read, whatever follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mkiso.retrieve.encoding import (
    HEADER,
    ITEM,
    ITEM_END,
    LONG_HEADER,
    LONG_VRS,
    OF_DATA_SET,
    SEQUENCE_END,
    SHORT_VRS,
    Encoding,
)
from mkiso.retrieve.walker import ASKING, DEEPEST, UNDEFINED
from mkiso.retrieve.windows import KEPT, Unwalkable, unasked

READ = 1 << 22  # bytes; identity is at the beginning, behind a few private groups at most
MOST_STEPS = 1 << 17  # a second; where all lengths are wrong, each sequence would be walked for each that is around it
LAST_GROUP = 0x0020
VRS = LONG_VRS | SHORT_VRS
DELIMITING = frozenset({ITEM, ITEM_END, SEQUENCE_END})


def salvaged(data: bytes, encoding: Encoding, check: Callable[[], None] = unasked) -> dict[int, bytes | None]:
    """The values of OF_DATA_SET; None for one that cannot be told, and may be there all the same.

    So one is that is there twice, and differs: where an element's end is not found, the next may be one of a sequence.
    `check` is asked as it goes.
    """
    found: dict[int, bytes | None] = {}
    last = 0
    for tag, value in elements(data, encoding, LAST_GROUP, _steps(check)):
        last = max(last, tag)
        if tag in OF_DATA_SET:
            found[tag] = value if len(value) <= KEPT and found.get(tag, value) == value else None
    return found | {tag: None for tag in OF_DATA_SET if tag > last}


def _steps(check: Callable[[], None] = unasked) -> Iterator[int]:
    for step in range(MOST_STEPS):
        if not step % ASKING:
            check()
        yield step


def elements(
    data: bytes, encoding: Encoding, last_group: int, steps: Iterator[int] | None = None
) -> Iterator[tuple[int, bytes]]:
    """The elements of the data set itself, as far as they are whole and of no group behind the last one."""
    reader, at = _Reader(data, encoding, steps or _steps()), 0
    while at + HEADER <= len(data):
        try:
            tag, start, end = reader.element(at, 0)
        except Unwalkable:
            return
        if tag not in DELIMITING:
            if tag >> 16 > last_group or end > len(data):
                return
            yield tag, data[start:end]
        at = end


class _Reader:
    """Tells where each element ends."""

    def __init__(self, data: bytes, encoding: Encoding, steps: Iterator[int]) -> None:
        self._data, self._encoding, self._steps = data, encoding, steps

    def element(self, at: int, depth: int) -> tuple[int, int, int]:
        """Its tag, and where its value begins and ends. Raises Unwalkable where it is too deep, or took too long."""
        self._step()
        raw, vr, length, start = self._encoding.element(self._data, at)
        tag = self._encoding.tag(raw)
        if tag in DELIMITING:
            return tag, at + HEADER, at + HEADER
        if length == UNDEFINED:
            return tag, start, self._end_of_sequence(start, depth)
        ends = self._ends(at, vr, start, length, depth)
        return tag, start, next((end for end in ends if self._is_followed(end, tag, depth)), start + length)

    def _step(self) -> None:
        if next(self._steps, None) is None:
            raise Unwalkable

    def _ends(self, at: int, vr: bytes, start: int, length: int, depth: int) -> Iterator[int]:
        """Where it may end: behind its items, as its length says, as that of a VR that is none."""
        first = self._data[start : start + HEADER]
        if len(first) == HEADER and self._encoding.tag(self._encoding.item_header(first, 0)[0]) == ITEM:
            yield self._end_of_sequence(start, depth)
        yield start + length
        if vr not in VRS and not self._encoding.is_implicit:
            yield at + HEADER + int.from_bytes(self._data[at + 6 : at + HEADER], self._encoding.order)
            yield at + LONG_HEADER + int.from_bytes(self._data[at + HEADER : at + LONG_HEADER], self._encoding.order)

    def _is_followed(self, at: int, tag: int, depth: int) -> bool:
        """Whether an element is there that may come after this one."""
        if at + HEADER > len(self._data):
            return at == len(self._data)
        raw, vr, _length, _start = self._encoding.element(self._data, at)
        following = self._encoding.tag(raw)
        if following == ITEM_END:
            return depth > 0
        known = self._encoding.is_implicit or vr in VRS or following >> 16 == tag >> 16
        return following > tag and following not in DELIMITING and known

    def _end_of_sequence(self, at: int, depth: int) -> int:
        """Behind its items and its delimiter, or where neither follows."""
        if depth > DEEPEST:
            raise Unwalkable
        while at + HEADER <= len(self._data):
            self._step()
            raw, length = self._encoding.item_header(self._data, at)
            tag = self._encoding.tag(raw)
            if tag not in DELIMITING:
                return at
            at += HEADER
            if tag == SEQUENCE_END:
                return at
            if tag == ITEM:
                at = self._end_of_item(at, depth + 1) if length == UNDEFINED else at + length
        return at

    def _end_of_item(self, at: int, depth: int) -> int:
        """Behind its delimiter, or where another item or the sequence's end follows."""
        within = _Reader(self._data, self._encoding.within_item(self._data[at + 4 : at + 6]), self._steps)
        while at + HEADER <= len(self._data):
            tag, _start, end = within.element(at, depth)
            if tag in {ITEM, SEQUENCE_END}:
                return at
            at = end
            if tag == ITEM_END:
                return at
        return at
