"""Received instances: what each file says of itself, and whether it is well-formed.

A file is well-formed where its data set, walked element by element, ends exactly where the file ends. That is no proof
that it came whole, which the receiver alone can give; and what came whole need not be well-formed, for archives hold
such files, too: these are `malformed`.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pydicom.uid import DeflatedExplicitVRLittleEndian

from mkiso.dicom import encoding
from mkiso.dicom.datasets import decoded
from mkiso.dicom.encoding import (
    BEFORE_META,
    PREFIX,
    FileBytes,
    Inflated,
    Unwalkable,
    beginning,
    data_set_of,
    encoding_of,
    inflated,
    no_checkpoint,
)
from mkiso.dicom.headers import READ, salvaged
from mkiso.dicom.walker import Contradiction, walk_data_set, walk_meta
from mkiso.waiting import Checkpoint, Stopwatch

# What counts the file meta information behind it, as the receiver writes it.
META_LENGTH = PREFIX + b"\x02\0\0\0UL\x04\0"
LENGTH_AT = BEFORE_META + len(META_LENGTH) - len(PREFIX)
UIDS = (encoding.SOP_INSTANCE, encoding.SOP_CLASS, encoding.SERIES, encoding.STUDY)
# What an instance was sent as (PS3.10 7.1), where its data set does not say what it is.
SENT_AS = {encoding.SOP_INSTANCE: encoding.MEDIA_SOP_INSTANCE, encoding.SOP_CLASS: encoding.MEDIA_SOP_CLASS}
# Without these an instance is nobody's; a series is no part of the proof.
NAMED = {
    encoding.SOP_INSTANCE: "SOP Instance UID",
    encoding.SOP_CLASS: "SOP Class UID",
    encoding.STUDY: "Study Instance UID",
}
# What the ledger remembers of an instance.
COLUMNS = (
    *("sop_instance_uid", "sop_class_uid", "series_uid", "study_uid", "modality", "transfer_syntax", "bytes"),
    "malformed",
)
COMPARED = 1 << 16
HEAD = 1 << 18  # bytes of a file that grows, which tell what it will be
HEAD_CHECKS = 10  # of its walk, which so many steps or pieces of what is deflated lie between
STRANGERS = 5.0  # seconds in which a job reads what it does not expect, all of it together
Key = tuple[str, str]
Values = Mapping[int, bytes | None]


@dataclass(frozen=True)
class Instance:
    """An instance on disk; `version` tells whether the file was written to since it was read."""

    path: Path
    sop_instance_uid: str
    sop_class_uid: str
    series_uid: str
    study_uid: str
    transfer_syntax: str
    bytes: int
    version: tuple[int, int]
    patient_id: str = ""
    data_set_at: int = 0
    modality: str = ""
    series_number: str = ""
    instance_number: str = ""
    malformed: bool = False
    patient_known: bool = True  # whether the Patient ID could be read, or told to be absent

    @property
    def key(self) -> Key:
        return self.study_uid, self.sop_instance_uid

    @property
    def is_deflated(self) -> bool:
        return self.transfer_syntax == DeflatedExplicitVRLittleEndian

    def row(self, outcome: str) -> dict[str, str | int]:
        """The instance as the ledger remembers it, with what became of it."""
        return {column: getattr(self, column) for column in COLUMNS} | {"outcome": outcome}


@dataclass(eq=False)
class Unattributable(Exception):
    """Of what came whole it cannot be told what it is: which instance it was sent as, and why."""

    sop_instance_uid: str
    why: str


@dataclass(eq=False)
class Foreign(Exception):
    """What came whole is of no study that is asked for: which instance it was sent as.

    Where `is_read` is false, there was no time left to look of which study it is.
    """

    sop_instance_uid: str
    is_read: bool


class _OutOfTime(Exception):
    """Strangers have had the time that they get."""


@dataclass
class Expectation:
    """What a job expects: the UIDs of its instances and of their studies. Anybody may send something else.

    `checkpoint` is called while a file is walked. What is not known to be expected is so for `seconds` more, in all.
    """

    uids: set[str] = field(default_factory=set)
    checkpoint: Checkpoint = no_checkpoint
    seconds: float = field(default_factory=lambda: STRANGERS)

    def is_met(self, found: Values) -> bool:
        """Whether an instance was sent as one of these, or is of one of their studies."""
        return not self.uids.isdisjoint(_found_uid(found, tag) for tag in (encoding.MEDIA_SOP_INSTANCE, encoding.STUDY))

    @contextmanager
    def reading(self, found: Values, most: float = math.inf) -> Iterator[Checkpoint]:
        """The checkpoint of a walk that fills `found`, at most so many times. It raises _OutOfTime."""
        watch, calls = Stopwatch(), itertools.count()

        def checkpoint() -> None:
            self.checkpoint()
            if (next(calls) >= most or watch.seconds() > self.seconds) and not self.is_met(found):
                raise _OutOfTime

        try:
            yield checkpoint
        finally:
            if not self.is_met(found):
                self.seconds -= watch.seconds()


def read_whole(path: Path) -> Instance | None:
    """The instance in a file; None where the file is no well-formed one (PS3.10 7.1), or is gone.

    OSError says that it could not be read; no content of a file raises anything.
    """
    with suppress(Unattributable, Unwalkable, FileNotFoundError, IsADirectoryError), _opened(path) as (file, version):
        one = _read(path, file, version)
        return None if one.malformed else one
    return None


def read_arrival(
    path: Path, is_transferred: Callable[[int], bool], expectation: Expectation | None = None
) -> Instance | None:
    """The instance in a file that came whole, well-formed or not; None where it has not, or not yet, or is gone.

    `is_transferred` is told how many bytes of data set there are. What does not meet the expectation is read to its
    Study Instance UID, and no further. Raises Foreign, Unattributable; OSError as `read_whole`.
    """
    with suppress(FileNotFoundError, IsADirectoryError), _opened(path) as (file, version):
        if is_transferred(version[0] - _behind_meta(file)):
            try:
                return _read(path, file, version, expectation)
            except Unwalkable:
                raise Unattributable("", "there is no data set in it") from None
    return None


def instance_within(path: Path, content: FileBytes, version: tuple[int, int]) -> Instance | None:
    """The instance, well-formed or not, in these bytes, as many as `version` tells."""
    with suppress(Unattributable, Unwalkable):
        return _read(path, content, version)
    return None


def claimed_key(path: Path, expectation: Expectation) -> Key | None:
    """The Study and SOP Instance UIDs that the head of a file tells, which may be torn; "" where it does not.

    Nor the study's where the instance is expected. None where it does not tell soon.
    """
    found: dict[int, bytes] = {}
    try:
        with _opened(path, HEAD) as (file, _version), expectation.reading(found, HEAD_CHECKS) as checkpoint:
            _to_study(file, expectation, found, checkpoint)
    except _OutOfTime:
        return None
    except (Unwalkable, FileNotFoundError, IsADirectoryError):
        pass
    return _found_uid(found, encoding.STUDY), _found_uid(found, encoding.MEDIA_SOP_INSTANCE)


def same_data_set(one: Instance, other: Instance) -> bool:
    """Whether two files hold the same data set, byte for byte; their file meta information may differ."""
    if one.transfer_syntax != other.transfer_syntax or one.bytes - one.data_set_at != other.bytes - other.data_set_at:
        return False
    with one.path.open("rb") as first, other.path.open("rb") as second:
        first.seek(one.data_set_at)
        second.seek(other.data_set_at)
        while piece := first.read(COMPARED):
            if piece != second.read(COMPARED):
                return False
        return not second.read(1)


def inflates_to(instance: Instance, most: int) -> bool:
    """Whether a deflated data set is longer than so many bytes; what is no such data set any more is not."""
    with suppress(Unwalkable), _opened(instance.path) as (file, _version):
        Inflated(file, instance.data_set_at).at(most + 1)
        return True
    return False


def version_of(path: Path) -> tuple[int, int] | None:
    """Size in bytes and time of the last write in nanoseconds; None where there is no such file (any more)."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


