"""dsr2html: a structured report as XHTML. Its output is not to be trusted: some of a report's values pass as markup."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path

from mkiso import datasets
from mkiso.dcmtk.conversion import LARGEST_PAGE, Converter

END = "</html>"


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
    return (str(dcmtk_dir / "dsr2html"), "-q", "+X1", "+U8", *OPTIONS[reading], str(instance), str(page))


def utf8_argv(instance: Path, encoded: Path) -> tuple[str, ...]:
    return (sys.executable, "-I", str(datasets.__file__), str(instance), str(encoded))


def write_in_utf8(converter: Converter, instance: Path, encoded: Path) -> bool:
    """The same report in UTF-8, for DCMTK knows not every character set; whether it could be read.

    It is read in a process of its own, as all that takes memory by what is in it. Raises as `make_report`.
    """
    return converter.makes(utf8_argv(instance, encoded), encoded)


def make_report(converter: Converter, instance: Path, page: Path, reading: Reading) -> str | None:
    """The report as a page of XHTML, None where it cannot be read so. Raises what `Converter.run` raises."""
    page.unlink(missing_ok=True)
    if not converter.makes(report_argv(converter.dcmtk_dir, instance, page, reading), page, LARGEST_PAGE):
        return None
    text = page.read_text(encoding="utf-8", errors="replace")
    return text if text.rstrip().endswith(END) else None
