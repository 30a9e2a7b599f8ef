"""The checks of what lies where, and of the instances: each whole, and what the DICOMDIR or README.TXT says of it.

Names, folders, README.TXT, identifiers, and nothing unknown (PS3.10 8, PS3.12 F); and of a disc of the layout `legacy`,
which has no DICOMDIR, but its instances in a folder of that name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain

from mkiso.browse.readme import ascii_name
from mkiso.dicom.instances import Instance, patient_id
from mkiso.verify.dicomdir import COMPONENT, LEVELS, PREAMBLE, PREFIX, Entry, with_keys
from mkiso.verify.disc import DiscRead
from mkiso.verify.medium import (
    A_FOLDER,
    DICOMDIR,
    FOLDERS,
    IMAGES,
    MOVED,
    OTHER,
    README,
    ROOT_FILES,
    Findings,
    is_ours,
)

WITH_EXTENSION = re.compile(r"[A-Z0-9_]{1,8}(\.[A-Z0-9_]{1,3})?")
FILE_SET_ID = re.compile(r"[A-Z0-9_]{1,16}")
NOT_WHOLE = "is no whole DICOM file"


def whole(disc: DiscRead) -> Findings:
    yield from disc.medium.damages()
    return f"{disc.medium.kind} of {len(disc.medium.files)} files, {sum(disc.medium.files.values())} bytes"


def names(disc: DiscRead) -> Findings:
    yield from disc.medium.strangers
    ours = [name for name in disc.medium.files if is_ours(name)]
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


def folders(disc: DiscRead) -> Findings:
    entries = (name for name in (*disc.medium.files, *disc.medium.folders) if is_ours(name))
    counts = Counter(name.upper().rpartition("/")[0] for name in entries if "/" in name)
    for folder, count in counts.items():
        if count > A_FOLDER and folder.partition("/")[0] in {IMAGES, OTHER}:
            yield f"{folder} has {count} entries"
    return f"{len(counts)} folders, {max(counts.values(), default=0)} entries at most"


def readme(disc: DiscRead) -> Findings:
    if disc.medium.find(README) is None:
        yield f"there is no {README} at the root"
        return ""
    data = disc.readme.data
    if not data.isascii():
        yield f"{README} is not ASCII"
    if data.count(b"\n") != data.count(b"\r\n") or data.count(b"\r") != data.count(b"\r\n") or not data:
        yield f"{README} has lines that do not end in CR LF"
    return f"{len(data)} bytes, ASCII"


def volume_id(disc: DiscRead) -> Findings:
    """The volume's name is the file-set ID, or README.TXT tells both (PS3.12 F.1)."""
    file_set, volume, readme = disc.directory.text("FileSetID"), disc.medium.volume_id, disc.readme
    if not FILE_SET_ID.fullmatch(file_set):
        yield f"the file-set ID is {file_set!r}"
    if readme.file_set_id not in {None, file_set}:
        yield f"{README} says that the file-set ID is {readme.file_set_id!r}, and it is {file_set!r}"
    if volume is None:
        return f"a {disc.medium.kind} has none; the file-set ID is {file_set}"
    if readme.volume_id not in {None, volume, " ".join(ascii_name(volume).split())}:
        yield f"{README} says that the volume ID is {readme.volume_id!r}, and it is {volume!r}"
    allowed = FILE_SET_ID.fullmatch(volume)
    if volume != file_set and (allowed or None in {readme.volume_id, readme.file_set_id}):
        yield f"the volume ID is {volume!r}, the file-set ID {file_set!r}"
    return volume if volume == file_set else f"{README} tells {volume} and {file_set}"


def lone_part_10(disc: DiscRead) -> Findings:
    """PS3.10 8.6: at the root, DICOMDIR is the only file of the file-set."""
    for name in disc.medium.roots():
        if name in disc.medium.files and name.upper() != DICOMDIR:
            with disc.medium.opened(name) as extent:
                if extent.read(len(PREFIX), PREAMBLE) == PREFIX:
                    yield f"{name} is a DICOM file"
    return "none but DICOMDIR"


def nothing_unknown(disc: DiscRead) -> Findings:
    viewers = 0
    for root in disc.medium.roots():
        known = ROOT_FILES if root in disc.medium.files else FOLDERS
        if root.upper() in known or (root.upper() == MOVED and not disc.medium.below(root)):
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


def patients(disc: DiscRead) -> Findings:
    """A disc of nothing but what no DICOMDIR can name has no PATIENT record."""
    if not disc.directory.of(("PATIENT",)) and (disc.medium.below(IMAGES) or not disc.medium.below(OTHER)):
        yield "there is no PATIENT record"
    return (yield from with_keys(disc.directory, ("PATIENT",)))


