"""The pages of a `pdi` disc, for any browser: XHTML without script and CSS, below a Content-Security-Policy.

A series has a page, a report, and a picture that has neighbours; INDEX.HTM leads to all of them. PHONE.HTM is one
file, since a phone loads no neighbours, of eight megabytes at most, or what the other pages leave. Links are relative
and in lower case, as the names are, so that they hold on a case-sensitive copy as on ISO 9660. Every text is escaped,
and nothing that XML cannot hold is left in it (XML 1.0, 2.2), so that a page parses as XML, whatever an instance says.
"""

from __future__ import annotations

import base64
import functools
import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

import mkiso
from mkiso.browse.pictures import NOT_XML
from mkiso.browse.shown import (
    LARGEST_ON_PHONE,
    WEB,
    About,
    Document,
    Nothing,
    Picture,
    ShownPatient,
    ShownReport,
    ShownSeries,
    ShownStudy,
    Why,
)
from mkiso.browse.words import Titles, clipped
from mkiso.dicom.datasets import readable_date
from mkiso.texts import texts

REPLACEMENT = "\ufffd"
LONG_WORD, A_PIECE = 16, 8
OVERVIEW = "index.htm"
DEEPEST = 6  # level of headings
LEAST_ON_PHONE = 1_000_000  # bytes that PHONE.HTM may have of any disc
ROOM_FOR_COUNTS = 500  # the sentence that says how many pictures are left out
INDEX, PHONE, PDF = "INDEX.HTM", "PHONE.HTM", ".pdf"
Render = Callable[..., str]
T = TypeVar("T")


