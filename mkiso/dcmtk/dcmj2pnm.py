"""dcmj2pnm: a JPEG of one frame, as a person looks at it. It cannot decode JPEG 2000, JPEG-LS and video.

Whether there is a picture shows in the file: a JPEG that begins and ends as one (ISO/IEC 10918-1 B).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mkiso.dcmtk.conversion import LARGEST_PICTURE, Converter

QUALITY = "85"
STORED_WINDOW, STORED_TABLE, OWN_WINDOW, COLOUR = ("+Wi", "1"), ("+Wl", "1"), ("+Wm",), ()
START, END, MARKER = b"\xff\xd8", b"\xff\xd9", 0xFF
FRAME_HEADERS = frozenset({0xC0, 0xC1, 0xC2})


@dataclass(frozen=True)
class View:
    """How a frame (from 1) is looked at: through a window, or in colour; `scale` makes it smaller."""

    frame: int
    window: tuple[str, ...]
    scale: tuple[str, ...] = ()


def scaled_to(width: int = 0, height: int = 0) -> tuple[str, ...]:
    """A picture so wide, or else so high, in pixels; the other side follows from the pixels' shape."""
    return ("+Sxv", str(width)) if width else ("+Syv", str(height))


def picture_argv(dcmtk_dir: Path, instance: Path, picture: Path, view: View) -> tuple[str, ...]:
    return (
        str(dcmtk_dir / "dcmj2pnm"),
        "-q",
        "+oj",
        "+Jq",
        QUALITY,
        *view.window,
        "+F",
        str(view.frame),
        *view.scale,
        str(instance),
        str(picture),
    )


def make_picture(converter: Converter, instance: Path, picture: Path, view: View) -> tuple[int, int] | None:
    """Make a picture; its width and height, None where it did not come to be.

    Raises what `Converter.run` raises.
    """
    converter.run(picture_argv(converter.dcmtk_dir, instance, picture, view), LARGEST_PICTURE)
    return jpeg_size(picture.read_bytes()) if picture.exists() else None


def jpeg_size(jpeg: bytes) -> tuple[int, int] | None:
    """Width and height in pixels; None where these bytes are no whole JPEG."""
    if not (jpeg.startswith(START) and jpeg.endswith(END)):
        return None
    at = len(START)
    while at + 9 <= len(jpeg) and jpeg[at] == MARKER:
        if jpeg[at + 1] in FRAME_HEADERS:
            height, width = (int.from_bytes(jpeg[at + 5 + side : at + 7 + side]) for side in (0, 2))
            return (width, height) if width and height else None
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4])
    return None
