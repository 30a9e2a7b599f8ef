"""Pictures of an instance's frames, properly windowed, small enough for a page.

How instances' pixels are encoded (PS3.5 A), and how large they are when they are decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
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

    Raises TooLarge where it would take too much, and what `make_picture` raises.
    """
    instance, header = wanted.instance, Header(wanted.instance.path, KEYWORDS)
    if instance.is_deflated:
        require_small(instance, LARGEST)
    if not (header.number("Rows") and header.number("Columns")):
        why = Why.BROKEN if header.broken else Why.NO_PIXELS
        yield from (nothing(instance, why) for _ in wanted.frames)
        return
    with ExitStack() as held:
        source = _Source(bench, instance, header, held)
        for frame, file in zip(wanted.frames, files, strict=True):
            size = source.picture(bench.web / file, frame)
            yield Picture(file, *size, instance.instance_number, frame, wanted.of) if size else source.missed


def nothing(instance: Instance, why: Why) -> Nothing:
    return Nothing(instance.instance_number, uid.UID(instance.sop_class_uid).name, why)


class _Source:
    """The file that frames are taken from: the instance's, and from the first that fails on one that gdcmconv made."""

    def __init__(self, bench: Bench, instance: Instance, header: Header, held: ExitStack) -> None:
        self._bench, self._instance, self._header, self._held = bench, instance, header, held
        self._file: Path | None = instance.path if instance.transfer_syntax in DECODED_BY_DCMTK else None
        self._program = converters.gdcmconv_installed() if instance.transfer_syntax in GDCM_DECODES else None
        known = self._file or self._program
        self.missed = nothing(instance, Why.BROKEN if known else Why.SYNTAX)

    def picture(self, picture: Path, frame: int) -> tuple[int, int] | None:
        size = self._picture(picture, frame)
        if size is None and self._program:
            self._file, self._program = self._decoded(self._program) or self._file, None
            size = self._picture(picture, frame)
        return size

    def _picture(self, picture: Path, frame: int) -> tuple[int, int] | None:
        if self._file is None:
            return None
        _require_few(frame_bytes(self._header), LARGEST)
        views = (View(frame, window, _scale(self._header)) for window in _windows(self._header))
        made = (make_picture(self._bench.converter, self._file, picture, view) for view in views)
        return next((size for size in made if size), None)

    def _decoded(self, program: str) -> Path | None:
        _require_few(pixel_bytes(self._header), LARGEST_OF_GDCM)
        raw = self._bench.path(self._instance, "raw")
        self._held.callback(raw.unlink, missing_ok=True)
        if converters.decode(self._bench.converter, program, self._instance.path, raw):
            return raw
        require_room(self._bench.room)
        return None


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