@functools.cache
def environment() -> Environment:
    """Templates beside this module, in which an unknown name is an error and a text never is markup."""
    made = Environment(
        loader=PackageLoader("mkiso.browse", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=xml_text,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(text=shown_text, date=readable_date, time=readable_time, link=link)
    return made


def xml_text(value: Any) -> Any:
    """A text, or markup as such, without the characters that XML cannot hold; anything else as it is."""
    if isinstance(value, Markup):
        return Markup(NOT_XML.sub(REPLACEMENT, value))  # noqa: S704 (it was markup before)
    return NOT_XML.sub(REPLACEMENT, value) if isinstance(value, str) else value


def shown_text(value: str) -> Markup:
    """A text that reads in its own direction, and whose long words may break: a narrow screen need not scroll."""
    return Markup("<bdi>{}</bdi>").format(Markup(" ").join(map(_breakable, clipped(value).split())))


def _breakable(word: str) -> Markup:
    if len(word) <= LONG_WORD:
        return escape(word)
    return Markup("<wbr/>").join(word[at : at + A_PIECE] for at in range(0, len(word), A_PIECE))


def readable_time(value: datetime) -> str:
    """A time to the minute, and its zone where it has one."""
    return value.strftime("%Y-%m-%d %H:%M %Z").strip()


def link(name: str) -> str:
    """A relative link to a file of this name, which never is a URL of another scheme."""
    return quote(name, safe="/", errors="surrogateescape").lstrip("/")


@dataclass(frozen=True)
class ReportPage:
    file: str
    report: ShownReport


@dataclass(frozen=True)
class SeriesPage:
    """`place` counts from 1, over all patients; `file` is the page's below the folder of web content."""

    place: int
    patient: ShownPatient
    study: ShownStudy
    series: ShownSeries
    reports: tuple[ReportPage, ...]

    @property
    def file(self) -> str:
        return f"s{self.place:07}.htm"

    def _items(self, kind: type[T]) -> tuple[T, ...]:
        return tuple(item for item in self.series.items if isinstance(item, kind))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        return self._items(Picture)

    @property
    def documents(self) -> tuple[Document, ...]:
        return self._items(Document)

    @property
    def not_shown(self) -> tuple[Nothing, ...]:
        return self._items(Nothing)

    @property
    def images(self) -> tuple[Picture, ...]:
        """The pictures that are no pages of documents."""
        return tuple(one for one in self.pictures if not one.is_page)

    @property
    def strips(self) -> int:
        """How many of them are of ECGs."""
        return sum(one.is_strip for one in self.images)

    @property
    def documents_with_pages(self) -> Sequence[tuple[Document, Sequence[Picture]]]:
        """Each document with the pictures of its pages, which follow it."""
        found: list[tuple[Document, list[Picture]]] = []
        for one in self.series.items:
            if isinstance(one, Document):
                found.append((one, []))
            elif isinstance(one, Picture) and one.is_page and found:
                found[-1][1].append(one)
        return found

    @property
    def middle(self) -> Picture | None:
        """The picture that stands for the series: of a document its first page, of an ECG its first strip."""
        images = [one for one in self.images if not one.is_strip]
        return images[len(images) // 2] if images else next(iter(self.pictures), None)

    @property
    def is_read(self) -> bool:
        """Whether it has reports and nothing else: who has read these has seen the series."""
        return bool(self.reports) and len(self.reports) == self.series.instances

    @property
    def kinds_not_shown(self) -> Mapping[tuple[str, Why], int]:
        """How many instances of a kind are not shown for the same reason."""
        return Counter((one.kind, one.why) for one in self.not_shown)


# Patients with their studies, and these with the pages of their series.
Parts = Sequence[tuple[ShownPatient, Sequence[tuple[ShownStudy, Sequence[SeriesPage]]]]]


def outline(patients: Iterable[ShownPatient]) -> Parts:
    """Every series and report with the page that it has."""
    places, reports = itertools.count(1), itertools.count(1)

    def page(patient: ShownPatient, study: ShownStudy, series: ShownSeries) -> SeriesPage:
        return SeriesPage(next(places), patient, study, series, _report_pages(series, reports))

    return [
        (patient, [(study, [page(patient, study, series) for series in study.series]) for study in patient.studies])
        for patient in patients
    ]


def series_pages(parts: Parts) -> list[SeriesPage]:
    return [page for _, studies in parts for _, pages in studies for page in pages]


def _report_pages(series: ShownSeries, numbers: Iterator[int]) -> tuple[ReportPage, ...]:
    reports = (item for item in series.items if isinstance(item, ShownReport))
    return tuple(ReportPage(f"r{next(numbers):07}.htm", report) for report in reports)


@dataclass(frozen=True)
class OnPhone:
    """What PHONE.HTM holds: pictures as base64 by their file, reports by their page's file, the first `series`."""

    series: int
    pictures: Mapping[str, str]
    reports: Set[str] = frozenset()


def phone_page(
    pages: Sequence[SeriesPage], web: Path, titles: Titles, render: Callable[[OnPhone], str], largest: int
) -> bytes:
    """The page with as much as fits: a picture of each series, reports, documents, then pictures evenly apart."""
    series, room = _fitting(pages, render, largest)
    pictures: dict[str, str] = {}
    reports: set[str] = set()
    for one in _by_importance(pages[:series]):
        size = _size(one, web, titles)
        if size <= room and one.file not in pictures:
            room -= size
            if isinstance(one, ReportPage):
                reports.add(one.file)
            else:
                pictures[one.file] = base64.b64encode((web / one.file).read_bytes()).decode()
    return render(OnPhone(series, pictures, reports)).encode()


def evenly(count: int) -> Iterator[int]:
    """Each index below `count` once, the middle first: any first few of them lie evenly apart."""
    spans = deque([(0, count)])
    while spans:
        start, end = spans.popleft()
        if start < end:
            middle = (start + end) // 2
            yield middle
            spans += ((start, middle), (middle + 1, end))


def _fitting(pages: Sequence[SeriesPage], render: Callable[[OnPhone], str], largest: int) -> tuple[int, int]:
    """As many series as their texts alone leave room for, and that room in bytes."""
    count = len(pages)
    while True:
        texts_alone = OnPhone(count, {one.file: "" for page in pages[:count] for one in page.pictures})
        room = largest - ROOM_FOR_COUNTS - len(render(texts_alone).encode())
        if room >= 0 or not count:
            return count, room
        count //= 2


def _by_importance(pages: Sequence[SeriesPage]) -> Iterator[Picture | ReportPage]:
    """What stands for each series, what is to be read, and then of each series one picture after another."""
    yield from (page.middle for page in pages if page.middle)
    yield from (report for page in pages for report in page.reports)
    yield from (picture for page in pages for picture in page.pictures if picture.is_page)
    for one_of_each in itertools.zip_longest(*([page.images[at] for at in evenly(len(page.images))] for page in pages)):
        yield from filter(None, one_of_each)


def _size(one: Picture | ReportPage, web: Path, titles: Titles) -> int:
    """Bytes in the page beyond what the frame has of it."""
    if isinstance(one, ReportPage):
        return len(xml_text(titles.body(one.report.body, DEEPEST)).encode())
    return -(-(web / one.file).stat().st_size // 3) * 4


def write_pages(patients: Sequence[ShownPatient], about: About, stage: Path, room: float = math.inf) -> None:
    """INDEX.HTM and PHONE.HTM at the root of `stage`, and beside the pictures in `ihe_pdi` all that they link to.

    The pictures and documents of the patients are there already. PHONE.HTM has what the others leave of the bytes that
    are the `room` for all of them.
    """
    parts, web = outline(patients), stage / WEB
    web.mkdir(exist_ok=True)
    render = functools.partial(_rendered, about)
    (stage / INDEX).write_text(render("index.htm", parts=parts, web=f"{WEB}/", root=""), "utf-8")
    (web / OVERVIEW).write_text(render("index.htm", parts=parts, web="", root="../"), "utf-8")
    for file, page in _pages(render, series_pages(parts)):
        (web / file).write_text(page, "utf-8")
    phone = functools.partial(_phone, render, parts)
    taken = (file.stat().st_size for file in (stage / INDEX, *web.iterdir()) if file.suffix != PDF)
    largest = int(min(LARGEST_ON_PHONE, max(LEAST_ON_PHONE, room - sum(taken))))
    (stage / PHONE).write_bytes(phone_page(series_pages(parts), web, Titles(texts(about.language)), phone, largest))


def _rendered(about: About, template: str, **values: Any) -> str:
    said = texts(about.language)
    words = {key: said[key] for key in ("why", "sex", "laterality")} | {"t": said["pages"], "titles": Titles(said)}
    return environment().get_template(template).render(about=about, version=mkiso.__version__, **words, **values)


def _pages(render: Render, pages: Sequence[SeriesPage]) -> Iterator[tuple[str, str]]:
    """The page of each series, by its file, those of its reports, and of its pictures where there are several."""
    for before, page, after in _neighbours(pages):
        values = {"page": page, "overview": OVERVIEW}
        yield page.file, render("series.htm", before=before, after=after, **values)
        for one in page.reports:
            yield one.file, render("report.htm", report=one.report, **values)
        if len(page.pictures) > 1:
            for left, picture, right in _neighbours(page.pictures):
                yield picture.page, render("image.htm", picture=picture, before=left, after=right, **values)


def _neighbours(all_of_them: Sequence[T]) -> Iterator[tuple[T | None, T, T | None]]:
    """Each with the one before and the one after."""
    return zip([None, *all_of_them], all_of_them, [*all_of_them[1:], None], strict=False)


def _phone(render: Render, parts: Parts, chosen: OnPhone) -> str:
    pages = series_pages(parts)
    shown = pages[: chosen.series]
    left_out = {
        "series": len(pages) - chosen.series,
        "pictures": sum(len(page.pictures) for page in shown) - len(chosen.pictures),
        "reports": sum(len(page.reports) for page in shown) - len(chosen.reports),
    }
    return render("phone.htm", parts=parts, chosen=chosen, left_out=left_out)