@contextmanager
def _opened(path: Path, most: int | None = None) -> Iterator[tuple[FileBytes, tuple[int, int]]]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        status = os.fstat(descriptor)
        size = status.st_size if most is None else min(most, status.st_size)
        yield FileBytes(partial(os.pread, descriptor), size), (status.st_size, status.st_mtime_ns)
    finally:
        os.close(descriptor)


def _read(path: Path, file: FileBytes, version: tuple[int, int], expectation: Expectation | None = None) -> Instance:
    """What a file holds. Raises Unwalkable where it is none of DICOM's, Foreign and Unattributable."""
    meta: dict[int, bytes] = {}
    data_set_at = _expected(file, meta, expectation) if expectation else _meta(file, meta)
    syntax = _uid(meta, encoding.TRANSFER_SYNTAX)
    malformed, found = _identity(file, data_set_at, syntax, expectation.checkpoint if expectation else no_checkpoint)
    uids = [_found_uid(found, tag) or _found_uid(meta, SENT_AS.get(tag, 0)) for tag in UIDS]
    if missing := [NAMED[tag] for tag, uid in zip(UIDS, uids, strict=True) if tag in NAMED and not uid]:
        raise Unattributable(uids[0], f"its {' and its '.join(missing)} cannot be read")
    patient = patient_id({tag: value or b"" for tag, value in found.items()})
    sop, sop_class, series, study = uids
    series_number, number = [_text(found, tag) for tag in (encoding.SERIES_NUMBER, encoding.INSTANCE_NUMBER)]
    return Instance(
        *(path, sop, sop_class, series, study, syntax, version[0], version, patient, data_set_at),
        modality=_text(found, encoding.MODALITY),
        series_number=series_number,
        instance_number=number,
        malformed=malformed,
        patient_known=_knows_patient(found),
    )


