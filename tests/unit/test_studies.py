from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from mkiso.dcmtk.findscu import STUDY_KEYS, Answer, QueryRefused
from mkiso.errors import AccessionNotFound, NoDicomData, PacsRejected, SeveralPatients
from mkiso.retrieve.studies import (
    Study,
    by_patient,
    count_patients,
    find_studies,
    of_one_series,
    require_instances,
    require_one_patient,
    with_all_patients,
    with_instances,
    with_modalities,
)


@dataclass
class Archive:
    """A Finder over invented answers, by accession number and by Study Instance UID."""

    answers: Mapping[str, Sequence[Answer]]
    images: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    by_series: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    of_uid: Mapping[str, Sequence[Answer]] = field(default_factory=dict)

    def studies(self, accession: str) -> list[Answer]:
        return list(self.answers.get(accession, []))

    def instances(self, study_uid: str, by_series: bool = False) -> dict[str, str]:
        return dict((self.by_series if by_series else self.images).get(study_uid, {}))

    def of_study(self, study_uid: str) -> list[Answer]:
        if study_uid not in self.of_uid:
            raise QueryRefused("It does not answer so.")
        return list(self.of_uid[study_uid])

    def modalities(self, study_uid: str) -> set[str]:
        return {"SR", f"of {study_uid}"}


def answer(accession: str, study_uid: str, **values: str) -> Answer:
    return dict.fromkeys(STUDY_KEYS, "") | {"AccessionNumber": accession, "StudyInstanceUID": study_uid} | values


def study(**values: Any) -> Study:
    plain = {"accession_number": "A", "study_uid": "1.2", "patient_id": "P", "issuer": "", "patient_name": "DOE^JOHN"}
    more = {"study_date": "20240301", "description": "Head", "modalities": ("CT",), "instances": {"1.5": "1.4"}}
    return Study(**(plain | more | values))


def uids(found: list[Study]) -> list[str]:
    return [one.study_uid for one in found]


def test_a_study_is_as_the_archive_describes_it() -> None:
    told = answer("A", "1.2", PatientID="P", PatientName="DOE^JOHN", StudyDate="20240301", PatientSex="M")
    more = {"StudyDescription": "Head", "ModalitiesInStudy": "CT \\SR", "IssuerOfPatientID": "HOSPITAL"}
    found = find_studies(Archive({"A": [told | more | {"NumberOfStudyRelatedInstances": "12"}]}), ["A"])
    assert found == [study(modalities=("CT", "SR"), issuer="HOSPITAL", instances={}, sex="M", counted=12)]


@pytest.mark.parametrize("number", ["", "many", "-1", "1.5", "9" * 400, "²", "7\\8"])
def test_a_count_that_is_no_number_says_nothing(number: str) -> None:
    (found,) = find_studies(Archive({"A": [answer("A", "1.2", NumberOfStudyRelatedInstances=number)]}), ["A"])
    assert found.counted is None


def test_the_instances_of_a_study_are_those_that_the_archive_holds_now() -> None:
    archive = Archive({}, {"1.2": {"1.5": "1.4", "1.6": "1.4"}})
    assert with_instances(archive, study()) == study(instances={"1.5": "1.4", "1.6": "1.4"})


def test_a_study_of_which_the_archive_tells_little_is_found_too() -> None:
    empty = study(patient_id="", patient_name="", study_date="", description="", modalities=(), instances={})
    assert find_studies(Archive({"A": [answer("A", "1.2")]}), ["A"]) == [empty]


def test_the_number_that_is_not_known_is_named() -> None:
    with pytest.raises(AccessionNotFound) as raised:
        find_studies(Archive({"A": [answer("A", "1.2")]}), ["A", "B"])
    assert raised.value.fields == {"accession": "B"}


def test_several_studies_come_in_the_order_asked_for_and_each_once() -> None:
    archive = Archive({"A": [answer("A", "1.2"), answer("A", "1.3"), answer("A", "1.2")], "B": [answer("B", "1.1")]})
    assert uids(find_studies(archive, ["B", "A"])) == ["1.1", "1.2", "1.3"]


