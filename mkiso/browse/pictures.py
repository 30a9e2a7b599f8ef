"""What programs make of an instance for a browser: pictures of its frames, a report as XHTML, a PDF and its pages,
an ECG's strips.

Pictures are properly windowed, and small enough for a page. What can be made of an instance's pixels is known by how
they are encoded (PS3.5 A), and how large they are decoded.

A report's page comes from a stranger and is made harmless: elements of a whitelist, none with attributes, in
well-formed XHTML. What is no such element is dropped, and its text stays, a script's and a comment's too: as text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

from pydicom import uid
from pydicom.uid import UID

from mkiso.browse import marks, views
from mkiso.browse.choice import Header, Wanted
from mkiso.browse.shown import Bench, Document, Late, Nothing, Other, Picture, ShownReport, Why, require_small
from mkiso.dcmtk import converters
from mkiso.dcmtk.converters import (
    Reading,
    TooLarge,
    View,
    jpeg_size,
    make_document,
    make_picture,
    make_report,
    make_strips,
    stored_window,
    write_in_utf8,
)
from mkiso.dicom.instances import Instance
from mkiso.errors import Internal
from mkiso.process import ToolTimeout
from mkiso.workspace import require_room

SIZES = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames")
RAW = frozenset({uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian})
JPEG = frozenset({uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1})
JPEG_LS = frozenset({uid.JPEGLSLossless, uid.JPEGLSNearLossless})
# Of RLE, GDCM makes wrong colours where samples have more than 8 bits.
GDCM_DECODES = JPEG | JPEG_LS | {uid.JPEG2000Lossless, uid.JPEG2000}
LOSSLESS = frozenset(
    {
        uid.DeflatedExplicitVRLittleEndian,
        uid.RLELossless,
        uid.JPEGLossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEG2000Lossless,
    }
)
# Bytes that are decoded for a picture: of a frame by dcmj2pnm, by gdcmconv of all. They fit into conversion.MEMORY.
LARGEST, LARGEST_OF_GDCM = 1 << 29, 300 << 20
KEYWORDS = (*SIZES, *views.KEYWORDS, *marks.KEYWORDS)
DECODED_BY_DCMTK = RAW | JPEG | {uid.RLELossless, uid.DeflatedExplicitVRLittleEndian}
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
# In bytes, inflated. A document is on the disc twice.
LARGEST_REPORT, LARGEST_DOCUMENT = 1 << 24, 1 << 28
CONCEPT = "ConceptNameCodeSequence"


def frame_bytes(header: Header) -> int:
    """What a decoded frame takes (PS3.5 8.1.1), as far as the header tells by its SIZES."""
    rows, columns, samples, bits = (header.number(keyword) for keyword in SIZES[:-1])
    return (rows * columns * max(1, samples) * max(1, bits) + 7) // 8


def pixel_bytes(header: Header) -> int:
    """What all frames take."""
    return frame_bytes(header) * max(1, header.number("NumberOfFrames"))


@dataclass(frozen=True)
class _Looked:
    """An instance that is looked at: what is wanted of it, and its header."""

    bench: Bench
    wanted: Wanted
    header: Header

    def name_of(self, view: View) -> str:
        return views.name_of_window(self.header, 1) if view.window == stored_window(1) else ""


def pictures(bench: Bench, wanted: Wanted, files: Sequence[str]) -> Iterator[Picture | Nothing]:
    """Each frame that is wanted, in the file of its name; why not, where there is nothing to be seen.

    Raises TooLarge where it would take too much; Late and ToolTimeout where it takes too long; Internal, Busy.
    """
    instance, header = wanted.instance, Header(wanted.instance.path, KEYWORDS)
    if instance.is_deflated:
        require_small(instance, LARGEST)
    if not (header.number("Rows") and header.number("Columns")):
        why = Why.BROKEN if header.broken else Why.NO_PIXELS
        yield from (nothing(instance, why) for _ in wanted.frames)
        return
    program = converters.gdcmconv_installed() if instance.transfer_syntax in GDCM_DECODES else None
    source = instance.path if instance.transfer_syntax in DECODED_BY_DCMTK else None
    missed = nothing(instance, Why.BROKEN if source or program else Why.SYNTAX)
    raw, looked = bench.path(instance, "raw"), _Looked(bench, wanted, header)
    try:
        for frame, file in zip(wanted.frames, files, strict=True):
            picture = _picture(looked, source, file, frame)
            if picture is None and program:  # from here on of what gdcmconv makes of it
                source, program = raw if _decoded(bench, header, program, instance, raw) else source, None
                picture = _picture(looked, source, file, frame)
            yield picture or missed
    finally:
        raw.unlink(missing_ok=True)


def nothing(instance: Instance, why: Why) -> Nothing:
    return Nothing(instance.instance_number, uid.UID(instance.sop_class_uid).name, why)


def _picture(looked: _Looked, source: Path | None, file: str, frame: int) -> Picture | None:
    """A frame's picture, through a second window too where that is wanted; None where no way to look gives one."""
    if source is None:
        return None
    bench, header, wanted = looked.bench, looked.header, looked.wanted
    _require_few(frame_bytes(header), LARGEST)
    for view in views.views(header, wanted.instance.sop_class_uid, frame):
        if size := _made(looked, source, bench.web / file, view):
            place = wanted.before + frame
            number, window, of = wanted.instance.instance_number, looked.name_of(view), wanted.of
            other = _other(looked, source, file, view)
            where = marks.marks(header, wanted.of)
            return Picture(file, *size, number, frame, of, False, place, wanted.in_series, window, where, other)
    return None


