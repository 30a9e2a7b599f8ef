from pathlib import Path

import pytest
from pydicom import Dataset

from mkiso.dicom.encoding import INSTANCE_NUMBER, PATIENT_ID, SERIES_NUMBER
from mkiso.dicom.records import FILE_ID, TYPE, Record, element
from mkiso.disc.dicomdir import (
    ACCESSION,
    STUDY_DATE,
    STUDY_ID,
    STUDY_TIME,
    Completed,
    OwnValues,
    complete,
    own_values,
    put_in,
    take_out,
)
from tests.support import datasets
from tests.support.stage import JOHN, encoded

SERIES_DATE, SERIES_TIME, CONTENT_DATE, CONTENT_TIME = 0x00080021, 0x00080031, 0x00080023, 0x00080033
VRS = {STUDY_DATE: b"DA", STUDY_TIME: b"TM", STUDY_ID: b"SH", ACCESSION: b"SH", PATIENT_ID: b"LO"}


def record(kind: str, values: dict[int, bytes], *below: Record) -> Record:
    elements = {TYPE: element(TYPE, b"CS", kind.encode())}
    return Record(
        elements | {tag: element(tag, VRS.get(tag, b"IS"), value) for tag, value in values.items()}, list(below)
    )


def leaf(file: str, number: bytes = b"1", kind: str = "IMAGE") -> Record:
    one = record(kind, {INSTANCE_NUMBER: number})
    one.elements[FILE_ID] = element(FILE_ID, b"CS", file.encode())
    return one


def series(number: bytes, *leaves: Record) -> Record:
    return record("SERIES", {SERIES_NUMBER: number}, *leaves)


def study(values: dict[int, bytes], *below: Record) -> Record:
    whole = {STUDY_DATE: b"20240301", STUDY_TIME: b"101500", STUDY_ID: b"S1", ACCESSION: b"ACC"}
    return record("STUDY", whole | values, *below)


def completed(study: Record, owns: dict[str, OwnValues] | None = None) -> list[Completed]:
    return list(complete([record("PATIENT", {PATIENT_ID: b"1"}, study)], owns or {}))


def test_a_record_that_has_its_keys_stays_as_it_is() -> None:
    one = study({}, series(b"1", leaf("A")))
    before = dict(one.elements)
    assert completed(one) == []
    assert one.elements == before


@pytest.mark.parametrize(
    ("own", "day", "time"),
    [
        ({}, "19000101", "000000"),
        ({SERIES_DATE: b"20200101", SERIES_TIME: b"0815"}, "20200101", "0815"),
        ({CONTENT_DATE: b"20200101", SERIES_TIME: b"0815"}, "20200101", "000000"),
        ({CONTENT_DATE: b"20200102", CONTENT_TIME: b"09", SERIES_DATE: b"20200101"}, "20200101", "000000"),
        ({SERIES_DATE: b"20230230", SERIES_TIME: b"08"}, "19000101", "000000"),
        ({SERIES_DATE: b"yesterday", CONTENT_DATE: b"20200102", CONTENT_TIME: b"09"}, "20200102", "09"),
    ],
)
def test_a_study_without_a_day_has_that_of_its_instances_and_else_one_that_nobody_takes_for_true(
    own: OwnValues, day: str, time: str
) -> None:
    one = study({STUDY_DATE: b"", STUDY_TIME: b""}, series(b"1", leaf("A"), leaf("B", b"2")))
    told = completed(one, {"B": own})
    assert told == [Completed("A", "STUDY", "StudyDate", day), Completed("A", "STUDY", "StudyTime", time)]
    assert (one.text(STUDY_DATE), one.text(STUDY_TIME)) == (day, time)


def test_a_study_of_no_day_of_the_calendar_has_none() -> None:
    one = study({STUDY_DATE: b"20230230"}, series(b"1", leaf("A")))
    assert [told.value for told in completed(one)] == ["19000101"]


def test_a_study_that_has_a_day_gets_the_time_of_that_day_alone() -> None:
    own = {SERIES_DATE: b"20240302", SERIES_TIME: b"08", CONTENT_DATE: b"20240301", CONTENT_TIME: b"09"}
    assert completed(study({STUDY_TIME: b""}, series(b"1", leaf("A"))), {"A": own})[0].value == "09"


