from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydicom import Dataset

from mkiso.errors import AccessionNotFound, NoDicomData, PacsRejected, SeveralPatients
from mkiso.retrieve.studies import (
    Study,
    count_patients,
    find_studies,
    of_one_series,
    require_instances,
    require_one_patient,
    with_instances,
    with_modalities,
)


@dataclass
class Archive:
    """A Finder over invented answers, by accession number and by Study Instance UID."""

    answers: Mapping[str, Sequence[Dataset]]
    images: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def studies(self, accession: str) -> list[Dataset]:
        return list(self.answers.get(accession, []))

    def instances(self, study_uid: str) -> dict[str, str]:
        return dict(self.images.get(study_uid, {}))

    def modalities(self, study_uid: str) -> set[str]:
        return {"SR", f"of {study_uid}"}


def answer(accession: str, study_uid: str, **values: object) -> Dataset:
    made = Dataset()
    made.AccessionNumber, made.StudyInstanceUID = accession, study_uid
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def study(**values: Any) -> Study:
    plain = {"accession_number": "A", "study_uid": "1.2", "patient_id": "P", "issuer": "", "patient_name": "DOE^JOHN"}
    more = {"study_date": "20240301", "description": "Head", "modalities": ("CT",), "instances": {"1.5": "1.4"}}
    return Study(**(plain | more | values))


def uids(found: list[Study]) -> list[str]:
    return [one.study_uid for one in found]


def test_a_study_is_as_the_archive_describes_it() -> None:
    told = answer("A ", "1.2", PatientID="P ", PatientName="DOE^JOHN", StudyDate="20240301")
    told.StudyDescription, told.ModalitiesInStudy, told.IssuerOfPatientID = "Head", ["CT", "SR"], "HOSPITAL"
    found = find_studies(Archive({"A": [told]}), ["A"])
    assert found == [study(modalities=("CT", "SR"), issuer="HOSPITAL", instances={})]


def test_the_instances_of_a_study_are_those_that_the_archive_holds_now() -> None:
    archive = Archive({}, {"1.2": {"1.5": "1.4", "1.6": "1.4"}})
    assert with_instances(archive, study()) == study(instances={"1.5": "1.4", "1.6": "1.4"})


def test_a_study_of_which_the_archive_tells_little_is_found_too() -> None:
    empty = study(patient_id="", patient_name="", study_date="", description="", modalities=(), instances={})
    assert find_studies(Archive({"A": [answer("A", "1.2", PatientName=None)]}), ["A"]) == [empty]


def test_the_number_that_is_not_known_is_named() -> None:
    with pytest.raises(AccessionNotFound) as raised:
        find_studies(Archive({"A": [answer("A", "1.2")]}), ["A", "B"])
    assert raised.value.fields == {"accession": "B"}


def test_several_studies_come_in_the_order_asked_for_and_each_once() -> None:
    archive = Archive({"A": [answer("A", "1.2"), answer("A", "1.3"), answer("A", "1.2")], "B": [answer("B", "1.1")]})
    assert uids(find_studies(archive, ["B", "A"])) == ["1.1", "1.2", "1.3"]


@pytest.mark.parametrize("uid", ["", "*", "1.2\\1.3", "../x"])
@pytest.mark.filterwarnings("ignore::UserWarning")
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


def test_of_a_study_the_smallest_series_is_taken_alone() -> None:
    made = study(instances={"1.1": "S", "1.2": "S", "2.1": "T", "3.1": "U", "3.2": "U"})
    narrowed = of_one_series(made)
    assert (narrowed.series_uid, narrowed.instances) == ("T", {"2.1": "T"})
    assert of_one_series(study(instances={})).series_uid is None
