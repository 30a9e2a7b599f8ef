"""The parts of `mkiso verify` that need no disc."""

import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycdlib import PyCdlib

from mkiso.checks import Check
from mkiso.dicom.records import FIRST, IN_USE, LAST, LOWER, NEXT, TYPE, Record, element, written
from mkiso.verify.dicomdir import ABOVE, BRANCHES, KEYS, TIME, read_dicomdir
from mkiso.verify.disc import Page, read_page, read_readme
from mkiso.verify.image import BoundedImage
from mkiso.verify.medium import Findings, UnreadableDisc, is_plain
from mkiso.verify.verify import judged

MOVED = "pycdlib has no such method any more: the bounds of mkiso/verify/image.py do not hold"
HTML = '<html xmlns="http://www.w3.org/1999/xhtml"><body>%s</body></html>'


def read(markup: str) -> Page:
    return read_page("A.HTM", (HTML % markup).encode())


def record(kind: str, *below: Record) -> Record:
    elements = {tag: element(tag, b"UL", bytes(4)) for tag in (NEXT, LOWER)}
    elements |= {IN_USE: element(IN_USE, b"US", b"\xff\xff"), TYPE: element(TYPE, b"CS", kind.encode())}
    return Record(elements, list(below))


@pytest.mark.parametrize("name", ["a", "a/b", "A.B", "...", "a b", "é", "a" * 300])
def test_a_plain_name_leads_to_a_place_on_the_disc(name: str) -> None:
    assert is_plain(name)


@pytest.mark.parametrize(
    "name", ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a\\b", "a\0", "C:a", "a/" * 65 + "a"]
)
def test_a_name_that_may_lead_elsewhere_is_not_plain(name: str) -> None:
    assert not is_plain(name)


def test_records_are_reached_in_their_order_with_what_is_above_them() -> None:
    tree = [record("PATIENT", record("STUDY", record("SERIES", record("IMAGE"), record("IMAGE")))), record("PATIENT")]
    entries = read_dicomdir(written(tree, "CD1")).entries
    assert [one.type for one in entries] == ["PATIENT", "PATIENT", "STUDY", "SERIES", "IMAGE", "IMAGE"]
    above = [one.above.type if one.above else None for one in entries]
    assert above == [None, None, "PATIENT", "STUDY", "SERIES", "SERIES"]
    assert [one.ancestor("STUDY") is entries[2] for one in entries] == [False, False, False, True, True, True]
    assert read_dicomdir(written(tree, "CD1")).lost == ()


def chain(depth: int, tag: int) -> bytes:
    """Records of which each leads to the next by an offset."""
    data = bytearray(written([record("IMAGE") for _ in range(depth)], "CD1"))
    size = len(written([record("IMAGE")], "CD1")) - len(written([], "CD1"))
    begin = len(data) - depth * size
    for number in range(depth):
        following = struct.pack("<L", begin + (number + 1) * size if number + 1 < depth else 0)
        for one in (NEXT, LOWER):
            at = data.index(element(one, b"UL", bytes(4))[:8], begin + number * size) + 8
            data[at : at + 4] = following if one == tag else bytes(4)
    return bytes(data)


def test_records_of_any_depth_are_followed() -> None:
    entries = read_dicomdir(chain(5_000, LOWER)).entries
    assert len(entries) == 5_000
    assert entries[-1].ancestor("PATIENT") is None


@given(st.binary(max_size=300))
def test_no_bytes_make_the_directory_fail_otherwise_than_malformed(tail: bytes) -> None:
    for data in (tail, bytes(128) + b"DICM" + tail, written([record("PATIENT")], "CD1")[:-60] + tail):
        with suppress(UnreadableDisc):
            read_dicomdir(data)


@pytest.mark.parametrize("tag", [FIRST, LAST, NEXT, LOWER])
@given(value=st.binary(min_size=4, max_size=4))
def test_no_offset_makes_the_directory_fail(tag: int, value: bytes) -> None:
    data = written([record("PATIENT", record("STUDY"))], "CD1")
    at = data.index(element(tag, b"UL", bytes(4))[:8]) + 8
    read_dicomdir(data[:at] + value + data[at + 4 :])


def test_records_stand_below_those_that_are_known() -> None:
    assert set(ABOVE) == set(BRANCHES) <= set(KEYS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((one, True) for one in ("00", "2359", "235960", "101500.1", "101500.123456")),
        *((one, False) for one in ("", "1", "24", "1060", "101561", "101500.", "101500.1234567", "10:15")),
    ],
)
def test_a_time_is_one_of_its_vr(text: str, expected: bool) -> None:
    assert bool(TIME.fullmatch(text)) is expected


