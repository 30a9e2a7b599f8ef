from pathlib import Path

import pytest

from mkiso.dcmtk.converters import (
    COLOUR,
    OWN_WINDOW,
    STORED_TABLE,
    View,
    jpeg_size,
    picture_argv,
    scaled_to,
    stored_window,
)

# A start, an application segment of 4 bytes, a frame header of 3 by 2 pixels, an end (ISO/IEC 10918-1 B.2).
JPEG = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x0b\x08\x00\x02\x00\x03\x01\x00\x00\x00data\xff\xd9"


def test_the_argv_of_dcmj2pnm() -> None:
    view = View(3, stored_window(1), scaled_to(width=512))
    assert picture_argv(Path("/opt/dcmtk"), Path("/w/IM1"), Path("/w/p1.jpg"), view) == (
        *("/opt/dcmtk/dcmj2pnm", "-q", "+oj", "+Jq", "85", "+Wi", "1", "+F", "3", "+Sxv", "512"),
        *("/w/IM1", "/w/p1.jpg"),
    )


@pytest.mark.parametrize(
    ("window", "options"),
    [(STORED_TABLE, ("+Wl", "1")), (OWN_WINDOW, ("+Wm",)), (COLOUR, ())],
)
def test_the_argv_of_dcmj2pnm_by_window(window: tuple[str, ...], options: tuple[str, ...]) -> None:
    assert picture_argv(Path("/opt/dcmtk"), Path("/w/IM1"), Path("/w/p1.jpg"), View(1, window)) == (
        *("/opt/dcmtk/dcmj2pnm", "-q", "+oj", "+Jq", "85", *options, "+F", "1"),
        *("/w/IM1", "/w/p1.jpg"),
    )


def test_a_portrait_is_scaled_by_its_height() -> None:
    assert scaled_to(height=512) == ("+Syv", "512")


def test_the_size_of_a_jpeg() -> None:
    assert jpeg_size(JPEG) == (3, 2)
    assert jpeg_size(JPEG.replace(b"\xff\xc0", b"\xff\xc2")) == (3, 2)


@pytest.mark.parametrize(
    "torn",
    [
        b"",
        b"\xff\xd8\xff\xd9",
        JPEG[:-1],
        JPEG[:-2],
        JPEG[1:],
        JPEG[:10] + b"\xff\xd9",
        JPEG.replace(b"\x00\x02\x00\x03", b"\x00\x00\x00\x03"),
        JPEG.replace(b"\xff\xe0", b"\x00\xe0"),
        b"P6\n3 2\n255\n" + bytes(18),
    ],
)
def test_what_is_no_whole_jpeg_has_no_size(torn: bytes) -> None:
    assert jpeg_size(torn) is None


def test_a_segment_that_says_it_has_no_length_does_not_hold_the_reader_up() -> None:
    assert jpeg_size(b"\xff\xd8" + b"\xff\xe0\x00\x00" * 1000 + b"\xff\xd9") is None
