"""A disc under examination: what its files say, read once, when the first check asks.

A page is seen as two kinds of readers see it: XML by expat, and what of it a browser would take for more. Browsers read
`.htm` by HTML's rules, where a comment, a CDATA section or a processing instruction may end sooner than in XML: a page
that has one proves nothing, and counts as faulty.

Of README.TXT a program reads identifiers, the viewer's entries at the root, and what is not indexed or not well-formed.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from xml.parsers import expat

from mkiso.browse.readme import MALFORMED, ascii_name
from mkiso.dicom.encoding import FileBytes
from mkiso.dicom.instances import Instance, instance_within
from mkiso.verify.dicomdir import Directory, read_dicomdir
from mkiso.verify.medium import A_FOLDER, DICOMDIR, IMAGES, INDEX, OTHER, PHONE, README, WEB, Medium, UnreadableDisc

SPACE = " "
# Those whose attributes are fetched, followed or executed by browsers.
LINKING = frozenset(
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
FILE_SET_ID, VOLUME_ID = "File-set ID: ", "Volume ID: "
NOT_INDEXED = re.compile(r"  (OTHER/\S+)  ([0-9.]+)")
NOT_WELL_FORMED = re.compile(rf"  (\S+)  ([0-9.]+)  {re.escape(MALFORMED)}")
INDENT = "  "
# What a hostile disc has read into memory is bounded by what these files tell of each instance: so many bytes at most,
# of records so many elements; and never more than an archive itself has.
LARGEST_DICOMDIR, LARGEST_README, LARGEST_PAGE, LARGEST_PAGES = 1 << 29, 1 << 26, 1 << 24, 1 << 28
LEAST, A_RECORD, A_LINE, ELEMENTS = 1 << 20, 1 << 12, 1 << 8, 64
LEAST_LINKS, LINKS = 10_000, 8


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
        elif name in LINKING and EXECUTING.match(value):
            self.active.append(f"{name}={value[:40]}")
        elif name in LINKING and not (tag == "img" and value.startswith(PICTURE + JPEG)):
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


@dataclass(frozen=True)
class Readme:
    """`entries` are all lines that may name the viewer's files at the root, in capitals.

    `not_indexed` and `malformed` are UIDs by file.
    """

    data: bytes
    file_set_id: str | None
    volume_id: str | None
    entries: frozenset[str]
    not_indexed: dict[str, str]
    malformed: dict[str, str]


def read_readme(data: bytes) -> Readme:
    """What any bytes tell as a README.TXT."""
    lines = data.decode("ascii", "replace").splitlines()
    return Readme(
        data,
        _labelled(lines, FILE_SET_ID),
        _labelled(lines, VOLUME_ID),
        frozenset(line.removeprefix(INDENT).upper() for line in lines if line.startswith(INDENT)),
        {match[1]: match[2] for match in filter(None, map(NOT_INDEXED.fullmatch, lines))},
        {match[1]: match[2] for match in filter(None, map(NOT_WELL_FORMED.fullmatch, lines))},
    )


def _labelled(lines: list[str], label: str) -> str | None:
    return next((line.removeprefix(label) for line in lines if line.startswith(label)), None)


class DiscRead:
    """The files of a medium, and what they say."""

    def __init__(self, medium: Medium) -> None:
        self.medium = medium
        self._walked: dict[tuple[int, ...], Instance | None] = {}

    def content(self, name: str, most: int) -> bytes:
        """A file of at most so many bytes. Raises UnreadableDisc, OSError."""
        with self.medium.opened(name) as extent:
            if extent.size > most:
                raise UnreadableDisc(f"{name} has {extent.size} bytes, and may have {most} on this disc")
            data = extent.read(most)
            if len(data) < extent.size:
                raise UnreadableDisc(f"{name} is cut short")
        return data

    @cached_property
    def directory(self) -> Directory:
        """The DICOMDIR. Raises UnreadableDisc where there is none, or a torn one."""
        if (name := self.medium.find(DICOMDIR)) is None:
            raise UnreadableDisc("there is no DICOMDIR at the root")
        count = len(self.medium.files)
        data = self.content(name, min(LARGEST_DICOMDIR, LEAST + min(A_RECORD * count, self.medium.packed)))
        return read_dicomdir(data, ELEMENTS * (count + A_FOLDER))

    @property
    def is_legacy(self) -> bool:
        """Whether it is of the other layout, whose instances lie in a folder of that name."""
        return self.medium.find(DICOMDIR) is None and DICOMDIR in map(str.upper, self.medium.folders)

    @cached_property
    def readme(self) -> Readme:
        """README.TXT; one that says nothing where there is none."""
        name = self.medium.find(README)
        most = min(LARGEST_README, LEAST + min(A_LINE * len(self.medium.files), self.medium.packed))
        return read_readme(self.content(name, most) if name else b"")

    @cached_property
    def images(self) -> dict[str, Instance | None]:
        """Below IMAGES, the instance in each file; None where there is none to be read."""
        return self._instances(IMAGES)

    @cached_property
    def others(self) -> dict[str, Instance | None]:
        """Below OTHER, as those below IMAGES."""
        return self._instances(OTHER)

    @cached_property
    def legacy(self) -> dict[str, Instance | None]:
        """Below the folder DICOMDIR of the other layout, as those below IMAGES."""
        return self._instances(DICOMDIR)

    @cached_property
    def pages(self) -> tuple[Page, ...]:
        """INDEX.HTM, PHONE.HTM and the pages among the web content."""
        roots = (name for one in (INDEX, PHONE) if (name := self.medium.find(one)))
        below = (name for name in self.medium.below(WEB) if name.upper().endswith(".HTM"))
        names = tuple(dict.fromkeys((*roots, *below)))
        if (size := sum(self.medium.files[name] for name in names)) > LARGEST_PAGES:
            raise UnreadableDisc(f"its pages have {size} bytes")
        most = LEAST_LINKS + LINKS * len(self.medium.files)
        pages: list[Page] = []
        for name in names:
            pages.append(read_page(name, self.content(name, LARGEST_PAGE), most))
            most -= pages[-1].count
        return tuple(pages)

    @cached_property
    def is_in_capitals(self) -> bool:
        """Whether the medium knows no other names."""
        return all(name == name.upper() for name in self.medium.below(WEB))

    def is_viewers(self, root: str) -> bool:
        """Whether README.TXT names something at the root as the viewer's."""
        return ascii_name(root).upper() in self.readme.entries

    def _instances(self, folder: str) -> dict[str, Instance | None]:
        return {name: self._instance(name) for name in self.medium.below(folder)}

    def _instance(self, name: str) -> Instance | None:
        try:
            with self.medium.opened(name) as extent:
                if extent.place not in self._walked:
                    content = FileBytes(extent.piece, extent.size)
                    self._walked[extent.place] = instance_within(Path(name), content, (extent.size, 0))
                return self._walked[extent.place]
        except (UnreadableDisc, OSError):
            return None
