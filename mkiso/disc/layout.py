"""The layouts of a disc: each moves the received files into place, and names what is to be at the disc's root.

`pdi` is a disc that other hospitals import, and that any browser shows (PS3.10, PS3.12 F, IHE RAD PDI). Its instances
have generated names of `[A-Z0-9_]`, eight characters at most, without extension, at most three folders deep
(PS3.10 8.2, PS3.12 F.3.2), a folder a series, in the order they are looked at: a program that lists the folders by name
reads the disc forward. `legacy` has all instances in one folder. The viewer's files are at the root of every disc,
beside what mkiso puts there.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import TypeVar

from pydicom.uid import ExplicitVRLittleEndian

from mkiso.browse.contents import show
from mkiso.browse.logo import copied_logo
from mkiso.browse.pages import write_pages
from mkiso.browse.readme import readme, short_readme
from mkiso.browse.shown import About, Maker, NotIndexed, Part, ShownPatient, Viewer, room_for_pages
from mkiso.config import Config, LayoutName, Media
from mkiso.dcmtk.dcmmkdir import Indexer
from mkiso.dicom.instances import Instance
from mkiso.disc.dicomdir import Dicomdir, make_dicomdir
from mkiso.disc.product import Format, Graft
from mkiso.errors import Cancelled
from mkiso.waiting import Checkpoint, pool_of
from mkiso.workspace import Workspace

IMAGES, OTHER, README = "IMAGES", "OTHER", "README.TXT"
A_FOLDER = 1_000
NO_NUMBER = float("inf")
T = TypeVar("T")
# What a disc of each layout has at its root.
ROOT: dict[LayoutName, frozenset[str]] = {
    "legacy": frozenset({"DICOMDIR"}),
    "pdi": frozenset({"DICOMDIR", README, "INDEX.HTM", "PHONE.HTM", "IHE_PDI", IMAGES, OTHER}),
}
PROGRAMS, PAGES = (".exe", ".app"), (".htm", ".html")  # what a person opens, the likeliest first
IN_BROWSER = "VIEWER.HTM"  # of `make viewer`: beside a program, not instead
AUTORUN = "autorun.inf"
MOST_GRAFTS = 4_000  # of which each is two paths on a command line
PROFILE = "STD-GEN-CD"  # PS3.11 D: every instance in explicit little endian
log = logging.getLogger("mkiso.disc.layout")


@dataclass(frozen=True)
class Setting:
    """Of one job, what a layout needs beside the instances; `checkpoint` is called all the while.

    Where `media.uncompressed` is set, so many instances were decompressed, and so many could not be. Of the studies
    in `parts` the disc has not all series.
    """

    config: Config
    workspace: Workspace
    format: Format
    checkpoint: Checkpoint
    decompressed: int = 0
    left_compressed: int = 0
    parts: tuple[Part, ...] = ()

    @property
    def stage(self) -> Path:
        return self.workspace.disc


@dataclass(frozen=True)
class Tree:
    """What lies where on the disc, beside the viewer's files; how many instances its DICOMDIR cannot name."""

    grafts: list[Graft]
    not_indexed: int | None = None


@dataclass(frozen=True)
class Staged:
    """An instance under its name on the disc, which is below the stage; `instance.path` is that file."""

    file: str
    instance: Instance


def stage(instances: Sequence[Instance], directory: Path) -> list[Staged]:
    """Rename the instances into `directory`/IMAGES: study by study, each by series and instance number."""
    return [_moved(one, directory, file) for file, one in _named(instances)]


def set_aside(staged: Sequence[Staged], directory: Path) -> list[Staged]:
    """Rename what a DICOMDIR cannot name from IMAGES into OTHER, under the same name; no folder is left empty."""
    aside = [_moved(one.instance, directory, f"{OTHER}{one.file.removeprefix(IMAGES)}") for one in staged]
    for folder in {one.instance.path.parent for one in staged}:
        with suppress(OSError):  # there is something in it
            os.removedirs(folder)
    return aside


def _named(instances: Sequence[Instance]) -> Iterator[tuple[str, Instance]]:
    """Each instance with its file. A folder that is full is followed by another of the same study or series."""
    studies = _grouped(instances, lambda one: one.study_uid)
    folders = [folder for study in studies for folder in _parts(_series_folders(study))]
    for number, series in enumerate(folders, 1):
        for place, images in enumerate(series, 1):
            for at, image in enumerate(images, 1):
                yield f"{IMAGES}/ST{number:06}/SE{place:06}/IM{at:06}", image


