"""dcmdjpeg, dcmdrle, dcmdjpls and dcmconv: an instance with its pixels as they are, or inflated.

They write explicit VR little endian, keep the SOP Instance UID, and say that pixels were lossy (PS3.3
C.7.6.1.1.5) also where the instance did not.
"""

from __future__ import annotations

from pathlib import Path

from pydicom import uid

from mkiso.dcmtk.conversion import Converter

PROGRAMS = {
    uid.JPEGBaseline8Bit: "dcmdjpeg",
    uid.JPEGExtended12Bit: "dcmdjpeg",
    uid.JPEGLossless: "dcmdjpeg",
    uid.JPEGLosslessSV1: "dcmdjpeg",
    uid.JPEGLSLossless: "dcmdjpls",
    uid.JPEGLSNearLossless: "dcmdjpls",
    uid.RLELossless: "dcmdrle",
    uid.DeflatedExplicitVRLittleEndian: "dcmconv",
}


def decompress_argv(dcmtk_dir: Path, program: str, instance: Path, decompressed: Path) -> tuple[str, ...]:
    return (str(dcmtk_dir / program), "-q", "+te", str(instance), str(decompressed))


def decompress(converter: Converter, program: str, instance: Path, decompressed: Path) -> bool:
    """Write the instance again; whether there is a file. Raises what `Converter.run` raises."""
    return converter.makes(decompress_argv(converter.dcmtk_dir, program, instance, decompressed), decompressed)
