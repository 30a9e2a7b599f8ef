"""Files as archives hold them whose elements do not fit: stored, listed and sent by something, and kept as they are."""

import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.filereader import read_file_meta_info
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless

from tests.support.studies import RICHARD, Study, ct_study

ODD, ACCESSION = ".odd", "ODD.001"  # the suffix of what an archive sends instead of the file that it lists
PIXELS = b"\xe0\x7f\x10\x00"
SERIES = b"\x08\x00\x15\x11SQ\0\0"
STUDY = b"\x20\x00\x0d\x00UI"
ITEM, ITEM_END, SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0" + bytes(4), b"\xfe\xff\xdd\xe0" + bytes(4)
CREATOR = b"\x09\x00\x10\x00LO\x06\x00ODD 1 "


def _private(header: bytes) -> Callable[[bytes], bytes]:
    """An element of a private group, which lies before the patient and the study."""

    def put_in(data: bytes) -> bytes:
        at = data.index(b"\x10\x00\x10\x00PN")
        element = b"\x09\x00\x01\x10" + header + b"\x06\x00abcdef"
        return data[:at] + CREATOR + element + data[at:]

    return put_in


def _sequence(by: int) -> Callable[[bytes], bytes]:
    """A sequence before the patient and the study, whose length is wrong by so many bytes."""

    def put_wrong(data: bytes) -> bytes:
        at = data.index(SERIES) + len(SERIES)
        (length,) = struct.unpack_from("<L", data, at)
        return data[:at] + struct.pack("<L", length + by) + data[at + 4 :]

    return put_wrong


def _pixels(by: int) -> Callable[[bytes], bytes]:
    def put_wrong(data: bytes) -> bytes:
        at = data.rindex(PIXELS) + 8
        (length,) = struct.unpack_from("<L", data, at)
        return data[:at] + struct.pack("<L", length + by) + data[at + 4 :]

    return put_wrong


def _sequence_with_both(data: bytes) -> bytes:
    """A length, and a delimiter behind that (as Philips writes them)."""
    at = data.index(SERIES) + len(SERIES)
    end = at + 4 + struct.unpack_from("<L", data, at)[0]
    return data[:end] + SEQUENCE_END + data[end:]


def _item_with_both(data: bytes) -> bytes:
    """In a sequence of undefined length an item with a length, and a delimiter behind that (as GE writes them)."""
    at = data.index(SERIES) + len(SERIES)
    end = at + 4 + struct.unpack_from("<L", data, at)[0]
    return data[:at] + b"\xff" * 4 + data[at + 4 : end] + ITEM_END + SEQUENCE_END + data[end:]


# What is done to a data set; and whether that makes it malformed, which some of it does not.
MALFORMED: dict[str, Callable[[bytes], bytes]] = {
    "a VR of two spaces": _private(b"  "),
    "a VR of 06 00": _private(b"\x06\x00"),
    "a VR of ??": _private(b"??"),
    "a sequence that is longer than it says": _sequence(-10),
    "a sequence that is shorter than it says": _sequence(6),
    "pixel data that is shorter than it says": _pixels(1000),
    "pixel data that is longer than it says": _pixels(-1000),
    "an end in the middle of an element": lambda data: data[:-200],
    "fragments without a delimiter": lambda data: data.removesuffix(SEQUENCE_END),
}
WELL_FORMED: dict[str, Callable[[bytes], bytes]] = {
    "a private element without a VR": lambda data: data.replace(
        b"\x10\x00\x10\x00PN", b"\x09\x00\x01\x10\x06\x00\x00\x00abcdef\x10\x00\x10\x00PN", 1
    ),
    "a sequence with a length and a delimiter": _sequence_with_both,
    "an item with a length and a delimiter": _item_with_both,
}


def odd_study(
    root: Path, kinds: Mapping[str, Callable[[bytes], bytes]], accession: str = ACCESSION
) -> tuple[Study, dict[str, str]]:
    """A study of a file of each kind, beside one that is as it should be; and each file's UID by its kind."""
    study = ct_study(root, RICHARD, accession, count=len(kinds) + 1, side=32)
    for kind, file in zip(kinds, study.files, strict=False):
        dataset = dcmread(file)
        item = Dataset()
        item.SeriesInstanceUID, item.SeriesDescription = "1.2.3.4.5.6", "earlier"
        dataset.ReferencedSeriesSequence = Sequence([item, item])
        if kind.startswith("fragments"):
            dataset.PixelData = encapsulate([b"\1\2" * 50, b"\3\4" * 50])
            dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
            dataset.file_meta.TransferSyntaxUID = RLELossless
        dataset.save_as(file)
        content = file.read_bytes()
        at = data_set_at(content)
        odd = kinds[kind](content[at:])
        assert odd != content[at:]
        file.with_suffix(ODD).write_bytes(content[:at] + odd)
    return study, {kind: file.stem for kind, file in zip(kinds, study.files, strict=False)}


def data_set_at(content: bytes) -> int:
    """Where a data set begins, which no reader of the data set itself needs to be asked (PS3.10 7.1)."""
    return 144 + int.from_bytes(content[140:144], "little")


def sent(study: Study) -> dict[str, bytes]:
    """SOP Instance UID to data set, as the archive sends it."""
    return as_it_is(odd if (odd := file.with_suffix(ODD)).exists() else file for file in study.files)


def as_it_is(files: Iterable[Path]) -> dict[str, bytes]:
    """SOP Instance UID to data set, byte for byte."""
    read = {str(read_file_meta_info(file).MediaStorageSOPInstanceUID): file.read_bytes() for file in files}
    return {uid: content[data_set_at(content) :] for uid, content in read.items()}
