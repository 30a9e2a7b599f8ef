"""A disc's tree before it is an image or a ZIP: what a layout is given, and what it makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mkiso.config import Config
from mkiso.disc.product import Check, Format
from mkiso.workspace import Workspace

Graft = tuple[str, Path]


@dataclass(frozen=True)
class Setting:
    """Of one job, what a layout needs beside the instances; `check` is asked all the while.

    Where `media.uncompressed` is set, so many instances were decompressed, and so many could not be.
    """

    config: Config
    workspace: Workspace
    format: Format
    check: Check
    decompressed: int = 0
    left_compressed: int = 0

    @property
    def stage(self) -> Path:
        return self.workspace.disc


@dataclass(frozen=True)
class Tree:
    """What lies where on the disc, beside the viewer's files; how many instances its DICOMDIR cannot name."""

    grafts: list[Graft]
    not_indexed: int | None = None
