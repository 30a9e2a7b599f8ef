"""The walk of a data set: as pydicom reads it, wherever it is cut, and bounded whatever it holds."""

import os
import struct
import tempfile
import tracemalloc
import zlib
from collections import deque
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pydicom
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.filereader import data_element_generator

from mkiso.dicom import encoding, walker
from mkiso.dicom.encoding import PATIENT_ID, TRANSFER_SYNTAX, FileBytes, Inflated, Unwalkable
from mkiso.dicom.instances import read_whole
from mkiso.dicom.walker import walk_data_set, walk_meta
from tests.support.allowance import GB, require_files_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:pydicom"),
    pytest.mark.filterwarnings("ignore::UserWarning:pydicom.*"),
]
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG = EXPLICIT + ".99", "1.2.840.10008.1.2.2"
META = 132
KB, MB = 1 << 10, 1 << 20
DELIMITERS = (b"\xfe\xff\xdd\xe0", b"\xff\xfe\xe0\xdd")
UNREADABLE = (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError, struct.error)
FILES = sorted(
    file
    for file in Path(pydicom.__file__).parent.joinpath("data").rglob("*")
    if file.is_file() and file.read_bytes()[128:META] == b"DICM"
)
# One has no transfer syntax, two are torn already, and of one the edges are those of what it inflates to.
WITHOUT_EDGES = {
    file for file in FILES if file.stem in {"meta_missing_tsyntax", "MR_truncated", "rtplan_truncated", "image_dfl"}
}


# Pieces of data sets, little endian unless told otherwise
def tag(number: int, order: str = "<") -> bytes:
    return struct.pack(f"{order}HH", number >> 16, number & 0xFFFF)


def short(number: int, vr: bytes, value: bytes, order: str = "<") -> bytes:
    return tag(number, order) + vr + struct.pack(f"{order}H", len(value)) + value


def long(number: int, vr: bytes, value: bytes = b"", length: int | None = None, order: str = "<") -> bytes:
    told = len(value) if length is None else length
    return tag(number, order) + vr + bytes(2) + struct.pack(f"{order}L", told) + value


def implicit(number: int, value: bytes = b"", length: int | None = None) -> bytes:
    return tag(number) + struct.pack("<L", len(value) if length is None else length) + value


def item(value: bytes = b"", length: int | None = None, order: str = "<") -> bytes:
    told = len(value) if length is None else length
    return tag(0xFFFEE000, order) + struct.pack(f"{order}L", told) + value


UNDEFINED = 0xFFFFFFFF
OPEN, ITEM_END, SEQUENCE_END = item(length=UNDEFINED), tag(0xFFFEE00D) + bytes(4), tag(0xFFFEE0DD) + bytes(4)
SEQUENCE = long(0x00081140, b"SQ", length=UNDEFINED)
PIXELS = long(0x7FE00010, b"OB", length=UNDEFINED)
NAME = short(0x00100010, b"PN", b"DOE^JOHN")
LAST = short(0x00200013, b"IS", b"17")


def nested(data_set: bytes) -> bytes:
    """In an item of a sequence, both of undefined length."""
    return SEQUENCE + OPEN + data_set + ITEM_END + SEQUENCE_END


def file_of(data_set: bytes, syntax: str = EXPLICIT) -> bytes:
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    return bytes(128) + b"DICM" + short(0x00020010, b"UI", uid) + data_set


def deflated(data_set: bytes) -> bytes:
    press = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return file_of(press.compress(data_set) + press.flush(), DEFLATED)


def bomb(begin: bytes, megabytes: int) -> bytes:
    """A deflated data set that goes on with zeros."""
    press = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = press.compress(begin) + press.flush(zlib.Z_FULL_FLUSH)
    zeros = press.compress(bytes(MB)) + press.flush(zlib.Z_FULL_FLUSH)
    return file_of(head + zeros * megabytes + press.flush(), DEFLATED)


def walked(content: bytes) -> dict[int, bytes] | None:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return walked_file(file)


def walked_file(file: BinaryIO) -> dict[int, bytes] | None:
    """What is found in a file that can be walked to its end."""
    source, found = FileBytes(partial(os.pread, file.fileno()), os.fstat(file.fileno()).st_size), {}
    try:
        begin = walk_meta(source, META, found)
        syntax = found[TRANSFER_SYNTAX].decode().rstrip("\0 ")
        inflated = syntax == DEFLATED
        walk_data_set(Inflated(source, begin) if inflated else source, 0 if inflated else begin, syntax, found)
    except (Unwalkable, KeyError, UnicodeDecodeError):
        return None
    return found


