"""Templates of the disc's pages, and what becomes of a hostile or unreadable text in them.

Every text is escaped, and nothing that XML cannot hold is left in it (XML 1.0, 2.2), so that a page parses as XML.
"""

from __future__ import annotations

import functools
import re
from datetime import datetime
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from mkiso.contents.xhtml import NOT_XML

REPLACEMENT = "\ufffd"
HEADING = re.compile(r"<h([1-6])>(.*?)</h\1>", re.DOTALL)
LONGEST_TEXT = 1_000
LONG_WORD, A_PIECE = 16, 8


@functools.cache
def environment() -> Environment:
    """Templates beside this module, in which an unknown name is an error and a text never is markup."""
    made = Environment(
        loader=PackageLoader("mkiso.pages", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=xml_text,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(text=shown_text, date=readable_date, time=readable_time, link=link, body=body)
    return made


def xml_text(value: Any) -> Any:
    """A text, or markup as such, without the characters that XML cannot hold; anything else as it is."""
    if isinstance(value, Markup):
        return Markup(NOT_XML.sub(REPLACEMENT, value))  # noqa: S704 (it was markup before)
    return NOT_XML.sub(REPLACEMENT, value) if isinstance(value, str) else value


def shown_text(value: str) -> Markup:
    """A text that reads in its own direction, and whose long words may break: a narrow screen need not scroll."""
    return Markup("<bdi>{}</bdi>").format(Markup(" ").join(map(_breakable, clipped(value).split())))


def clipped(text: str) -> str:
    """No text of an instance, which may be endless where it is damaged, fills a page."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def _breakable(word: str) -> Markup:
    if len(word) <= LONG_WORD:
        return escape(word)
    return Markup("<wbr/>").join(word[at : at + A_PIECE] for at in range(0, len(word), A_PIECE))


def body(fragment: str, level: int) -> Markup:
    """A report's XHTML, its headings from this level on, none more than one below the heading before it."""
    before = level - 1

    def heading(found: re.Match[str]) -> str:
        nonlocal before
        before = max(level, min(int(found[1]) + level - 1, before + 1, 6))
        return f"<h{before}>{found[2]}</h{before}>"

    return Markup(HEADING.sub(heading, fragment))  # noqa: S704 (whitelisted where it was made)


def readable_date(value: str) -> str:
    """A DICOM date (VR DA, PS3.5 6.2) as `2024-03-01`; what is none as it is."""
    try:
        return datetime.strptime(value.strip(), "%Y%m%d").date().isoformat()
    except ValueError:
        return value


def readable_time(value: datetime) -> str:
    """A time to the minute, and its zone where it has one."""
    return value.strftime("%Y-%m-%d %H:%M %Z").strip()


def link(name: str) -> str:
    """A relative link to a file of this name, which never is a URL of another scheme."""
    return quote(name, safe="/", errors="surrogateescape").lstrip("/")
