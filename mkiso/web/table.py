"""Jobs as lines of CSV (RFC 4180) that a spreadsheet, whatever its list separator, takes for nothing but text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

COLUMNS = (
    *("created_at", "finished_at", "id", "kind", "state", "error", "patient_id", "patient_name", "accessions"),
    *("studies", "requester", "destination", "layout", "format", "medium", "expected", "received", "files_sent"),
    *("files_failed", "bytes"),
)
# A cell that begins with one of these is calculated, in full width too; spaces before it count for nothing, nor does
# a quote that was meant to be text. Where the list separator is a semicolon (Indonesian, German), a spreadsheet begins
# a cell behind each one in a text, and a row behind each line: quotes count for it only where a cell begins with them.
CALCULATED = re.compile(r"""^(?=[\t\r\n])|(?:^|(?<=[;|\t\r\n]))(?=(?:"|[^\S\t\r\n])*[=+\-@\uff1d\uff0b\uff0d\uff20])""")


def csv_lines(jobs: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A line of column names, and one for each JOB."""
    yield _line(COLUMNS)
    for job in jobs:
        yield _line([_cell(job, name) for name in COLUMNS])


def _cell(job: Mapping[str, Any], name: str) -> str:
    value = job[name]
    if isinstance(value, Mapping):
        value = value["code"]
    elif isinstance(value, list):
        value = ",".join(map(str, value))
    return harmless("" if value is None else str(value))


def harmless(text: str) -> str:
    """The text with an apostrophe wherever a spreadsheet would begin to calculate."""
    return CALCULATED.sub("'", text)


def _line(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerow(cells)
    return text.getvalue()
