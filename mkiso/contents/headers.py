"""Instances' headers as texts for people: whatever a stranger wrote there, nothing is raised."""

from __future__ import annotations

import re
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from pydicom import Dataset
from pydicom.tag import Tag

from mkiso.datasets import CHARACTER_SET, Unreadable, first_item, read, values
from mkiso.retrieve.keys import read_keys

DIGITS = 9
DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")  # with dots before DICOM 3 (PS3.5 6.2)


class Header:
    """Some attributes of an instance; what is missing, very long or cannot be read is empty."""

    def __init__(self, path: Path, keywords: Iterable[str]) -> None:
        keys = read_keys(path, {CHARACTER_SET, *map(Tag, keywords)})
        self.broken = keys is None
        self._dataset, self._filled = Dataset(), keys.filled if keys else frozenset[int]()
        try:
            if keys:
                self._dataset = read(BytesIO(keys.file()))
        except Unreadable:
            self.broken = True

    def has(self, keyword: str) -> bool:
        """Whether there is something in it, also what is too long or cannot be read."""
        return Tag(keyword) in self._filled

    def text(self, keyword: str) -> str:
        """A value as one line, empty where there is none; several are separated by backslashes."""
        return _text(self._dataset, keyword)

    def meaning(self, keyword: str) -> str:
        """What the first code of a sequence means (PS3.3 8.8)."""
        return _text(first_item(self._dataset, keyword), "CodeMeaning")

    def date(self, keyword: str) -> str:
        """YYYYMMDD, or empty."""
        found = DATE.fullmatch(self.text(keyword))
        return "".join(found.groups()) if found else ""

    def number(self, keyword: str) -> int:
        """The first value; 0 where it is no whole number above."""
        first = self.text(keyword).partition("\\")[0]
        return int(first) if first.isascii() and first.isdecimal() and len(first) <= DIGITS else 0

    def decimal(self, keyword: str) -> float:
        """The first value; 0 where it is no number."""
        try:
            return float(self.text(keyword).partition("\\")[0])
        except ValueError:
            return 0.0

    def pair(self, keyword: str) -> tuple[float, float] | None:
        """Two numbers; None where there are not just those."""
        try:
            one, other = map(float, self.text(keyword).split("\\"))
        except ValueError:
            return None
        return one, other


def _text(dataset: Dataset, keyword: str) -> str:
    return "\\".join(" ".join(one.split()) for one in values(dataset, keyword))
