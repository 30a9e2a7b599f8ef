import errno
import logging
import os
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from mkiso.dicom.instances import (
    Expectation,
    Instance,
    Unattributable,
    claimed_key,
    read_arrival,
    read_whole,
    same_data_set,
)

SYNTAXES = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "encapsulated": RLELossless,
    "deflated": DeflatedExplicitVRLittleEndian,
}
every_syntax = pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
IDENTITY = ("1.2.3.4", "1.2.840.10008.5.1.4.1.1.7", "1.2.3.5", "1.2.3.6")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """pydicom complains of each damaged file."""
    monkeypatch.setattr(logging.getLogger("pydicom"), "disabled", True)


def item(undefined: bool) -> Dataset:
    made = Dataset()
    made.CodeValue = "1"
    made.is_undefined_length_sequence_item = undefined
    return made


def sequence(undefined: bool) -> Sequence:
    """Sequences in a sequence, each of undefined length or not."""
    outer = item(undefined)
    outer.ConceptNameCodeSequence = Sequence([item(undefined), item(undefined)])
    outer["ConceptNameCodeSequence"].is_undefined_length = undefined
    return Sequence([outer])


def data_set(syntax: UID, sop_instance_uid: str = IDENTITY[0]) -> Dataset:
    made = Dataset()
    made.SOPInstanceUID, made.SOPClassUID, made.SeriesInstanceUID, made.StudyInstanceUID = IDENTITY
    made.SOPInstanceUID = sop_instance_uid
    made.PatientName = "TEST^CUT"
    made.PatientID = " TEST 1 "
    made.AnatomicRegionSequence = sequence(undefined=True)
    made["AnatomicRegionSequence"].is_undefined_length = True
    made.ReferencedStudySequence = Sequence([])
    made.ProcedureCodeSequence = sequence(undefined=False)
    made.add_new(0x00091010, "UN", b"private")
    made.Rows = made.Columns = 8
    made.BitsAllocated, made.PixelRepresentation = 8, 0
    if syntax.is_encapsulated and not syntax.is_deflated:
        made.PixelData = encapsulate([bytes(range(64)), bytes(64)], has_bot=True)
        made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
        return made
    made.PixelData = bytes(64)
    made["PixelData"].VR = "OW"
    made.DataSetTrailingPadding = b"\0" * 6
    made["DataSetTrailingPadding"].VR = "OB"
    return made


def encoded(made: Dataset, syntax: UID) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = IDENTITY[1], made.get("SOPInstanceUID", "1.2")
    meta.TransferSyntaxUID = syntax
    made.file_meta = meta
    buffer = BytesIO()
    dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()


def data_set_at(content: bytes) -> int:
    """Where the data set begins: behind what (0002,0000) counts, itself the first of the file meta information."""
    return 128 + 4 + 12 + int.from_bytes(content[140:144], "little")


def file_of(syntax: UID) -> bytes:
    return encoded(data_set(syntax), syntax)


def boundaries(syntax: UID) -> set[int]:
    """Where a data set of fewer elements would end: no reader can tell that from a whole one."""
    whole = data_set(syntax)
    tags = sorted(whole.keys())
    ends = set()
    for count in range(len(tags)):
        shorter = Dataset()
        shorter.update({tag: whole[tag] for tag in tags[:count]})
        ends.add(len(encoded(shorter, syntax)) - len(encoded(Dataset(), syntax)))
    return ends


def is_whole(directory: Path, content: bytes) -> bool:
    file = directory / "cut"
    file.write_bytes(content)
    return read_whole(file) is not None


def arrival(directory: Path, content: bytes, transferred: bool = True) -> Instance | None:
    file = directory / "came"
    file.write_bytes(content)
    return read_arrival(file, lambda size: transferred and size == len(content) - data_set_at(content))