def test_a_study_without_an_id_has_its_accession_number_and_else_a_number_of_its_own() -> None:
    one, two, three = study({STUDY_ID: b""}), study({STUDY_ID: b"", ACCESSION: b""}), study({STUDY_ID: b"1"})
    for number, each in enumerate((one, two, three)):
        each.below = [series(b"1", leaf(f"F{number}"))]
    told = list(complete([record("PATIENT", {}, one, two, three)], {}))
    assert told == [Completed("F0", "STUDY", "StudyID", "ACC"), Completed("F1", "STUDY", "StudyID", "2")]


def test_series_and_instances_without_a_number_get_the_lowest_that_no_other_has() -> None:
    with_numbers = series(b"02", leaf("A", b"1"), leaf("B", b""), leaf("C", b""), leaf("D", b"3"))
    told = completed(study({}, series(b"", leaf("E")), with_numbers, series(b"", leaf("F"))))
    assert told == [
        Completed("E", "SERIES", "SeriesNumber", "1"),
        Completed("F", "SERIES", "SeriesNumber", "3"),
        Completed("B", "IMAGE", "InstanceNumber", "2"),
        Completed("C", "IMAGE", "InstanceNumber", "4"),
    ]


def test_raw_data_may_be_without_a_number_and_others_may_have_no_such_key() -> None:
    stereometric = leaf("B", kind="STEREOMETRIC")
    del stereometric.elements[INSTANCE_NUMBER]
    assert completed(study({}, series(b"1", leaf("A", b"", "RAW DATA"), stereometric))) == []


def test_only_what_may_be_invented_is_taken_out_and_own_values_come_back() -> None:
    one, two, three = study({}), series(b"7"), leaf("A", b"9")
    for each in (one, two, three):
        take_out(each)
    assert [one.text(tag) for tag in (STUDY_DATE, STUDY_TIME, STUDY_ID, ACCESSION)] == ["", "", "", "ACC"]
    assert (two.text(SERIES_NUMBER), three.text(INSTANCE_NUMBER), three.file) == ("", "", "A")
    own = {STUDY_DATE: b"20200101", STUDY_ID: b"", SERIES_NUMBER: b"3", INSTANCE_NUMBER: b"4"}
    for each in (one, two, three):
        put_in(each, own)
    assert (one.text(STUDY_DATE), one.text(STUDY_ID)) == ("20200101", "")
    assert (two.text(SERIES_NUMBER), three.text(INSTANCE_NUMBER)) == ("3", "4")


def test_a_value_that_is_there_is_not_replaced_by_another_instances() -> None:
    one = study({})
    put_in(one, {STUDY_DATE: b"20200101"})
    assert one.text(STUDY_DATE) == "20240301"


def written(path: Path, dataset: Dataset) -> Path:
    path.write_bytes(encoded(dataset))
    return path


def test_an_instances_own_values_are_read_as_they_stand_there(tmp_path: Path) -> None:
    one = datasets.ct(datasets.study(JOHN, "CT.001"), 3, 4, side=16)
    one.StudyTime, one.SeriesDate = "", "20200101"
    own = own_values(written(tmp_path / "one", one))
    assert own is not None
    wanted = (STUDY_DATE, STUDY_TIME, STUDY_ID, SERIES_DATE, PATIENT_ID, SERIES_NUMBER, INSTANCE_NUMBER, SERIES_TIME)
    assert [own.get(tag) for tag in wanted] == [b"20240301", b"", b"S1", b"20200101", b"PAT001", b"3", b"4", None]


@pytest.mark.filterwarnings("ignore:The value length")
def test_a_number_that_is_none_and_a_text_that_is_too_long_fail_nothing(tmp_path: Path) -> None:
    one = datasets.ct(datasets.study(JOHN, "CT.001"), 1, 1, side=16)
    file = written(tmp_path / "one", one)
    file.write_bytes(file.read_bytes().replace(b"\x20\x00\x13\x00IS\x02\x001 ", b"\x20\x00\x13\x00IS\x02\x00x "))
    assert (own_values(file) or {})[INSTANCE_NUMBER] == b"x"
    one.StudyID = "S" * 1000
    assert STUDY_ID not in (own_values(written(tmp_path / "two", one)) or {})


@pytest.mark.parametrize("content", [b"", b"no DICOM", bytes(128) + b"DICM" + b"\2\0\0\0UL\4\0\xff"])
def test_of_what_is_no_instance_nothing_is_known(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(content)
    assert not own_values(tmp_path / "one")
