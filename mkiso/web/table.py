"""Jobs as lines of CSV (RFC 4180) that a spreadsheet takes for nothing but text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

COLUMNS = (
    *("created_at", "finished_at", "id", "kind", "state", "error", "patient_id", "patient_name", "accessions"),
    *("studies", "requester", "destination", "layout", "format", "medium", "expected", "received", "files_sent"),
    *("files_failed", "bytes"),
)
# What begins with one of these is calculated, in full width too; a spreadsheet drops spaces before it.
FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


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
    """The text with an apostrophe before it where a spreadsheet would calculate it."""
    return f"'{text}" if text.startswith(FORMULA) or text.lstrip().startswith(FORMULA) else text


def _line(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()