@every_syntax
def test_a_whole_file_tells_its_identity(syntax: UID, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(file_of(syntax))
    status = file.stat()
    version = (status.st_size, status.st_mtime_ns)
    begin = data_set_at(file.read_bytes())
    assert read_whole(file) == Instance(file, *IDENTITY, str(syntax), status.st_size, version, "TEST 1", begin)


@every_syntax
def test_a_file_that_was_cut_within_an_element_is_not_whole(syntax: UID, tmp_path: Path) -> None:
    content = file_of(syntax)
    allowed = set()
    if not syntax.is_deflated:
        start = len(encoded(Dataset(), syntax))
        allowed = {start + end for end in boundaries(syntax)}
        # a tag of big endian begins with a zero, which may as well be padding
        allowed |= {end + 1 for end in allowed if content[end] == 0}
    elif content.endswith(b"\0"):
        allowed = {len(content) - 1}  # the byte that makes its length even
    found = {end for end in range(len(content)) if is_whole(tmp_path, content[:end])}
    assert found - allowed == set()
    assert is_whole(tmp_path, content)


@every_syntax
@pytest.mark.parametrize("zeros", [1, 2, 6, 8, 13, 512])
def test_zeros_after_a_whole_file_are_tolerated(syntax: UID, zeros: int, tmp_path: Path) -> None:
    assert is_whole(tmp_path, file_of(syntax) + bytes(zeros))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
def test_other_bytes_after_a_whole_file_are_not(syntax: UID, tmp_path: Path) -> None:
    assert not is_whole(tmp_path, file_of(syntax) + b"\x01\x02\x03")


@pytest.mark.parametrize("value", [None, "", "\xfc"])
def test_a_file_without_its_study_is_nobodys(value: str | None, tmp_path: Path) -> None:
    made = data_set(ExplicitVRLittleEndian)
    del made.StudyInstanceUID
    if value is not None:
        made.StudyInstanceUID = value
    content = encoded(made, ExplicitVRLittleEndian)
    assert not is_whole(tmp_path, content)
    with pytest.raises(Unattributable, match="Study Instance UID cannot be read") as told:
        arrival(tmp_path, content)
    assert told.value.sop_instance_uid == IDENTITY[0]


def test_what_a_data_set_does_not_say_of_itself_is_what_it_was_sent_as(tmp_path: Path) -> None:
    content = encoded(data_set(ExplicitVRLittleEndian), ExplicitVRLittleEndian)
    for tag in (b"\x08\x00\x18\x00UI", b"\x08\x00\x16\x00UI"):
        content = content[:132] + content[132:].replace(tag, b"\x08\x00\x17\x00UI")
    one = arrival(tmp_path, content)
    assert one is not None
    assert (one.sop_instance_uid, one.sop_class_uid, one.malformed) == (*IDENTITY[:2], False)


@pytest.mark.parametrize("value", [None, ""])
def test_a_series_is_no_part_of_the_proof(value: str | None, tmp_path: Path) -> None:
    made = data_set(ExplicitVRLittleEndian)
    del made.SeriesInstanceUID
    if value is not None:
        made.SeriesInstanceUID = value
    one = written(tmp_path, made)
    assert (one.sop_instance_uid, one.series_uid, one.malformed) == (IDENTITY[0], "", False)


@pytest.mark.parametrize("content", [b"", b"text", bytes(132), bytes(128) + b"DICM", bytes(128) + b"DICM" + bytes(999)])
def test_what_is_no_dicom_file_is_not_whole(content: bytes, tmp_path: Path) -> None:
    assert not is_whole(tmp_path, content)


def test_a_file_that_is_gone_is_not_whole(tmp_path: Path) -> None:
    assert read_whole(tmp_path / "absent") is None


@every_syntax
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, phases=[Phase.generate])
@given(data=st.data())
def test_a_damaged_file_is_whole_or_not_and_never_an_error(syntax: UID, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(file_of(syntax))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.sampled_from([0, 0xFF, 0xFE, 0x7F, 1]))
    file = tmp_path / "damaged"
    file.write_bytes(content)
    assert isinstance(read_whole(file), Instance | None)


def written(directory: Path, made: Dataset, syntax: UID = ExplicitVRLittleEndian, name: str = "file") -> Instance:
    file = directory / name
    file.write_bytes(encoded(made, syntax))
    one = read_whole(file)
    assert one is not None
    return one


@pytest.mark.parametrize(
    ("character_set", "patient_id"),
    [
        (None, "PAT001"),
        ("ISO_IR 100", "MÜLLER-1"),
        ("ISO_IR 144", "ЖЮЩ"),
        ("ISO_IR 192", "小东 1"),
        ("GB18030", "小东"),
        ("GBK", "小东"),
        (["", "ISO 2022 IR 87"], "山田"),
        (["", "ISO 2022 IR 149"], "김희중"),
        ("ISO_IR 100", "A\\B"),
        ("ISO_IR 192", ""),
    ],
)
@every_syntax
def test_the_patient_id_is_read_in_its_character_set(
    character_set: str | list[str] | None, patient_id: str, syntax: UID, tmp_path: Path
) -> None:
    made = data_set(syntax)
    if character_set is not None:
        made.SpecificCharacterSet = character_set
    made.PatientID = patient_id
    one = written(tmp_path, made, syntax)
    assert one.patient_id == patient_id
    if "\\" not in patient_id:  # pydicom makes a list of that
        assert one.patient_id == dcmread(one.path).PatientID


