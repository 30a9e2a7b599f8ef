"""Headers that a stranger wrote: texts, or nothing."""

from pathlib import Path

import pytest
from pydicom import Dataset

from mkiso.browse.choice import Header
from mkiso.dicom.headers import LARGEST
from tests.support import datasets
from tests.support.stage import encoded
from tests.support.studies import IR87, JOHN


@pytest.fixture
def ct() -> Dataset:
    return datasets.ct(datasets.study(JOHN, "CT.001"), 1, 1, side=16)


def header(directory: Path, dataset: Dataset, *keywords: str) -> Header:
    path = directory / "one"
    path.write_bytes(encoded(dataset))
    return Header(path, keywords)


def test_texts_are_one_line(ct: Dataset, tmp_path: Path) -> None:
    ct.StudyDescription = "  head \t and\r\nneck "
    ct.ImageType = ["ORIGINAL", "PRIMARY"]
    read = header(tmp_path, ct, "StudyDescription", "ImageType", "SeriesDate")
    assert [read.text(one) for one in ("StudyDescription", "ImageType", "SeriesDate")] == [
        "head and neck",
        "ORIGINAL\\PRIMARY",
        "",
    ]


def test_texts_are_decoded_by_the_character_set(tmp_path: Path) -> None:
    ct = datasets.ct(datasets.study(IR87, "CT.001"), 1, 1, side=16)
    assert header(tmp_path, ct, "PatientName").text("PatientName") == IR87.name


def test_the_meaning_of_a_code(tmp_path: Path) -> None:
    report = datasets.report(datasets.study(JOHN, "SR.001"), 1, 1)
    read = header(tmp_path, report, "ConceptNameCodeSequence", "PerformedProcedureCodeSequence", "Modality")
    keywords = ("ConceptNameCodeSequence", "PerformedProcedureCodeSequence", "Modality", "StudyDate")
    assert [read.meaning(one) for one in keywords] == ["Radiology Report", "", "", ""]


@pytest.mark.parametrize(
    ("value", "date"),
    [("20240301", "20240301"), ("2024.03.01", "20240301"), ("2024", ""), ("", ""), ("20240301-20240401", "")],
)
def test_a_date(value: str, date: str, ct: Dataset, tmp_path: Path) -> None:
    ct["StudyDate"]._value = value
    assert header(tmp_path, ct, "StudyDate").date("StudyDate") == date


@pytest.mark.parametrize(
    ("value", "number"), [("3", 3), ("0", 0), ("-3", 0), ("3\\4", 3), ("9" * 12, 0), ("", 0), ("x", 0)]
)
def test_a_number(value: str, number: int, ct: Dataset, tmp_path: Path) -> None:
    ct.add_new("StudyID", "SH", "x")
    ct["StudyID"]._value = value
    assert header(tmp_path, ct, "StudyID").number("StudyID") == number


@pytest.mark.parametrize(("value", "decimal"), [("1.5", 1.5), ("-40\\50", -40), ("", 0), ("x", 0)])
def test_a_decimal(value: str, decimal: float, ct: Dataset, tmp_path: Path) -> None:
    ct["StudyID"]._value = value
    assert header(tmp_path, ct, "StudyID").decimal("StudyID") == decimal


@pytest.mark.parametrize(
    ("value", "numbers"),
    [
        ("0.5\\0.25", (0.5, 0.25)),
        ("1\\2", (1, 2)),
        ("1", ()),
        ("1\\2\\3", ()),
        ("", ()),
        ("1\\nan", ()),
        ("1\\1e999", ()),
    ],
)
def test_two_numbers(value: str, numbers: tuple[float, ...], ct: Dataset, tmp_path: Path) -> None:
    ct["StudyID"]._value = value
    assert header(tmp_path, ct, "StudyID").numbers("StudyID", 2) == numbers


def test_whether_there_is_a_value(ct: Dataset, tmp_path: Path) -> None:
    ct.WindowCenter, ct.WindowWidth = 40, None
    read = header(tmp_path, ct, "WindowCenter", "WindowWidth", "VOILUTSequence")
    assert [bool(read.text(one)) for one in ("WindowCenter", "WindowWidth", "VOILUTSequence")] == [True, False, False]


@pytest.mark.parametrize("content", [b"", b"no DICOM", bytes(128) + b"DICM" + b"\xff" * 50])
def test_what_cannot_be_read_is_empty(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(content)
    read = Header(tmp_path / "one", ["PatientName", "Rows"])
    assert (read.text("PatientName"), read.number("Rows"), read.date("StudyDate")) == ("", 0, "")


def test_a_file_that_is_gone_is_broken(tmp_path: Path) -> None:
    assert Header(tmp_path / "one", ["Rows"]).broken


def test_a_value_that_is_none_of_its_representation_is_no_failure(ct: Dataset, tmp_path: Path) -> None:
    ct.WindowCenter = 1234
    (tmp_path / "one").write_bytes(encoded(ct).replace(b"1234", b"??34"))
    assert Header(tmp_path / "one", ["WindowCenter"]).decimal("WindowCenter") == 0


def test_what_is_too_long_to_be_read_is_there(ct: Dataset, tmp_path: Path) -> None:
    table = Dataset()
    table.add_new("LUTData", "OW", bytes(LARGEST + 2))
    ct.VOILUTSequence = [table]
    read = header(tmp_path, ct, "VOILUTSequence", "ModalityLUTSequence")
    assert (read.has("VOILUTSequence"), read.has("ModalityLUTSequence")) == (True, False)
