"""The programs that make one file of another, each within bounds of time, memory and size.

- dcmj2pnm: a JPEG of one frame, as a person looks at it. It cannot decode JPEG 2000, JPEG-LS and video. Whether there
  is a picture shows in the file: a JPEG that begins and ends as one (ISO/IEC 10918-1 B).
- dsr2html: a structured report as XHTML. Its output is not to be trusted: some of a report's values pass as markup.
- dcm2pdf: the PDF in an instance. It takes out whatever lies there, so that its beginning is looked at.
- pdftoppm, of poppler: the pages of a PDF as JPEGs. It runs no script that is in one.
- mkiso.browse.strips, a module: an ECG's leads as JPEGs.
- gdcmconv, of GDCM: decodes what DCMTK cannot. It is not everywhere; its exit status says little.
- dcmdjpeg, dcmdrle, dcmdjpls and dcmconv: an instance with its pixels as they are, or inflated. They write explicit VR
  little endian, keep the SOP Instance UID, and say that pixels were lossy (PS3.3 C.7.6.1.1.5) also where the instance
  did not.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from pydicom import uid

from mkiso.dicom import datasets
from mkiso.process import Limits, Result, run

DCMJ2PNM, DSR2HTML, DCM2PDF = "dcmj2pnm", "dsr2html", "dcm2pdf"
STRIPS = "mkiso.browse.strips"
PDFTOPPM, GDCMCONV = "pdftoppm", "gdcmconv"  # found by PATH
DECOMPRESSORS = {
    uid.JPEGBaseline8Bit: "dcmdjpeg",
    uid.JPEGExtended12Bit: "dcmdjpeg",
    uid.JPEGLossless: "dcmdjpeg",
    uid.JPEGLosslessSV1: "dcmdjpeg",
    uid.JPEGLSLossless: "dcmdjpls",
    uid.JPEGLSNearLossless: "dcmdjpls",
    uid.RLELossless: "dcmdrle",
    uid.DeflatedExplicitVRLittleEndian: "dcmconv",
}
# These show what is public, and need no more of DCMTK's dictionary.
SHOWING = (DSR2HTML, DCM2PDF)
# And dcmj2pnm, which is started for every picture, knows only what pictures have: that saves it 8 ms more.
PICTURE_DICTIONARY = Path(__file__).with_name("picture.dic")
PUBLIC_DICTIONARY = "share/*dcmtk*/dicom.dic"  # below the directory that the programs' is in
LIMIT = 60.0
# What a program may take, in bytes. It is not by what an instance says of itself, for that may be a lie. Two run
# at once for a job, and the unit has 4 GB. dcmj2pnm takes 2.4 times the frame, GDCM 4.6 times all frames, DCMTK twice
# these where it decodes all, once what a deflated instance or a document is: more is too large for a picture,
MEMORY = 1500 << 20
# and more than this to be sent, or decompressed for a disc.
MEMORY_FOR_ALL = 3 << 30
LARGEST_FILE = 5 << 28  # decoded pixels with what is around them, a document
LARGEST_PICTURE = 1 << 23  # as large as one of 1,200 pixels a side without compression; the worker reads it
LARGEST_PAGE = 1 << 21  # of a report; the worker reads it
QUALITY, LOW_QUALITY = "85", "60"
STORED_TABLE, OWN_WINDOW, COLOUR = ("+Wl", "1"), ("+Wm",), ()
START, END, MARKER = b"\xff\xd8", b"\xff\xd9", 0xFF
FRAME_HEADERS = frozenset({0xC0, 0xC1, 0xC2})
END_OF_PAGE = "</html>"
SIGNATURE, WITHIN = b"%PDF-", 1024  # as readers look for it (ISO 32000-1, Adobe's note 13 on its Annex H)
SIDE, PAGE_QUALITY = 1200, 80  # the longer side in pixels: as much as small print needs


class TooLarge(Exception):
    """More than may be read, decoded or written."""


@dataclass(frozen=True)
class Converter:
    """Runs them for the job that has `directory`, each `limit` seconds at most, where `nice` behind other programs.

    Each has `memory` bytes: one that needs more fails as on any other instance.
    """

    dcmtk_dir: Path
    directory: Path
    checkpoint: Callable[[], None]
    limit: float = LIMIT
    nice: bool = True
    memory: int = MEMORY

    def run(self, argv: Sequence[str], largest: int = LARGEST_FILE) -> Result:
        """Raises ToolTimeout, Internal where it cannot be started, TooLarge for its file, what `checkpoint` raises."""
        result = run(
            argv,
            timeout=self.limit,
            cwd=self.directory,
            checkpoint=self.checkpoint,
            nice=self.nice,
            limits=Limits(self.memory, largest),
            environment=_dictionary(Path(argv[0])),
            keep_output=False,
        )
        if result.rc == -signal.SIGXFSZ:
            raise TooLarge
        return result

    def makes(self, argv: Sequence[str], product: Path, largest: int = LARGEST_FILE) -> bool:
        """Whether the program ended well and its product is there. Raises what `run` raises."""
        return self.run(argv, largest).rc == 0 and product.exists()


def _dictionary(program: Path) -> dict[str, str]:
    """The environment of a program that shows; what the operator named is left as it is."""
    if program.name in SHOWING:
        return public_dictionary(program.parent)
    return {"DCMDICTPATH": str(PICTURE_DICTIONARY)} if program.name == DCMJ2PNM and not _is_named() else {}


def public_dictionary(programs: Path) -> dict[str, str]:
    """The environment in which DCMTK's programs know what is public, and start 5 ms sooner."""
    known = _public_dictionary(programs)
    return {"DCMDICTPATH": str(known)} if known and not _is_named() else {}


