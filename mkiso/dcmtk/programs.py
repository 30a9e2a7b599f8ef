"""Which programs of this room a configuration needs, and what each says of its version."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mkiso.config import Media
from mkiso.dcmtk.association import ECHOSCU
from mkiso.dcmtk.converters import (
    DCM2PDF,
    DCMJ2PNM,
    DECOMPRESSORS,
    DSR2HTML,
    GDCMCONV,
    PDFTOPPM,
    gdcmconv_installed,
    pdftoppm_installed,
)
from mkiso.dcmtk.dcmmkdir import DCMMKDIR
from mkiso.dcmtk.findscu import FINDSCU
from mkiso.dcmtk.movescu import MOVESCU
from mkiso.dcmtk.sending import DCMSEND, STORESCU
from mkiso.dcmtk.storescp import STORESCP

INSTALL = "Install it, or set tools.dcmtk_dir."


@dataclass(frozen=True)
class Program:
    """A program, where it is, and how it is asked for its version.

    `advice` says what to do where it is not there, which is a fault unless it is `optional`.
    """

    name: str
    path: str | None
    advice: str
    version_option: str = "--version"
    optional: bool = False


def dcmtk_programs(dcmtk_dir: Path, media: Media) -> Iterator[Program]:
    """DCMTK's programs that jobs run; those that decompress only for discs that are to be uncompressed."""
    network = (ECHOSCU, FINDSCU, MOVESCU, STORESCP, STORESCU, DCMSEND)
    decompressing = sorted({*DECOMPRESSORS.values()}) if media.uncompressed else ()
    for name in (*network, DCMMKDIR, DCMJ2PNM, DSR2HTML, DCM2PDF, *decompressing):
        yield Program(name, str(dcmtk_dir / name), INSTALL)


def other_programs(media: Media) -> Iterator[Program]:
    """Those of poppler and of GDCM, which the configuration does not name: they are found by PATH."""
    no_pages = "Install poppler-utils; until then discs show no pages of PDFs."
    yield Program(PDFTOPPM, pdftoppm_installed(), no_pages, version_option="-v")
    if media.uncompressed:
        stays = "Install libgdcm-tools; until then JPEG 2000 stays compressed, and is not shown."
        yield Program(GDCMCONV, gdcmconv_installed(), stays)
    elif media.pictures:
        not_shown = "Install libgdcm-tools to have discs show JPEG 2000 and JPEG-LS."
        yield Program(GDCMCONV, gdcmconv_installed(), not_shown, optional=True)
