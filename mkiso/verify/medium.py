"""The checks of what lies where: names, folders, README.TXT, identifiers, and nothing unknown (PS3.10 8, PS3.12 F)."""

from __future__ import annotations

import re
from collections import Counter

from mkiso.disc.stage import A_FOLDER
from mkiso.pages.readme import ascii_name
from mkiso.verify.directory import PREAMBLE, PREFIX
from mkiso.verify.disc import Disc
from mkiso.verify.layout import DICOMDIR, FOLDERS, IMAGES, MOVED, OTHER, README, ROOT_FILES, is_ours
from mkiso.verify.report import Findings

COMPONENT = re.compile(r"[A-Z0-9_]{1,8}")
WITH_EXTENSION = re.compile(r"[A-Z0-9_]{1,8}(\.[A-Z0-9_]{1,3})?")
LEVELS = 8  # PS3.10 8.2
FILE_SET_ID = re.compile(r"[A-Z0-9_]{1,16}")


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


CHECKS = (
    ("medium", whole),
    ("names", names),
    ("folders", folders),
    ("README.TXT", readme),
    ("DICOM files at the root", lone_part_10),
    ("nothing unknown", nothing_unknown),
)
