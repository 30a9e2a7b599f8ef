"""A page of a disc as two kinds of readers see it: XML by expat, and what of it a browser would take for more.

Browsers read `.htm` by HTML's rules, where a comment, a CDATA section or a processing instruction may end
sooner than in XML: a page that has one proves nothing, and counts as faulty.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from xml.parsers import expat

SPACE = " "
# Those whose attributes are fetched, followed or executed by browsers.
LINKS = frozenset(
    """action archive background cite classid codebase data formaction href longdesc manifest ping poster src srcset
    """.split()  # noqa: SIM905
)
EXECUTED = frozenset(
    """applet base embed form frame frameset iframe math object script style svg template
    """.split()  # noqa: SIM905
)
EXECUTING = re.compile(r"\s*(javascript|vbscript|data:(?!image/jpeg))", re.IGNORECASE)
PICTURE, JPEG = "data:image/jpeg;base64,", "/9j/"
POLICY, REFRESH = "content-security-policy", "refresh"
# More than a disc's pages have; expat holds what is open, and all attributes of an element.
DEEPEST, MOST_ATTRIBUTES = 256, 256
ELEMENT, ATTRIBUTE = re.compile(rb"<[^<]*"), re.compile(rb"=\s*[\"']")


@dataclass
class Page:
    """What a page links to, what in it may be executed or styled, its policy, and why it is no XHTML.

    It has `most` of these in all.
    """

    name: str
    most: int = sys.maxsize
    fault: str | None = None
    links: list[str] = field(default_factory=list)
    active: list[str] = field(default_factory=list)
    policies: list[str] = field(default_factory=list)
    _depth: int = 0

    @property
    def count(self) -> int:
        """How many links, policies and things to execute it has."""
        return len(self.links) + len(self.active) + len(self.policies)

    def enter(self, tag: str, attributes: dict[str, str]) -> None:
        """Take an element in; ValueError where there are too many."""
        self._depth += 1
        if self._depth > DEEPEST or self.count > self.most:
            _refuse("more elements in elements, or links, than a disc's page")
        local = _local(tag)
        if local in EXECUTED:
            self.active.append(f"<{local}>")
        values = {_local(name): value for name, value in attributes.items()}
        for name, value in values.items():
            self._attribute(local, name, value)
        if local == "link" and "stylesheet" in values.get("rel", "").lower():
            self.active.append("a style sheet")
        if local == "meta":
            self._meta(values.get("http-equiv", "").lower(), values.get("content", ""))

    def leave(self, _tag: str) -> None:
        """The element ends."""
        self._depth -= 1

    def _attribute(self, tag: str, name: str, value: str) -> None:
        if name.startswith("on") or name == "style":
            self.active.append(f"{name}= of <{tag}>")
        elif name in LINKS and EXECUTING.match(value):
            self.active.append(f"{name}={value[:40]}")
        elif name in LINKS and not (tag == "img" and value.startswith(PICTURE + JPEG)):
            self.links.append(value[:1000])

    def _meta(self, kind: str, content: str) -> None:
        if kind == POLICY:
            self.policies.append(content)
        elif kind == REFRESH:
            self.active.append("a refresh")


def _local(name: str) -> str:
    return name.rpartition(SPACE)[2].lower()


def read_page(name: str, data: bytes, most: int = sys.maxsize) -> Page:
    """Any bytes as a page, of so many links at most; entities of its own are never expanded."""
    page = Page(name, most)
    parser = expat.ParserCreate(namespace_separator=SPACE)
    parser.buffer_text = True
    parser.StartElementHandler = page.enter
    parser.EndElementHandler = page.leave
    parser.XmlDeclHandler = lambda _version, encoding, _standalone: _require_utf8(encoding)
    parser.EntityDeclHandler = lambda *_declared: _refuse("an entity of its own")
    parser.CommentHandler = lambda _text: _refuse("a comment")
    parser.StartCdataSectionHandler = lambda: _refuse("a CDATA section")
    parser.ProcessingInstructionHandler = lambda _target, _text: _refuse("a processing instruction")
    try:
        data.decode("utf-8")
        if any(len(ATTRIBUTE.findall(element[0])) > MOST_ATTRIBUTES for element in ELEMENT.finditer(data)):
            _refuse("an element with too many attributes")
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError) as error:
        page.fault = str(error)
    return page


def _require_utf8(encoding: str | None) -> None:
    if (encoding or "utf-8").lower() not in {"utf-8", "us-ascii"}:
        _refuse(f"the encoding {encoding}")


def _refuse(what: str) -> None:
    raise ValueError(f"it has {what}")
