"""The checks of the instances: each whole, and what the DICOMDIR or README.TXT says of it (PS3.10 8, PS3.3 F.3).

The checks of what lies where: names, folders, README.TXT, identifiers, and nothing unknown (PS3.10 8, PS3.12 F).

The checks of a disc of the layout `legacy`, which has no DICOMDIR, but its instances in a folder of that name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

from mkiso.browse.readme import ascii_name
from mkiso.dicom import encoding
from mkiso.dicom.instances import Instance, patient_id
from mkiso.dicom.records import FILE_ID, SOP_INSTANCE
from mkiso.disc.layout import A_FOLDER
from mkiso.verify.archive import DICOMDIR, FOLDERS, IMAGES, MOVED, OTHER, README, ROOT_FILES, is_ours
from mkiso.verify.directory import PREAMBLE, PREFIX, Entry
from mkiso.verify.disc import Disc, Findings
from mkiso.verify.fileset import BRANCHES

COMPONENT = re.compile(r"[A-Z0-9_]{1,8}")
WITH_EXTENSION = re.compile(r"[A-Z0-9_]{1,8}(\.[A-Z0-9_]{1,3})?")
LEVELS = 8  # PS3.10 8.2
FILE_SET_ID = re.compile(r"[A-Z0-9_]{1,16}")
SOP_CLASS, SYNTAX = 0x00041510, 0x00041512
NOT_WHOLE = "is no whole DICOM file"


def whole(disc: Disc) -> Findings:
    yield from disc.tree.damages()
    return f"{disc.tree.kind} of {len(disc.tree.files)} files, {sum(disc.tree.files.values())} bytes"


def names(disc: Disc) -> Findings:
    yield from disc.tree.strangers
    ours = [name for name in disc.tree.files if is_ours(name)]
    for name in ours:
        *folders, last = name.upper().split("/")
        pattern = COMPONENT if folders[:1] in ([IMAGES], [OTHER]) else WITH_EXTENSION
        if not (pattern.fullmatch(last) and all(map(COMPONENT.fullmatch, folders))):
            yield f"{name} is not 8.3"
        if len(folders) >= LEVELS:
            yield f"{name} has more than {LEVELS} levels"
    again = (name for name, count in Counter(map(str.upper, ours)).items() if count > 1)
    yield from (f"{name} is there twice" for name in again)
    return f"{len(ours)} names are 8.3"


def folders(disc: Disc) -> Findings:
    entries = (name for name in (*disc.tree.files, *disc.tree.folders) if is_ours(name))
    counts = Counter(name.upper().rpartition("/")[0] for name in entries if "/" in name)
    for folder, count in counts.items():
        if count > A_FOLDER and folder.partition("/")[0] in {IMAGES, OTHER}:
            yield f"{folder} has {count} entries"
    return f"{len(counts)} folders, {max(counts.values(), default=0)} entries at most"


def readme(disc: Disc) -> Findings:
    if disc.tree.find(README) is None:
        yield f"there is no {README} at the root"
        return ""
    data = disc.readme.data
    if not data.isascii():
        yield f"{README} is not ASCII"
    if data.count(b"\n") != data.count(b"\r\n") or data.count(b"\r") != data.count(b"\r\n") or not data:
        yield f"{README} has lines that do not end in CR LF"
    return f"{len(data)} bytes, ASCII"


def volume_id(disc: Disc) -> Findings:
    """The volume's name is the file-set ID, or README.TXT tells both (PS3.12 F.1)."""
    file_set, volume, told = disc.directory.file_set_id, disc.tree.volume_id, disc.readme
    if not FILE_SET_ID.fullmatch(file_set):
        yield f"the file-set ID is {file_set!r}"
    if told.file_set_id not in {None, file_set}:
        yield f"{README} says that the file-set ID is {told.file_set_id!r}, and it is {file_set!r}"
    if volume is None:
        return f"a {disc.tree.kind} has none; the file-set ID is {file_set}"
    if told.volume_id not in {None, volume, " ".join(ascii_name(volume).split())}:
        yield f"{README} says that the volume ID is {told.volume_id!r}, and it is {volume!r}"
    allowed = FILE_SET_ID.fullmatch(volume)
    if volume != file_set and (allowed or None in {told.volume_id, told.file_set_id}):
        yield f"the volume ID is {volume!r}, the file-set ID {file_set!r}"
    return volume if volume == file_set else f"{README} tells {volume} and {file_set}"


def lone_part_10(disc: Disc) -> Findings:
    """PS3.10 8.6: at the root, DICOMDIR is the only file of the file-set."""
    for name in disc.tree.roots():
        if name in disc.tree.files and name.upper() != DICOMDIR:
            with disc.tree.opened(name) as extent:
                if extent.read(len(PREFIX), PREAMBLE) == PREFIX:
                    yield f"{name} is a DICOM file"
    return "none but DICOMDIR"


def nothing_unknown(disc: Disc) -> Findings:
    viewers = 0
    for root in disc.tree.roots():
        known = ROOT_FILES if root in disc.tree.files else FOLDERS
        if root.upper() in known or (root.upper() == MOVED and not disc.tree.below(root)):
            continue
        viewers += 1
        if not disc.is_viewers(root):
            yield f"{root} is not named in {README}"
    return f"{viewers} entries of the viewer, and nothing unknown"


OF_MEDIUM = (
    ("medium", whole),
    ("names", names),
    ("folders", folders),
    ("README.TXT", readme),
    ("DICOM files at the root", lone_part_10),
    ("nothing unknown", nothing_unknown),
)


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


OF_INSTANCES = (
    ("file IDs", file_ids),
    ("referenced files", referenced),
    (f"leaf records and {IMAGES}", leaves),
    (OTHER, others),
    ("one patient", one_patient),
)


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


def one_patient_of_legacy(disc: Disc) -> Findings:
    yield from patients(one.patient_id for one in disc.legacy.values() if one and one.patient_known)
    return "one Patient ID"


OF_LEGACY = (("layout", layout), ("medium", whole), ("instances", instances), ("one patient", one_patient_of_legacy))