def _other(looked: _Looked, source: Path, first: str, view: View) -> Other | None:
    number, file = views.other_window(looked.header), other_file(first)
    if number is None or looked.wanted.windows == 1 or view.window != stored_window(1):
        return None
    try:
        size = _made(looked, source, looked.bench.web / file, replace(view, window=stored_window(number)))
    except TooLarge:
        size = None
    if size:
        return Other(file, *size, views.name_of_window(looked.header, number))
    (looked.bench.web / file).unlink(missing_ok=True)
    return None


def other_file(first: str) -> str:
    """The file of what is seen through the second window."""
    return f"q{first[1:]}"


def _made(looked: _Looked, source: Path, picture: Path, view: View) -> tuple[int, int] | None:
    """The width and height; a picture that takes more bytes than its share is made once more, and smaller."""
    converter, header = looked.bench.converter, looked.header
    size = make_picture(converter, source, picture, view)
    most = looked.bench.share * views.weight(looked.wanted.instance.sop_class_uid)
    if size and (bytes_now := picture.stat().st_size) > most:
        size = make_picture(converter, source, picture, views.smaller(header, view, max(size), bytes_now, most))
    return size


def _decoded(bench: Bench, header: Header, program: str, instance: Instance, raw: Path) -> bool:
    _require_few(pixel_bytes(header), LARGEST_OF_GDCM)
    if converters.decode(bench.converter, program, instance.path, raw):
        return True
    require_room(bench.room)
    return False


def _require_few(pixels: int, most: int) -> None:
    if pixels > most:
        raise TooLarge


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


def report(bench: Bench, instance: Instance) -> ShownReport | None:
    """A structured report (PS3.3 C.17), None where it cannot be read.

    Raises TooLarge where it would take too much; Late and ToolTimeout where it takes too long; Internal, Busy.
    """
    require_small(instance, LARGEST_REPORT)
    page, encoded = bench.path(instance, "htm"), bench.path(instance, "dcm")
    try:
        for file, reading in _readings(bench, instance.path, encoded):
            if (text := make_report(bench.converter, file, page, reading)) is not None:
                body = harmless(text)
                bench.reports.take(body)
                return ShownReport(instance.instance_number, title(instance), body, reading is Reading.STRICT)
        return None
    finally:
        page.unlink(missing_ok=True)
        encoded.unlink(missing_ok=True)


