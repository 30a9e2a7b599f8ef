"""Where instances lie on a disc: each layout moves the received files into place and names what is grafted."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from mkiso.config import Media
from mkiso.retrieve.instances import Instance

Graft = tuple[str, Path]
Layout = Callable[[Sequence[Instance], Path], list[Graft]]


def legacy(instances: Sequence[Instance], stage: Path) -> list[Graft]:
    """Every instance in the folder `DICOMDIR`, its file named by its SOP Instance UID."""
    folder = stage / "DICOMDIR"
    folder.mkdir()
    for instance in instances:
        os.rename(instance.path, f"{folder}/{instance.sop_instance_uid}")
    return [("DICOMDIR", folder)]


LAYOUTS: dict[str, Layout] = {"legacy": legacy}


def with_viewer(media: Media, grafts: Sequence[Graft]) -> list[Graft]:
    """What a layout grafts, and the viewer's files at the root, taken in without a copy."""
    return [*([("", media.viewer_dir.resolve())] if media.viewer_dir else []), *grafts]
