"""How the pages of a disc hang together: a page a series, a page a report, named once and in order."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mkiso.contents.shown import Document, Nothing, Patient, Picture, Report, Series, Study, Why

OVERVIEW = "index.htm"


@dataclass(frozen=True)
class ReportPage:
    file: str
    report: Report


@dataclass(frozen=True)
class SeriesPage:
    """`place` counts from 1, over all patients; `file` is the page's below the folder of web content."""

    place: int
    patient: Patient
    study: Study
    series: Series
    reports: tuple[ReportPage, ...]

    @property
    def file(self) -> str:
        return f"s{self.place:07}.htm"

    @property
    def pictures(self) -> tuple[Picture, ...]:
        return tuple(item for item in self.series.items if isinstance(item, Picture))

    @property
    def middle(self) -> Picture | None:
        """The picture that stands for the series."""
        return self.pictures[len(self.pictures) // 2] if self.pictures else None

    @property
    def not_shown(self) -> tuple[Nothing, ...]:
        return tuple(item for item in self.series.items if isinstance(item, Nothing))

    @property
    def kinds_not_shown(self) -> Mapping[tuple[str, Why], int]:
        """How many instances of a kind are not shown for the same reason."""
        return Counter((one.kind, one.why) for one in self.not_shown)

    @property
    def documents(self) -> tuple[Document, ...]:
        return tuple(item for item in self.series.items if isinstance(item, Document))


# Patients with their studies, and these with the pages of their series.
Parts = Sequence[tuple[Patient, Sequence[tuple[Study, Sequence[SeriesPage]]]]]


def outline(patients: Iterable[Patient]) -> Parts:
    """Every series and report with the page that it has."""
    places, reports = itertools.count(1), itertools.count(1)

    def page(patient: Patient, study: Study, series: Series) -> SeriesPage:
        return SeriesPage(next(places), patient, study, series, _report_pages(series, reports))

    return [
        (patient, [(study, [page(patient, study, series) for series in study.series]) for study in patient.studies])
        for patient in patients
    ]


def series_pages(parts: Parts) -> list[SeriesPage]:
    return [page for _, studies in parts for _, pages in studies for page in pages]


def _report_pages(series: Series, numbers: Iterator[int]) -> tuple[ReportPage, ...]:
    reports = (item for item in series.items if isinstance(item, Report))
    return tuple(ReportPage(f"r{next(numbers):07}.htm", report) for report in reports)
