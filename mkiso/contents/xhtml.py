"""A stranger's page made harmless: elements of a whitelist, none with attributes, in well-formed XHTML.

What is no such element is dropped, and its text stays, a script's and a comment's too: as text.
"""

from __future__ import annotations

import re
from html import escape
from html.parser import HTMLParser

BODY, FOOTER = "<body>", '<hr />\n<div class="footnote">'  # as dsr2html writes them
HEADINGS = {"h1": "h2", "h2": "h3", "h3": "h4", "h4": "h4", "h5": "h4", "h6": "h4"}
VOID = frozenset({"br", "hr"})
KEPT = frozenset(
    "b blockquote dd div dl dt em i li ol p pre strong sub sup table tbody td th thead tr u ul".split()  # noqa: SIM905
)
ELEMENTS = VOID | KEPT | frozenset(HEADINGS.values())
SUPERSCRIPT = ("class", "super")
# Elsewhere these would end what the page around them has begun (HTML 13.2.6.4).
PARENTS = {
    "dd": {"dl"},
    "dt": {"dl"},
    "li": {"ol", "ul"},
    "tbody": {"table"},
    "td": {"tr"},
    "th": {"tr"},
    "thead": {"table"},
    "tr": {"table", "tbody", "thead"},
}
DEEPEST = 100
MANY = 10_000
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0 2.2


def harmless(page: str) -> str:
    """What the body of dsr2html's page says, without its footer, as XHTML that stands within another body."""
    _, body, content = page.partition(BODY)
    content = content if body else page
    rewriter = _Rewriter()
    rewriter.feed(content.rpartition(FOOTER)[0] or content)
    rewriter.close()
    return rewriter.finished()


class _Rewriter(HTMLParser):
    def set_cdata_mode(self, *_elem: object, **_ways: object) -> None:
        """A script is markup as everything else: it swallows nothing."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[tuple[str, str]] = []  # an element as the page names it, and what it became, if anything
        self._written: list[str] = []
        self._pieces: list[str] = []  # what was written last: each takes 50 bytes more than it has

    def finished(self) -> str:
        self._close(0)
        return "".join((*self._written, *self._pieces)).strip()

    def _write(self, piece: str) -> None:
        self._pieces.append(piece)
        if len(self._pieces) >= MANY:
            self._written.append("".join(self._pieces))
            self._pieces.clear()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        name = "sup" if tag == "span" and SUPERSCRIPT in attrs else HEADINGS.get(tag, tag)
        if name in VOID:
            self._write(f"<{name} />")
        elif (name in KEPT or tag in HEADINGS or tag == "span") and len(self._open) < DEEPEST:
            name = name if self._may_stand_here(name) else ""
            self._open.append((tag, name))
            self._write(name and f"<{name}>")

    def handle_endtag(self, tag: str) -> None:
        for at in reversed(range(len(self._open))):
            if self._open[at][0] == tag:
                self._close(at)
                return

    def handle_data(self, data: str) -> None:
        self._write(escape(NOT_XML.sub(" ", data), quote=False))

    handle_comment = handle_pi = unknown_decl = handle_data

    def handle_decl(self, decl: str) -> None:
        self.handle_data(decl)

    def _may_stand_here(self, name: str) -> bool:
        inside = next((became for _, became in reversed(self._open) if became), "")
        return name in ELEMENTS and inside in PARENTS.get(name, {inside})

    def _close(self, at: int) -> None:
        for _, name in reversed(self._open[at:]):
            self._write(name and f"</{name}>")
        del self._open[at:]
