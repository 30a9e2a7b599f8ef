"""The DICOM viewer's files: at the root of every disc, beside what mkiso puts there."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress

from mkiso.config import LayoutName, Media
from mkiso.contents.shown import Viewer
from mkiso.disc.tree import Graft

# What a disc of each layout has at its root.
ROOT: dict[LayoutName, frozenset[str]] = {
    "legacy": frozenset({"DICOMDIR"}),
    "pdi": frozenset({"DICOMDIR", "README.TXT", "INDEX.HTM", "PHONE.HTM", "IHE_PDI", "IMAGES", "OTHER"}),
}
STARTS = (".exe", ".app", ".htm", ".html")  # what a person opens, the likeliest first
AUTORUN = "autorun.inf"


def with_viewer(media: Media, grafts: Sequence[Graft]) -> list[Graft]:
    """What a layout grafts, and the viewer's files at the root, taken in without a copy."""
    return [*([("", media.viewer_dir.resolve())] if media.viewer_dir else []), *grafts]


def found_viewer(media: Media) -> Viewer:
    """The viewer's entries at the root, and what to open: what autorun.inf says, else the only likely one."""
    entries = _entries(media)
    files = {entry.lower(): entry for entry in entries}
    likely = [_opened_by_autorun(media, files), *(_only(entries, ending) for ending in STARTS)]
    return Viewer(tuple(entries), next((entry for entry in likely if entry), None))


def viewer_bytes(media: Media) -> int:
    """What the viewer's files take."""
    if media.viewer_dir is None:
        return 0
    return sum(os.stat(os.path.join(at, name)).st_size for at, _, names in os.walk(media.viewer_dir) for name in names)


def unusable(media: Media, layout: LayoutName) -> str | None:
    """Why no disc of this layout can have the viewer now, and what to do; None where it can."""
    return away(media) or covering(media, layout)


def away(media: Media) -> str | None:
    """Why the viewer cannot be read now, which may be of a share that is not mounted, and what to do."""
    try:
        why = "it is empty" if media.viewer_dir and not _entries(media) else ""
    except OSError as error:
        why = error.strerror or type(error).__name__
    return f"media.viewer_dir: {media.viewer_dir}: {why}. Put the viewer there, or take the key away." if why else None


def covering(media: Media, layout: LayoutName) -> str | None:
    """Why the viewer's files would cover others on a disc of this layout, whatever their capitals, and what to do."""
    entries: list[str] = []
    with suppress(OSError):  # then it is away
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
