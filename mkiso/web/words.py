"""How pages say things: in the language of who reads them, with times, dates and sizes as people write them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import request

from mkiso.texts import Texts, texts

LANGUAGES = ("en", "id")
UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


def language() -> str:
    """The language that the browser asks for, of those that there are."""
    return request.accept_languages.best_match(LANGUAGES) or LANGUAGES[0]


def said() -> Texts:
    """The texts of that language."""
    return texts(language())


def local_time(text: str | None) -> str:
    """A time of the ledger, which has UTC, as a clock on the wall shows it here."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M") if text else ""


def date(text: str) -> str:
    """A date of DICOM (VR DA, PS3.5 6.2) as ISO 8601 has it; what is none stays as it is."""
    is_date = len(text) == len("YYYYMMDD") and text.isdecimal()
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if is_date else text


def size(count: int) -> str:
    """Bytes, with one decimal where that says something."""
    name, unit = next((one for one in UNITS if count >= one[1]), UNITS[-1])
    return f"{_decimal(count / unit)} {name}"


def duration(seconds: float) -> str:
    """As on a stop-watch."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes else f"{_decimal(seconds)} s"


def _decimal(number: float) -> str:
    text = f"{number:.1f}" if number < 10 else f"{number:.0f}"  # noqa: PLR2004
    return text.replace(".", ",") if language() == "id" else text


FILTERS: dict[str, Any] = {"local_time": local_time, "date": date, "size": size, "duration": duration}
