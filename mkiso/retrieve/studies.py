"""What the archive holds for accession numbers: the studies, and of each the instances that must arrive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from mkiso.accession import uid_fault
from mkiso.dcmtk.findscu import Answer, Finder, QueryRefused, named
from mkiso.dicom.datasets import display_name, plain_name
from mkiso.dicom.instances import Key
from mkiso.errors import AccessionNotFound, NoDicomData, PacsRejected, SeveralPatients, StudyNotFound

MOST_COUNTED = 9  # digits


@dataclass(frozen=True)
class Patient:
    """A patient as an answer of the archive names one (PS3.3 C.7.1.1)."""

    patient_id: str
    issuer: str = ""
    name: str = ""
    birth_date: str = ""
    sex: str = ""

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells a patient from others: the Patient ID, or without one the name, the birth date and the sex."""
        return (self.patient_id,) if self.patient_id else (plain_name(self.name), self.birth_date, self.sex)


@dataclass(frozen=True)
class Study:
    """A study as the archive's C-FIND describes it; `instances` maps SOP Instance UIDs to what their series are called.

    That is mostly a Series Instance UID, and is not checked. Where `series_uid` is set, only that series is wanted, and
    the instances are those of it. `counted` is how many instances the archive says that it has of that, where it
    does, and `counted_series` how many series. `others` are patients whom further answers name for the same study.
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
    sex: str = ""
    counted: int | None = None
    others: tuple[Patient, ...] = ()
    counted_series: int | None = None

    @property
    def patients(self) -> tuple[Patient, ...]:
        """Whom all answers about the study name."""
        return (Patient(self.patient_id, self.issuer, self.patient_name, self.birth_date, self.sex), *self.others)

    @property
    def title(self) -> str:
        """What an error's text calls the study, or the series of it that is wanted."""
        study = self.accession_number or f"the study {self.study_uid}"
        return study if self.series_uid is None else f"the series {self.series_uid} of {study}"

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


@dataclass(frozen=True)
class Series:
    """A series as the archive's C-FIND describes it; `instances` is how many it says that it has, where it does."""

    uid: str
    number: str
    modality: str
    description: str
    instances: int | None
    study_uid: str

    def public(self) -> dict[str, Any]:
        """The series as `/api/series` shows it."""
        return {
            "study_instance_uid": self.study_uid,
            "series_instance_uid": self.uid,
            "series_number": self.number,
            "modality": self.modality,
            "series_description": self.description,
            "instances": self.instances,
        }


def keys_of(study: Study) -> set[Key]:
    """What names the study's instances."""
    return {(study.study_uid, sop) for sop in study.instances}


def find_studies(finder: Finder, accessions: Sequence[str]) -> list[Study]:
    """Every study of every accession number, its instances not yet looked up.

    Raises AccessionNotFound for the first number that the archive does not know, and what the finder raises.
    """
    studies: dict[str, Study] = {}
    for accession in accessions:
        found = studies_of(finder, accession)
        if not found:
            raise AccessionNotFound(
                f"The PACS knows no study with the accession number {accession}. Check the number.",
                accession=accession,
            )
        _add(studies, found)
    return list(studies.values())


def find_by_uid(finder: Finder, study_uids: Sequence[str]) -> list[Study]:
    """As `find_studies`, of Study Instance UIDs. Raises StudyNotFound."""
    studies: dict[str, Study] = {}
    for study_uid in study_uids:
        _add(studies, map(_study, finder.of_study(study_uid)))
        if study_uid not in studies:
            raise StudyNotFound(f"The PACS knows no study with the Study Instance UID {study_uid}.", study=study_uid)
    return list(studies.values())


def series_of(finder: Finder, study_uid: str) -> list[Series]:
    """The series that the archive lists of a study, by their numbers; those that cannot be asked for are left out."""
    found = {one["SeriesInstanceUID"]: one for one in finder.series(study_uid)}
    series = [
        Series(
            uid,
            one["SeriesNumber"],
            one["Modality"],
            one["SeriesDescription"],
            count(one["NumberOfSeriesRelatedInstances"]),
            study_uid,
        )
        for uid, one in found.items()
        if uid_fault(uid) is None
    ]
    return sorted(series, key=lambda one: (count(one.number) is None, count(one.number) or 0, one.uid))