def referenced(disc: DiscRead) -> Findings:
    """Each record's file is there, whole, and the instance that its records state."""
    for entry in disc.directory.leaves:
        name = disc.medium.find(entry.file)
        if name is None:
            yield f"{entry.file} is not there"
        elif name in disc.images:
            instance = as_sent(disc, name, disc.images[name])
            differing = ", ".join(_differing(entry, instance)) if instance else ""
            if not instance or differing:
                yield f"{entry.file} {f'has another {differing}' if instance else NOT_WHOLE}"
    return f"{len(disc.directory.leaves)} files as their records state{malformed_ones(disc)}"


def as_sent(disc: DiscRead, name: str, instance: Instance | None) -> Instance | None:
    """The instance in a file, unless it is not well-formed, and README.TXT does not say that it came so."""
    if instance is None or not instance.malformed:
        return instance
    return instance if disc.readme.malformed.get(name.upper()) == instance.sop_instance_uid else None


def malformed_ones(disc: DiscRead) -> str:
    """How many README.TXT tells to be not well-formed, to be put behind a finding; empty where it tells of none."""
    count = len(disc.readme.malformed)
    return f"; {count} are not well-formed, as the archive sent them" if count else ""


def _differing(entry: Entry, instance: Instance) -> Iterator[str]:
    study, series = entry.ancestor("STUDY"), entry.ancestor("SERIES")
    stated = (
        ("SOP class", entry.text("ReferencedSOPClassUIDInFile"), instance.sop_class_uid),
        ("SOP Instance UID", entry.text("ReferencedSOPInstanceUIDInFile"), instance.sop_instance_uid),
        ("transfer syntax", entry.text("ReferencedTransferSyntaxUIDInFile"), instance.transfer_syntax),
        ("study", study.text("StudyInstanceUID") if study else "", instance.study_uid),
        ("series", series.text("SeriesInstanceUID") if series else "", instance.series_uid),
    )
    return (name for name, recorded, own in stated if recorded != own)


def leaves(disc: DiscRead) -> Findings:
    """Leaf records are the files below IMAGES: each of these is referred to once, and nothing else is."""
    counts = Counter(disc.medium.find(entry.file) or "" for entry in disc.directory.leaves)
    for name in disc.medium.below(IMAGES):
        if counts[name] != 1:
            yield f"{name} is referred to {counts[name]} times"
    for entry in disc.directory.leaves:
        if not entry.file.upper().startswith(f"{IMAGES}/"):
            yield f"{entry.file} is not below {IMAGES}"
    return f"{sum(counts.values())} files below {IMAGES}"


def others(disc: DiscRead) -> Findings:
    """What the DICOMDIR does not name is whole, and named in README.TXT with its UID."""
    named = disc.readme.not_indexed
    for name, instance in disc.others.items():
        if as_sent(disc, name, instance) is None:
            yield f"{name} {NOT_WHOLE}"
        elif instance and named.get(name.upper()) != instance.sop_instance_uid:
            yield f"{name} is not named in {README} with its UID"
    there = {name.upper() for name in disc.others}
    gone = [name for name in named if name not in there]
    gone += [name for name in disc.readme.malformed if name not in named and disc.medium.find(name) is None]
    yield from (f"{name} is named in {README}, and is not there" for name in gone)
    return f"{len(there)} instances that no {DICOMDIR} can name"


def one_patient(disc: DiscRead) -> Findings:
    """One Patient ID in all records and instances."""
    recorded = () if disc.is_legacy else (patient_id(one.values) for one in disc.directory.of(("PATIENT",)))
    instances = chain(disc.images.values(), disc.others.values(), disc.legacy.values())
    ids = sorted({*recorded, *(one.patient_id for one in instances if one and one.patient_known)})
    if len(ids) > 1:
        yield f"{len(ids)} Patient IDs: {', '.join(map(repr, ids[:4]))}"
    return "one Patient ID"


OF_INSTANCES = (
    ("referenced files", referenced),
    (f"leaf records and {IMAGES}", leaves),
    (OTHER, others),
    ("one patient", one_patient),
    ("volume ID", volume_id),
)


def layout(disc: DiscRead) -> Findings:
    if not disc.legacy:
        yield f"the folder {DICOMDIR} is empty"
    return f"legacy: {len(disc.legacy)} files in the folder {DICOMDIR}, which other archives may not import"


def instances(disc: DiscRead) -> Findings:
    """Each is whole, and its file is named by its SOP Instance UID."""
    for name, instance in disc.legacy.items():
        if as_sent(disc, name, instance) is None:
            yield f"{name} {NOT_WHOLE}"
        elif instance and name.partition("/")[2] != instance.sop_instance_uid:
            yield f"{name} is the instance {instance.sop_instance_uid}"
    return f"{len(disc.legacy)} whole instances, named by their UIDs{malformed_ones(disc)}"


OF_LEGACY = (("layout", layout), ("medium", whole), ("instances", instances), ("one patient", one_patient))
