"""pdftoppm, of poppler: the first pages of a PDF as JPEGs. It runs no script that is in one."""

from __future__ import annotations

import shutil
from pathlib import Path

from mkiso.dcmtk.conversion import LARGEST_PICTURE, Converter

SIDE, QUALITY = 1200, 80  # the longer side in pixels: as much as small print needs


def installed() -> str | None:
    """The program, where this host has it."""
    return shutil.which("pdftoppm")


def pages_argv(program: str, document: Path, root: Path, count: int) -> tuple[str, ...]:
    return (
        *(program, "-q", "-jpeg", "-jpegopt", f"quality={QUALITY}", "-scale-to", str(SIDE)),
        *("-l", str(count), str(document), str(root)),
    )


def make_pages(converter: Converter, program: str, document: Path, root: Path, count: int) -> list[Path]:
    """The first pages, up to so many, each in a file whose name begins as `root`; raises what `Converter.run` raises.

    Of a document that it refuses there are none, or those that it made before.
    """
    converter.run(pages_argv(program, document, root, count), LARGEST_PICTURE)
    return sorted(root.parent.glob(f"{root.name}-*.jpg"))