@pytest.mark.parametrize("uid", ["", "*", "1.2\\1.3", "../x"])
def test_a_study_without_a_valid_uid_is_refused(uid: str) -> None:
    with pytest.raises(PacsRejected):
        find_studies(Archive({"A": [answer("A", uid)]}), ["A"])


def test_modalities_are_looked_up_where_the_archive_left_them_empty() -> None:
    archive = Archive({})
    assert with_modalities(archive, study()).modalities == ("CT",)
    assert with_modalities(archive, study(modalities=())).modalities == ("SR", "of 1.2")


@pytest.mark.parametrize(
    ("patients", "count"),
    [
        ([("P", "", "A"), ("P", "", "B")], 1),
        ([("P", "", "A"), ("Q", "", "A")], 2),
        ([("P", "X", "A"), ("P", "", "A")], 1),
        ([("P", "X", "A"), ("P", "Y", "A")], 2),
        ([("", "", "A"), ("", "", "A")], 1),
        ([("", "", "A"), ("", "", "B")], 2),
        ([("P", "", "A"), ("", "", "A")], 2),
        ([("P", "X", "A"), ("P", "", "A"), ("P", "Y", "A")], 2),
        ([("P", "", "A"), ("P", "X", "A"), ("P", "", "B")], 1),
        ([("", "X", "A"), ("", "Y", "A")], 1),
        ([("", "", "DOE^JOHN^^ ="), ("", "", " DOE ^JOHN")], 1),
        ([("", "", "DOE^JOHN"), ("", "", "DOE^^JOHN")], 2),
    ],
)
def test_patients_are_told_apart_by_their_id_and_its_issuer(patients: list[tuple[str, str, str]], count: int) -> None:
    studies = [study(patient_id=one, issuer=issuer, patient_name=name) for one, issuer, name in patients]
    assert count_patients(studies) == count
    if count == 1:
        require_one_patient(studies)
    else:
        with pytest.raises(SeveralPatients) as raised:
            require_one_patient(studies)
        assert raised.value.fields == {"patients": count}


@pytest.mark.parametrize(
    ("other", "count"),
    [
        ({}, 1),
        ({"birth_date": "19900101"}, 2),
        ({"sex": "F"}, 2),
        ({"patient_name": "UNKNOWN^OTHER"}, 2),
        ({"issuer": "X"}, 1),
    ],
)
def test_patients_without_an_id_are_told_apart_by_name_birth_date_and_sex(other: dict[str, str], count: int) -> None:
    plain = {"patient_id": "", "patient_name": "UNKNOWN^UNKNOWN", "birth_date": "19500101", "sex": "M"}
    assert count_patients([study(**plain), study(**(plain | other))]) == count
    assert count_patients([study(patient_id="P"), study(patient_id="P", sex="F", birth_date="19900101")]) == 1


@pytest.mark.parametrize(
    ("answers", "count"),
    [
        ([{"PatientID": "P"}, {"PatientID": "P"}], 1),
        ([{"PatientID": "P"}, {"PatientID": "Q"}], 2),
        ([{"PatientID": "P", "IssuerOfPatientID": "X"}, {"PatientID": "P", "IssuerOfPatientID": "Y"}], 2),
        ([{"PatientID": "P", "IssuerOfPatientID": "X"}, {"PatientID": "P"}], 1),
        ([{"PatientID": "P"}, {"PatientID": ""}], 2),
        ([{"PatientID": "P"}, {"PatientID": "Q"}, {"PatientID": "P"}], 2),
        ([{"PatientBirthDate": "19500101"}, {"PatientBirthDate": "19900101"}], 2),
    ],
)
def test_all_answers_about_one_study_count(answers: list[dict[str, str]], count: int) -> None:
    told = [answer("A", "1.2", **one) for one in answers]
    elsewhere = [answer("B", "1.2", **one) for one in answers[1:]]
    for archive, asked in ((Archive({"A": told}), ["A"]), (Archive({"A": told[:1], "B": elsewhere}), ["A", "B"])):
        found = find_studies(archive, asked)
        assert (uids(found), count_patients(found)) == (["1.2"], count)
    (one,) = find_studies(Archive({"A": told[:1]}), ["A"])
    assert count_patients([one]) == 1
    assert count_patients([with_all_patients(Archive({}, of_uid={"1.2": elsewhere}), one)]) == count
    assert with_all_patients(Archive({}), one) == one