def test_an_absent_patient_id_is_an_empty_one(tmp_path: Path) -> None:
    made = data_set(ExplicitVRLittleEndian)
    del made.PatientID
    assert written(tmp_path, made).patient_id == ""


NAMES = ["", "NONSENSE", "ISO_IR 192\\NONSENSE", "\xff\xfe", "utf_8", "hex", "punycode", "undefined", "a\0b", "\\\\"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(
    character_set=st.one_of(st.sampled_from(NAMES).map(lambda name: name.encode("latin-1")), st.binary(max_size=30)),
    value=st.one_of(
        st.sampled_from([b"\xff\xfe", b"\x1b$B\x1b", b"\x1b\x1b(", b"\x1b$)C\xff", b"\x80 \0"]), st.binary(max_size=30)
    ),
)
@example(character_set=b"hex", value=b"\x1b$)C\xff")
@example(character_set=b"a\0b", value=b"\xff")
@example(character_set=b"punycode", value=b"\xff\xfe")
def test_no_patient_id_and_no_character_set_is_an_error(character_set: bytes, value: bytes, tmp_path: Path) -> None:
    content = encoded(data_set(ExplicitVRLittleEndian), ExplicitVRLittleEndian)
    extra = b"\x08\x00\x05\x00CS" + len(character_set).to_bytes(2, "little") + character_set
    begin = data_set_at(content)
    told = b"LO\x08\x00 TEST 1 "
    assert content.count(told) == 1
    patient = content[begin:].replace(told, b"LO" + len(value).to_bytes(2, "little") + value)
    file = tmp_path / "file"
    file.write_bytes(content[:begin] + extra + patient)
    one = read_whole(file)
    assert one is not None
    assert one.patient_id == one.patient_id.strip("\0 ")
    assert one.patient_id or not value.strip(b"\0 ") or b"\x1b" in value


def test_a_nested_identifier_is_not_the_files(tmp_path: Path) -> None:
    made = data_set(ExplicitVRLittleEndian)
    inner = made.AnatomicRegionSequence[0]
    inner.StudyInstanceUID, inner.SOPInstanceUID, inner.PatientID = "1.9", "1.9", "OTHER"
    one = written(tmp_path, made)
    assert (one.study_uid, one.sop_instance_uid, one.patient_id) == (IDENTITY[3], IDENTITY[0], "TEST 1")


def arrival_or_nobodys(directory: Path, content: bytes) -> Instance | None:
    with suppress(Unattributable):
        one = arrival(directory, content)
        assert one is not None
        return one
    return None


@every_syntax
def test_what_came_whole_is_whose_it_is_wherever_it_ends(syntax: UID, tmp_path: Path) -> None:
    """A data set that an archive has cut, at each place: well-formed or not, of the right study, or nobody's."""
    content = file_of(syntax)
    known = 0
    for end in range(data_set_at(content), len(content)):
        one = arrival_or_nobodys(tmp_path, content[:end])
        if one is None:
            assert known == 0
            continue
        known += 1
        assert (one.key, one.sop_class_uid) == ((IDENTITY[3], IDENTITY[0]), IDENTITY[1])
        assert (one.patient_id, one.patient_known) == ("TEST 1", True)
        assert one.malformed == (not is_whole(tmp_path, content[:end]))
    assert known > (0 if syntax.is_deflated else 60)


@every_syntax
def test_what_has_not_come_whole_is_none_however_it_looks(syntax: UID, tmp_path: Path) -> None:
    assert arrival(tmp_path, file_of(syntax), transferred=False) is None
    assert read_arrival(tmp_path / "absent", lambda _: True) is None
    assert read_arrival(tmp_path, lambda _: True) is None
    for begun in range(0, data_set_at(file_of(syntax)), 7):
        (tmp_path / "begun").write_bytes(file_of(syntax)[:begun])
        assert read_arrival(tmp_path / "begun", lambda size: size >= 0) is None


PATIENT, STUDY = b"\x10\x00\x20\x00LO\x08\x00 TEST 1 ", b"\x20\x00\x0d\x00UI\x08\x001.2.3.6\0"
SEQUENCE = b"\x08\x00\x15\x11SQ\0\0"
ITEM = b"\xfe\xff\x00\xe0"
OTHER_ID = b"\x10\x00\x20\x00LO\x06\x00OTHER "


def put_in(before: bytes, piece: bytes, end: int | None = -2) -> bytes:
    """An explicit file with a piece before an element, which ends within its last element."""
    content = file_of(ExplicitVRLittleEndian)
    assert content.count(before) == 1
    return content.replace(before, piece + before)[:end]


@pytest.mark.parametrize(
    "piece",
    [
        b"\x09\x00\x01\x10  \x04\x00abcd",
        b"\x09\x00\x01\x10??\x04\x00abcd\x09\x00\x02\x10??\x00\x00",
        b"\x09\x00\x01\x10\x06\x00\x04\x00abcd\x09\x00\x02\x10\x06\x00\x00\x00",
        b"\x09\x00\x01\x10\x00\x00\x02\x00ab\x09\x00\x02\x10\x04\x00\x00\x00abcd",
        b"\x09\x00\x01\x10QQ\x00\x00\x04\x00\x00\x00abcd",
        SEQUENCE + b"\x0a\0\0\0" + ITEM + b"\x0e\0\0\0" + OTHER_ID,
        SEQUENCE + b"\x20\0\0\0" + ITEM + b"\x0e\0\0\0" + OTHER_ID,
        SEQUENCE + b"\x16\0\0\0" + ITEM + b"\x0e\0\0\0" + OTHER_ID + b"\xfe\xff\xdd\xe0\0\0\0\0",
        SEQUENCE + b"\xff\xff\xff\xff" + ITEM + b"\xff\xff\xff\xff" + OTHER_ID + b"\xfe\xff\xdd\xe0\0\0\0\0",
        SEQUENCE + b"\xff\xff\xff\xff" + ITEM + b"\x0e\0\0\0" + OTHER_ID,
    ],
    ids=range(10),
)
def test_what_does_not_fit_is_got_over(piece: bytes, tmp_path: Path) -> None:
    one = arrival(tmp_path, put_in(b"\x10\x00\x10\x00PN", piece))
    assert one is not None
    assert (one.key, one.patient_id, one.patient_known) == ((IDENTITY[3], IDENTITY[0]), "TEST 1", True)
    assert one.malformed


@pytest.mark.parametrize(
    ("content", "patient"),
    [
        (put_in(STUDY, PATIENT.replace(b"TEST", b"MISS"), None), False),
        (put_in(PATIENT, b"\x10\x00\x10\x10LO\xff\x01abc"), None),
        (put_in(STUDY, b"\x20\x00\x0d\x00UI\x08\x001.2.3.7\0", None), None),
        (put_in(PATIENT, b"\x10\x00\x20\x00LO\x00\x08" + b"1" * 2048), False),
        (file_of(ExplicitVRLittleEndian).replace(PATIENT, b"")[:-2], True),
    ],
    ids=["two patients", "no study that can be read", "two studies", "an ID of 2 kB", "no ID"],
)
def test_what_cannot_be_read_is_not_guessed(content: bytes, patient: bool | None, tmp_path: Path) -> None:
    if patient is None:
        with pytest.raises(Unattributable):
            arrival(tmp_path, content)
        return
    one = arrival(tmp_path, content)
    assert one is not None
    assert (one.malformed, one.patient_known) == (True, patient)


@every_syntax
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, phases=[Phase.generate])
@given(data=st.data())
def test_no_content_of_what_came_whole_is_an_error(syntax: UID, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(file_of(syntax))
    begin = data_set_at(bytes(content))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(begin, len(content) - 1))] = data.draw(st.integers(0, 255))
    arrival_or_nobodys(tmp_path, bytes(content))


