import logging
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from mkiso.retrieve.instances import Instance, read_whole

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


@every_syntax
def test_a_whole_file_tells_its_identity(syntax: UID, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(file_of(syntax))
    status = file.stat()
    version = (status.st_size, status.st_mtime_ns)
    assert read_whole(file) == Instance(file, *IDENTITY, str(syntax), status.st_size, version)


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


@pytest.mark.parametrize("tag", [0x00080018, 0x00080016, 0x0020000E, 0x0020000D], ids=hex)
def test_a_file_that_lacks_an_identifier_is_no_instance(tag: int, tmp_path: Path) -> None:
    made = data_set(ExplicitVRLittleEndian)
    del made[tag]
    assert not is_whole(tmp_path, encoded(made, ExplicitVRLittleEndian))


@pytest.mark.parametrize("content", [b"", b"text", bytes(132), bytes(128) + b"DICM", bytes(128) + b"DICM" + bytes(999)])
def test_what_is_no_dicom_file_is_not_whole(content: bytes, tmp_path: Path) -> None:
    assert not is_whole(tmp_path, content)


def test_a_file_that_is_gone_is_not_whole(tmp_path: Path) -> None:
    assert read_whole(tmp_path / "absent") is None


@every_syntax
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None, phases=[Phase.generate]
)
@given(data=st.data())
def test_a_damaged_file_is_whole_or_not_and_never_an_error(syntax: UID, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(file_of(syntax))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.sampled_from([0, 0xFF, 0xFE, 0x7F, 1]))
    file = tmp_path / "damaged"
    file.write_bytes(content)
    assert isinstance(read_whole(file), Instance | None)
