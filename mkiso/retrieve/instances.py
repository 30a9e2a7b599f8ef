"""Received instances: their headers, and whether each file is whole.

A file is whole where its data set, walked element by element, ends exactly where the file ends.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.uid import DeflatedExplicitVRLittleEndian

from mkiso.retrieve import encoding
from mkiso.retrieve.walker import walk_data_set, walk_meta
from mkiso.retrieve.windows import FileBytes, Inflated, Source, Unwalkable

PREAMBLE = 128
PREFIX = b"DICM"
META = PREAMBLE + len(PREFIX)
UIDS = (encoding.SOP_INSTANCE, encoding.SOP_CLASS, encoding.SERIES, encoding.STUDY)
COMPARED = 1 << 16
DELIMITERS = {ord(one) for one in "\n\r\t\f\\"}  # each ends an escape sequence (PS3.5 6.1.2.5.3)

Key = tuple[str, str]


@dataclass(frozen=True)
class Instance:
    """A whole instance on disk; `version` tells whether the file was written to since it was read."""

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
    series_number: str = ""
    instance_number: str = ""

    @property
    def key(self) -> Key:
        return self.study_uid, self.sop_instance_uid

    def row(self, outcome: str) -> dict[str, str | int]:
        """The instance as the ledger remembers it, with what became of it."""
        return {
            "sop_instance_uid": self.sop_instance_uid,
            "sop_class_uid": self.sop_class_uid,
            "series_uid": self.series_uid,
            "study_uid": self.study_uid,
            "transfer_syntax": self.transfer_syntax,
            "bytes": self.bytes,
            "outcome": outcome,
        }


def read_whole(path: Path) -> Instance | None:
    """The instance in a file; None where the file is not, or not yet, a whole one (PS3.10 7.1), or is gone.

    OSError says that it could not be read; no content of a file raises anything.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(descriptor)
        return whole_within(path, descriptor, 0, (status.st_size, status.st_mtime_ns))
    finally:
        os.close(descriptor)


def whole_within(path: Path, descriptor: int, begin: int, version: tuple[int, int]) -> Instance | None:
    """As `read_whole`, of a part of an open file, which has the size that `version` tells."""
    try:
        return _walked(path, FileBytes(descriptor, version[0], begin), version)
    except (Unwalkable, UnicodeDecodeError, IsADirectoryError):
        return None


def claimed_uid(path: Path) -> str | None:
    """The Media Storage SOP Instance UID at the head of a file that may be torn (PS3.10 7.1); None without."""
    found: dict[int, bytes] = {}
    with suppress(Unwalkable, FileNotFoundError, IsADirectoryError), path.open("rb") as file:
        _meta(FileBytes(file.fileno(), os.fstat(file.fileno()).st_size), found)
    with suppress(Unwalkable, UnicodeDecodeError):
        return _uid(found, encoding.MEDIA_SOP_INSTANCE)
    return None


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


def version_of(path: Path) -> tuple[int, int] | None:
    """Size in bytes and time of the last write in nanoseconds; None where there is no such file (any more)."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def _walked(path: Path, file: FileBytes, version: tuple[int, int]) -> Instance:
    found: dict[int, bytes] = {}
    data_set_at = _meta(file, found)
    syntax = _uid(found, encoding.TRANSFER_SYNTAX)
    if syntax == DeflatedExplicitVRLittleEndian:
        walk_data_set(Inflated(file, data_set_at), 0, syntax, found)
    else:
        walk_data_set(file, data_set_at, syntax, found)
    sop, sop_class, series, study = [_uid(found, tag) for tag in UIDS]
    numbers = [_text(found, tag) for tag in (encoding.SERIES_NUMBER, encoding.INSTANCE_NUMBER)]
    return Instance(
        path, sop, sop_class, series, study, syntax, version[0], version, patient_id(found), data_set_at, *numbers
    )


def _meta(file: Source, found: dict[int, bytes]) -> int:
    head, at = file.at(0)
    if not head.startswith(PREFIX, at + PREAMBLE):
        raise Unwalkable
    return walk_meta(file, META, found)


def _uid(found: dict[int, bytes], tag: int) -> str:
    uid = found.get(tag, b"").decode("ascii").rstrip("\0 ")
    if not uid:
        raise Unwalkable
    return uid


def _text(found: dict[int, bytes], tag: int) -> str:
    return found.get(tag, b"").decode("ascii", "replace").strip("\0 ")


def patient_id(found: Mapping[int, bytes]) -> str:
    """The Patient ID among values, as pydicom reads that of the archive's answer: the two compare (PS3.5 6.1.2)."""
    value = found.get(encoding.PATIENT_ID, b"")
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii").strip("\0 ")
    names = found.get(encoding.CHARACTER_SET, b"").decode("ascii", "replace").split("\\")
    try:
        text = decode_bytes(value, convert_encodings([name.strip("\0 ") for name in names]), DELIMITERS)
    except (LookupError, ValueError):  # a name that is one of Python's, not of DICOM's
        text = ""
    return text.strip("\0 ") or value.decode("latin-1").strip("\0 ")  # punycode reads nothing where there is something
