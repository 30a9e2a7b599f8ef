"""What things are called on the pages where they may lack a number, a title or a description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mkiso.contents.shown import Document, Picture, Report, Series, Study
from mkiso.pages.markup import clipped, readable_date


@dataclass(frozen=True)
class Titles:
    """Plain texts, in the language of `said`: whoever puts one into a page escapes it."""

    said: Mapping[str, str]

    def study(self, study: Study) -> str:
        return _joined(" ", readable_date(study.date), study.description) or self.said["study"]

    def series(self, series: Series) -> str:
        number = self.said["series_number"].format(number=series.number).strip()
        return _joined(": ", number, _joined(", ", series.modality, series.description))

    def series_without_modality(self, series: Series) -> str:
        return _joined(": ", self.said["series_number"].format(number=series.number).strip(), series.description)

    def report(self, report: Report) -> str:
        return report.title or self.said["report"].format(number=report.number).strip()

    def document(self, document: Document) -> str:
        return document.title or self.said["document"].format(number=document.number).strip()

    def picture(self, picture: Picture) -> str:
        kind = "document" if picture.is_page else "image"
        return _joined(", ", self.said[kind].format(number=picture.number).strip(), self._frame(picture))

    def alternative(self, series: Series, picture: Picture) -> str:
        """What a picture is for those who do not see it."""
        return _joined(", ", series.modality, series.description, self.picture(picture))

    def _frame(self, picture: Picture) -> str:
        if picture.is_page:
            return self.said["page"].format(page=picture.frame)
        if picture.frames == 1:
            return ""
        return self.said["frame"].format(frame=picture.frame, frames=picture.frames)


def _joined(between: str, *parts: str) -> str:
    return clipped(between.join(part for part in parts if part))
