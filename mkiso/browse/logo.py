"""The institution's logo on a disc: a copy of the operator's file that every browser shows, and in which nothing hides.

That is a PNG, a JPEG or a GIF, whatever its name says. An SVG is left out: as a picture it runs no script, but whoever
opens the file itself on the disc runs what is in it. A disc goes without a logo that cannot be read.
"""

from __future__ import annotations

import logging
from pathlib import Path

from mkiso.browse.shown import WEB, Logo
from mkiso.dcmtk.converters import jpeg_size

LARGEST = 500_000  # bytes: it is on every disc
WIDEST, HIGHEST = 240, 72  # pixels, as it is shown
PNG, GIF = b"\x89PNG\r\n\x1a\n", (b"GIF87a", b"GIF89a")
log = logging.getLogger("mkiso.browse.logo")


def copied_logo(file: Path | None, stage: Path) -> Logo | None:
    """Copy it beside the pictures; None where there is none that a disc can have. OSError of what it is written to."""
    content = _content(file) if file else None
    if content is None:
        return None
    kind, (width, height) = _kind_and_size(content)
    if not (width and height):
        log.warning("no disc has this logo", extra={"fields": {"file": str(file), "why": "no PNG, JPEG or GIF"}})
        return None
    by = min(WIDEST / width, HIGHEST / height, 1)
    name = f"logo.{kind}"
    (stage / WEB / name).write_bytes(content)
    return Logo(name, max(1, round(width * by)), max(1, round(height * by)))


def _content(file: Path) -> bytes | None:
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST + 1)
        why = f"more than {LARGEST} bytes" if len(content) > LARGEST else ""
    except OSError as error:
        content, why = b"", error.strerror or type(error).__name__
    if why:
        log.warning("no disc has this logo", extra={"fields": {"file": str(file), "why": why}})
    return None if why else content


def _kind_and_size(content: bytes) -> tuple[str, tuple[int, int]]:
    """The ending of its name, and width and height in pixels: 0 where it is of another kind."""
    if content.startswith(PNG):
        return "png", (int.from_bytes(content[16:20]), int.from_bytes(content[20:24]))  # ISO/IEC 15948, IHDR
    if content.startswith(GIF):
        return "gif", (int.from_bytes(content[6:8], "little"), int.from_bytes(content[8:10], "little"))
    return "jpg", jpeg_size(content) or (0, 0)