# The oracle: pydicom's reader, and whether what it read ends with the file
def elements(file: BinaryIO, syntax: str) -> Iterator[object]:
    return data_element_generator(file, syntax == IMPLICIT, syntax != BIG, defer_size=KB)


def opened(path: Path) -> tuple[BinaryIO, str]:
    """A file's data set, inflated if need be, and its transfer syntax."""
    file = path.open("rb")
    file.seek(META)
    meta = {
        one.tag: one.value for one in data_element_generator(file, False, True, lambda number, *_: number >> 16 != 2)
    }
    syntax = meta[0x00020010].decode("ascii").rstrip("\0 ")
    if syntax != DEFLATED:
        return file, syntax
    with file:
        return BytesIO(zlib.decompress(file.read(), -zlib.MAX_WBITS)), syntax


def whole_for_pydicom(path: Path) -> bool:
    try:
        file, syntax = opened(path)
        with file:
            read = deque(elements(file, syntax), maxlen=1)
            return ends(read[0] if read else None, file)
    except (*UNREADABLE, zlib.error):
        return False


def ends(last: object, file: BinaryIO) -> bool:
    size = file.seek(0, os.SEEK_END)
    if not isinstance(last, RawDataElement) or last.length == UNDEFINED:
        file.seek(max(0, size - 16))
        rest = file.read()
        return rest.endswith(bytes(4)) and rest.rstrip(b"\0").endswith(DELIMITERS)
    file.seek(last.value_tell + last.length)
    return last.value_tell + last.length <= size and not file.read().strip(b"\0")


def edges(path: Path) -> tuple[list[int], list[int]]:
    """Where the values of the top-level elements begin, and where they end."""
    file, syntax = opened(path)
    begins, ends_of_elements = [file.tell()], []
    with file:
        for one in elements(file, syntax):
            begins.append(one.value_tell if isinstance(one, RawDataElement) else one.file_tell)
            ends_of_elements.append(file.tell())
    return begins, ends_of_elements


def agrees(path: Path) -> bool:
    with path.open("rb") as file:
        return (walked_file(file) is not None) == whole_for_pydicom(path)


def test_pydicoms_own_files_are_there() -> None:
    assert len(FILES) > 150


def test_a_file_is_whole_where_pydicom_reads_it_to_its_end() -> None:
    assert [path for path in FILES if not agrees(path)] == []
    assert [path.name for path in FILES if not whole_for_pydicom(path)] == [
        "MR_truncated.dcm",
        "meta_missing_tsyntax.dcm",
        "rtplan_truncated.dcm",
    ]


def identity(path: Path) -> tuple[str, ...] | None:
    """Who pydicom says that a file is; None where it is nobody, or torn."""
    header = dcmread(path, stop_before_pixels=True)
    keywords = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
    if not whole_for_pydicom(path) or not all(header.get(keyword) for keyword in keywords):
        return None
    patient = str(header.get("PatientID") or "").strip()
    return *(header[keyword].value for keyword in keywords), header.file_meta.TransferSyntaxUID, patient


def our_identity(path: Path) -> tuple[str, ...] | None:
    one = read_whole(path)
    if one is None:
        return None
    uids = (one.study_uid, one.series_uid, one.sop_instance_uid, one.sop_class_uid)
    return *uids, one.transfer_syntax, one.patient_id


def test_an_instance_is_who_pydicom_says() -> None:
    assert [path for path in FILES if our_identity(path) != identity(path)] == []
    assert len([path for path in FILES if our_identity(path)]) > 100


