"""The layout `pdi`: a disc that other hospitals import, and that any browser shows (PS3.10, PS3.12 F, IHE RAD PDI)."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from threading import Event

from pydicom.uid import ExplicitVRLittleEndian

from mkiso.config import Media
from mkiso.contents.contents import show
from mkiso.contents.making import Maker
from mkiso.contents.shown import About, NotIndexed, Patient
from mkiso.dcmtk.dcmmkdir import Indexer
from mkiso.disc.dicomdir import Dicomdir, make_dicomdir
from mkiso.disc.stage import IMAGES, Staged, set_aside, stage
from mkiso.disc.tree import Graft, Setting, Tree
from mkiso.disc.viewer import found_viewer
from mkiso.errors import Cancelled
from mkiso.exhaustion import pool_of
from mkiso.pages.pages import write_pages
from mkiso.pages.readme import readme
from mkiso.retrieve.instances import Instance

MOST_GRAFTS = 4_000  # of which each is two paths on a command line
PROFILE = "STD-GEN-CD"  # PS3.11 D: every instance in explicit little endian
log = logging.getLogger("mkiso.disc.pdi")


def pdi(instances: Sequence[Instance], setting: Setting) -> Tree:
    """IMAGES and what leads to them; OTHER where the DICOMDIR cannot name an instance: none is missing."""
    staged = stage(instances, setting.stage)
    dicomdir, patients = _indexed_and_shown(staged, setting)
    aside = set_aside([one for one in staged if one.file in dicomdir.not_indexed], setting.stage)
    _report(dicomdir, setting)
    about = _about(staged, aside, setting)
    write_pages(patients, about, setting.stage)
    (setting.stage / "README.TXT").write_bytes(readme(about, patients))
    return Tree(_grafts(staged, setting.stage), len(aside))


def file_set_id(media: Media) -> str:
    """The volume ID, in the letters that a file-set ID may have (PS3.3 F.3.2.1, PS3.10 8.5)."""
    return re.sub(r"[^A-Z0-9_]", "_", media.volume_id.upper())[:16]


def _grafts(staged: Sequence[Staged], stage: Path) -> list[Graft]:
    """All that is staged. The folders of IMAGES in their order: genisoimage writes each where it is told of it."""
    folders = [name for name in dict.fromkeys(one.file.rpartition("/")[0] for one in staged) if (stage / name).exists()]
    others = [entry.name for entry in sorted(stage.iterdir()) if entry.name != IMAGES]
    return [(name, stage / name) for name in (*others, *(folders if len(folders) <= MOST_GRAFTS else [IMAGES]))]


def _indexed_and_shown(staged: Sequence[Staged], setting: Setting) -> tuple[Dicomdir, tuple[Patient, ...]]:
    """The DICOMDIR, and meanwhile what the pages show; where the one fails, the other ends."""
    failed = Event()

    def check() -> None:
        setting.check()
        if failed.is_set():
            raise Cancelled("The disc has failed meanwhile.")

    media, dcmtk_dir, directory = setting.config.media, setting.config.tools.dcmtk_dir, setting.workspace.path
    indexer = Indexer(dcmtk_dir, setting.stage, file_set_id(media))
    with pool_of(1, check) as pool:
        instances, maker = [one.instance for one in staged], Maker(dcmtk_dir, directory, media.pictures)
        shown = pool.submit(show, instances, setting.stage, maker, check)
        try:
            dicomdir = make_dicomdir(indexer, [one.file for one in staged], directory, setting.check)
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
