"""Received instances: their headers, and whether each file is whole.

A file is whole where its data set, walked element by element, ends exactly where the file ends.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom import DataElement, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import data_element_generator
from pydicom.uid import UID

KEPT_IN_MEMORY = 1024
UNDEFINED_LENGTH = 0xFFFFFFFF
SEQUENCE_DELIMITERS = (b"\xfe\xff\xdd\xe0", b"\xff\xfe\xe0\xdd")  # a length of four zeros follows
END_SIZE = 16
# SOP Instance UID, SOP Class UID, Series Instance UID, Study Instance UID
UIDS = (0x00080018, 0x00080016, 0x0020000E, 0x0020000D)
WANTED = frozenset(UIDS)
TRANSFER_SYNTAX = 0x00020010
PREAMBLE = 128
UNREADABLE = (
    BytesLengthException,
    InvalidDicomError,
    EOFError,
    OSError,  # pydicom's for an item without its delimiter, too
    ValueError,
    KeyError,
    AttributeError,
    TypeError,
    NotImplementedError,
    struct.error,
    zlib.error,
)


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
    patient_id: str
    bytes: int
    version: tuple[int, int]

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
    """The instance in a file; None where the file is not, or not yet, a whole one (PS3.10 7.1)."""
    try:
        with path.open("rb") as file:
            version = version_of(path) or (0, 0)
            syntax = _transfer_syntax(file)
            uids = _inflated_uids(path) if syntax.is_deflated else _walked_uids(file, syntax, version[0])
    except UNREADABLE:
        return None
    if uids is None or not WANTED.issubset(uids):
        return None
    sop, sop_class, series, study = (uids[tag] for tag in UIDS)
    return Instance(
        path,
        sop,
        sop_class,
        series,
        study,
        str(syntax),
        str(dcmread(path, specific_tags=["PatientID"]).get("PatientID") or "").strip(),
        version[0],
        version,
    )


def claimed_uid(path):  # type: ignore
    from pydicom.filereader import read_file_meta_info

    try:
        return str(read_file_meta_info(path).MediaStorageSOPInstanceUID)
    except Exception:
        return None


def same_data_set(one, other):  # type: ignore
    from pydicom import dcmread

    a, b = dcmread(one.path), dcmread(other.path)
    return a.to_json() == b.to_json()


def version_of(path: Path) -> tuple[int, int] | None:
    """Size in bytes and time of the last write in nanoseconds; None where there is no such file (any more)."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def _transfer_syntax(file: BinaryIO) -> UID:
    """What the file meta information says (PS3.10 7.1); the file stands at its data set afterwards."""
    if file.read(PREAMBLE + 4)[PREAMBLE:] != b"DICM":
        raise InvalidDicomError
    uids = [
        element.value
        for element in data_element_generator(file, False, True, stop_when=_behind_meta)
        if element.tag == TRANSFER_SYNTAX and isinstance(element.value, bytes)
    ]
    return UID(uids[0].decode("ascii").rstrip("\0 ")) if uids else UID("")


def _behind_meta(tag: int, _vr: object, _length: int) -> bool:
    return tag > 0x0002FFFF  # noqa: PLR2004  (PS3.10 7.1: group 0002)


def _walked_uids(file: BinaryIO, syntax: UID, size: int) -> dict[int, str] | None:
    """The UIDs of a data set that ends where its file ends; None where it does not."""
    uids, last = {}, None
    walk = data_element_generator(file, syntax.is_implicit_VR, syntax.is_little_endian, defer_size=KEPT_IN_MEMORY)
    for last in walk:
        if last.tag in WANTED and isinstance(last.value, bytes):
            uids[int(last.tag)] = last.value.decode("ascii").rstrip("\0 ")
    return uids if _ends_with_file(last, file, size) else None


def _ends_with_file(last: RawDataElement | DataElement | None, file: BinaryIO, size: int) -> bool:
    if not isinstance(last, RawDataElement) or last.length == UNDEFINED_LENGTH:
        file.seek(max(0, size - END_SIZE))
        end_of_file = file.read()
        return end_of_file.endswith(bytes(4)) and end_of_file.rstrip(b"\0").endswith(SEQUENCE_DELIMITERS)
    end = last.value_tell + last.length
    file.seek(end)
    return end <= size and not file.read().strip(b"\0")


def _inflated_uids(path: Path) -> dict[int, str]:
    """The UIDs of a deflated data set (PS3.5 A.5), whose compression fails where an end is missing."""
    dataset = dcmread(path, specific_tags=list(UIDS))
    return {tag: str(dataset[tag].value) for tag in UIDS}
