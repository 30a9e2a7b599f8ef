"""What the front desk's page shows of a look-up: studies to tick, whose they are, and what they would come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from mkiso.dicom.datasets import page_name
from mkiso.ledger.experience import Sizes
from mkiso.retrieve.studies import Patient, Study, by_patient, count_patients
from mkiso.web.answers import Asked

# What lies beside the images of a study, and is small.
DOCUMENTS = {"SR", "PR", "KO", "DOC", "REG", "AU"}


def bytes_an_image(sizes: Sizes, modalities: Collection[str]) -> int | None:
    """What an image of these modalities comes to, of which each may have any share: rather too much.

    None where nothing is known of one.
    """
    shares = [one for one in modalities if one not in DOCUMENTS] or modalities
    known = [sizes.likely({one: 1}) for one in shares]
    return max((one for one in known if one is not None), default=None) if None not in known else None


@dataclass(frozen=True)
class PatientRow:
    """Whose studies were found, and what is this patient's alone: accession numbers, or else studies."""

    patient_id: str
    name: str
    own: tuple[str, ...]
    studies: tuple[str, ...] = ()


@dataclass(frozen=True)
class LookedUp:
    """The studies by what was asked for: an accession number, or "" for all that was asked for in another way.

    None for a number that the archive does not know. With `search` nobody asked for these studies in particular.
    """

    studies: Mapping[str, list[Study]]
    allow_mixed: bool = False
    search: bool = False
    is_cut: bool = False

    @property
    def known(self) -> list[str]:
        return [number for number, studies in self.studies.items() if studies]

    @property
    def numbers(self) -> list[str]:
        """The accession numbers, where these alone were asked for."""
        return [] if "" in self.studies else list(self.studies)

    @property
    def has_unknown(self) -> bool:
        return len(self.known) < len(self.studies)

    @property
    def several_patients(self) -> bool:
        """Whether what was asked for cannot be one disc as it is."""
        return not (self.allow_mixed or self.search) and count_patients(self.all()) > 1

    @property
    def can_start(self) -> bool:
        return bool(self.known) and not (self.has_unknown or self.several_patients)

    @property
    def patient(self) -> Patient | None:
        """Whose all of these are; None where they are several patients'."""
        groups = by_patient(self.all())
        return groups[0][0] if len(groups) == 1 else None

    def patients(self) -> list[PatientRow]:
        """In the order of the list. What the archive gives to several is nobody's own."""
        groups = by_patient(self.all())
        owners = {one: [patient for patient, theirs in groups if self._has(one, theirs)] for one in self.known if one}
        return [self._row(patient, theirs, groups, owners) for patient, theirs in groups]

    def _row(
        self,
        patient: Patient,
        theirs: list[Study],
        groups: list[tuple[Patient, list[Study]]],
        owners: Mapping[str, list[Patient]],
    ) -> PatientRow:
        own = tuple(number for number, found in owners.items() if found == [patient])
        shared = {one.study_uid for other, some in groups if other != patient for one in some}
        alone = [one for one in theirs if one.study_uid not in shared]
        of_numbers = {one.study_uid for number in own for one in self.studies[number]}
        is_more = any(one.study_uid not in of_numbers for one in alone)
        uids = tuple(one.study_uid for one in alone) if is_more else ()
        return PatientRow(patient.patient_id, page_name(patient.name), own, uids)

    def _has(self, accession: str, studies: list[Study]) -> bool:
        uids = {study.study_uid for study in studies}
        return any(study.study_uid in uids for study in self.studies[accession])

    def all(self) -> list[Study]:
        """Every study, once for each number that has it."""
        return [study for studies in self.studies.values() for study in studies]

    @property
    def study_uids(self) -> list[str]:
        """Each study once."""
        return list(dict.fromkeys(study.study_uid for study in self.all()))

    def images(self, study: Study) -> int | None:
        """How many images a study has, as the archive lists or, where nobody asked for these, counts them."""
        return study.counted if self.search else len(study.instances)

    @staticmethod
    def of_series(study: Study) -> dict[str, int]:
        """How many images each series has, as far as the archive has listed them."""
        return dict(Counter(study.instances.values()))

    @staticmethod
    def people(study: Study) -> list[list[str]]:
        """Of each patient whom the archive names for a study, what tells one from others, and the issuer of the ID."""
        return [["\\".join(one.identity), one.issuer if one.patient_id else ""] for one in study.patients]


def ticked(
    looked_up: tuple[str, ...],
    offered: Collection[str],
    study_uids: Iterable[str],
    series_uids: Collection[str],
    opened: Iterable[tuple[str, ...]],
) -> Asked:
    """What is ticked: the looked-up numbers as they are, where that is all that they offered, and else the studies.

    `opened` are studies whose series were shown, each with its series behind it: one of which every series is ticked is
    wanted whole, and one of which none is, is not wanted.
    """
    studies, series = dict.fromkeys(study_uids), dict.fromkeys(series_uids)
    for study, *its_series in opened:
        of_it = [one for one in its_series if one in series]
        if its_series and not of_it:
            studies.pop(study, None)
        elif of_it:
            studies[study] = None
        if len(of_it) == len(its_series):
            series = {one: None for one in series if one not in its_series}
    if looked_up and not series and set(studies) == set(offered):
        return Asked(looked_up, (), ())
    return Asked((), tuple(studies), tuple(series))