def test_each_patient_is_told_with_the_studies_that_name_him() -> None:
    john, jane = study(study_uid="1.1", patient_id="P"), study(study_uid="1.2", patient_id="Q")
    shared = replace(study(study_uid="1.3", patient_id="P"), others=jane.patients)
    told = [(patient.patient_id, uids(studies)) for patient, studies in by_patient([john, shared, jane])]
    assert told == [("P", ["1.1", "1.3"]), ("Q", ["1.3", "1.2"])]


def test_the_highest_count_of_a_studys_answers_is_taken() -> None:
    counts = ("", "3", "12", "7")
    told = [answer("A", "1.2", NumberOfStudyRelatedInstances=count, PatientName=count) for count in counts]
    (found,) = find_studies(Archive({"A": told}), ["A"])
    assert found.counted == 12


@pytest.mark.parametrize(
    ("counted", "by_series", "found"),
    [
        (None, {"1.7": "1.4"}, {"1.5": "1.4"}),
        (0, {"1.7": "1.4"}, {"1.5": "1.4"}),
        (1, {"1.7": "1.4"}, {"1.5": "1.4"}),
        (2, {"1.7": "1.4", "1.5": "1.9"}, {"1.5": "1.4", "1.7": "1.4"}),
        (2, {}, {"1.5": "1.4"}),
        (9, {"1.7": "1.4"}, {"1.5": "1.4", "1.7": "1.4"}),
    ],
)
def test_a_count_above_the_list_is_a_reason_to_ask_by_series_and_no_proof(
    counted: int | None, by_series: dict[str, str], found: dict[str, str]
) -> None:
    archive = Archive({}, {"1.2": {"1.5": "1.4"}}, {"1.2": by_series})
    assert with_instances(archive, study(counted=counted)).instances == found


def test_a_study_of_which_no_instance_is_listed_has_no_data() -> None:
    require_instances([study()])
    with pytest.raises(NoDicomData) as raised:
        require_instances([study(), study(accession_number="B", instances={})])
    assert raised.value.fields["accession"] == "B"


def test_the_api_shows_a_study_with_the_contracts_fields() -> None:
    assert study(instances={"1.5": "1.4", "1.6": "1.4", "1.7": "1.8"}).public() == {
        "accession_number": "A",
        "study_instance_uid": "1.2",
        "patient_id": "P",
        "patient_name": "JOHN DOE",
        "study_date": "20240301",
        "study_description": "Head",
        "modalities": ["CT"],
        "series": 2,
        "instances": 3,
    }


def test_of_a_study_the_largest_series_is_taken_alone_or_one_that_is_named() -> None:
    made = study(instances={"1.1": "1", "2.1": "2", "2.2": "2", "3.1": "3"})
    narrowed = of_one_series(made)
    assert (narrowed.series_uid, narrowed.instances) == ("2", {"2.1": "2", "2.2": "2"})
    assert of_one_series(made, "3").instances == {"3.1": "3"}
    assert of_one_series(study(instances={})).series_uid is None


@pytest.mark.parametrize("series", ["", "LOCALIZER1.2", "1" * 64 + "\\2", "*", "1\\2"])
def test_a_series_that_cannot_be_asked_for_is_not_taken_alone(series: str) -> None:
    made = study(instances={"1.1": "1", "1.2": "1", "2.1": series})
    assert of_one_series(made).series_uid == "1"
    assert of_one_series(study(instances={"2.1": series})) == study(instances={"2.1": series})
