"""What strangers wrote: values, or bytes taken for letters, or no data set; never an error that nobody names."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mkiso.browse.choice import Header
from mkiso.dcmtk.association import Peer
from mkiso.dcmtk.findscu import STUDY_KEYS, Finder
from mkiso.dicom.datasets import (
    Unreadable,
    decoded,
    disc_file_name,
    first_item,
    is_date,
    page_name,
    plain_date,
    read,
    readable,
    readable_date,
    texts,
    values,
    write_in_utf8,
)
from mkiso.errors import AccessionNotFound, PacsRejected
from mkiso.retrieve.studies import count_patients, find_studies, with_instances
from tests.support import datasets
from tests.support.stage import encoded
from tests.support.studies import GB18030, IR87, JOHN, LATIN, UTF8

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def written(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """As findscu writes an answer."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2"
    file = BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def answer(patient: datasets.Patient = LATIN) -> Dataset:
    made = datasets.study(patient, "MR.001")
    made.ModalitiesInStudy, made.NumberOfStudyRelatedInstances = ["CT", "SR"], 2
    made.SeriesInstanceUID, made.SOPInstanceUID, made.Modality = "1.2.3.4", "1.2.3.5", "CT"
    return made


def told(content: bytes, directory: Path, *keywords: str) -> dict[str, str]:
    file = directory / "answer"
    file.write_bytes(content)
    return texts(read(file), keywords)


@pytest.mark.parametrize("patient", [LATIN, UTF8, GB18030, IR87])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_texts_are_in_their_character_set(patient: datasets.Patient, syntax: str, tmp_path: Path) -> None:
    found = told(
        written(answer(patient), syntax), tmp_path, "PatientName", "PatientID", "ModalitiesInStudy", "StudyTime"
    )
    assert (found["PatientName"], found["PatientID"]) == (patient.name, patient.patient_id)
    assert (found["ModalitiesInStudy"], found["StudyTime"]) == ("CT\\SR", "101500")


@pytest.mark.parametrize(
    "name", [b"ISO_IR\x00100", b"\x00SO_IR 100", b"\xff\xfeO_IR 100", b"undefined ", b"hex       "]
)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_what_is_in_no_character_set_is_taken_in_the_default_one(name: bytes, syntax: str, tmp_path: Path) -> None:
    content = written(answer(), syntax)
    assert content.count(b"ISO_IR 100") == 1
    assert told(content.replace(b"ISO_IR 100", name), tmp_path, "PatientName")["PatientName"] == LATIN.name


def test_a_character_set_padded_with_nul_is_that_one(tmp_path: Path) -> None:
    several = answer(IR87)
    several.SpecificCharacterSet = ["ISO_IR 6", "ISO 2022 IR 87"]
    content = written(several)
    assert content.count(b"ISO_IR 6\\") == 1
    assert told(content.replace(b"ISO_IR 6\\", b"ISO_IR6\0\\"), tmp_path, "PatientName")["PatientName"] == IR87.name


@pytest.mark.parametrize(
    ("value", "character_set", "text"),
    [
        (b"MR.001 \0", "", "MR.001"),
        (b"M\xdcLLER", "", "MÜLLER"),
        (b"+2AA-\xff", "utf-7", "+2AA-ÿ"),
        (b"+2AA-", "utf-7", "+2AA-"),
        (b"\\ud800\x1b", "unicode_escape", "?\ufffd"),
        (b"A\0\x07B\x7f", "ISO_IR 192", "A\ufffd\ufffdB\ufffd"),
        (b"A\tB\nC", "", "A\tB\nC"),
        (b"\xe5\xb0\x8f", "ISO_IR 192", "小"),
        (b"M\xdcLLER", "ISO_IR 192", "MÜLLER"),
        (b"M\xef\xbf\xbdLLER", "ISO_IR 192", "M\ufffdLLER"),
    ],
)
def test_a_value_is_a_text_that_can_be_written_down(value: bytes, character_set: str, text: str) -> None:
    assert decoded(value, character_set) == text
    text.encode()


@given(st.text(st.characters()))
def test_every_text_becomes_one_that_a_database_takes(text: str) -> None:
    assert "\0" not in readable(text)
    readable(text).encode()


@pytest.mark.parametrize("content", [b"", b"no DICOM"])
def test_what_is_no_data_set_is_unreadable(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(content)
    for reading in (read, lambda file: write_in_utf8(file, file)):
        with pytest.raises(Unreadable):
            reading(tmp_path / "one")


def test_a_file_that_is_gone_is_no_data_set_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "gone")


def test_a_header_is_shown_in_spite_of_a_nul_in_its_character_set(tmp_path: Path) -> None:
    content = encoded(datasets.ct(datasets.study(LATIN, "CT.001"), 1, 7, side=16))
    (tmp_path / "one").write_bytes(content.replace(b"ISO_IR 100", b"ISO_IR\x00100"))
    header = Header(tmp_path / "one", ["PatientName", "InstanceNumber", "Rows"])
    assert not header.broken
    assert (header.text("PatientName"), header.number("InstanceNumber")) == (LATIN.name, 7)
    assert header.number("Rows") == 16


def flipped(content: bytes) -> st.SearchStrategy[bytes]:
    """With some bytes behind the preamble made others, and maybe cut."""
    places = st.integers(132, len(content) - 1)
    changes = st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8)
    return st.builds(changed, st.just(content), changes, st.one_of(st.just(len(content)), places))