def counted_series(finder: Finder, study_uid: str) -> list[Series]:
    """As `series_of`; what the archive does not count of a series is how many instances it lists.

    Raises StudyNotFound.
    """
    series = series_of(finder, study_uid)
    if not series:
        find_by_uid(finder, [study_uid])
    if all(one.instances is not None for one in series):
        return series
    listed = Counter(finder.instances(study_uid).values())
    return [replace(one, instances=listed[one.uid] if one.instances is None else one.instances) for one in series]


def with_counts(finder: Finder, study: Study) -> Study:
    """The study with its modalities and numbers of series and instances, also from an archive that tells none of them.

    As it is where the archive does not list its series.
    """
    if study.modalities and None not in (study.counted, study.counted_series):
        return study
    with suppress(QueryRefused, StudyNotFound):
        series = counted_series(finder, study.study_uid)
        modalities = study.modalities or tuple(sorted({one.modality for one in series} - {""}))
        counted = sum(one.instances or 0 for one in series) if study.counted is None else study.counted
        return replace(
            study, modalities=modalities, counted=counted, counted_series=study.counted_series or len(series)
        )
    return study


def with_instances(finder: Finder, study: Study, by_series: bool = False) -> Study:
    """The study with the instances that the archive lists of it now; asked series by series, too, where it counts more.

    That count is no proof: some archives count what they neither list nor send.
    """
    if study.series_uid is not None:
        return replace(study, instances=_of_series(finder, study, study.series_uid, by_series))
    instances = finder.instances(study.study_uid, by_series)
    if not by_series and (study.counted or 0) > len(instances):
        instances = finder.instances(study.study_uid, by_series=True) | instances
    return replace(study, instances=instances)


def _of_series(finder: Finder, study: Study, series_uid: str, also_whole: bool) -> dict[str, str]:
    """The instances that the archive lists of one series: asked for it alone, and in doubt for its whole study, too."""
    listed: dict[str, str] = {}
    with suppress(QueryRefused):
        listed = finder.instances_of(study.study_uid, series_uid)
    if also_whole or not listed or (study.counted or 0) > len(listed):
        whole = finder.instances(study.study_uid, by_series=True)
        listed |= {sop: series for sop, series in whole.items() if series == series_uid}
    return listed


def with_all_patients(finder: Finder, study: Study) -> Study:
    """The study with the patients whom the archive names for it under other accession numbers, too.

    As it is where the archive does not answer to a Study Instance UID alone.
    """
    studies = {study.study_uid: study}
    with suppress(QueryRefused):
        _add(studies, map(_study, finder.of_study(study.study_uid)))
    return studies[study.study_uid]


def of_one_series(study: Study, series_uid: str | None = None) -> Study:
    """This series of the study, or else that of the most instances, as if that were all of it.

    A study as it is where it has no series with a UID that can be asked for.
    """
    series = Counter(one for one in study.instances.values() if uid_fault(one) is None)
    if not series:
        return study
    chosen = series_uid or max(series.items(), key=lambda one: (one[1], one[0]))[0]
    instances = {sop: series for sop, series in study.instances.items() if series == chosen}
    return replace(study, instances=instances, series_uid=chosen, counted=None)


def with_modalities(finder: Finder, study: Study) -> Study:
    """The study with its modalities, also from an archive that leaves ModalitiesInStudy empty."""
    return replace(study, modalities=study.modalities or tuple(sorted(finder.modalities(study.study_uid))))


