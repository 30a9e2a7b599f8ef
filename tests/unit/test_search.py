"""What is asked of an archive for what a person knows, and which of its answers count."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mkiso.dcmtk.findscu import SEARCH_KEYS, QueryRefused
from mkiso.errors import BadRequest
from mkiso.retrieve.search import MOST_FOUND, MOST_LOOKED_INTO, PatientQuery, search
from mkiso.retrieve.studies import Patient, Study
from tests.unit.test_studies import study

EMPTY = dict.fromkeys(SEARCH_KEYS, "")


def query(**given: str) -> PatientQuery:
    return PatientQuery.of({"from" if name == "since" else name: value for name, value in given.items()})


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        ("KUSUMA", ["KUSUMA*", "Kusuma*"]),
        ("kusuma", ["KUSUMA*", "Kusuma*"]),
        ("McDonald", ["McDonald*", "MCDONALD*", "Mcdonald*"]),
        (" budi   kusuma ", ["BUDI?KUSUMA*", "KUSUMA?BUDI*", "Budi?Kusuma*"]),
        ("Kusuma, Budi", ["Kusuma?Budi*", "KUSUMA?BUDI*", "BUDI?KUSUMA*"]),
        ("KUSUMA^BUDI", ["KUSUMA^BUDI*", "Kusuma^Budi*"]),
        ("müller", ["MÜLLER*", "Müller*", "MULLER*"]),
        ("山田", ["山田*", "*=山田*"]),
        ("山田^太郎", ["山田^太郎*", "*=山田^太郎*"]),
    ],
)
def test_a_name_is_asked_for_as_archives_have_it_with_our_wildcard(typed: str, asked: list[str]) -> None:
    assert query(patient_name=typed).spellings() == asked


def test_every_other_key_is_asked_as_dicom_has_it() -> None:
    asked = query(patient_id="P 1", birth_date="1971-05-06", since="20240301", to="2024-03-31", modality="ct")
    assert asked.keys() == {
        "PatientID": "P 1",
        "PatientBirthDate": "19710506",
        "StudyDate": "20240301-20240331",
        "ModalitiesInStudy": "CT",
    }
    assert query(patient_id="P", since="20240301").keys() == {"PatientID": "P", "StudyDate": "20240301-"}
    assert query(patient_id="P", to="20240301").keys() == {"PatientID": "P", "StudyDate": "-20240301"}


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        ("20240301", "20240301-20240301"),
        ("2024-03-01", "20240301-20240301"),
        (" 20240301-20240331 ", "20240301-20240331"),
        ("2024-03-01-2024-03-31", "20240301-20240331"),
        ("2024-03-01 - 20240331", "20240301-20240331"),
    ],
)
def test_dates_of_study_are_one_parameter_of_the_api(typed: str, asked: str) -> None:
    assert query(study_date=typed).keys() == {"StudyDate": asked}


@pytest.mark.parametrize(("typed", "asked"), [("20240301-", "20240301-"), ("-2024-03-31", "-20240331")])
def test_dates_of_study_are_open_beside_what_says_whose_they_are(typed: str, asked: str) -> None:
    assert query(study_date=typed, birth_date="19710506").keys()["StudyDate"] == asked
    assert query(study_date=typed, patient_name="KUS").keys()["StudyDate"] == asked


@pytest.mark.parametrize("days", [{"study_date": "20240301-20240331"}, {"since": "20240301", "to": "20240331"}])
def test_a_search_by_days_alone_is_of_31_at_most(days: Mapping[str, str]) -> None:
    assert query(**days).keys() == {"StudyDate": "20240301-20240331"}
    longer = {name: text.replace("20240331", "20240401") for name, text in days.items()}
    with pytest.raises(BadRequest, match="too many days"):
        query(**longer)
    with pytest.raises(BadRequest, match="too many days"):
        query(**longer, patient_name="KU", modality="CT")
    assert query(**longer, patient_id="P").until == "20240401"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "Give a patient ID"),
        ({"patient_name": "  ", "modality": "CT"}, "Give a patient ID"),
        ({"study_date": "20240301-"}, "too many days"),
        ({"study_date": "-20240301", "modality": "CT"}, "too many days"),
        ({"since": "20240301"}, "too many days"),
        ({"to": "20240301", "patient_name": "KU"}, "too many days"),
        ({"study_date": "-"}, "study_date is a day, or two"),
        ({"study_date": "20240301-20240302-20240303"}, "study_date is a day, or two"),
        ({"study_date": "202403"}, "study_date is a day, or two"),
        ({"study_date": "2024-02-30"}, "study_date is a day such"),
        ({"study_date": "20240302-20240301"}, "Exchange"),
        ({"study_date": "2024*"}, "study_date holds none of"),
        ({"patient_name": "KU"}, "fewer than 3 letters"),
        ({"patient_name": "K ."}, "fewer than 3 letters"),
        ({"patient_name": "王"}, "fewer than 3 letters"),
        ({"patient_name": "KUS*"}, "patient_name holds none of"),
        ({"patient_name": "KUS?MA"}, "patient_name holds none of"),
        ({"patient_name": "KUS\\X"}, "patient_name holds none of"),
        ({"patient_name": "KUSUMA=X"}, "patient_name holds none of"),
        ({"patient_id": "P*"}, "patient_id holds none of"),
        ({"patient_name": "KUS\x1bMA"}, "printable"),
        ({"patient_name": "K" * 65}, "at most 64"),
        ({"birth_date": "1971-02-29"}, "birth_date is a day"),
        ({"since": "٢٠٢٤٠٣٠١"}, "from is a day"),
        ({"to": "20240301-20240401"}, "to is a day"),
        ({"since": "20240302", "to": "20240301"}, "Exchange"),
        ({"patient_id": "P", "modality": "C/T"}, "modality is a code"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_the_name_of_its_parameter(given: Mapping[str, str], told: str) -> None:
    with pytest.raises(BadRequest) as raised:
        query(**given)
    assert told in raised.value.detail
    assert raised.value.detail.isprintable()


@pytest.mark.parametrize(
    "other", [{"patient_id": "P"}, {"birth_date": "19710506"}, {"since": "20240301", "to": "20240331"}]
)
def test_a_short_name_is_taken_beside_another_key(other: Mapping[str, str]) -> None:
    assert query(patient_name="KU", **other).name == "KU"


@given(st.dictionaries(st.sampled_from(PatientQuery.PARAMETERS + PatientQuery.FIELDS), st.text(max_size=20)))
def test_nothing_that_is_typed_becomes_a_wildcard_of_its_own(given: dict[str, str]) -> None:
    try:
        asked = PatientQuery.of(given)
    except BadRequest:
        return
    values = [*asked.keys().values(), *(one.removesuffix("*").removeprefix("*=") for one in asked.spellings())]
    assert not any(set(value) & set("*\\") or not value.isprintable() for value in values)


@pytest.mark.parametrize(
    ("asked", "met"),
    [
        ({"patient_name": "doe john"}, True),
        ({"patient_name": "jo"}, True),
        ({"patient_name": "döe"}, True),
        ({"patient_name": "oe^john"}, False),
        ({"patient_name": "doe jane"}, False),
        ({"patient_id": "p"}, True),
        ({"patient_id": "P1"}, False),
        ({"birth_date": "19700101"}, False),
        ({"since": "20240301", "to": "20240301"}, True),
        ({"since": "20240302"}, False),
        ({"to": "20240229"}, False),
        ({"patient_id": "P", "modality": "CT"}, True),
        ({"patient_id": "P", "modality": "MR"}, False),
    ],
)
def test_an_answer_counts_where_it_meets_every_key(asked: Mapping[str, str], met: bool) -> None:
    values = {"since" if name == "from" else name: value for name, value in asked.items()}
    known = PatientQuery(
        values.get("patient_name", ""),
        values.get("patient_id", ""),
        values.get("birth_date", ""),
        values.get("since", ""),
        values.get("to", ""),
        values.get("modality", ""),
    )
    assert known.meets(study()) is met


def test_a_study_is_met_by_any_of_its_patients_and_one_without_modalities_by_each() -> None:
    of_two = study(others=(Patient("Q", name="ROE^JANE"),), modalities=())
    assert query(patient_name="roe", modality="MR").meets(of_two)
    assert not query(patient_id="P", since="20240301").meets(study(study_date=""))
    assert not query(patient_id="P", to="20240301").meets(study(study_date="unknown"))


class Archive:
    """Answers each spelling of a name as it is told, and remembers what it was asked."""

    def __init__(self, answers: Mapping[str, list[dict[str, str]]], is_cut: bool = False) -> None:
        self.answers, self.is_cut, self.asked = answers, is_cut, list[str]()

    def search(self, most: int, **keys: str) -> tuple[list[dict[str, str]], bool]:
        assert most == MOST_FOUND
        self.asked.append(keys["PatientName"])
        return self.answers.get(keys["PatientName"], []), self.is_cut

    def series(self, study_uid: str) -> list[dict[str, str]]:
        self.asked.append(study_uid)
        raise QueryRefused("It lists no series.")


class Listing(Archive):
    """Tells neither modalities nor counts at STUDY level: two series, of three and four instances."""

    def series(self, study_uid: str) -> list[dict[str, str]]:
        self.asked.append(study_uid)
        counts = {"Modality": "CT", "SeriesNumber": "1", "SeriesDescription": "", "StudyInstanceUID": study_uid}
        return [
            {**counts, "SeriesInstanceUID": f"{study_uid}.{count}", "NumberOfSeriesRelatedInstances": f"{count}"}
            for count in (3, 4)
        ]


def answer(uid: str, name: str, day: str = "20240301", **values: str) -> dict[str, str]:
    return EMPTY | {"StudyInstanceUID": uid, "PatientName": name, "StudyDate": day, "PatientID": "P"} | values


def found(archive: Any, **asked: str) -> list[Study]:
    return search(archive, query(**asked)).studies


def test_an_archive_is_asked_again_only_while_it_knows_nobody_of_the_name() -> None:
    archive = Archive({"KUSUMA?BUDI*": [answer("1.1", "KUSUMA^BUDI")]})
    assert [one.study_uid for one in found(archive, patient_name="kusuma budi")] == ["1.1"]
    assert archive.asked == ["KUSUMA?BUDI*", "1.1"]
    archive.asked.clear()
    assert [one.study_uid for one in found(archive, patient_name="Budi Kusuma")] == ["1.1"]
    assert archive.asked == ["Budi?Kusuma*", "BUDI?KUSUMA*", "KUSUMA?BUDI*", "1.1"]
    archive = Archive({})
    assert found(archive, patient_id="P") == []
    assert archive.asked == [""]


def test_studies_come_newest_first_each_once_with_the_archives_own_counts() -> None:
    counts = {"NumberOfStudyRelatedInstances": "120", "NumberOfStudyRelatedSeries": "2"}
    told = [
        answer("1.1", "KUSUMA", "20240301"),
        answer("1.2", "KUSUMA", "20240302", **counts),
        answer("1.2", "KUSUMAWATI", "20240302", PatientID="Q"),
        answer("not a UID", "KUSUMA"),
        answer("1.3", "NOBODY"),
    ]
    result = search(Archive({"KUSUMA*": told}, is_cut=True), query(patient_name="kusuma"))  # type: ignore[arg-type]
    assert [one["study_instance_uid"] for one in result.public()] == ["1.2", "1.1"]
    assert [(one["series"], one["instances"]) for one in result.public()] == [(2, 120), (None, None)]
    assert [patient.patient_id for patient in result.studies[0].patients] == ["P", "Q"]
    assert result.is_cut


def test_what_an_archive_does_not_tell_of_a_study_is_told_by_its_series() -> None:
    archive = Listing({"KUSUMA*": [answer("1.1", "KUSUMA", ModalitiesInStudy="SR"), answer("1.2", "KUSUMA")]})
    assert [
        (one["modalities"], one["series"], one["instances"])
        for one in search(archive, query(patient_name="kusuma")).public()  # type: ignore[arg-type]
    ] == [(["SR"], 2, 7), (["CT"], 2, 7)]
    assert [one.study_uid for one in found(archive, patient_name="kusuma", modality="CT")] == ["1.2"]
    assert found(archive, patient_name="kusuma", modality="MR") == []


def test_of_very_many_studies_the_newest_are_looked_into() -> None:
    told = [answer(f"1.{day}", "KUSUMA", f"202403{day:02}") for day in range(1, MOST_LOOKED_INTO + 3)]
    archive = Listing({"KUSUMA*": told})
    studies = found(archive, patient_name="kusuma", modality="CT")
    assert [one.counted for one in studies] == [7] * MOST_LOOKED_INTO + [None] * 2
    assert len(archive.asked) == 1 + MOST_LOOKED_INTO
    assert [one.study_uid for one in studies[-2:]] == ["1.2", "1.1"]