def test_memory_is_bounded_whatever_came_whole(tmp_path: Path) -> None:
    deep = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff" + ITEM + b"\xff\xff\xff\xff"
    for piece in (deep * 100_000, SEQUENCE + b"\x08\0\0\0" + (ITEM + bytes(4)) * 140_000, b"\x09\x00\x01\x10??\0\0"):
        content = put_in(b"\x10\x00\x10\x00PN", piece)
        tracemalloc.start()
        with suppress(Unattributable):
            arrival(tmp_path, content)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
        tracemalloc.stop()


def test_a_directory_is_no_instance(tmp_path: Path) -> None:
    assert read_whole(tmp_path) is None
    assert claimed_key(tmp_path, Expectation()) == ("", "")


def test_a_file_that_cannot_be_read_is_not_called_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(file_of(ExplicitVRLittleEndian))

    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", none_left)
    with pytest.raises(OSError, match="Too many"):
        read_whole(file)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_no_file_is_left_open(tmp_path: Path) -> None:
    one = written(tmp_path, data_set(ExplicitVRLittleEndian))
    before = descriptors()
    is_whole(tmp_path, b"torn")
    is_whole(tmp_path, one.path.read_bytes()[:-1])
    claimed_key(one.path, Expectation())
    same_data_set(one, one)
    assert descriptors() == before


