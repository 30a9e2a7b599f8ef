"""The pages of a `pdi` disc, for any browser: XHTML without script and CSS, below a Content-Security-Policy.

Links are relative and in lower case, as the names are, so that they hold on a case-sensitive copy as on ISO 9660.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mkiso
from mkiso.contents.shown import WEB, About, Patient
from mkiso.pages.markup import environment
from mkiso.pages.outline import OVERVIEW, Parts, SeriesPage, outline, series_pages
from mkiso.pages.phone import Chosen, phone_page
from mkiso.pages.titles import Titles
from mkiso.texts import texts

INDEX, PHONE = "INDEX.HTM", "PHONE.HTM"

Render = Callable[..., str]


def write_pages(patients: Sequence[Patient], about: About, stage: Path) -> None:
    """INDEX.HTM and PHONE.HTM at the root of `stage`, and beside the pictures in `ihe_pdi` all that they link to.

    The pictures and documents of the patients are there already.
    """
    parts, web = outline(patients), stage / WEB
    web.mkdir(exist_ok=True)
    render = functools.partial(_rendered, about)
    (stage / INDEX).write_text(render("index.htm", parts=parts, web=f"{WEB}/", root=""), "utf-8")
    (web / OVERVIEW).write_text(render("index.htm", parts=parts, web="", root="../"), "utf-8")
    for file, page in _pages(render, series_pages(parts)):
        (web / file).write_text(page, "utf-8")
    phone = functools.partial(_phone, render, parts)
    (stage / PHONE).write_bytes(phone_page(series_pages(parts), web, phone))


def _rendered(about: About, template: str, **values: Any) -> str:
    said, page = texts(about.language), environment().get_template(template)
    return page.render(
        about=about,
        version=mkiso.__version__,
        t=said["pages"],
        why=said["why"],
        sex=said["sex"],
        titles=Titles(said["pages"]),
        **values,
    )


def _pages(render: Render, pages: Sequence[SeriesPage]) -> Iterator[tuple[str, str]]:
    """The page of each series, by its file, and those of its reports."""
    for before, page, after in zip([None, *pages], pages, [*pages[1:], None], strict=False):
        values = {"page": page, "overview": OVERVIEW}
        yield page.file, render("series.htm", before=before, after=after, **values)
        for one in page.reports:
            yield one.file, render("report.htm", report=one.report, **values)


def _phone(render: Render, parts: Parts, chosen: Chosen) -> str:
    shown = series_pages(parts)[: chosen.series]
    left_out = {
        "series": chosen.series_in_all - chosen.series,
        "pictures": sum(len(page.pictures) for page in shown) - len(chosen.pictures),
        "reports": sum(len(page.reports) for page in shown) - len(chosen.reports),
    }
    return render("phone.htm", parts=parts, chosen=chosen, left_out=left_out)