def document(bench: Bench, instance: Instance, file: str, *pictures: str) -> Iterator[Document | Picture | Nothing]:
    """An encapsulated PDF (PS3.3 A.45.1) in the file of this name, and its pages; why not, where there is none.

    Whatever a page's picture fails of, it costs no more than the pictures. Raises as `report`.
    """
    require_small(instance, LARGEST_DOCUMENT)
    if not make_document(bench.converter, instance.path, bench.web / file):
        yield nothing(instance, Why.BROKEN)
        return
    program = converters.pdftoppm_installed() if pictures else None

    def make(root: Path) -> None:
        if program:  # a page more than is shown tells that there is one
            converters.make_pages(bench.converter, program, bench.web / file, root, len(pictures) + 1)

    try:
        pages, more = _several(bench, instance, make, pictures)
    except (Internal, Late, ToolTimeout, TooLarge):
        pages, more = [], False
    yield Document(file, instance.instance_number, title(instance), len(pages) if more else 0)
    yield from (replace(one, is_page=True) for one in pages)
    if pictures and not pages:
        require_room(bench.room)
        yield nothing(instance, Why.PAGES)


def ecg(bench: Bench, instance: Instance, *files: str) -> Iterator[Picture | Nothing]:
    """An ECG's strips (PS3.3 A.34.3 to A.34.5) in files of these names; why not, where there is none.

    Raises as `report`.
    """
    require_small(instance, LARGEST_DOCUMENT)

    def make(root: Path) -> None:
        make_strips(bench.converter, instance.path, root, len(files), bench.share // len(files))

    strips, _ = _several(bench, instance, make, files)
    yield from (replace(one, is_strip=True) for one in strips)
    if not strips:
        yield nothing(instance, Why.BROKEN)


def _several(
    bench: Bench, instance: Instance, make: Callable[[Path], None], files: Sequence[str]
) -> tuple[list[Picture], bool]:
    """The pictures that a program made, as many as there are files and room; whether there are more.

    `make` has it write them in their order, each in a file whose name begins as it is told. Where it is ended, those
    count that were whole by then; raises as it does where there is none.
    """
    root, found, left = bench.path(instance, "page"), list[Picture](), bench.share
    ended: Exception | None = None
    try:
        try:
            make(root)
        except (Internal, Late, ToolTimeout, TooLarge) as error:
            ended = error
        made = sorted(root.parent.glob(f"{root.name}-*.jpg"))
        for number, (page, file) in enumerate(zip(made, files, strict=False), 1):
            size, left = jpeg_size(page.read_bytes()), left - page.stat().st_size
            if size is None or (found and left < 0):
                break
            os.rename(page, bench.web / file)
            found.append(Picture(file, *size, instance.instance_number, number))
    finally:
        for page in root.parent.glob(f"{root.name}-*"):
            page.unlink()
    if ended and not found:
        raise ended
    return [replace(one, frames=len(found)) for one in found], bool(ended) or len(made) > len(found)


def title(instance: Instance) -> str:
    """What it calls itself, or else the name of its SOP class."""
    header = Header(instance.path, ["DocumentTitle", CONCEPT])
    kind = UID(instance.sop_class_uid).name.removesuffix(" Storage")
    return header.text("DocumentTitle") or header.meaning(CONCEPT) or kind


def _readings(bench: Bench, instance: Path, encoded: Path) -> Iterator[tuple[Path, Reading]]:
    """The ways to read a report, the best one first: DCMTK knows not every character set."""
    yield instance, Reading.STRICT
    again = [encoded] if write_in_utf8(bench.converter, instance, encoded) else []
    yield from ((file, Reading.STRICT) for file in again)
    yield from ((file, reading) for reading in (Reading.TOLERANT, Reading.SKIPPING) for file in (*again, instance))
