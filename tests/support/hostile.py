"""Instances that would cost whoever reads them gigabytes, and are small as files: `instances` makes them all.

All are of one study of one patient, and their identity can be read. What inflates is a block of compressed data,
repeated; codestreams tell of another size than the instance does.
"""

import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from tests.support import datasets
from tests.support import odd_files as odd
from tests.support.datasets import Patient
from tests.support.stage import encoded, presentation

ACCESSION = "HOSTILE.001"
PATIENT = Patient("HOSTILE1", "HOSTILE^PATIENT", "19500101", "O")
MB = 1 << 20
ZEROS, LONG = bytes(MB), 540  # MB of what inflates: more than is decoded for a picture
SMALL, LARGE = 64, 60_000  # pixels a side
CHARACTER_SET, DESCRIPTION, SERIES, PRIVATE, NAME = 0x00080005, 0x00081030, 0x00081115, 0x00091010, 0x00100010
FRAMES, ROWS, COLUMNS, SPACING, RATIO = 0x00280008, 0x00280010, 0x00280011, 0x00280030, 0x00280034
ALLOCATED, STORED, HIGH, TABLE, LATER = 0x00280100, 0x00280101, 0x00280102, 0x00283010, 0x00291010
CONTENT, PDF, PIXELS = 0x0040A730, 0x00420011, odd.PIXEL_DATA

Pieces = tuple[tuple[bytes, int], ...]  # bytes, and how often they come
Kind = Callable[[Dataset, int, int], Dataset]
DEFLATED = DeflatedExplicitVRLittleEndian


def instances(directory: Path) -> list[Path]:
    """Write them all into a directory; their files, each with a sound one beside it whose header is the same.

    So `tests.support.archive` knows what it has there, and sends the file whose name ends in `.odd`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    study, files = datasets.study(PATIENT, ACCESSION), []
    for number, (name, (kind, syntax, changes)) in enumerate(HOSTILE.items(), 1):
        sound = kind(study, number, 1)
        file = directory / f"{number:02} {name}.odd"
        file.write_bytes(_file(sound, syntax, changes))
        if "PixelData" in sound:
            del sound.PixelData
        sound.file_meta.TransferSyntaxUID = syntax
        sound.save_as(file.with_suffix(".dcm"), enforce_file_format=True)
        files.append(file)
    return files


def _file(sound: Dataset, syntax: str, changes: Mapping[int, Pieces | bytes]) -> bytes:
    parts = odd.elements(odd.changed(encoded(sound), {odd.SYNTAX: odd.element(odd.SYNTAX, b"UI", _even(syntax))}))
    meta = odd.joined({tag: one for tag, one in parts.items() if tag < odd.BEHIND_META})
    data_set = {tag: one for tag, one in parts.items() if tag >= odd.BEHIND_META} | changes
    pieces = [
        piece for _, one in sorted(data_set.items()) for piece in (((one, 1),) if isinstance(one, bytes) else one)
    ]
    return meta + (_deflated(pieces) if syntax == DEFLATED else b"".join(piece * times for piece, times in pieces))


def _even(syntax: str) -> bytes:
    return syntax.encode() + b"\0" * (len(syntax) % 2)


def _deflated(pieces: list[tuple[bytes, int]]) -> bytes:
    """What a piece is compressed to stands for itself, and so may be repeated."""
    made = b""
    for piece, times in pieces:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        made += (deflate.compress(piece) + deflate.flush(zlib.Z_FULL_FLUSH)) * times
    made += zlib.compressobj(wbits=-zlib.MAX_WBITS).flush()
    return made + b"\0" * (len(made) % 2)


def _value(tag: int, vr: bytes, unit: bytes, times: int, begin: bytes = b"") -> Pieces:
    return (odd.element(tag, vr, begin, len(begin) + len(unit) * times), 1), (unit, times)


def _sequence(tag: int, item: bytes, times: int) -> Pieces:
    """Of undefined length."""
    block = min(MB // len(item), times)
    return (
        (odd.element(tag, b"SQ", length=odd.UNDEFINED), 1),
        (item * block, times // block),
        (odd.bare(odd.SEQUENCE_END), 1),
    )


def _nested(tag: int, depth: int) -> bytes:
    begin = odd.element(tag, b"SQ", length=odd.UNDEFINED) + odd.bare(odd.ITEM, length=odd.UNDEFINED)
    return begin * depth + (odd.bare(odd.ITEM_END) + odd.bare(odd.SEQUENCE_END)) * depth


def _text(value: bytes, times: int = 1) -> Pieces:
    """An item of a report's content."""
    head = odd.element(0x0040A010, b"CS", b"CONTAINS") + odd.element(0x0040A040, b"CS", b"TEXT")
    name = odd.element(0x00080100, b"SH", b"121071") + odd.element(0x00080102, b"SH", b"DCM ")
    name += odd.element(0x00080104, b"LO", b"Finding ")
    head += odd.element(0x0040A043, b"SQ", odd.bare(odd.ITEM, name))
    text = odd.element(0x0040A160, b"UT", length=len(value) * times)
    return (odd.bare(odd.ITEM, head + text, len(head + text) + len(value) * times), 1), (value, times)