def test_a_page_tells_its_links_but_not_the_pictures_within_it() -> None:
    page = read('<a href="a.htm">x</a><img src="b.jpg"/><img src="data:image/jpeg;base64,/9j/4AAQ"/><q cite="c"/>')
    assert (page.fault, page.links, page.active) == (None, ["a.htm", "b.jpg", "c"], [])


@pytest.mark.parametrize(
    "markup",
    [
        "<script/>",
        "<SCRIPT></SCRIPT>",
        '<a href="java&#115;cript:a">x</a>',
        '<a href="&#9;vbscript:a">x</a>',
        '<a href="data:image/svg+xml,x">x</a>',
        '<svg xmlns="http://www.w3.org/2000/svg"/>',
        '<a xmlns:x="http://www.w3.org/1999/xlink" x:href="javascript:a">x</a>',
        '<b onclick="a">x</b>',
        '<b ONCLICK="a">x</b>',
        '<b style="a">x</b>',
        '<base href="a"/>',
        '<object data="a"/>',
        '<form action="a"/>',
        '<meta http-equiv="Refresh" content="0;url=a"/>',
        '<link rel="alternate StyleSheet" href="a"/>',
    ],
)
def test_what_a_browser_executes_is_found(markup: str) -> None:
    page = read(markup)
    assert page.fault is None
    assert page.active


@pytest.mark.parametrize(
    "text", ["&lt;script&gt;", "onclick=1 javascript:a", '<b title="&quot;>&lt;img onerror="/>', "style"]
)
def test_text_is_not_executed(text: str) -> None:
    page = read(text)
    assert (page.fault, page.active, page.links) == (None, [], [])


def test_a_page_of_entities_that_grow_is_refused_at_once() -> None:
    entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 30))
    page = read_page("A.HTM", f'<!DOCTYPE html [<!ENTITY a0 "a">{entities}]>{HTML % "&a29;"}'.encode())
    assert page.fault == "it has an entity of its own"


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: (HTML % text).encode("utf-8", "replace")))
def test_any_bytes_are_a_page_or_a_faulty_one(data: bytes) -> None:
    page = read_page("A.HTM", data)
    assert page.fault is None or page.fault


def test_what_is_private_in_pycdlib_and_bounded_is_there() -> None:
    """Where a newer one has moved it, hostile images are read without these bounds."""
    private = [name for name in vars(BoundedImage) if name.startswith("_") and not name.startswith("__")]
    assert private == ["_parse_path_table", "_iter_directory_records"]
    assert [name for name in private if not callable(getattr(PyCdlib, name, None))] == [], MOVED


def test_the_readme_tells_what_a_program_looks_up() -> None:
    lines = ("Of: X", "  viewer.exe", "  a  b", "File-set ID: A", "Volume ID: b c")
    other = "  OTHER/ST000001/SE000001/IM000001  1.2.3"
    told = read_readme("\r\n".join((*lines, other, "")).encode())
    assert (told.file_set_id, told.volume_id) == ("A", "b c")
    assert told.not_indexed == {"OTHER/ST000001/SE000001/IM000001": "1.2.3"}
    assert {"VIEWER.EXE", "A  B"} <= told.entries


@given(st.binary())
def test_any_bytes_are_a_readme(data: bytes) -> None:
    assert read_readme(data).data == data


def faults(*texts: str, end: Exception | None = None) -> Findings:
    def look() -> Iterator[Any]:
        yield from texts
        if end:
            raise end
        return "all"

    return look()  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        (faults(), Check("x", True, "all")),
        (faults("a"), Check("x", False, "a")),
        (faults("a", "b", "c"), Check("x", False, "a; b; c")),
        (faults("a", "b", "c", "d", "e"), Check("x", False, "a; b; c … and 2 more")),
        (faults(end=UnreadableDisc("gone")), Check("x", False, "gone")),
        (faults("a", end=OSError("gone")), Check("x", False, "a; gone")),
        (faults("a\nb\33[1m\udcff"), Check("x", False, "a\\nb\\x1b[1m\\udcff")),
        (faults("a" * 1000), Check("x", False, "a" * 200 + "…")),
    ],
)
def test_a_check_is_told_in_one_line(findings: Findings, expected: Check) -> None:
    assert judged("x", lambda _: findings, None) == expected
