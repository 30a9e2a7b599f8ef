"""Exactly the studies and series that somebody chose."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace

from mkiso.dcmtk.findscu import Finder, QueryRefused
from mkiso.errors import SeriesNotFound
from mkiso.retrieve.studies import Study, count, find_by_uid, find_studies


def find_chosen(
    finder: Finder, accessions: Sequence[str], study_uids: Sequence[str], series_uids: Collection[str]
) -> list[Study]:
    """The studies of the accession numbers and of the UIDs, their instances not yet looked up.

    Of a study that has some of the series there is an entry for each of these, in which that alone is wanted. Without
    numbers and studies they are those of the series, from an archive that tells them. Raises AccessionNotFound,
    StudyNotFound, SeriesNotFound, and what the finder raises.
    """
    studies = {study.study_uid: study for study in find_studies(finder, accessions)}
    if not (accessions or study_uids):
        study_uids = list(dict.fromkeys(_study_of(finder, series_uid) for series_uid in sorted(series_uids)))
    others = find_by_uid(finder, [uid for uid in study_uids if uid not in studies])
    studies |= {study.study_uid: study for study in others}
    found = [part for study in studies.values() for part in (_parts(finder, study, series_uids) or [study])]
    if missing := set(series_uids) - {one.series_uid for one in found}:
        first = min(missing)
        raise SeriesNotFound(
            f"None of the studies that were asked for has the series {first} in the PACS.", series=first
        )
    return found


def _parts(finder: Finder, study: Study, series_uids: Collection[str]) -> list[Study]:
    if not series_uids:
        return []
    series = {one["SeriesInstanceUID"]: one for one in finder.series(study.study_uid)}
    return [
        replace(
            study,
            series_uid=uid,
            counted=count(one["NumberOfSeriesRelatedInstances"]),
            counted_series=len(series),
        )
        for uid, one in series.items()
        if uid in series_uids
    ]


def _study_of(finder: Finder, series_uid: str) -> str:
    """The study that has the series, for an archive that answers without it (PS3.4 C.4.1.2.2.1)."""
    found: set[str] = set()
    with suppress(QueryRefused):
        found = finder.studies_of_series(series_uid)
    if len(found) == 1:
        return found.pop()
    raise SeriesNotFound(
        f"The PACS does not tell the one study that has the series {series_uid}. Give study_uids, too.",
        series=series_uid,
    )