def _expected(file: FileBytes, found: dict[int, bytes], expectation: Expectation) -> int:
    """Where the data set begins of what is expected. Raises as `_read` where it is not."""
    try:
        with expectation.reading(found) as checkpoint:
            begin = _to_study(file, expectation, found, checkpoint, salvaging=True)
    except _OutOfTime:
        raise Foreign(_found_uid(found, encoding.MEDIA_SOP_INSTANCE), False) from None
    if expectation.is_met(found):
        return begin
    sop = _found_uid(found, encoding.MEDIA_SOP_INSTANCE)
    if not _found_uid(found, encoding.STUDY):
        raise Unattributable(sop, f"its {NAMED[encoding.STUDY]} cannot be read")
    raise Foreign(sop, True)


def _to_study(
    file: FileBytes, expectation: Expectation, found: dict[int, bytes], checkpoint: Checkpoint, salvaging: bool = False
) -> int:
    """Read a file until it is known whether it is expected: to its Study Instance UID, if need be.

    Tells where its data set begins.
    """
    begin = _meta(file, found, checkpoint)
    if expectation.is_met(found):
        return begin
    checkpoint()
    syntax = _uid(found, encoding.TRANSFER_SYNTAX)
    try:
        walk_data_set(*data_set_of(file, begin, syntax, checkpoint), syntax, found, checkpoint, encoding.STUDY)
    except Unwalkable:
        if salvaging:
            found[encoding.STUDY] = _salvaged(file, begin, syntax, checkpoint).get(encoding.STUDY) or b""
    return begin


def _identity(file: FileBytes, begin: int, syntax: str, checkpoint: Checkpoint) -> tuple[bool, Values]:
    """Whether a data set is malformed, and its values of OF_DATA_SET; None for one that cannot be read."""
    found: dict[int, bytes] = {}
    contradicted = None
    try:
        walk_data_set(*data_set_of(file, begin, syntax, checkpoint), syntax, found, checkpoint)
        return False, found
    except Contradiction as error:
        contradicted = error.tag
    except Unwalkable:
        pass
    values = _salvaged(file, begin, syntax, checkpoint)
    return True, values if contradicted is None else values | {contradicted: None}


def _salvaged(file: FileBytes, begin: int, syntax: str, checkpoint: Checkpoint) -> dict[int, bytes | None]:
    data = beginning(file, begin, READ)
    if syntax == DeflatedExplicitVRLittleEndian:
        data = inflated(data, READ)
    return salvaged(data, encoding_of(syntax), checkpoint)


def _meta(file: FileBytes, found: dict[int, bytes], checkpoint: Checkpoint = no_checkpoint) -> int:
    head, at = file.at(0)
    if not head.startswith(PREFIX, at + BEFORE_META - len(PREFIX)):
        raise Unwalkable
    return walk_meta(file, BEFORE_META, found, checkpoint)


def _behind_meta(file: FileBytes) -> int:
    """Where the data set begins by what (0002,0000) counts, as the receiver wrote it; far behind all where it is not.

    What follows may look as if it belonged to it: archives hold data sets with elements of this group.
    """
    head, at = file.at(0)
    begins = head.startswith(META_LENGTH, at + BEFORE_META - len(PREFIX))
    return LENGTH_AT + 4 + int.from_bytes(head[LENGTH_AT : LENGTH_AT + 4], "little") if begins else 1 << 64


def _uid(found: Values, tag: int) -> str:
    """Raises Unwalkable where there is none."""
    if uid := _found_uid(found, tag):
        return uid
    raise Unwalkable


def _found_uid(found: Values, tag: int) -> str:
    """Empty where there is none that can be read."""
    try:
        return (found.get(tag) or b"").decode("ascii").rstrip("\0 ")
    except UnicodeDecodeError:
        return ""


def _text(found: Values, tag: int) -> str:
    return (found.get(tag) or b"").decode("ascii", "replace").strip("\0 ")


def _knows_patient(found: Values) -> bool:
    value = found.get(encoding.PATIENT_ID, b"")
    return value is not None and (value.isascii() or found.get(encoding.CHARACTER_SET, b"") is not None)


def patient_id(found: Mapping[int, bytes]) -> str:
    """The Patient ID among values, as that of the archive's answer is read: the two compare."""
    names = found.get(encoding.CHARACTER_SET, b"").decode("ascii", "replace")
    return decoded(found.get(encoding.PATIENT_ID, b""), names)