def _series_folders(study: Sequence[Instance]) -> list[Sequence[Instance]]:
    series = _grouped(sorted(study, key=_place), lambda one: one.series_uid)
    return [folder for one in series for folder in _parts(one)]


def _place(instance: Instance) -> tuple[float, str, float, str]:
    series, image = _number(instance.series_number), _number(instance.instance_number)
    return series, instance.series_uid, image, instance.sop_instance_uid


def _number(text: str) -> float:
    """An integer string (PS3.5 6.2), after all others where it is none."""
    try:
        return int(text)
    except ValueError:
        return NO_NUMBER


def _grouped(instances: Iterable[Instance], key: Callable[[Instance], str]) -> list[list[Instance]]:
    groups: dict[str, list[Instance]] = {}
    for instance in instances:
        groups.setdefault(key(instance), []).append(instance)
    return list(groups.values())


def _parts(whole: Sequence[T]) -> list[Sequence[T]]:
    return [whole[at : at + A_FOLDER] for at in range(0, len(whole), A_FOLDER)]


def _moved(instance: Instance, directory: Path, file: str) -> Staged:
    path = directory / file
    try:
        os.rename(instance.path, path)
    except FileNotFoundError:  # the first of its folder
        path.parent.mkdir(parents=True, exist_ok=True)
        os.rename(instance.path, path)
    return Staged(file, replace(instance, path=path))


def found_viewer(media: Media) -> Viewer:
    """The viewer's entries at the root, and what to open: what autorun.inf says, else the only likely one."""
    entries = _entries(media)
    files = {entry.lower(): entry for entry in entries}
    in_browser = files.get(IN_BROWSER.lower())
    programs, pages = ([_only(entries, ending) for ending in endings] for endings in (PROGRAMS, PAGES))
    likely = [_opened_by_autorun(media, files), *programs, in_browser, *pages]
    return Viewer(tuple(entries), next((entry for entry in likely if entry), None), in_browser)


def viewer_bytes(media: Media) -> int:
    """What the viewer's files take."""
    if media.viewer_dir is None:
        return 0
    return sum(os.stat(os.path.join(at, name)).st_size for at, _, names in os.walk(media.viewer_dir) for name in names)


def unusable(media: Media, layout: LayoutName) -> str | None:
    """Why no disc of this layout can have the viewer now, and what to do; None where it can.

    It may be of a share that is not mounted.
    """
    try:
        why = "it is empty" if media.viewer_dir and not _entries(media) else ""
    except OSError as error:
        why = error.strerror or type(error).__name__
    if why:
        return f"media.viewer_dir: {media.viewer_dir}: {why}. Put the viewer there, or take the key away."
    return covering(media, layout)


def covering(media: Media, layout: LayoutName) -> str | None:
    """Why the viewer's files would cover others on a disc of this layout, whatever their capitals, and what to do."""
    entries: list[str] = []
    with suppress(OSError):  # then it is not there now
        entries = [entry for entry in _entries(media) if entry.upper() in ROOT[layout]]
    if not entries:
        return None
    return (
        f"media.viewer_dir: {media.viewer_dir} holds {', '.join(entries)}, where a disc with the layout {layout}"
        " has its own. Rename or remove it there, or choose another layout."
    )


def _entries(media: Media) -> list[str]:
    return sorted(os.listdir(media.viewer_dir)) if media.viewer_dir else []


def _opened_by_autorun(media: Media, files: dict[str, str]) -> str | None:
    if media.viewer_dir is None or AUTORUN not in files:
        return None
    text = (media.viewer_dir / files[AUTORUN]).read_text("latin-1")
    opened = re.search(r"^\s*open\s*=\s*\"?([^\s\"]+)", text, re.IGNORECASE | re.MULTILINE)
    return files.get(opened[1].lower()) if opened else None


def _only(entries: Sequence[str], ending: str) -> str | None:
    found = [entry for entry in entries if entry.lower().endswith(ending)]
    return found[0] if len(found) == 1 else None


def pdi(instances: Sequence[Instance], setting: Setting) -> Tree:
    """IMAGES and what leads to them; OTHER where the DICOMDIR cannot name an instance: none is missing."""
    staged = stage(instances, setting.stage)
    dicomdir, patients = _indexed_and_shown(staged, setting)
    aside = set_aside([one for one in staged if one.file in dicomdir.not_indexed], setting.stage)
    _report(dicomdir, setting)
    about = _about(staged, aside, setting)
    write_pages(patients, about, setting.stage, room_for_pages(instances))
    (setting.stage / README).write_bytes(readme(about, patients))
    return Tree(_grafts(staged, setting.stage), len(aside))


