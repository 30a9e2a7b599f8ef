"""What must hold of the instances that go out, beside that all of them are there: whose they are, and which.

Whoever reaches the receiver's port while a job runs can send an instance under an expected UID.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

from mkiso.dcmtk.movescu import Outcome
from mkiso.errors import ConflictingInstances, WrongPatient
from mkiso.ledger.record import JobRecord
from mkiso.retrieve.instances import Instance, Key, same_data_set
from mkiso.retrieve.studies import Study, keys_of, require_one_patient

Arrivals = Mapping[Key, Sequence[Instance]]
NAMED = 10
log = logging.getLogger("mkiso.retrieve.proof")


@dataclass(frozen=True)
class Evidence:
    """What tells that the archive holds more of a study than it lists: false where nothing does.

    `unlisted` are whole instances that came and are not listed; `uncounted` is how many more sub-operations the
    archive counts, or names as failed, than its list and what came explain.
    """

    unlisted: frozenset[str] = frozenset()
    uncounted: int = 0

    def __bool__(self) -> bool:
        return bool(self.unlisted or self.uncounted)


def evidence_against(study: Study, asked: Set[str], arrivals: Arrivals, ended: Outcome, foreign: int = 0) -> Evidence:
    """What the C-MOVE of a study says of its list (PS3.4 C.4.2.1.6); `asked` are the UIDs of all studies of the job.

    A further copy explains a sub-operation. An instance of a study that nobody asked for explains one that was
    completed, and none that failed: a stranger may have sent it. So many `foreign` ones came beside the arrivals.
    """
    came = {sop: copies for (study_uid, sop), copies in arrivals.items() if study_uid == study.study_uid}
    unlisted = {
        sop
        for sop, (first, *_) in came.items()
        if sop not in study.instances and study.series_uid in (None, first.series_uid)
    }
    known = came.keys() | study.instances.keys()
    explained = len(known) + sum(len(copies) - 1 for copies in came.values())
    foreign += sum(len(copies) for (study_uid, _), copies in arrivals.items() if study_uid not in asked)
    sent = ended.completed + ended.warning
    explained += min(foreign, max(0, sent - explained))
    return Evidence(frozenset(unlisted), max(0, ended.counted - explained, len(ended.failed_uids - known)))


def require_patient(
    studies: Sequence[Study], arrivals: Arrivals, verify: bool, with_all_patients: Callable[[Study], Study]
) -> None:
    """Raise WrongPatient unless each arrival has the Patient ID of the PACS's answer (PS3.3 C.7.1.1).

    Where the PACS gives none, all such studies' instances must have the same; one that cannot be read is another. Not
    where `verify` is false. Either way the first other Patient ID is a reason to ask whom the PACS names for these very
    studies under any accession number: raises SeveralPatients where these are several.
    """
    found = _of_another_patient(studies, arrivals)
    if found is not None:
        require_one_patient([with_all_patients(study) for study in studies])
        if verify:
            raise _wrong_patient(*found)


def _of_another_patient(studies: Sequence[Study], arrivals: Arrivals) -> tuple[Study, Instance] | None:
    unnamed: str | None = None
    for study in studies:
        for key in sorted(keys_of(study)):
            for one in arrivals[key]:
                expected = study.patient_id or unnamed
                if expected is None:
                    expected = unnamed = one.patient_id
                if not one.patient_known or one.patient_id != expected:
                    return study, one
    return None


def require_agreement(studies: Sequence[Study], arrivals: Arrivals, check: Callable[[], None]) -> None:
    """Raise ConflictingInstances where an instance came more than once, and not the same, or is of two studies.

    `check` is asked before each comparison, which reads both files.
    """
    studies_of: dict[str, str] = {}
    for study in studies:
        for key in sorted(keys_of(study)):
            first, *others = arrivals[key]
            if studies_of.setdefault(first.sop_instance_uid, study.study_uid) != study.study_uid:
                raise _conflict(study, first)
            for other in others:
                check()
                if not same_data_set(first, other):
                    raise _conflict(study, first)


def report_malformed(record: JobRecord, instances: Sequence[Instance]) -> None:
    """Tell the ledger how many came whole and are not well-formed, and the log which."""
    malformed = [one.sop_instance_uid for one in instances if one.malformed]
    record.note(malformed=len(malformed))
    if malformed:
        fields = {"job": record.job_id, "count": len(malformed), "instances": malformed[:NAMED]}
        log.warning("instances came whole and are not well-formed", extra={"fields": fields})


def _wrong_patient(study: Study, instance: Instance) -> WrongPatient:
    if not instance.patient_known:
        return WrongPatient(
            f"The instance {instance.sop_instance_uid}, received for {study.accession_number}, is malformed, and its"
            " Patient ID cannot be read. Have the PACS correct it; where you know that it is this patient's, set"
            " retrieve.verify_patient to false.",
            accession=study.accession_number,
        )
    return WrongPatient(
        f"The instance {instance.sop_instance_uid}, received for {study.accession_number}, has another Patient ID than"
        " the PACS's answer. Have the PACS correct it, and see who may send to this host's receivers. If its files"
        " keep an older Patient ID on purpose, set retrieve.verify_patient to false.",
        accession=study.accession_number,
    )


def _conflict(study: Study, instance: Instance) -> ConflictingInstances:
    return ConflictingInstances(
        f"The instance {instance.sop_instance_uid} of {study.accession_number} arrived twice, with different contents."
        " Try again; if it stays so, see who may send to this host's receivers.",
        accession=study.accession_number,
    )
