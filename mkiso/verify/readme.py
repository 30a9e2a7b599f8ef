"""README.TXT, as far as a program reads it: identifiers, the viewer's entries at the root, what is not indexed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mkiso.pages.readme import MALFORMED

FILE_SET_ID, VOLUME_ID = "File-set ID: ", "Volume ID: "
NOT_INDEXED = re.compile(r"  (OTHER/\S+)  ([0-9.]+)")
NOT_WELL_FORMED = re.compile(rf"  (\S+)  ([0-9.]+)  {re.escape(MALFORMED)}")
INDENT = "  "


@dataclass(frozen=True)
class Readme:
    """`entries` are all lines that may name the viewer's files at the root, in capitals.

    `not_indexed` and `malformed` are UIDs by file.
    """

    data: bytes
    file_set_id: str | None
    volume_id: str | None
    entries: frozenset[str]
    not_indexed: dict[str, str]
    malformed: dict[str, str]


def parse(data: bytes) -> Readme:
    """What any bytes tell as a README.TXT."""
    lines = data.decode("ascii", "replace").splitlines()
    return Readme(
        data,
        _told(lines, FILE_SET_ID),
        _told(lines, VOLUME_ID),
        frozenset(line.removeprefix(INDENT).upper() for line in lines if line.startswith(INDENT)),
        {match[1]: match[2] for match in filter(None, map(NOT_INDEXED.fullmatch, lines))},
        {match[1]: match[2] for match in filter(None, map(NOT_WELL_FORMED.fullmatch, lines))},
    )


def _told(lines: list[str], label: str) -> str | None:
    return next((line.removeprefix(label) for line in lines if line.startswith(label)), None)