def _report_item(value: bytes) -> bytes:
    return b"".join(piece for piece, _ in _text(value))


def _frame(codestream: bytes) -> dict[int, Pieces | bytes]:
    """Pixels of one fragment, of an image of 8 bits."""
    fragments = odd.bare(odd.ITEM) + odd.bare(odd.ITEM, codestream + b"\0" * (len(codestream) % 2))
    pixels = odd.element(PIXELS, b"OB", fragments + odd.bare(odd.SEQUENCE_END), odd.UNDEFINED)
    return {PIXELS: pixels, ALLOCATED: _us(ALLOCATED, 8), STORED: _us(STORED, 8), HIGH: _us(HIGH, 7)}


def _us(tag: int, value: int) -> bytes:
    return odd.element(tag, b"US", struct.pack("<H", value))


def _marker(code: int, content: bytes) -> bytes:
    return struct.pack(">HH", code, len(content) + 2) + content


def _jpeg() -> bytes:
    table = bytes([0, 1]) + bytes(14)  # one code, of two bits
    frame = struct.pack(">BHHB3B", 8, LARGE, LARGE, 1, 1, 0x11, 0)
    tables = _marker(0xFFDB, b"\0" + b"\1" * 64) + _marker(0xFFC4, b"\0" + table + b"\0\x10" + table + b"\0")
    return b"\xff\xd8" + tables + _marker(0xFFC0, frame) + _marker(0xFFDA, b"\1\1\0\0\x3f\0") + bytes(64) + b"\xff\xd9"


def _jpeg_ls() -> bytes:
    frame = struct.pack(">BHHB3B", 8, LARGE, LARGE, 1, 1, 0x11, 0)
    return b"\xff\xd8" + _marker(0xFFF7, frame) + _marker(0xFFDA, b"\1\1\0\0\0\0") + bytes(64) + b"\xff\xd9"


def _jpeg_2000() -> bytes:
    """One tile, one component (ISO/IEC 15444-1 A)."""
    size = struct.pack(">H8LH3B", 0, LARGE, LARGE, 0, 0, LARGE, LARGE, 0, 0, 1, 7, 1, 1)
    coding, steps = bytes([0, 0, 0, 1, 0, 5, 4, 4, 0, 1]), b"\x40" + b"\x40" * 16
    header = _marker(0xFF51, size) + _marker(0xFF52, coding) + _marker(0xFF5C, steps)
    return (
        b"\xff\x4f" + header + _marker(0xFF90, struct.pack(">HLBB", 0, 0, 0, 1)) + b"\xff\x93" + bytes(64) + b"\xff\xd9"
    )


def pdf(pages: int, side: int, content: bytes = b"") -> bytes:
    """Each page has the same content, which is compressed."""
    head = b"%%PDF-1.4\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n2 0 obj\n<< /Type /Pages /Count %d" % pages
    kids = b" ".join(b"%d 0 R" % (4 + number) for number in range(pages))
    stream = b"3 0 obj\n<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream\nendobj\n" % (
        len(content),
        content,
    )
    page = b"%d 0 obj\n<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Contents 3 0 R >>\nendobj\n"
    objects = b"".join(page % (4 + number, side, side) for number in range(pages))
    return head + b" /Kids [%s] >>\nendobj\n" % kids + stream + objects + b"trailer\n<< /Root 1 0 R >>\n%%EOF\n"


def _document(content: bytes) -> dict[int, Pieces | bytes]:
    return {PDF: odd.element(PDF, b"OB", content + b"\0" * (len(content) % 2))}


def _zlib(unit: bytes, times: int) -> bytes:
    deflate = zlib.compressobj(1)
    return b"".join(deflate.compress(unit) for _ in range(times)) + deflate.flush()


def _small(common: Dataset, series: int, number: int) -> Dataset:
    return datasets.ct(common, series, number, SMALL)