def file_set_id(media: Media) -> str:
    """The volume ID, in the letters that a file-set ID may have (PS3.3 F.3.2.1, PS3.10 8.5)."""
    return re.sub(r"[^A-Z0-9_]", "_", media.volume_id.upper())[:16]


def _grafts(staged: Sequence[Staged], stage: Path) -> list[Graft]:
    """All that is staged. The folders of IMAGES in their order: genisoimage writes each where it is told of it."""
    folders = [name for name in dict.fromkeys(one.file.rpartition("/")[0] for one in staged) if (stage / name).exists()]
    others = [entry.name for entry in sorted(stage.iterdir()) if entry.name != IMAGES]
    return [(name, stage / name) for name in (*others, *(folders if len(folders) <= MOST_GRAFTS else [IMAGES]))]


def _indexed_and_shown(staged: Sequence[Staged], setting: Setting) -> tuple[Dicomdir, tuple[ShownPatient, ...]]:
    """The DICOMDIR, and meanwhile what the pages show; where the one fails, the other ends."""
    failed = Event()

    def checkpoint() -> None:
        setting.checkpoint()
        if failed.is_set():
            raise Cancelled("The disc has failed meanwhile.")

    media, dcmtk_dir, directory = setting.config.media, setting.config.tools.dcmtk_dir, setting.workspace.path
    indexer = Indexer(dcmtk_dir, setting.stage, file_set_id(media))
    with pool_of(1, checkpoint) as pool:
        instances, maker = [one.instance for one in staged], Maker(dcmtk_dir, directory, media.pictures)
        shown = pool.submit(show, instances, setting.stage, maker, checkpoint)
        try:
            dicomdir = make_dicomdir(indexer, [one.file for one in staged], directory, setting.checkpoint)
        except BaseException:
            failed.set()
            raise
        return dicomdir, shown.result()


def _about(staged: Sequence[Staged], aside: Sequence[Staged], setting: Setting) -> About:
    media = setting.config.media
    elsewhere = {one.instance.sop_instance_uid for one in aside}
    where = [*(one for one in staged if one.instance.sop_instance_uid not in elsewhere), *aside]
    is_plain = all(one.instance.transfer_syntax == ExplicitVRLittleEndian for one in staged)
    return About(
        media.institution,
        media.contact,
        media.language,
        datetime.now().astimezone(),
        file_set_id(media),
        media.volume_id,
        found_viewer(media),
        PROFILE if is_plain and not aside and setting.format == "iso" else None,
        tuple(NotIndexed(one.file, one.instance.sop_instance_uid) for one in aside),
        tuple((one.file, one.instance.sop_instance_uid) for one in where if one.instance.malformed),
        setting.decompressed,
        setting.left_compressed,
        setting.parts,
        copied_logo(setting.config.server.logo_file, setting.stage),
    )


def _report(dicomdir: Dicomdir, setting: Setting) -> None:
    """Into the log, what the DICOMDIR could not name, and what it had to make up."""
    job = setting.workspace.job_id
    if dicomdir.not_indexed:
        why = dict(Counter(dicomdir.not_indexed.values()))
        log.warning("the DICOMDIR cannot name instances", extra={"fields": {"job": job, "why": why}})
    if dicomdir.completed:
        keys = dict(Counter(f"{one.record} {one.key}" for one in dicomdir.completed))
        log.warning("the DICOMDIR has keys that instances leave empty", extra={"fields": {"job": job, "keys": keys}})


def legacy(instances: Sequence[Instance], setting: Setting) -> Tree:
    """Every instance in the folder `DICOMDIR`, its file named by its SOP Instance UID.

    README.TXT tells of studies in part and of instances that are not well-formed, where there are any, and the viewer
    has no file of that name.
    """
    folder = setting.stage / "DICOMDIR"
    folder.mkdir()
    for instance in instances:
        os.rename(instance.path, f"{folder}/{instance.sop_instance_uid}")
    grafts = [("DICOMDIR", folder)]
    malformed = [(f"DICOMDIR/{one.sop_instance_uid}", one.sop_instance_uid) for one in instances if one.malformed]
    if (malformed or setting.parts) and README not in map(str.upper, found_viewer(setting.config.media).entries):
        file = setting.stage / README
        file.write_bytes(short_readme(setting.config.media.language, setting.parts, malformed))
        grafts.append((README, file))
    return Tree(grafts)


LAYOUTS: dict[LayoutName, Callable[[Sequence[Instance], Setting], Tree]] = {"legacy": legacy, "pdi": pdi}