def changed(content: bytes, changes: list[tuple[int, int]], end: int) -> bytes:
    made = bytearray(content)
    for place, value in changes:
        made[place] = value
    return bytes(made[:end])


class Answering(Finder):
    """A Finder whose archive gives one answer at each level."""

    answers: Mapping[str, bytes]

    def _ask(self, keys: tuple[str, ...], output: tuple[str, ...]) -> int:
        level = next(key.partition("=")[2] for key in keys if key.startswith("QueryRetrieveLevel"))
        if output[0] == "-Xs":
            (self.directory / output[1]).write_bytes(self.answers["XML"])
        else:
            (self.directory / "rsp0001.dcm").write_bytes(self.answers[level])
        return 1


SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
ANSWERS = [written(answer(patient), syntax) for patient in (LATIN, IR87) for syntax in SYNTAXES]
NUL = ANSWERS[0].replace(b"ISO_IR 100", b"ISO_IR\x00100")
STUDY_UID = datasets.uid("MR.001", 1)
XML = (
    '<?xml version="1.0" encoding="UTF-8"?><responses type="C-FIND"><data-set xfer="1.2.840.10008.1.2.1">'
    f'<element tag="0020,000d" vr="UI" name="StudyInstanceUID">{STUDY_UID}</element>'
    '<element tag="0020,000e" vr="UI" name="SeriesInstanceUID">1.2.3.4</element>'
    '<element tag="0008,0018" vr="UI" name="SOPInstanceUID">1.2.3.5</element></data-set></responses>'
).encode()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    study=st.sampled_from(ANSWERS).flatmap(flipped),
    further=st.sampled_from(ANSWERS).flatmap(flipped),
    xml=st.one_of(st.just(b""), flipped(bytes(132) + XML).map(lambda content: content[132:])),
)
@example(study=NUL, further=NUL, xml=b"")
@example(study=ANSWERS[0], further=NUL, xml=b"")
@example(study=ANSWERS[0], further=ANSWERS[1], xml=XML)
@example(study=ANSWERS[0].replace(b"PN\x0c\0", b"B\0\0\0"), further=NUL, xml=XML)
def test_answers_of_which_bytes_are_others_are_studies_or_are_refused(
    study: bytes, further: bytes, xml: bytes, tmp_path: Path
) -> None:
    finder = Answering(Path("/usr/bin"), Peer("ABPACS", "127.0.0.1", 104, "CDRECORD", 10), 1, tmp_path)
    object.__setattr__(finder, "answers", {"STUDY": study, "SERIES": further, "IMAGE": further, "XML": xml})
    try:
        found = find_studies(finder, ["MR.001"])
        finder.modalities(STUDY_UID)
        listed = [with_instances(finder, one) for one in found]
    except (AccessionNotFound, PacsRejected) as error:
        str(error).encode()
        return
    assert count_patients(listed) == 1
    for one in listed:
        page_name(one.patient_name).encode()
        assert disc_file_name(one.patient_name, ["MR.001"]).isascii()
        assert "\0" not in f"{one.public()} {one.patient_id}"
        assert set(one.instances) == {"1.2.3.5"} or all(set(uid) <= set("0123456789.") for uid in one.instances)


CT = encoded(datasets.ct(datasets.study(IR87, "CT.001"), 1, 1, side=8))
REPORT = encoded(datasets.report(datasets.study(JOHN, "SR.001"), 1, 1))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(content=st.sampled_from([CT, REPORT]).flatmap(flipped))
@example(content=REPORT[: REPORT.rindex(b"\xfe\xff\x00\xe0") + 5])
def test_headers_and_reports_of_which_bytes_are_others_raise_nothing_else(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "one"
    file.write_bytes(content)
    keywords = ["PatientName", "Rows", "WindowCenter", "ImageType", "ConceptNameCodeSequence", "ContentSequence"]
    header = Header(file, keywords)
    for keyword in (*keywords, "StudyDate", "PixelData"):
        header.text(keyword).encode()
        header.meaning(keyword).encode()
        header.number(keyword)
        header.decimal(keyword)
    try:
        dataset = read(file)
        write_in_utf8(file, tmp_path / "encoded")
    except Unreadable:
        return
    assert all(isinstance(one, str) for keyword in STUDY_KEYS for one in values(dataset, keyword))
    assert isinstance(first_item(dataset, "ContentSequence"), Dataset)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20240229", True),
        ("20230229", False),
        ("2024-2-2", False),
        ("", False),
        ("2024.02.29", False),
        ("2024W011", False),
    ],
)
def test_a_date_is_one_of_the_calendar(text: str, expected: bool) -> None:
    assert is_date(text) is expected


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("20240301", "2024-03-01"),
        (" 20240301 ", "2024-03-01"),
        ("19620817", "1962-08-17"),
        ("20240230", "20240230"),
        ("1962.08.17", "1962.08.17"),
        ("ABCDEFGH", "ABCDEFGH"),
        ("2024", "2024"),
        ("", ""),
    ],
)
def test_a_date_is_readable_and_what_is_none_stays(text: str, shown: str) -> None:
    assert readable_date(text) == shown


@pytest.mark.parametrize(
    ("text", "plain"), [("2024.03.01", "20240301"), ("20240301", "20240301"), ("20240230", "20240230"), ("2024", "")]
)
def test_a_date_has_eight_digits_also_where_it_has_dots(text: str, plain: str) -> None:
    assert plain_date(text) == plain
