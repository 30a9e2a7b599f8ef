"""Structured reports as XHTML, and encapsulated PDFs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydicom.uid import UID

from mkiso.contents.headers import Header
from mkiso.contents.making import Bench, Late
from mkiso.contents.shown import Document, Report
from mkiso.contents.xhtml import harmless
from mkiso.dcmtk.dcm2pdf import make_document
from mkiso.dcmtk.dsr2html import Reading, make_report, write_in_utf8
from mkiso.retrieve.instances import Instance

LARGEST_REPORT = 1 << 24
CONCEPT = "ConceptNameCodeSequence"


def report(bench: Bench, instance: Instance) -> Report | None:
    """A structured report (PS3.3 C.17), None where it cannot be read.

    Raises Late where it would take too much, and what `make_report` raises.
    """
    if instance.bytes > LARGEST_REPORT:
        raise Late
    page, encoded = bench.path(instance, "htm"), bench.path(instance, "dcm")
    try:
        for file, reading in _readings(bench, instance.path, encoded):
            if (text := make_report(bench.converter, file, page, reading)) is not None:
                return Report(instance.instance_number, title(instance), harmless(text), reading is Reading.STRICT)
        return None
    finally:
        page.unlink(missing_ok=True)
        encoded.unlink(missing_ok=True)


def document(bench: Bench, instance: Instance, file: str) -> Document | None:
    """An encapsulated PDF (PS3.3 A.45.1) in the file of this name, None where there is none. Raises as `report`."""
    if not make_document(bench.converter, instance.path, bench.web / file):
        return None
    return Document(file, instance.instance_number, title(instance))


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
