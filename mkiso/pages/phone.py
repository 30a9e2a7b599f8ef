"""What of a disc goes into PHONE.HTM: one file, since a phone loads no neighbours, of eight megabytes at most."""

from __future__ import annotations

import base64
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mkiso.contents.shown import Picture
from mkiso.pages.markup import xml_text
from mkiso.pages.outline import ReportPage, SeriesPage

LARGEST = 8_000_000
ROOM_FOR_COUNTS = 500  # the sentence that says how many pictures are left out


@dataclass(frozen=True)
class Chosen:
    """What PHONE.HTM holds: pictures as base64 by their file, reports by their page's file, the first `series`."""

    series: int
    series_in_all: int
    pictures: Mapping[str, str] = field(default_factory=dict)
    reports: frozenset[str] = frozenset()


def phone_page(pages: Sequence[SeriesPage], web: Path, render: Callable[[Chosen], str]) -> bytes:
    """The page with as much as fits: each series' middle picture, the reports, then pictures evenly apart."""
    chosen, room = _frame(pages, render)
    return render(_filled(chosen, pages[: chosen.series], web, room)).encode()


def evenly(count: int) -> Iterator[int]:
    """Each index below `count` once, the middle first: any first few of them lie evenly apart."""
    spans = deque([(0, count)])
    while spans:
        start, end = spans.popleft()
        if start < end:
            middle = (start + end) // 2
            yield middle
            spans += ((start, middle), (middle + 1, end))


def _frame(pages: Sequence[SeriesPage], render: Callable[[Chosen], str]) -> tuple[Chosen, int]:
    """As many series as their texts alone leave room for, and that room in bytes."""
    count = len(pages)
    while True:
        chosen = Chosen(count, len(pages), {one.file: "" for page in pages[:count] for one in page.pictures})
        room = LARGEST - ROOM_FOR_COUNTS - len(render(chosen).encode())
        if room >= 0 or not count:
            return chosen, room
        count //= 2


def _filled(frame: Chosen, pages: Sequence[SeriesPage], web: Path, room: int) -> Chosen:
    pictures: dict[str, str] = {}
    reports: set[str] = set()
    for one in _by_importance(pages):
        size = _size(one, web)
        if size <= room and one.file not in pictures:
            room -= size
            if isinstance(one, ReportPage):
                reports.add(one.file)
            else:
                pictures[one.file] = base64.b64encode((web / one.file).read_bytes()).decode()
    return Chosen(frame.series, frame.series_in_all, pictures, frozenset(reports))


def _by_importance(pages: Sequence[SeriesPage]) -> Iterator[Picture | ReportPage]:
    rounds = itertools.zip_longest(*([page.pictures[at] for at in evenly(len(page.pictures))] for page in pages))
    yield from filter(None, next(rounds, ()))
    yield from (report for page in pages for report in page.reports)
    for one_of_each in rounds:
        yield from filter(None, one_of_each)


def _size(one: Picture | ReportPage, web: Path) -> int:
    """Bytes in the page beyond what the frame has of it."""
    if isinstance(one, ReportPage):
        return len(xml_text(one.report.body).encode())
    return -(-(web / one.file).stat().st_size // 3) * 4