@every_syntax
def test_a_growing_file_claims_its_instance_as_soon_as_that_is_there(syntax: UID, tmp_path: Path) -> None:
    content = file_of(syntax)
    value = content.index(b"\x02\x00\x03\x00UI") + 8
    there = value + len(IDENTITY[0]) + len(IDENTITY[0]) % 2
    file = tmp_path / "growing"
    for end in range(len(content)):
        file.write_bytes(content[:end])
        study, sop = claimed_key(file, Expectation())
        assert sop == (IDENTITY[0] if end >= there else ""), end
        assert study in {"", IDENTITY[3]}, end
    assert study == IDENTITY[3] or syntax == DeflatedExplicitVRLittleEndian


def test_what_claims_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert claimed_key(file, Expectation()) == ("", "")
    for content in (b"", b"text" * 99, bytes(128) + b"DICM" + bytes(99)):
        file.write_bytes(content)
        assert claimed_key(file, Expectation()) == ("", "")


def differing(directory: Path, change: Callable[[Dataset], None]) -> bool:
    made, other = data_set(ExplicitVRLittleEndian), data_set(ExplicitVRLittleEndian)
    change(other)
    one, two = written(directory, made, name="one"), written(directory, other, name="two")
    assert same_data_set(one, two) == same_data_set(two, one)
    return not same_data_set(one, two)


def test_data_sets_are_the_same_byte_for_byte(tmp_path: Path) -> None:
    def large(made: Dataset) -> None:
        made.PixelData = bytes(200_000) + b"\x01"

    assert not differing(tmp_path, lambda _made: None)
    assert differing(tmp_path, lambda made: setattr(made, "PatientID", "OTHER 12"))
    assert differing(tmp_path, lambda made: setattr(made, "PatientID", "OTHER"))
    assert differing(tmp_path, large)


def test_the_last_byte_of_a_large_data_set_counts(tmp_path: Path) -> None:
    made = data_set(ExplicitVRLittleEndian)
    made.DataSetTrailingPadding = bytes(300_001)
    one, two = written(tmp_path, made, name="one"), written(tmp_path, made, name="two")
    assert same_data_set(one, two)
    content = bytearray(two.path.read_bytes())
    content[-1] ^= 1
    two.path.write_bytes(content)
    assert not same_data_set(one, two)


def test_file_meta_information_may_differ(tmp_path: Path) -> None:
    made = data_set(ExplicitVRLittleEndian)
    one, content = written(tmp_path, made, name="one"), encoded(made, ExplicitVRLittleEndian)
    begin = data_set_at(content)
    title = b"\x02\x00\x16\x00AE\x06\x00SENDER"
    (tmp_path / "two").write_bytes(content[:begin] + title + content[begin:])
    two = read_whole(tmp_path / "two")
    assert two is not None
    assert two.data_set_at == one.data_set_at + len(title)
    assert same_data_set(one, two)


def test_another_transfer_syntax_is_another_data_set(tmp_path: Path) -> None:
    made = data_set(ExplicitVRLittleEndian)
    one = written(tmp_path, made, ExplicitVRLittleEndian, "one")
    assert not same_data_set(one, replace(one, transfer_syntax=JPEGBaseline8Bit))


def test_data_sets_are_compared_in_bounded_memory(tmp_path: Path) -> None:
    made = data_set(ExplicitVRLittleEndian)
    made.PixelData = bytes(8_000_000)
    one, two = written(tmp_path, made, name="one"), written(tmp_path, made, name="two")
    tracemalloc.start()
    try:
        assert same_data_set(one, two)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
