"""Pictures of an instance's frames, properly windowed, small enough for a page.

What programs can make of its pixels is known by how these are encoded (PS3.5 A), and how large they are decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydicom import uid

from mkiso.browse.choice import Header, Wanted
from mkiso.browse.shown import Bench, Nothing, Picture, Why, require_small
from mkiso.dcmtk import converters
from mkiso.dcmtk.converters import (
    COLOUR,
    OWN_WINDOW,
    STORED_TABLE,
    STORED_WINDOW,
    TooLarge,
    View,
    make_picture,
    scaled_to,
)
from mkiso.dicom.instances import Instance
from mkiso.workspace import require_room

SIZES = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames")
RAW = frozenset({uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian})
JPEG = frozenset({uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1})
JPEG_LS = frozenset({uid.JPEGLSLossless, uid.JPEGLSNearLossless})
# Of RLE, GDCM makes wrong colours where samples have more than 8 bits.
GDCM_DECODES = JPEG | JPEG_LS | {uid.JPEG2000Lossless, uid.JPEG2000}
LOSSLESS = frozenset(
    {
        uid.DeflatedExplicitVRLittleEndian,
        uid.RLELossless,
        uid.JPEGLossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEG2000Lossless,
    }
)
SIDE = 512
# Bytes that are decoded for a picture: of a frame by dcmj2pnm, by gdcmconv of all. They fit into conversion.MEMORY.
LARGEST, LARGEST_OF_GDCM = 1 << 29, 300 << 20
# How far apart the pixels' rows and columns are (PS3.3 10.7, C.7.6.3.1.7), as dcmj2pnm looks for it.
SHAPES = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
WINDOWS = ("WindowCenter", "WindowWidth", "VOILUTSequence")
NARROWEST = 1  # PS3.3 C.11.2.1.2.1; dcmj2pnm makes a grey picture of another one
KEYWORDS = (*SIZES, *SHAPES, *WINDOWS, "PhotometricInterpretation")
DECODED_BY_DCMTK = RAW | JPEG | {uid.RLELossless, uid.DeflatedExplicitVRLittleEndian}


def frame_bytes(header: Header) -> int:
    """What a decoded frame takes (PS3.5 8.1.1), as far as the header tells by its SIZES."""
    rows, columns, samples, bits = (header.number(keyword) for keyword in SIZES[:-1])
    return (rows * columns * max(1, samples) * max(1, bits) + 7) // 8


def pixel_bytes(header: Header) -> int:
    """What all frames take."""
    return frame_bytes(header) * max(1, header.number("NumberOfFrames"))


def pictures(bench: Bench, wanted: Wanted, files: Sequence[str]) -> Iterator[Picture | Nothing]:
    """Each frame that is wanted, in the file of its name; why not, where there is nothing to be seen.

    Raises TooLarge where it would take too much; Late and ToolTimeout where it takes too long; Internal, Busy.
    """
    instance, header = wanted.instance, Header(wanted.instance.path, KEYWORDS)
    if instance.is_deflated:
        require_small(instance, LARGEST)
    if not (header.number("Rows") and header.number("Columns")):
        why = Why.BROKEN if header.broken else Why.NO_PIXELS
        yield from (nothing(instance, why) for _ in wanted.frames)
        return
    program = converters.gdcmconv_installed() if instance.transfer_syntax in GDCM_DECODES else None
    source = instance.path if instance.transfer_syntax in DECODED_BY_DCMTK else None
    missed = nothing(instance, Why.BROKEN if source or program else Why.SYNTAX)
    raw = bench.path(instance, "raw")
    try:
        for frame, file in zip(wanted.frames, files, strict=True):
            size = _picture(bench, header, source, bench.web / file, frame)
            if size is None and program:  # from here on of what gdcmconv makes of it
                source, program = raw if _decoded(bench, header, program, instance, raw) else source, None
                size = _picture(bench, header, source, bench.web / file, frame)
            yield Picture(file, *size, instance.instance_number, frame, wanted.of) if size else missed
    finally:
        raw.unlink(missing_ok=True)


def nothing(instance: Instance, why: Why) -> Nothing:
    return Nothing(instance.instance_number, uid.UID(instance.sop_class_uid).name, why)


def _picture(bench: Bench, header: Header, source: Path | None, picture: Path, frame: int) -> tuple[int, int] | None:
    """The width and height of a frame's picture; None where none of the ways to look at it gives one."""
    if source is None:
        return None
    _require_few(frame_bytes(header), LARGEST)
    views = (View(frame, window, _scale(header)) for window in _windows(header))
    return next(filter(None, (make_picture(bench.converter, source, picture, view) for view in views)), None)


def _decoded(bench: Bench, header: Header, program: str, instance: Instance, raw: Path) -> bool:
    _require_few(pixel_bytes(header), LARGEST_OF_GDCM)
    if converters.decode(bench.converter, program, instance.path, raw):
        return True
    require_room(bench.room)
    return False


def _require_few(pixels: int, most: int) -> None:
    if pixels > most:
        raise TooLarge


def _windows(header: Header) -> list[tuple[str, ...]]:
    """The ways to look at it, the best one first. What is stored may be of no use."""
    if not header.text("PhotometricInterpretation").startswith("MONOCHROME"):
        return [COLOUR]
    window = [STORED_WINDOW] if header.text("WindowCenter") and header.decimal("WindowWidth") >= NARROWEST else []
    table = [STORED_TABLE] if header.has("VOILUTSequence") else []
    return [*window, *table, OWN_WINDOW]


def _scale(header: Header) -> tuple[str, ...]:
    """What is larger than SIDE is made as small, by its longer side."""
    rows, columns = header.number("Rows"), header.number("Columns")
    if max(rows, columns) <= SIDE:
        return ()
    shapes = (header.pair(keyword) for keyword in SHAPES)
    down, across = next((shape for shape in shapes if shape and min(shape) > 0), (1.0, 1.0))
    return scaled_to(width=SIDE) if columns * across >= rows * down else scaled_to(height=SIDE)
