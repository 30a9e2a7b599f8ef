"""Walks a received file from element to element by their lengths (PS3.5 7.1): the proof that none of it is missing.

What is walked comes from strangers. So nothing is read but headers and the few short values that are
asked for, nesting is a list and not a recursion, and whatever makes no sense is `Unwalkable`. What has
a length of its own, a sequence or an item too, is skipped by it. Tolerated is what pydicom tolerates.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import NamedTuple

from mkiso.dicom.encoding import (
    AHEAD,
    EXPLICIT_LITTLE,
    HEADER,
    ITEM_END,
    KEPT,
    LONG_HEADER,
    NO_VR,
    Encoding,
    Source,
    Unwalkable,
    encoding_of,
    no_checkpoint,
)
from mkiso.waiting import Checkpoint

DEEPEST = 64  # sequences in sequences; real data sets have fewer than 20
MOST_SCANS = 16  # each may read all of the file again
MOST_STEPS = 10_000_000  # 20 s; an image of 100,000 frames, each with sequences of undefined length, has fewer
MOST_META = 1 << 20
ASKING = 64  # steps, each of which may go through a window: 0.1 s
UNDEFINED = 0xFFFFFFFF
META_GROUP = 0x0002
ZEROS = bytes(1 << 16)
SEQUENCE_VRS = frozenset({b"SQ", b"UN"})  # UN of undefined length is a sequence (PS3.5 6.2.2)


class Contradiction(Unwalkable):
    """A tag that is there twice, with two values."""

    def __init__(self, tag: int) -> None:
        super().__init__()
        self.tag = tag


def walk_meta(source: Source, position: int, found: dict[int, bytes], checkpoint: Checkpoint = no_checkpoint) -> int:
    """Walk the file meta information (PS3.10 7.1) from its first element; tell where the data set begins.

    The values of OF_META that are there go into `found`, also where it is cut off: Unwalkable.
    `checkpoint` is called as it goes on, but for what is as short as it should be.
    """
    element, wanted, begin = EXPLICIT_LITTLE.element, EXPLICIT_LITTLE.of_meta, position
    window, at = source.at(position)
    while position < MOST_META:
        if len(window) < at + AHEAD:
            if position > begin + KEPT:
                checkpoint()
            window, at = source.at(position)
            if len(window) < at + HEADER:
                raise Unwalkable
        tag, _vr, length, start = element(window, at)
        if tag & 0xFFFF != META_GROUP:
            return position
        if tag in wanted:
            _keep(found, wanted[tag], window, start, length)
        position += start - at + length
        at = start + length
    raise Unwalkable


def walk_data_set(
    source: Source,
    position: int,
    transfer_syntax: str,
    found: dict[int, bytes],
    checkpoint: Checkpoint = no_checkpoint,
    until: int | None = None,
) -> None:
    """Walk a data set to the end of its source; raise Unwalkable where it does not end there.

    The values of OF_DATA_SET go into `found`, those of the data set itself and not of its sequences. Where one is that
    of `until`, the walk ends there. `checkpoint` is called as it goes.
    """
    _Walk(source, position, encoding_of(transfer_syntax), found, checkpoint, until).to_end()


class _Sequence(NamedTuple):
    """A value of undefined length, while it is walked."""

    around: Encoding
    within: Encoding
    fragments_at: int | None  # where the value begins that is not a sequence (PS3.5 A.4)


class _Walk:
    """Walks elements and, in the sequences of undefined length among them, items."""

    def __init__(
        self,
        source: Source,
        position: int,
        encoding: Encoding,
        found: dict[int, bytes],
        checkpoint: Checkpoint,
        until: int | None,
    ) -> None:
        self._source, self._position, self._encoding, self._found = source, position, encoding, found
        self._checkpoint, self._until, self._stops = checkpoint, until, {ITEM_END, until}
        self._open: list[_Sequence] = []
        self._among_items = self._ended = False
        self._scans = self._steps = 0

    def to_end(self) -> None:
        while not self._ended and self._until not in self._found:
            if not self._steps % ASKING:
                self._checkpoint()
            try:
                self._go_on()
            except Contradiction:
                raise
            except Unwalkable:
                self._find_end_of_fragments()
            self._steps += 1
            if self._steps > MOST_STEPS:
                raise Unwalkable

    def _go_on(self) -> None:
        """All that is plain, as far as the window goes, and then one that may be anything."""
        window, at = self._source.at(self._position)
        if self._among_items:
            self._position += _items(window, at, self._encoding) - at
            self._item(*self._source.at(self._position))
        else:
            wanted = self._encoding.of_item if self._open else self._encoding.of_data_set
            self._position += _elements(window, at, self._encoding, wanted, self._found, self._stops) - at
            self._element(*self._source.at(self._position))

    def _element(self, window: bytes, at: int) -> None:
        encoding = self._encoding
        if len(window) - at < HEADER:
            self._finish(window[at:])
            return
        tag, vr, length, start = encoding.element(window, at)
        if tag == encoding.item_end:
            self._leave_item()
        elif length == UNDEFINED:
            self._position += start - at
            self._enter_sequence(tag, vr, window[start : start + 4])
        elif window.startswith(ZEROS, at):
            self._position += len(ZEROS)
        else:
            self._position += start - at + length
            if not self._open and tag in encoding.of_data_set:
                _keep(self._found, encoding.of_data_set[tag], window, start, length)

    def _finish(self, rest: bytes) -> None:
        """Zeros may follow a whole data set; nothing else, and no sequence may be open."""
        if self._open or rest.strip(b"\0"):
            raise Unwalkable
        self._ended = True

    def _enter_sequence(self, tag: int, vr: bytes, first: bytes) -> None:
        around = within = self._encoding
        if vr == b"UN" and first.startswith(b"\xfe\xff"):
            within = EXPLICIT_LITTLE  # PS3.5 6.2.2: little endian, also among big endian ones
        item = len(first) == len("item") and around.length(first)[0] == around.item
        sequence = vr in SEQUENCE_VRS or (vr == NO_VR and tag != around.pixel_data and item)
        self._open.append(_Sequence(around, within, None if sequence else self._position))
        self._encoding, self._among_items = within, True
        if len(self._open) > DEEPEST:
            raise Unwalkable

    def _item(self, window: bytes, at: int) -> None:
        if len(window) - at < HEADER:
            raise Unwalkable
        encoding = self._encoding
        tag, length = encoding.item_header(window, at)
        if tag == encoding.sequence_end:
            self._leave_sequence()
        elif tag not in {encoding.item, encoding.item_end}:
            raise Unwalkable
        elif length != UNDEFINED:
            self._position += HEADER + length
        elif self._open[-1].fragments_at is None:
            self._position += HEADER
            self._among_items, self._encoding = False, encoding.within_item(window[at + 12 : at + 14])
        else:
            raise Unwalkable

    def _leave_item(self) -> None:
        if not self._open:
            raise Unwalkable
        self._position += HEADER
        self._among_items, self._encoding = True, self._open[-1].within

    def _leave_sequence(self) -> None:
        self._position += HEADER
        self._among_items, self._encoding = False, self._open.pop().around

    def _find_end_of_fragments(self) -> None:
        """Fragments whose lengths are wrong end at the first delimiter (some writers'; pydicom takes it so)."""
        start = self._open[-1].fragments_at if self._open and self._among_items else None
        self._scans += 1
        if start is None or self._scans > MOST_SCANS:
            raise Unwalkable
        self._position = start + self._scan(start)
        self._leave_sequence()

    def _scan(self, start: int) -> int:
        """How far behind a place the next sequence delimiter is."""
        delimiter, position = self._encoding.delimiter, start
        while True:
            self._checkpoint()
            window, at = self._source.at(position)
            found = window.find(delimiter, at)
            if found >= 0:
                return position + found - at - start
            if len(window) - at < AHEAD:
                raise Unwalkable
            position += len(window) - at - len(delimiter) + 1


def _elements(
    window: bytes,
    at: int,
    encoding: Encoding,
    wanted: Mapping[int, int],
    found: dict[int, bytes],
    stops: Set[int | None],
) -> int:
    """Walk the plain elements that begin in a window, and take their values that are wanted, but for the `stops`.

    Tells where the walk goes on: at an element that is not plain, or behind the window. The hottest
    loop of a retrieval; so an undefined length, which leads 4 GB away, is looked for only behind it.
    """
    header, length_of, short, long = encoding.header, encoding.length, encoding.short, encoding.long
    size, length = len(window), 0
    last = size - LONG_HEADER
    while at <= last:
        tag, vr, length = header(window, at)
        if vr not in short:
            if vr not in long:
                return at
            length = length_of(window, at + HEADER)[0] + LONG_HEADER - HEADER
        if tag in wanted:
            end = at + HEADER + length
            if end > size or vr not in short or wanted[tag] in stops:
                return at
            _keep(found, wanted[tag], window, at + HEADER, length)
        at += HEADER + length
    return at if length < UNDEFINED else at - HEADER - length


def _items(window: bytes, at: int, encoding: Encoding) -> int:
    """Walk the items that have a length and lie in the window whole; tell where the first other one begins."""
    header, item, size = encoding.item_header, encoding.item, len(window)
    last = size - HEADER
    while at <= last:
        tag, length = header(window, at)
        end = at + HEADER + length
        if tag != item or end > size:
            break
        at = end
    return at


def _keep(found: dict[int, bytes], tag: int, window: bytes, start: int, length: int) -> None:
    """Remember a value. Two that differ under one tag are two patients to two readers: that is no data set."""
    if length > KEPT or start + length > len(window):
        raise Unwalkable
    value = window[start : start + length]
    if found.setdefault(tag, value) != value:
        raise Contradiction(tag)