ONE_ITEM = odd.bare(odd.ITEM)
REFERENCE = odd.bare(
    odd.ITEM, odd.element(0x0020000E, b"UI", b"1.2.3.4\0") + odd.element(0x00081199, b"SQ", odd.referenced())
)
JAPANESE = odd.element(CHARACTER_SET, b"CS", b"\\ISO 2022 IR 87")  # dsr2html does not know it
HOSTILE: dict[str, tuple[Kind, str, dict[int, Pieces | bytes]]] = {
    "pixels inflate": (_small, DEFLATED, {PIXELS: _value(PIXELS, b"OW", ZEROS, LONG)}),
    "a private value inflates": (_small, DEFLATED, {PRIVATE: _value(PRIVATE, b"OB", ZEROS, LONG)}),
    "a description inflates": (_small, DEFLATED, {DESCRIPTION: _value(DESCRIPTION, b"UT", b"x" * MB, LONG)}),
    "items inflate": (_small, DEFLATED, {LATER: _sequence(LATER, ONE_ITEM, 1_200_000)}),
    "items inflate before the patient": (_small, DEFLATED, {PRIVATE: _sequence(PRIVATE, ONE_ITEM, 262_144)}),
    "a table inflates": (_small, DEFLATED, {TABLE: _sequence(TABLE, ONE_ITEM, 262_144)}),
    "references inflate": (presentation, DEFLATED, {SERIES: _sequence(SERIES, REFERENCE, 30_000)}),
    "a text inflates": (
        datasets.report,
        DEFLATED,
        {
            CONTENT: (
                (odd.element(CONTENT, b"SQ", length=odd.UNDEFINED), 1),
                *_text(b"x" * MB, LONG),
                (odd.bare(odd.SEQUENCE_END), 1),
            )
        },
    ),
    "a report has many items": (
        datasets.report,
        DEFLATED,
        {CHARACTER_SET: JAPANESE, CONTENT: _sequence(CONTENT, _report_item(b"text"), 4_000)},
    ),
    "a report is a long page": (
        datasets.report,
        DEFLATED,
        {CONTENT: _sequence(CONTENT, _report_item(b"&" * 5000), 2000)},
    ),
    "a report nests": (datasets.report, ExplicitVRLittleEndian, {CONTENT: _nested(CONTENT, 20_000)}),
    "sequences nest": (_small, ExplicitVRLittleEndian, {LATER: _nested(LATER, 20_000)}),
    "a length lies": (_small, ExplicitVRLittleEndian, {LATER: odd.element(LATER, b"UN", b"1234", odd.UNDEFINED - 15)}),
    "a description is long": (
        _small,
        ExplicitVRLittleEndian,
        {DESCRIPTION: odd.element(DESCRIPTION, b"UT", b"^" * MB)},
    ),
    "a JPEG lies": (_small, JPEGBaseline8Bit, _frame(_jpeg())),
    "a JPEG-LS lies": (_small, JPEGLSLossless, _frame(_jpeg_ls())),
    "a JPEG 2000 lies": (_small, JPEG2000Lossless, _frame(_jpeg_2000())),
    "RLE has no segment": (
        _small,
        RLELossless,
        _frame(bytes(64)) | {ROWS: _us(ROWS, 22_000), COLUMNS: _us(COLUMNS, 22_000)},
    ),
    "an image is large": (_small, ExplicitVRLittleEndian, {ROWS: _us(ROWS, LARGE), COLUMNS: _us(COLUMNS, LARGE)}),
    "frames without end": (
        datasets.ultrasound_loop,
        ExplicitVRLittleEndian,
        {FRAMES: odd.element(FRAMES, b"IS", b"2147483647")},
    ),
    "a billion frames": (
        datasets.ultrasound_loop,
        ExplicitVRLittleEndian,
        {FRAMES: odd.element(FRAMES, b"IS", b"999999999 ")},
    ),
    "pixels are no squares": (
        _small,
        ExplicitVRLittleEndian,
        {SPACING: b"", RATIO: odd.element(RATIO, b"IS", b"1\\1000000 ")},
    ),
    "a document inflates": (datasets.document, DEFLATED, {PDF: _value(PDF, b"OB", ZEROS, LONG, b"%PDF-1.4")}),
    "a page is large": (datasets.document, ExplicitVRLittleEndian, _document(pdf(1, 200_000))),
    "a thousand pages": (datasets.document, ExplicitVRLittleEndian, _document(pdf(1000, 200_000))),
    "a page inflates": (
        datasets.document,
        ExplicitVRLittleEndian,
        _document(pdf(1, 500, _zlib(b"0 0 m 9 9 l S\n" * 10_000, 5))),
    ),
}