def test_a_file_cut_at_or_beside_an_edge_is_whole_where_only_zeros_follow_an_element(tmp_path: Path) -> None:
    cut, wrong = tmp_path / "cut", []
    for path in set(FILES) - WITHOUT_EDGES:
        content = path.read_bytes()
        cut.write_bytes(content)
        begins, ends_of_elements = edges(path)
        for place in sorted({place + beside for place in begins + ends_of_elements for beside in (-1, 0, 1)})[::-1]:
            os.truncate(cut, place)
            end = max((end for end in ends_of_elements if end <= place), default=None)
            whole = end is not None and not content[end:place].strip(b"\0")
            with cut.open("rb") as file:
                wrong += [] if (walked_file(file) is not None) == whole else [(path, place)]
    assert wrong == []


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=300,
    phases=[Phase.generate],
)
@given(path=st.sampled_from(FILES), where=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_whole_where_pydicom_reads_it_to_its_end(
    path: Path, where: float, tmp_path: Path
) -> None:
    content = path.read_bytes()
    cut = tmp_path / "cut"
    cut.write_bytes(content[: META + int((len(content) - META) * where)])
    assert agrees(cut)


def test_a_deflated_file_cut_anywhere_is_torn() -> None:
    content = deflated(NAME * 100 + LAST)
    assert walked(content) is not None
    assert [end for end in range(META, len(content)) if walked(content[:end]) is not None] == []


@settings(max_examples=300, phases=[Phase.explicit, Phase.generate])
@given(content=st.binary(max_size=200), syntax=st.sampled_from([IMPLICIT, EXPLICIT, BIG, DEFLATED]))
@example(content=b"", syntax=EXPLICIT)
@example(content=ITEM_END, syntax=EXPLICIT)
def test_random_bytes_are_never_an_error(content: bytes, syntax: str) -> None:
    for prefix in (b"", NAME, SEQUENCE, SEQUENCE + OPEN, PIXELS, PIXELS + item(b"12")):
        walked(file_of(prefix + content, syntax))
    walked(bytes(128) + b"DICM" + content)
    walked(deflated(content))


@settings(max_examples=500, phases=[Phase.generate])
@given(
    path=st.sampled_from([file for file in FILES if file.stat().st_size < 20 * KB]),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_damaged_file_is_never_an_error(path: Path, damage: list[tuple[float, int]]) -> None:
    content = bytearray(path.read_bytes())
    for where, byte in damage:
        content[META + int((len(content) - META) * where)] = byte
    walked(bytes(content))


WHOLE = {
    "elements": NAME + LAST,
    "elements in no order": LAST + NAME,
    "an element without a value": short(0x00100020, b"LO", b"") + LAST,
    "a value of odd length": short(0x00100020, b"LO", b"odd") + LAST,
    "each VR with a length of 32 bits": b"".join(
        long(0x00091000 + number, vr, b"12")
        for number, vr in enumerate(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
    ),
    "a VR that nobody knows": short(0x00091001, b"ZZ", b"12") + LAST,
    "an implicit VR among explicit ones": implicit(0x00091001, b"12") + LAST,
    "a sequence of undefined length": SEQUENCE + OPEN + NAME + ITEM_END + item(NAME) + SEQUENCE_END + LAST,
    "a sequence of a length": long(0x00081140, b"SQ", item(NAME)) + LAST,
    "sequences in sequences": SEQUENCE + (OPEN + SEQUENCE) * 63 + (SEQUENCE_END + ITEM_END) * 63 + SEQUENCE_END + LAST,
    "a sequence of implicit VR": SEQUENCE + OPEN + implicit(0x00080100, b"12") + ITEM_END + SEQUENCE_END + LAST,
    "a length that looks like a VR": SEQUENCE + OPEN + implicit(0x00080100) + implicit(0x00080102, b" " * 0x4F42)
    + ITEM_END + SEQUENCE_END + LAST,
    "an implicit sequence in UN": long(0x00091001, b"UN", length=UNDEFINED)
    + OPEN + implicit(0x00091002, length=UNDEFINED) + OPEN + implicit(0x00080100, b"12") + ITEM_END + SEQUENCE_END
    + ITEM_END + SEQUENCE_END + LAST,
    "an item's delimiter behind an item of a length": SEQUENCE + item(NAME) + ITEM_END + SEQUENCE_END + LAST,
    "a sequence's delimiter behind a sequence of a length": long(0x00081140, b"SQ", item(NAME)) + SEQUENCE_END + LAST,
    "items of either VR in a sequence": SEQUENCE
    + OPEN + implicit(0x00080100, b"12") + ITEM_END + OPEN + NAME + ITEM_END + SEQUENCE_END + LAST,
    "fragments of an implicit VR": implicit(0x7FE00010, length=UNDEFINED)
    + item(b"1234", length=2) + SEQUENCE_END + LAST,
    "an implicit value of undefined length": implicit(0x00091001, length=UNDEFINED) + b"12345678" + SEQUENCE_END + LAST,
    "an item of undefined length for fragments": PIXELS + OPEN + b"12345678" + SEQUENCE_END + LAST,
    "fragments": PIXELS + item() + item(b"12") + SEQUENCE_END + LAST,
    "fragments that hold a delimiter": PIXELS + item() + item(SEQUENCE_END) + SEQUENCE_END + LAST,
    "fragments whose lengths are wrong": PIXELS + item() + item(b"1234", length=2) + SEQUENCE_END + LAST,
    "fragments that lead behind the end": PIXELS + item() + item(b"1234", length=2000) + SEQUENCE_END + LAST,
    "no fragments, but a delimiter": PIXELS + bytes(100 * KB) + SEQUENCE_END + LAST,
    "zeros within": NAME + bytes(8) + LAST,
    "many zeros": NAME + bytes(3 * 64 * KB + 5),
}  # fmt: skip
TORN = {
    "an item's delimiter alone": ITEM_END,
    "an item's delimiter behind a sequence": SEQUENCE + SEQUENCE_END + ITEM_END + LAST,
    "an element that leads behind the end": short(0x00100010, b"PN", b"DOE^JOHN")[:-1],
    "a length of nearly 4 GB": long(0x00091001, b"OB", length=0xFFFFFFFE),
    "a length of 4 GB that would be undefined with its header": long(0x00091001, b"OB", length=0xFFFFFFFB),
    "an implicit length of nearly 4 GB": implicit(0x00091001, length=0xFFFFFFFE),
    "an item of nearly 4 GB": SEQUENCE + item(length=0xFFFFFFFE) + SEQUENCE_END,
    "a long length that is cut": long(0x00091001, b"OB")[:-2],
    "a sequence without an end": SEQUENCE + item(NAME),
    "a sequence without an item's end": SEQUENCE + OPEN + NAME + SEQUENCE_END,
    "an item that has no end": SEQUENCE + OPEN + NAME,
    "zeros for a sequence's end": SEQUENCE + item(NAME) + bytes(64),
    "zeros for an item's end": SEQUENCE + OPEN + NAME + bytes(256 * KB),
    "what is no item": SEQUENCE + NAME + SEQUENCE_END,
    "a tag in an item's place": SEQUENCE + implicit(0x00100010, b"DOE^JOHN") + SEQUENCE_END,
    "an item of undefined length among fragments": PIXELS + OPEN + ITEM_END + item(b"1234")[:-1],
    "65 sequences in sequences": SEQUENCE + (OPEN + SEQUENCE) * 64 + (SEQUENCE_END + ITEM_END) * 64 + SEQUENCE_END,
    "300 sequences in sequences": SEQUENCE + (OPEN + SEQUENCE) * 300 + (SEQUENCE_END + ITEM_END) * 300 + SEQUENCE_END,
    "100,000 that never end": SEQUENCE + (OPEN + SEQUENCE) * 100_000,
    "a patient's ID of 2 kB": short(0x00100020, b"LO", b"1" * 2 * KB),
    "two patients": short(0x00100020, b"LO", b"1 ") + short(0x00100020, b"LO", b"2 "),
    "two patients, one as UN": short(0x00100020, b"LO", b"1 ") + long(0x00100020, b"UN", b"2 "),
    "less than a header": b"\x01\x02\x03",
}


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE)
def test_what_can_be_walked_to_the_end_of_its_file_is_whole(content: bytes, tmp_path: Path) -> None:
    assert walked(file_of(content)) is not None
    (tmp_path / "file").write_bytes(file_of(content))
    assert whole_for_pydicom(tmp_path / "file")


@pytest.mark.parametrize("content", TORN.values(), ids=TORN)
def test_what_cannot_is_torn(content: bytes) -> None:
    assert walked(file_of(content)) is None
    assert walked(deflated(content)) is None


ID, OTHER_ID = short(0x00100020, b"LO", b"PAT001"), short(0x00100020, b"LO", b"PAT002")


@pytest.mark.parametrize(
    "data_set",
    [
        ID,
        ID + nested(OTHER_ID),
        nested(OTHER_ID) + ID,
        nested(long(0x00100020, b"UN", b"PAT002")) + ID,
        nested(NAME + implicit(0x00100020, b"PAT002")) + ID,
        long(0x00081140, b"SQ", item(OTHER_ID)) + ID,
        ID + ID,
        long(0x00100020, b"UN", b"PAT001"),
        implicit(0x00100020, b"PAT001") + NAME,
        PIXELS + item(OTHER_ID) + SEQUENCE_END + ID,
    ],
)
def test_the_values_are_those_of_the_data_set_itself(data_set: bytes) -> None:
    for content in (file_of(data_set), deflated(data_set)):
        found = walked(content)
        assert found is not None
        assert found[PATIENT_ID] == b"PAT001"


def test_a_value_is_found_wherever_a_window_ends() -> None:
    for gap in range(encoding.FIRST - 1100, encoding.FIRST + 20):
        found = walked(file_of(long(0x00091001, b"OB", bytes(gap)) + ID + nested(NAME) + LAST))
        assert found is not None
        assert found[PATIENT_ID] == b"PAT001"


def test_a_delimiter_is_found_wherever_a_window_ends() -> None:
    for gap in range(encoding.FIRST - 220, encoding.FIRST + 8):
        assert walked(file_of(PIXELS + bytes(gap) + SEQUENCE_END + LAST)) is not None


def test_a_big_endian_sequence_in_un_is_little_endian() -> None:
    inner = long(0x00091001, b"UN", length=UNDEFINED, order=">") + OPEN + implicit(0x00080100, b"12")
    data_set = inner + ITEM_END + SEQUENCE_END + short(0x00100020, b"LO", b"PAT001", order=">")
    assert (walked(file_of(data_set, BIG)) or {}).get(PATIENT_ID) == b"PAT001"


def test_a_big_endian_sequence_in_un_that_is_big_endian_is_tolerated() -> None:
    start = long(0x00091001, b"UN", length=UNDEFINED, order=">") + item(b"", UNDEFINED, order=">")
    ends_of_both = tag(0xFFFEE00D, ">") + bytes(4) + tag(0xFFFEE0DD, ">") + bytes(4)
    data_set = start + ends_of_both + short(0x00100020, b"LO", b"PAT001", order=">")
    assert (walked(file_of(data_set, BIG)) or {}).get(PATIENT_ID) == b"PAT001"


@pytest.mark.parametrize("syntax", ["1.2.3.4", "1.2.840.10008.1.2.4.999", "1.2.840.10008.1.2.4.50"])
def test_a_transfer_syntax_that_nobody_knows_is_explicit_little_endian(syntax: str) -> None:
    assert (walked(file_of(ID, syntax)) or {}).get(PATIENT_ID) == b"PAT001"


META_LENGTH = short(0x00020000, b"UL", struct.pack("<L", 9999))
PRIVATE = long(0x00020102, b"OB", bytes(20 * KB))
SYNTAX = short(0x00020010, b"UI", EXPLICIT.encode() + b"\0")


@pytest.mark.parametrize(
    "meta",
    [META_LENGTH + SYNTAX, SYNTAX, PRIVATE + SYNTAX, SYNTAX + PRIVATE, implicit(0x00020010, EXPLICIT.encode() + b" ")],
    ids=["of a wrong length", "of no length", "of 20 kB", "of 20 kB behind", "of implicit VR"],
)
def test_file_meta_information_is_tolerated(meta: bytes) -> None:
    assert (walked(bytes(128) + b"DICM" + meta + ID + LAST) or {}).get(PATIENT_ID) == b"PAT001"


@pytest.mark.parametrize(
    "meta", [b"", NAME, SYNTAX, SYNTAX + PRIVATE * 60, long(0x00020010, b"UN", b"1" * 2 * KB), bytes(64)]
)
def test_file_meta_information_is_torn(meta: bytes) -> None:
    assert walked(bytes(128) + b"DICM" + meta) is None
    if meta != SYNTAX:
        assert walked(bytes(128) + b"DICM" + meta + ID + LAST) is None


def test_what_follows_the_end_of_a_compression_is_not_looked_at() -> None:
    content = deflated(ID)
    assert walked(content + b"\x01") == walked(content + bytes(99)) == walked(content)


def test_a_compression_of_a_torn_data_set_is_torn() -> None:
    assert walked(deflated(ID[:-1])) is None
    assert walked(file_of(b"no compression", DEFLATED)) is None


# A file, and whether it is whole
HOSTILE = {
    "4 MB of empty items": (file_of(SEQUENCE + item() * (MB // 2) + SEQUENCE_END), True),
    "1 MB of empty items without an end": (file_of(SEQUENCE + item() * (MB // 8)), False),
    "512 kB of empty items of undefined length": (file_of(nested(b"") * (MB // 2 // 36)), True),
    "1 MB of sequences that are not closed": (file_of((SEQUENCE + OPEN) * (MB // 20)), False),
    "1 MB of elements without a value": (file_of(short(0x00091001, b"LO", b"") * (MB // 8)), True),
    "512 kB of elements without a VR": (file_of(implicit(0x00091001) * (MB // 2 // 8)), True),
    "1 MB of fragments that end within one": (file_of((PIXELS + item(SEQUENCE_END)) * (MB // 28)), False),
    "1 MB of zeros for fragments": (file_of(PIXELS + bytes(MB)), False),
    "64 MB of zeros": (file_of(NAME + bytes(64 * MB)), True),
}
DEFLATED_HOSTILE = {
    "a value of 1 GB, deflated": (bomb(long(0x7FE00010, b"OW", length=1 << 30), 1024), True),
    "256 MB of zeros, deflated": (bomb(NAME, 256), False),
}


@pytest.mark.parametrize(
    ("content", "whole", "most"),
    [
        *(pytest.param(*values, 256 * KB, id=name) for name, values in HOSTILE.items()),
        *(pytest.param(*values, MB, id=name) for name, values in DEFLATED_HOSTILE.items()),
    ],
)
def test_memory_is_bounded_whatever_a_file_holds(content: bytes, whole: bool, most: int) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        tracemalloc.start()
        try:
            assert (walked_file(file) is not None) == whole
            assert tracemalloc.get_traced_memory()[1] < most
        finally:
            tracemalloc.stop()


def test_what_is_skipped_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    require_files_of(4 * GB)
    read: list[int] = []
    real = os.pread

    def counted(descriptor: int, size: int, position: int) -> bytes:
        read.append(size)
        return real(descriptor, size, position)

    monkeypatch.setattr(os, "pread", counted)
    with tempfile.TemporaryFile() as file:
        file.write(file_of(ID + long(0x7FE00010, b"OW", length=3 << 30)))
        file.truncate(file.tell() + (3 << 30))
        assert (walked_file(file) or {}).get(PATIENT_ID) == b"PAT001"
    assert sum(read) <= encoding.FIRST


@pytest.mark.parametrize(
    ("limited", "limit", "data_set"),
    [
        ("MOST_INFLATED", MB, long(0x7FE00010, b"OW", bytes(MB))),
        ("MOST_WALKED", 64 * KB, short(0x00091001, b"LO", b"") * (MB // 8)),
    ],
)
def test_what_a_deflated_file_may_become_is_bounded(
    limited: str, limit: int, data_set: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = deflated(data_set)
    assert walked(content) is not None
    monkeypatch.setattr(encoding, limited, limit)
    assert walked(content) is None


def test_the_steps_of_a_walk_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    content = file_of(nested(NAME) * 100)
    assert walked(content) is not None
    monkeypatch.setattr(walker, "MOST_STEPS", 100)
    assert walked(content) is None


def test_zeros_take_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walker, "MOST_STEPS", 20_000)
    assert walked(file_of(NAME + bytes(4 * MB))) is not None


def test_the_scans_of_a_walk_are_bounded() -> None:
    broken = PIXELS + item(b"1234", length=2) + SEQUENCE_END
    assert walked(file_of(broken * walker.MOST_SCANS)) is not None
    assert walked(file_of(broken * (walker.MOST_SCANS + 1))) is None


def test_a_file_that_is_cut_while_it_is_walked_is_torn() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(file_of(long(0x00091001, b"OB", bytes(MB)) + LAST))
        file.flush()
        source = FileBytes(partial(os.pread, file.fileno()), file.tell())
        file.truncate(MB // 2)
        with pytest.raises(Unwalkable):
            walk_data_set(source, walk_meta(source, META, {}), EXPLICIT, {})
