"""Where a picture is in its series and in the patient, as far as the instance's header tells: nothing is guessed.

Sides are named as PS3.3 C.7.6.1.1.1 does: R and L are the patient's right and left, A and P front and back, H and F
head and feet. A wrong one harms: what contradicts itself, or is not of a person's body, has none.
"""

from __future__ import annotations

import math
import operator
import re

from mkiso.browse.choice import Header
from mkiso.browse.shown import Marks

KEYWORDS = (
    *("ImagePositionPatient", "ImageOrientationPatient", "SliceLocation", "AnatomicalOrientationType"),
    *("PatientOrientation", "ImageLaterality", "Laterality", "ViewPosition"),
)
OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "H": "F", "F": "H"}
SIDES = re.compile("[RLAPHF]{1,3}")
LATERALITY = re.compile("[RLB]")
VIEW = re.compile("[A-Z]{1,6}")
OBLIQUE = 0.3  # of a direction's length: what is less than this in a direction is not named
AXES = ("LR", "PA", "HF")  # where each coordinate of the patient grows to, and shrinks to
UNIT = 0.02  # how far a direction's length may be from one
FARTHEST = 10_000.0  # mm


def marks(header: Header, frames: int = 1) -> Marks:
    """Of an instance of so many frames: where it has several, no attribute outside of them tells where each is."""
    right = _right_edge(header)
    left = "".join(OPPOSITE[side] for side in right)
    side = _if_like(LATERALITY, header.text("ImageLaterality") or header.text("Laterality"))
    position = _position(header) if frames == 1 else None
    shown = "" if position is None else f"{position:.1f}"
    return Marks(shown, left, right, side, _if_like(VIEW, header.text("ViewPosition")))


def _right_edge(header: Header) -> str:
    """The patient's side at the picture's right edge, as both attributes that may tell it agree."""
    if header.text("AnatomicalOrientationType") not in {"", "BIPED"}:
        return ""
    told = _if_like(SIDES, header.text("PatientOrientation").partition("\\")[0])
    directions = _directions(header)
    computed = _side(directions[0]) if directions else ""
    contradict = told and computed and OPPOSITE[computed[0]] in told
    return "" if contradict else computed or told


def _side(direction: tuple[float, ...]) -> str:
    """At most two letters, the one that it points most to first."""
    named = ((abs(part), axis[part < 0]) for part, axis in zip(direction, AXES, strict=True) if abs(part) >= OBLIQUE)
    return "".join(letter for _, letter in sorted(named, reverse=True)[:2])


def _directions(header: Header) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Along a row, and down a column (PS3.3 C.7.6.2.1.1); None where these are none."""
    cosines = header.numbers("ImageOrientationPatient", 6)
    row, column = cosines[:3], cosines[3:]
    if any(abs(math.hypot(*one) - 1) > UNIT for one in (row, column)):
        return None
    return row, column


def _position(header: Header) -> float | None:
    """In mm across the slices: along their normal from the origin of the frame of reference."""
    place, directions = header.numbers("ImagePositionPatient", 3), _directions(header)
    position = next(iter(header.numbers("SliceLocation", 1)), None)
    if place and directions:
        (a, b, c), (d, e, f) = directions
        normal = (b * f - c * e, c * d - a * f, a * e - b * d)
        along = math.copysign(1, max(normal, key=abs))  # to the left, the back or the head, whatever is scanned first
        position = along * sum(map(operator.mul, place, normal))
    return position if position is not None and abs(position) < FARTHEST else None


def _if_like(pattern: re.Pattern[str], text: str) -> str:
    return text if pattern.fullmatch(text) else ""
