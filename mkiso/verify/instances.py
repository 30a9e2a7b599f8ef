"""The checks of the instances: each whole, and what the DICOMDIR or README.TXT says of it (PS3.10 8, PS3.3 F.3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

from mkiso.disc.records import FILE_ID, SOP_INSTANCE
from mkiso.retrieve import encoding
from mkiso.retrieve.instances import Instance, patient_id
from mkiso.verify.directory import Entry
from mkiso.verify.disc import Disc
from mkiso.verify.keys import BRANCHES
from mkiso.verify.layout import DICOMDIR, IMAGES, OTHER, README
from mkiso.verify.medium import COMPONENT, LEVELS
from mkiso.verify.report import Findings

SOP_CLASS, SYNTAX = 0x00041510, 0x00041512
NOT_WHOLE = "is no whole DICOM file"


def file_ids(disc: Disc) -> Findings:
    """PS3.10 8.2, 8.5."""
    for entry in disc.directory.entries:
        components = entry.record.text(FILE_ID).split("\\")
        if entry.type in BRANCHES:
            if components != [""]:
                yield f"{entry.label} refers to a file"
        elif len(components) > LEVELS or not all(map(COMPONENT.fullmatch, components)):
            yield f"{entry.label}: its file ID is not well formed"
    return f"{len(disc.directory.leaves)} file IDs"


def referenced(disc: Disc) -> Findings:
    """Each record's file is there, whole, and the instance that its records state."""
    for entry in disc.directory.leaves:
        name = disc.tree.find(entry.record.file)
        if name is None:
            yield f"{entry.record.file} is not there"
        elif name in disc.images:
            instance = as_told(disc, name, disc.images[name])
            differing = ", ".join(_differing(entry, instance)) if instance else ""
            if not instance or differing:
                yield f"{entry.record.file} {f'has another {differing}' if instance else NOT_WHOLE}"
    return f"{len(disc.directory.leaves)} files as their records state{malformed_told(disc)}"


def as_told(disc: Disc, name: str, instance: Instance | None) -> Instance | None:
    """The instance in a file, unless it is not well-formed, and README.TXT does not say that it came so."""
    if instance is None or not instance.malformed:
        return instance
    return instance if disc.readme.malformed.get(name.upper()) == instance.sop_instance_uid else None


def malformed_told(disc: Disc) -> str:
    """How many README.TXT tells to be not well-formed, to be put behind a finding; empty where it tells of none."""
    count = len(disc.readme.malformed)
    return f"; {count} are not well-formed, as the archive sent them" if count else ""


def _differing(entry: Entry, instance: Instance) -> Iterator[str]:
    record, study, series = entry.record, entry.ancestor("STUDY"), entry.ancestor("SERIES")
    stated = (
        ("SOP class", record.text(SOP_CLASS), instance.sop_class_uid),
        ("SOP Instance UID", record.text(SOP_INSTANCE), instance.sop_instance_uid),
        ("transfer syntax", record.text(SYNTAX), instance.transfer_syntax),
        ("study", study.text(encoding.STUDY) if study else "", instance.study_uid),
        ("series", series.text(encoding.SERIES) if series else "", instance.series_uid),
    )
    return (name for name, told, own in stated if told != own)


def leaves(disc: Disc) -> Findings:
    """Leaf records are the files below IMAGES: each of these is referred to once, and nothing else is."""
    counts = Counter(disc.tree.find(entry.record.file) or "" for entry in disc.directory.leaves)
    for name in disc.tree.below(IMAGES):
        if counts[name] != 1:
            yield f"{name} is referred to {counts[name]} times"
    for entry in disc.directory.leaves:
        if not entry.record.file.upper().startswith(f"{IMAGES}/"):
            yield f"{entry.record.file} is not below {IMAGES}"
    return f"{sum(counts.values())} files below {IMAGES}"


def others(disc: Disc) -> Findings:
    """What the DICOMDIR does not name is whole, and named in README.TXT with its UID."""
    told = disc.readme.not_indexed
    for name, instance in disc.others.items():
        uid = told.get(name.upper())
        if as_told(disc, name, instance) is None:
            yield f"{name} {NOT_WHOLE}"
        elif instance and uid != instance.sop_instance_uid:
            yield f"{name} is not named in {README} with its UID"
    there = {name.upper() for name in disc.others}
    yield from (f"{name} is named in {README}, and is not there" for name in told if name not in there)
    malformed = (name for name in disc.readme.malformed if name not in told and disc.tree.find(name) is None)
    yield from (f"{name} is named in {README}, and is not there" for name in malformed)
    return f"{len(there)} instances that no {DICOMDIR} can name"


def one_patient(disc: Disc) -> Findings:
    """One Patient ID in all records and instances."""
    stated = (_patient_id(entry) for entry in disc.directory.of("PATIENT"))
    instances = chain(disc.images.values(), disc.others.values())
    yield from patients(chain(stated, (one.patient_id for one in instances if one and one.patient_known)))
    return "one Patient ID"


def patients(ids: Iterable[str]) -> Iterator[str]:
    """What is wrong where these are not one."""
    several = sorted(set(ids))
    if len(several) > 1:
        yield f"{len(several)} Patient IDs: {', '.join(map(repr, several[:4]))}"


def _patient_id(entry: Entry) -> str:
    tags = {encoding.CHARACTER_SET, encoding.PATIENT_ID}
    return patient_id({tag: entry.record.value(tag) for tag in tags})


CHECKS = (
    ("file IDs", file_ids),
    ("referenced files", referenced),
    (f"leaf records and {IMAGES}", leaves),
    (OTHER, others),
    ("one patient", one_patient),
)