def by_patient(studies: Iterable[Study]) -> list[tuple[Patient, list[Study]]]:
    """Each patient whom the archive's answers name, in their order, and the studies for which they do.

    Each Patient ID is one, and of one ID each issuer; where an answer gives none, it is the first that another gives.
    """
    named_for = [(patient, study) for study in studies for patient in study.patients]
    issuers: dict[tuple[str, ...], str] = {}
    for patient, _ in named_for:
        if patient.patient_id and patient.issuer:
            issuers.setdefault(patient.identity, patient.issuer)
    found: dict[tuple[str, ...], tuple[Patient, list[Study]]] = {}
    for patient, study in named_for:
        issuer = patient.issuer if patient.patient_id and patient.issuer else issuers.get(patient.identity, "")
        found.setdefault((*patient.identity, issuer), (patient, []))[1].append(study)
    return list(found.values())


def count_patients(studies: Iterable[Study]) -> int:
    """How many patients the archive's answers about the studies name."""
    return len(by_patient(studies))


def count_by_modality(finder: Finder, studies: Iterable[Study]) -> Counter[str]:
    """How many instances the archive lists by the modality of their series; under "" those of which it tells none.

    A study of one modality is not asked for its series. Raises as the finder.
    """
    counts: Counter[str] = Counter()
    known: dict[str, dict[str, str]] = {}
    for study in studies:
        if len(study.modalities) == 1:
            counts[study.modalities[0]] += len(study.instances)
            continue
        if study.study_uid not in known:
            known[study.study_uid] = {one.uid: one.modality for one in series_of(finder, study.study_uid)}
        for series, number in Counter(study.instances.values()).items():
            counts[known[study.study_uid].get(study.series_uid or series, "")] += number
    return counts


def require_one_patient(studies: Collection[Study]) -> None:
    """Raise SeveralPatients unless all studies share one Patient ID and issuer (PS3.3 C.7.1.1)."""
    patients = count_patients(studies)
    if patients > 1:
        raise SeveralPatients(
            f"The PACS names {patients} patients for these studies, and a disc is for one. Ask for each patient's"
            " studies by themselves. Where one study is of several, or it is one person, have the PACS correct it.",
            patients=patients,
        )


def require_instances(studies: Collection[Study]) -> None:
    """Raise NoDicomData for a study of which the archive lists no instance."""
    for study in studies:
        if not study.instances:
            raise NoDicomData(
                f"The PACS lists no instance of {study.title}. Check it in the PACS.",
                accession=study.accession_number,
            )


def studies_of(finder: Finder, accession: str) -> list[Study]:
    """The studies of one accession number, their instances not yet looked up; none where the archive knows none.

    An archive may answer several times about one study: once for each of its patients.
    """
    return described(finder.studies(accession))


def described(answers: Iterable[Answer]) -> list[Study]:
    """The studies of which the archive's answers tell, each once."""
    studies: dict[str, Study] = {}
    _add(studies, map(_study, answers))
    return list(studies.values())


def _add(studies: dict[str, Study], found: Iterable[Study]) -> None:
    for study in found:
        known = studies.setdefault(study.study_uid, study)
        further = tuple(one for one in dict.fromkeys(study.patients) if one not in known.patients)
        counted = max((one.counted for one in (known, study) if one.counted is not None), default=None)
        studies[study.study_uid] = replace(known, others=known.others + further, counted=counted)


def _study(answer: Answer) -> Study:
    study_uid = answer["StudyInstanceUID"]
    if why := uid_fault(study_uid):
        raise PacsRejected(
            f"The PACS lists a study whose Study Instance UID {named(study_uid)} {why}. Have the PACS correct it."
        )
    return Study(
        accession_number=answer["AccessionNumber"],
        study_uid=study_uid,
        patient_id=answer["PatientID"],
        issuer=answer["IssuerOfPatientID"],
        patient_name=answer["PatientName"],
        study_date=answer["StudyDate"],
        description=answer["StudyDescription"],
        modalities=tuple(part for one in answer["ModalitiesInStudy"].split("\\") if (part := one.strip())),
        instances={},
        birth_date=answer["PatientBirthDate"],
        sex=answer["PatientSex"],
        counted=count(answer["NumberOfStudyRelatedInstances"]),
        counted_series=count(answer.get("NumberOfStudyRelatedSeries", "")),
    )


def count(text: str) -> int | None:
    """A number of an answer; None where it is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MOST_COUNTED else None
