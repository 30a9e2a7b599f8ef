"""What a disc's pages call things, in a language's words: for people who know no DICOM, and exact for those who do.

Plain texts, but for a report's body: whoever puts one into a page escapes it. What a stranger wrote is never changed;
only codes of DICOM (modalities, PS3.3 C.7.3.1.1.1; body parts, PS3.16 L) and headings that are common in reports, or
DCMTK's own, become words.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape, unescape

from mkiso.browse.shown import Document, Nothing, Part, Picture, ShownReport, ShownSeries, ShownStudy, Why
from mkiso.dicom.datasets import is_date, readable_date
from mkiso.texts import Texts

LONGEST_TEXT = 1_000
MOST_KINDS = 3  # of images that a study's line names
NO_IMAGES = frozenset({"SR", "KO", "PR", "DOC", "PLAN", "REG", "RTPLAN", "RTRECORD", "RTSTRUCT", "SEG", "OT", "AU"})
WITHOUT_BODY = frozenset({"MG", "ECG", "IO", "PX", "OP", "OPT"})  # that have the part of the body in their name
NOT_OF_A_CODE = re.compile("[^A-Z0-9]")
HEADING = re.compile(r"<h([1-6])>(.*?)</h\1>", re.DOTALL)
# Each reads a report, which may be long and hostile, in a time by its length.
LABEL = re.compile(r"<(b|td|h[1-6])>([^<>]*)</\1>")
PARAGRAPH, RELATION = re.compile(r"<p>.*?</p>", re.DOTALL), re.compile(r"(<p>|<br />)(\s?)([^<>:]{1,60}):")
OF_SEX = re.compile(r"(<td><b>Patient:</b></td>\s<td>[^<]*\()(male|female|other)(?=[,)])")  # as dsr2html writes it


@dataclass(frozen=True)
class Titles:
    """What things are called, also where they lack a number, a title or a description."""

    texts: Texts

    @property
    def phrases(self) -> Mapping[str, str]:
        """Those of the pages."""
        return self.texts["pages"]

    def study(self, study: ShownStudy | Part) -> str:
        """Its date and description, as other systems show them."""
        return _joined(" ", readable_date(study.date), study.description) or self.phrases["study"]

    def in_words(self, study: ShownStudy) -> str:
        """`Chest X-ray, 28 November 2026`: what was looked at, and when."""
        all_kinds = dict.fromkeys(one.modality for one in study.series)
        kinds = [one for one in all_kinds if one not in NO_IMAGES] or list(all_kinds)
        words = list(filter(None, dict.fromkeys(map(self.modality, kinds))))[:MOST_KINDS]
        bodies = {self._body(one.body_part) for one in study.series if one.modality in kinds} - {""}
        what = functools.reduce(self._both, words) if words else self.phrases["study"]
        if len(bodies) == 1 and words and not WITHOUT_BODY & set(kinds):
            what = self.phrases["of_body"].format(body=bodies.pop(), modality=what)
        return _joined(", ", what[:1].upper() + what[1:], self.date(study.date))

    def date(self, text: str) -> str:
        """A day (VR DA, PS3.5 6.2) as `28 November 2026`; what is none as it is."""
        day = text.strip()
        if not is_date(day):
            return text
        month = self.texts["months"][str(int(day[4:6]))]
        return self.phrases["day"].format(day=int(day[6:]), month=month, year=int(day[:4]))

    def modality(self, code: str) -> str:
        """The word for a modality; empty where there is none."""
        return self.texts["modalities"].get(code, "")

    def kind(self, series: ShownSeries) -> str:
        """The word for its modality, else its code."""
        word = self.modality(series.modality)
        return word[:1].upper() + word[1:] or series.modality

    def series(self, series: ShownSeries) -> str:
        return _joined(": ", self._numbered("series_number", series.number), series.description or self.kind(series))

    def on_card(self, series: ShownSeries) -> tuple[str, str]:
        """What it is, and in small print the rest."""
        document = next((self.document(one) for one in series.items if isinstance(one, Document)), "")
        number, kind = self._numbered("series_number", series.number), self.kind(series)
        name = series.description or document or kind
        rest = ("" if name == kind else kind, number if name else "", self.contents(series))
        return name or number, _joined(" · ", *rest)

    def report(self, report: ShownReport) -> str:
        known = self.texts["report"].get(report.title, report.title)
        return known or self._numbered("report", report.number)

    def document(self, document: Document) -> str:
        known = self.texts["report"].get(document.title, document.title)
        return known or self._numbered("document", document.number)

    def picture(self, picture: Picture) -> str:
        kind, which = (
            ("document", "page") if picture.is_page else ("ecg", "strip") if picture.is_strip else ("image", "frame")
        )
        name = self._numbered(kind, picture.number)
        if picture.frames == 1 and not picture.is_page:
            return _joined(", ", name)
        return _joined(", ", name, self.phrases[which].format(**{which: picture.frame, "frames": picture.frames}))

    def alternative(self, series: ShownSeries, picture: Picture) -> str:
        """What a picture is for those who do not see it."""
        return _joined(", ", self.kind(series), series.description, self.picture(picture))

    def contents(self, series: ShownSeries) -> str:
        """How many images, reports and documents it has, and how many DICOM files that are none of these."""
        return ", ".join(self.counted(kind, count) for kind, count in _counts(series))

    def counted(self, kind: str, count: int) -> str:
        """`1 report`, `2 reports`."""
        return self.phrases[f"one_{kind}" if count == 1 else f"many_{kind}"].format(count=count)

    def body(self, fragment: str, level: int, title: str = "") -> str:
        """A report's XHTML, its headings in words and from this level on, each one level below what it belongs to.

        The first is left out where it says no more than the report's `title`.
        """
        above: list[int] = []

        def heading(found: re.Match[str]) -> str:
            nonlocal title
            repeats, title = unescape(found[2]).strip() == title != "", ""
            if repeats:
                return ""
            while above and above[-1] >= int(found[1]):
                above.pop()
            above.append(int(found[1]))
            to = min(level + len(above) - 1, 6)
            return f"<h{to}>{found[2]}</h{to}>"

        return self._translated(HEADING.sub(heading, fragment))

    def _translated(self, fragment: str) -> str:
        """Its labels in words: those that are all of a heading, of a table's cell, or of what is bold.

        And how DCMTK says that items belong together, which begins the lines of its paragraphs.
        """
        words = self.texts["report"]

        def label(found: re.Match[str]) -> str:
            text = unescape(found[2]).strip()
            colon = ":" if text.endswith(":") else ""
            word = words.get(text.removesuffix(":"))
            return f"<{found[1]}>{escape(word, quote=False)}{colon}</{found[1]}>" if word else found[0]

        def relation(found: re.Match[str]) -> str:
            return f"{found[1]}{found[2]}{escape(words.get(found[3], ''), quote=False) or found[3]}:"

        fragment = OF_SEX.sub(lambda found: found[1] + words[found[2]], fragment, count=1)
        return PARAGRAPH.sub(lambda found: RELATION.sub(relation, found[0]), LABEL.sub(label, fragment))

    def _both(self, one: str, other: str) -> str:
        return self.phrases["and"].format(one=one, other=other)

    def _body(self, code: str) -> str:
        return self.texts["body_parts"].get(NOT_OF_A_CODE.sub("", code.upper()), "")

    def _numbered(self, key: str, number: str) -> str:
        return self.phrases[key].format(number=number).strip()


def clipped(text: str) -> str:
    """No text of an instance, which may be endless where it is damaged, fills a page."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def _joined(between: str, *parts: str) -> str:
    return clipped(between.join(part for part in parts if part))


def _counts(series: ShownSeries) -> Iterator[tuple[str, int]]:
    """What there is some of. Of a series that shows no image, what is neither report nor document may be anything."""
    items = series.items
    reports = sum(isinstance(one, ShownReport) for one in items)
    documents = sum(isinstance(one, Document) for one in items)
    others = sum(isinstance(one, Nothing) and one.why is Why.NO_PIXELS for one in items)
    pictures = [one for one in items if isinstance(one, Picture) and not one.is_page]
    ecgs = sum(one.is_strip and one.frame == 1 for one in pictures)
    rest = max(0, series.instances - reports - documents - others - ecgs)
    images = [one for one in pictures if not one.is_strip]
    if images and series.instances == 1 and images[0].frames > 1:
        yield "frame", images[0].frames
        return
    kinds = {"image": rest if images else 0, "ecg": ecgs, "report": reports, "document": documents}
    yield from ((kind, count) for kind, count in kinds.items() if count)
    if files := others if images else rest + others:
        yield "other" if any(kinds.values()) else "file", files
