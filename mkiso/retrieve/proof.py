"""What must hold of the instances that go out, beside that all of them are there: whose they are, and which.

Whoever reaches the receiver's port while a job runs can send an instance under an expected UID.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from mkiso.errors import ConflictingInstances, WrongPatient
from mkiso.ledger.record import JobRecord
from mkiso.retrieve.instances import Instance, Key, same_data_set
from mkiso.retrieve.studies import Study, keys_of

Arrivals = Mapping[Key, Sequence[Instance]]
NAMED = 10
log = logging.getLogger("mkiso.retrieve.proof")


def require_patient(studies: Sequence[Study], arrivals: Arrivals) -> None:
    """Raise WrongPatient unless each arrival has the Patient ID of the PACS's answer (PS3.3 C.7.1.1).

    Where the PACS gives none, all such studies' instances must have the same. One that cannot be read is another.
    """
    unnamed: str | None = None
    for study in studies:
        for key in sorted(keys_of(study)):
            for one in arrivals[key]:
                expected = study.patient_id or unnamed
                if expected is None:
                    expected = unnamed = one.patient_id
                if not one.patient_known or one.patient_id != expected:
                    raise _wrong_patient(study, one)


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
