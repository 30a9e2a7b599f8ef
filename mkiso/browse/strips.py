"""An ECG as it is printed: strips of ten seconds at 25 mm/s and 10 mm/mV on millimetre paper, each a JPEG.

This is a program (`pictures.strips_argv`), which may take what no worker may: INSTANCE ROOT COUNT MOST writes at most
so many strips of an instance, each of about MOST bytes at most, as ROOT-01.jpg and so on.

Of the first recording the strips lie evenly apart where it is longer, first and last among them; of each other one
there is its beginning. A lead lies in its row by its median: where a strip's zero is, paper does not tell, either.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from statistics import median

from PIL import Image, ImageDraw, ImageFont

from mkiso.dicom.datasets import Unreadable
from mkiso.dicom.waveforms import Channel, Recording, recordings

PER_SECOND, PER_MILLIVOLT = 25, 10  # mm
SECONDS, SHORTEST = 10.0, 5.0  # of a strip: what is shorter has paper of the one
MM, FINER = 6, 2  # pixels of a mm, and how much finer it is drawn than it is shown
LEFT, TOP = 12, 9  # mm beside and above the leads: for the pulse of a millivolt, and what is said of the strip
USUAL, MOST_MM = 10, 40  # of a row above and below its lead
PAPER, THIN, THICK, INK = (255, 255, 255), (250, 216, 216), (238, 160, 160), (0, 0, 0)
LONGEST_NAME = 24
QUALITIES = (80, 60, 40)
Row = tuple[Channel, Sequence[float]]
Point = tuple[float, float]


def strips(found: Sequence[Recording], count: int) -> Iterator[tuple[Recording, float]]:
    """At most so many recordings with the seconds at which a strip of each begins."""
    others = found[1 : max(1, count)]
    for one, most in ((one, 1 if at else count - len(others)) for at, one in enumerate([*found[:1], *others])):
        parts = max(1, math.ceil(one.seconds / SECONDS - 0.01))
        shown = min(parts, most)
        places = [part * (parts - 1) // max(1, shown - 1) for part in range(shown)]
        yield from ((one, place * SECONDS) for place in places)


def draw(recording: Recording, begin: float) -> Image.Image:
    """A strip of one recording that begins at this second."""
    end = min(recording.seconds, begin + SECONDS)
    rows = list(recording.millivolts(begin, end))
    middles = [median(known) if (known := [one for one in row if math.isfinite(one)]) else 0.0 for _, row in rows]
    rooms = [_room(row, middle) for (_, row), middle in zip(rows, middles, strict=True)]
    width = LEFT + math.ceil(max(SHORTEST, end - begin) * PER_SECOND) + 3
    image = _paper(width, TOP + sum(map(sum, rooms)))
    pen, top = ImageDraw.Draw(image), TOP
    said = f"{PER_SECOND} mm/s   {PER_MILLIVOLT} mm/mV   {begin:g}-{end:.4g} s / {recording.seconds:.6g} s"
    _write(pen, (2, 2), f"{said}   {_plain(recording.label)}".strip(), 4.5)
    for (channel, row), middle, (above, below) in zip(rows, middles, rooms, strict=True):
        _draw_lead(pen, channel, [now - middle for now in row], recording.frequency, top + above)
        top += above + below
    return image.reduce(FINER)


def _room(row: Sequence[float], middle: float) -> tuple[int, int]:
    """The mm that a lead needs above and below: whole large squares."""
    known = [one - middle for one in row if math.isfinite(one)] or [0.0]
    needed = (max(known), -min(known))
    above, below = (5 * math.ceil(min(MOST_MM, max(USUAL, most * PER_MILLIVOLT + 1)) / 5) for most in needed)
    return above, below


def _paper(width: int, height: int) -> Image.Image:
    """Of so many mm: a line a mm, and a stronger one each five."""
    unit = MM * FINER
    image = Image.new("RGB", (width * unit, height * unit), PAPER)
    pen = ImageDraw.Draw(image)
    for colour, every, thickness in ((THIN, 1, 2), (THICK, 5, 3)):
        # Squares begin where leads and their first second do.
        for across in range(LEFT % every, width + 1, every):
            pen.line([(across * unit, 0), (across * unit, height * unit)], colour, thickness)
        for down in range(TOP % every, height + 1, every):
            pen.line([(0, down * unit), (width * unit, down * unit)], colour, thickness)
    return image


def _draw_lead(pen: ImageDraw.ImageDraw, channel: Channel, row: Sequence[float], frequency: float, axis: int) -> None:
    """A lead around its axis, so many mm down: its name, a pulse of a millivolt, and what it recorded."""
    name = _plain(channel.name.removeprefix("Lead "))[:LONGEST_NAME]
    _write(pen, (LEFT + 1, axis - USUAL + 0.5), name if row else f"{name}: no mV", 4)
    if not row:
        return
    pulse = [(2.0, 0.0), (4.0, 0.0), (4.0, 1.0), (9.0, 1.0), (9.0, 0.0), (11.0, 0.0)]
    _line(pen, [_point(across, value, axis) for across, value in pulse])
    line: list[Point] = []
    for at, value in enumerate(row):
        if math.isfinite(value):
            line.append(_point(LEFT + at / frequency * PER_SECOND, value, axis))
        else:
            _line(pen, line)
            line = []
    _line(pen, line)


def _point(across: float, millivolts: float, axis: int) -> Point:
    down = min(MOST_MM, max(-MOST_MM, millivolts * PER_MILLIVOLT))
    return across * MM * FINER, (axis - down) * MM * FINER


def _line(pen: ImageDraw.ImageDraw, points: Sequence[Point]) -> None:
    if len(points) > 1:
        pen.line(points, INK, 2 * FINER - 1, joint="curve")


def _write(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: float) -> None:
    unit = MM * FINER
    pen.text((place[0] * unit, place[1] * unit), text, INK, ImageFont.load_default(size * unit))


def _plain(text: str) -> str:
    """What the library's own font has."""
    return "".join(one if one.isascii() and one.isprintable() else "?" for one in text)


def encoded(image: Image.Image, most: int) -> bytes:
    """As a JPEG of so many bytes, or of the lowest quality."""
    for quality in QUALITIES:
        image.save(file := BytesIO(), "JPEG", quality=quality, optimize=True)
        if file.tell() <= most:
            break
    return file.getvalue()


def main(instance: str, root: str, count: str, most: str) -> None:
    for number, (recording, begin) in enumerate(strips(recordings(Path(instance)), int(count)), 1):
        Path(f"{root}-{number:02}.jpg").write_bytes(encoded(draw(recording, begin), int(most)))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Unreadable:
        sys.exit(1)
