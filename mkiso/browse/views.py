"""How a frame is looked at: through which windows, how large, and in how many bytes."""

from __future__ import annotations

from dataclasses import replace

from pydicom import uid

from mkiso.browse.choice import NARROWEST, Header
from mkiso.dcmtk.converters import COLOUR, LOW_QUALITY, OWN_WINDOW, STORED_TABLE, View, scaled_to, stored_window

# How far apart the pixels' rows and columns are (PS3.3 10.7, C.7.6.3.1.7), as dcmj2pnm looks for it.
SHAPES = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
EXPLANATION = "WindowCenterWidthExplanation"
WINDOWS = ("WindowCenter", "WindowWidth", "VOILUTSequence", EXPLANATION)
KEYWORDS = ("Rows", "Columns", "PhotometricInterpretation", *SHAPES, *WINDOWS)
# Of these a series has few, and a person looks in each for what is small: they are shown larger.
SINGLE = frozenset(
    {
        uid.ComputedRadiographyImageStorage,
        uid.DigitalXRayImageStorageForPresentation,
        uid.DigitalXRayImageStorageForProcessing,
        uid.DigitalMammographyXRayImageStorageForPresentation,
        uid.DigitalMammographyXRayImageStorageForProcessing,
        uid.DigitalIntraOralXRayImageStorageForPresentation,
        uid.DigitalIntraOralXRayImageStorageForProcessing,
        uid.SecondaryCaptureImageStorage,
        uid.MultiFrameSingleBitSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
        uid.VLPhotographicImageStorage,
    }
)
SIDE, LARGER_SIDE, LEAST_SIDE = 1024, 2000, 256  # pixels, of the longer one
LARGER = 15  # times as many bytes as another picture may have
LOWER = 0.6  # of a picture's bytes it has in LOW_QUALITY


def weight(sop_class_uid: str) -> int:
    """How many shares of a disc's room for pictures one of this class has."""
    return LARGER if sop_class_uid in SINGLE else 1


def views(header: Header, sop_class_uid: str, frame: int) -> list[View]:
    """The ways to look at a frame, the best one first. What is stored may be of no use."""
    scale = _scaled(header, LARGER_SIDE if sop_class_uid in SINGLE else SIDE)
    return [View(frame, window, scale) for window in _windows(header)]


def other_window(header: Header) -> int | None:
    """The number of the stored window that shows something else than the first; None where there is none."""
    numbers = header.windows()
    return numbers[1] if len(numbers) > 1 and numbers[0] == 1 and _is_grey(header) else None


def name_of_window(header: Header, number: int) -> str:
    """What the header calls it, or else its centre and width; empty where there is no such window."""
    names, at = header.text(EXPLANATION).split("\\"), number - 1
    pairs = list(zip(header.numbers("WindowCenter"), header.numbers("WindowWidth"), strict=False))
    if not (_is_grey(header) and at < len(pairs)):
        return ""
    name = names[at] if at < len(names) else ""
    return name or "{:g} / {:g}".format(*pairs[at])


def smaller(header: Header, view: View, longer: int, bytes_now: int, most: int) -> View:
    """The same in about so many bytes at most: a picture that is so long has too many."""
    by = min(1.0, most / (bytes_now * LOWER)) ** 0.5
    scale = view.scale if by == 1 else _scaled(header, min(longer, max(LEAST_SIDE, int(longer * by))))
    return replace(view, scale=scale, quality=LOW_QUALITY)


def _is_grey(header: Header) -> bool:
    return header.text("PhotometricInterpretation").startswith("MONOCHROME")


def _windows(header: Header) -> list[tuple[str, ...]]:
    if not _is_grey(header):
        return [COLOUR]
    stored = header.text("WindowCenter") and header.decimal("WindowWidth") >= NARROWEST
    window = [stored_window(1)] if stored else []
    table = [STORED_TABLE] if header.has("VOILUTSequence") else []
    return [*window, *table, OWN_WINDOW]


def _scaled(header: Header, side: int) -> tuple[str, ...]:
    """What is larger than this side is made as small, by its longer one."""
    rows, columns = header.number("Rows"), header.number("Columns")
    if max(rows, columns) <= side:
        return ()
    shapes = (header.numbers(keyword, 2) for keyword in SHAPES)
    down, across = next((shape for shape in shapes if shape and min(shape) > 0), (1.0, 1.0))
    return scaled_to(width=side) if columns * across >= rows * down else scaled_to(height=side)
