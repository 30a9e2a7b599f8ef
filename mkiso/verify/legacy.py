"""The checks of a disc of the layout `legacy`, which has no DICOMDIR, but its instances in a folder of that name."""

from __future__ import annotations

from mkiso.verify.disc import Disc
from mkiso.verify.instances import NOT_WHOLE, as_told, malformed_told, patients
from mkiso.verify.layout import DICOMDIR
from mkiso.verify.medium import whole
from mkiso.verify.report import Findings


def layout(disc: Disc) -> Findings:
    if not disc.legacy:
        yield f"the folder {DICOMDIR} is empty"
    return f"legacy: {len(disc.legacy)} files in the folder {DICOMDIR}, which other archives may not import"


def instances(disc: Disc) -> Findings:
    """Each is whole, and its file is named by its SOP Instance UID."""
    for name, instance in disc.legacy.items():
        if as_told(disc, name, instance) is None:
            yield f"{name} {NOT_WHOLE}"
        elif instance and name.partition("/")[2] != instance.sop_instance_uid:
            yield f"{name} is the instance {instance.sop_instance_uid}"
    return f"{len(disc.legacy)} whole instances, named by their UIDs{malformed_told(disc)}"


def one_patient(disc: Disc) -> Findings:
    yield from patients(one.patient_id for one in disc.legacy.values() if one and one.patient_known)
    return "one Patient ID"


CHECKS = (("layout", layout), ("medium", whole), ("instances", instances), ("one patient", one_patient))
