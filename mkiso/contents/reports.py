"""Structured reports as XHTML, and encapsulated PDFs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydicom.uid import UID

from mkiso.contents.headers import Header
from mkiso.contents.making import Bench, Late, require_small
from mkiso.contents.pictures import nothing
from mkiso.contents.shown import Document, Nothing, Picture, Report, Why
from mkiso.contents.xhtml import harmless
from mkiso.dcmtk import pdftoppm
from mkiso.dcmtk.conversion import TooLarge
from mkiso.dcmtk.dcm2pdf import make_document
from mkiso.dcmtk.dcmj2pnm import jpeg_size
from mkiso.dcmtk.dsr2html import Reading, make_report, write_in_utf8
from mkiso.errors import Internal
from mkiso.process import ToolTimeout
from mkiso.retrieve.instances import Instance
from mkiso.workspace import require_room

# In bytes, inflated. A document is on the disc twice.
LARGEST_REPORT, LARGEST_DOCUMENT = 1 << 24, 1 << 28
CONCEPT = "ConceptNameCodeSequence"


def report(bench: Bench, instance: Instance) -> Report | None:
    """A structured report (PS3.3 C.17), None where it cannot be read.

    Raises TooLarge where it would take too much, and what `make_report` raises.
    """
    require_small(instance, LARGEST_REPORT)
    page, encoded = bench.path(instance, "htm"), bench.path(instance, "dcm")
    try:
        for file, reading in _readings(bench, instance.path, encoded):
            if (text := make_report(bench.converter, file, page, reading)) is not None:
                body = harmless(text)
                bench.reports.take(body)
                return Report(instance.instance_number, title(instance), body, reading is Reading.STRICT)
        return None
    finally:
        page.unlink(missing_ok=True)
        encoded.unlink(missing_ok=True)


def document(bench: Bench, instance: Instance, file: str, *pictures: str) -> Iterator[Document | Picture | Nothing]:
    """An encapsulated PDF (PS3.3 A.45.1) in the file of this name, and its first pages; why not, where there is none.

    Whatever a page's picture fails of, it costs no more than the pictures. Raises as `report`.
    """
    require_small(instance, LARGEST_DOCUMENT)
    if not make_document(bench.converter, instance.path, bench.web / file):
        yield nothing(instance, Why.BROKEN)
        return
    yield Document(file, instance.instance_number, title(instance))
    if pictures:
        try:
            made = list(_pages(bench, instance, bench.web / file, pictures))
        except (Internal, Late, ToolTimeout, TooLarge):
            made = []
        yield from made
        if not made:
            require_room(bench.room)
            yield nothing(instance, Why.PAGES)


def _pages(bench: Bench, instance: Instance, document: Path, pictures: Sequence[str]) -> Iterator[Picture]:
    program, root = pdftoppm.installed(), bench.path(instance, "page")
    if program is None:
        return
    try:
        pages = pdftoppm.make_pages(bench.converter, program, document, root, len(pictures))
        for number, (page, file) in enumerate(zip(pages, pictures, strict=False), 1):
            if size := jpeg_size(page.read_bytes()):
                os.rename(page, bench.web / file)
                yield Picture(file, *size, instance.instance_number, number, len(pages), is_page=True)
    finally:
        for page in root.parent.glob(f"{root.name}-*"):
            page.unlink()


def title(instance: Instance) -> str:
    """What it calls itself, or else the name of its SOP class."""
    header = Header(instance.path, ["DocumentTitle", CONCEPT])
    kind = UID(instance.sop_class_uid).name.removesuffix(" Storage")
    return header.text("DocumentTitle") or header.meaning(CONCEPT) or kind


def _readings(bench: Bench, instance: Path, encoded: Path) -> Iterator[tuple[Path, Reading]]:
    """The ways to read a report, the best one first: DCMTK knows not every character set."""
    yield instance, Reading.STRICT
    again = [encoded] if write_in_utf8(bench.converter, instance, encoded) else []
    yield from ((file, Reading.STRICT) for file in again)
    yield from ((file, reading) for reading in (Reading.TOLERANT, Reading.SKIPPING) for file in (*again, instance))
