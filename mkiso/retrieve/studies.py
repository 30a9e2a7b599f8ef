"""What the archive holds for accession numbers: the studies, and of each the instances that must arrive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydicom import Dataset
from pydicom.multival import MultiValue

from mkiso.dcmtk.findscu import UID, Finder
from mkiso.errors import AccessionNotFound, NoDicomData, PacsRejected, SeveralPatients
from mkiso.names import display_name
from mkiso.retrieve.instances import Key


@dataclass(frozen=True)
class Study:
    """A study as the archive's C-FIND describes it; `instances` maps SOP to Series Instance UIDs.

    Where `series_uid` is set, only that series is wanted, and the instances are those of it.
    """

    accession_number: str
    study_uid: str
    patient_id: str
    issuer: str
    patient_name: str
    study_date: str
    description: str
    modalities: tuple[str, ...]
    instances: Mapping[str, str]
    series_uid: str | None = None
    birth_date: str = ""

    def public(self) -> dict[str, Any]:
        """The study as `/api/studies` and the ledger show it."""
        return {
            "accession_number": self.accession_number,
            "study_instance_uid": self.study_uid,
            "patient_id": self.patient_id,
            "patient_name": display_name(self.patient_name),
            "study_date": self.study_date,
            "study_description": self.description,
            "modalities": list(self.modalities),
            "series": len(set(self.instances.values())),
            "instances": len(self.instances),
        }


def keys_of(study: Study) -> set[Key]:
    """What names the study's instances."""
    return {(study.study_uid, sop) for sop in study.instances}


def find_studies(finder: Finder, accessions: Sequence[str]) -> list[Study]:
    """Every study of every accession number, its instances not yet looked up.

    Raises AccessionNotFound for the first number that the archive does not know; as Finder otherwise.
    """
    studies: dict[str, Study] = {}
    for accession in accessions:
        found = studies_of(finder, accession)
        if not found:
            raise AccessionNotFound(
                f"The PACS knows no study with the accession number {accession}. Check the number.",
                accession=accession,
            )
        studies |= {study.study_uid: study for study in found if study.study_uid not in studies}
    return list(studies.values())


def with_instances(finder: Finder, study: Study, by_series: bool = False) -> Study:
    """The study with the instances that the archive holds of it now."""
    return replace(study, instances=finder.instances(study.study_uid, by_series))


def of_one_series(study: Study) -> Study:
    """The study's series of the fewest instances, as if that were all of it; a study without instances as it is."""
    if not study.instances:
        return study
    series_uid, _ = min(Counter(study.instances.values()).items(), key=lambda one: (one[1], one[0]))
    instances = {sop: series for sop, series in study.instances.items() if series == series_uid}
    return replace(study, instances=instances, series_uid=series_uid)


def with_modalities(finder: Finder, study: Study) -> Study:
    """The study with its modalities, also from an archive that leaves ModalitiesInStudy empty."""
    return replace(study, modalities=study.modalities or tuple(sorted(finder.modalities(study.study_uid))))


def count_patients(studies: Collection[Study]) -> int:
    """How many patients the studies belong to: Patient IDs, and of each the issuers that are given.

    Studies without a Patient ID are told apart by the patient's name.
    """
    issuers: dict[tuple[str, str], set[str]] = {}
    for study in studies:
        patient = (study.patient_id, "" if study.patient_id else study.patient_name)
        issuers.setdefault(patient, set()).update({study.issuer} - {""})
    return sum(max(1, len(given)) for given in issuers.values())


def require_one_patient(studies: Collection[Study]) -> None:
    """Raise SeveralPatients unless all studies share one Patient ID and issuer (PS3.3 C.7.1.1)."""
    patients = count_patients(studies)
    if patients > 1:
        raise SeveralPatients(
            f"The studies found belong to {patients} patients, and a disc is for one. Ask for each patient's"
            " studies by themselves; if it is one person, have the PACS merge the Patient IDs.",
            patients=patients,
        )


def require_instances(studies: Collection[Study]) -> None:
    """Raise NoDicomData for a study of which the archive lists no instance."""
    for study in studies:
        if not study.instances:
            raise NoDicomData(
                f"The PACS knows a study with the accession number {study.accession_number}, and lists no instance"
                " of it. Check the study in the PACS.",
                accession=study.accession_number,
            )


def studies_of(finder: Finder, accession: str) -> list[Study]:
    """The studies of one accession number, their instances not yet looked up; none where the archive knows none."""
    return [_study(answer) for answer in finder.studies(accession)]


def _study(answer: Dataset) -> Study:
    study_uid = _text(answer, "StudyInstanceUID")
    if not UID.fullmatch(study_uid):
        raise PacsRejected("The PACS answered with a study that has no valid Study Instance UID.")
    return Study(
        accession_number=_text(answer, "AccessionNumber"),
        study_uid=study_uid,
        patient_id=_text(answer, "PatientID"),
        issuer=_text(answer, "IssuerOfPatientID"),
        patient_name=_text(answer, "PatientName"),
        study_date=_text(answer, "StudyDate"),
        description=_text(answer, "StudyDescription"),
        modalities=tuple(part for part in _text(answer, "ModalitiesInStudy").split("\\") if part),
        instances={},
        birth_date=_text(answer, "PatientBirthDate"),
    )


def _text(answer: Dataset, keyword: str) -> str:
    value = answer.get(keyword, "")
    parts = value if isinstance(value, MultiValue) else [value or ""]
    return "\\".join(str(part).strip(" \0") for part in parts)