@functools.cache
def _public_dictionary(programs: Path) -> Path | None:
    return max(programs.parent.glob(PUBLIC_DICTIONARY), default=None)


def _is_named() -> bool:
    return "DCMDICTPATH" in os.environ


@dataclass(frozen=True)
class View:
    """How a frame (from 1) is looked at: through a window, or in colour; `scale` makes it smaller, in a quality."""

    frame: int
    window: tuple[str, ...]
    scale: tuple[str, ...] = ()
    quality: str = QUALITY


def stored_window(number: int) -> tuple[str, ...]:
    """The window that is stored as this one, from 1 (PS3.3 C.11.2.1.2)."""
    return ("+Wi", str(number))


def scaled_to(width: int = 0, height: int = 0) -> tuple[str, ...]:
    """A picture so wide, or else so high, in pixels; the other side follows from the pixels' shape."""
    return ("+Sxv", str(width)) if width else ("+Syv", str(height))


def picture_argv(dcmtk_dir: Path, instance: Path, picture: Path, view: View) -> tuple[str, ...]:
    return (
        *(str(dcmtk_dir / DCMJ2PNM), "-q", "+oj", "+Jq", view.quality),
        *(*view.window, "+F", str(view.frame), *view.scale),
        *(str(instance), str(picture)),
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


class Reading(Enum):
    """How strictly a report is read."""

    STRICT = "by the rules"
    TOLERANT = "against the rules"
    SKIPPING = "without what cannot be read"


OPTIONS: dict[Reading, tuple[str, ...]] = {
    Reading.STRICT: (),
    Reading.TOLERANT: ("-Er", "-Ev", "-Ec", "-Ee"),
    Reading.SKIPPING: ("-Ei",),
}


def report_argv(dcmtk_dir: Path, instance: Path, page: Path, reading: Reading) -> tuple[str, ...]:
    return (str(dcmtk_dir / DSR2HTML), "-q", "+X1", "+U8", *OPTIONS[reading], str(instance), str(page))


def write_in_utf8(converter: Converter, instance: Path, encoded: Path) -> bool:
    """The same report in UTF-8, for DCMTK knows not every character set; whether it could be read.

    It is read in a process of its own, as all that takes memory by what is in it. Raises as `make_report`.
    """
    argv = (sys.executable, "-I", str(datasets.__file__), str(instance), str(encoded))
    return converter.makes(argv, encoded)


def make_report(converter: Converter, instance: Path, page: Path, reading: Reading) -> str | None:
    """The report as a page of XHTML, None where it cannot be read so. Raises what `Converter.run` raises."""
    page.unlink(missing_ok=True)
    if not converter.makes(report_argv(converter.dcmtk_dir, instance, page, reading), page, LARGEST_PAGE):
        return None
    text = page.read_text(encoding="utf-8", errors="replace")
    return text if text.rstrip().endswith(END_OF_PAGE) else None


def document_argv(dcmtk_dir: Path, instance: Path, document: Path) -> tuple[str, ...]:
    return (str(dcmtk_dir / DCM2PDF), "-q", str(instance), str(document))


def make_document(converter: Converter, instance: Path, document: Path) -> bool:
    """Write the document; whether it is a PDF. Raises what `Converter.run` raises."""
    if not converter.makes(document_argv(converter.dcmtk_dir, instance, document), document):
        return False
    with document.open("rb") as file:
        return SIGNATURE in file.read(WITHIN)


def pdftoppm_installed() -> str | None:
    """The program, where this host has it."""
    return shutil.which(PDFTOPPM)


def make_pages(converter: Converter, program: str, document: Path, root: Path, count: int) -> None:
    """The first pages, up to so many, each in a file whose name begins as `root`; raises what `Converter.run` raises.

    Of a document that it refuses there are none, or those that it made before.
    """
    options = ("-q", "-jpeg", "-jpegopt", f"quality={PAGE_QUALITY}", "-scale-to", str(SIDE), "-l", str(count))
    converter.run((program, *options, str(document), str(root)), LARGEST_PICTURE)


def make_strips(converter: Converter, instance: Path, root: Path, count: int, most: int) -> None:
    """An ECG's strips, up to so many, each in a file whose name begins as `root`, of about so many bytes at most.

    Raises what `Converter.run` raises. Of what it cannot read there is none.
    """
    argv = (sys.executable, "-I", "-m", STRIPS, str(instance), str(root), str(count), str(most))
    converter.run(argv, LARGEST_PICTURE)


def gdcmconv_installed() -> str | None:
    """The program, where this host has it."""
    return shutil.which(GDCMCONV)


def raw_argv(program: str, instance: Path, raw: Path) -> tuple[str, ...]:
    return (program, "--raw", str(instance), str(raw))


def decode(converter: Converter, program: str, instance: Path, raw: Path) -> bool:
    """Write the instance with its pixels as they are; whether there is a file. Raises what `Converter.run` raises."""
    return converter.makes(raw_argv(program, instance, raw), raw)


def decompress_argv(dcmtk_dir: Path, program: str, instance: Path, decompressed: Path) -> tuple[str, ...]:
    return (str(dcmtk_dir / program), "-q", "+te", str(instance), str(decompressed))


def decompress(converter: Converter, program: str, instance: Path, decompressed: Path) -> bool:
    """Write the instance again; whether there is a file. Raises what `Converter.run` raises."""
    return converter.makes(decompress_argv(converter.dcmtk_dir, program, instance, decompressed), decompressed)
