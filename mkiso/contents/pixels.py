"""How instances' pixels are encoded (PS3.5 A), and how large they are when they are decoded."""

from __future__ import annotations

from pydicom import uid

from mkiso.contents.headers import Header

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


def frame_bytes(header: Header) -> int:
    """What a decoded frame takes (PS3.5 8.1.1), as far as the header tells by its SIZES."""
    rows, columns, samples, bits = (header.number(keyword) for keyword in SIZES[:-1])
    return (rows * columns * max(1, samples) * max(1, bits) + 7) // 8


def pixel_bytes(header: Header) -> int:
    """What all frames take."""
    return frame_bytes(header) * max(1, header.number("NumberOfFrames"))
