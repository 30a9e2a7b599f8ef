from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_subprocess import FakeProcess

from mkiso.dcmtk.converters import (
    Converter,
    Reading,
    decode,
    document_argv,
    make_document,
    make_report,
    raw_argv,
    report_argv,
)
from mkiso.dcmtk.converters import gdcmconv_installed as installed

DCMTK = Path("/opt/dcmtk")


@pytest.fixture
def converter(tmp_path: Path) -> Converter:
    return Converter(DCMTK, tmp_path, lambda: None)


def writing(path: Path, content: bytes) -> Callable[..., None]:
    return lambda _process: path.write_bytes(content) and None


def test_the_argv_of_dcm2pdf() -> None:
    assert document_argv(DCMTK, Path("/w/IM1"), Path("/w/d1.pdf")) == (
        *("/opt/dcmtk/dcm2pdf", "-q", "/w/IM1", "/w/d1.pdf"),
    )


@pytest.mark.parametrize(
    ("reading", "options"),
    [
        (Reading.STRICT, ()),
        (Reading.TOLERANT, ("-Er", "-Ev", "-Ec", "-Ee")),
        (Reading.SKIPPING, ("-Ei",)),
    ],
)
def test_the_argv_of_dsr2html(reading: Reading, options: tuple[str, ...]) -> None:
    assert report_argv(DCMTK, Path("/w/IM1"), Path("/w/r.htm"), reading) == (
        *("/opt/dcmtk/dsr2html", "-q", "+X1", "+U8", *options, "/w/IM1", "/w/r.htm"),
    )


def test_the_argv_of_gdcmconv() -> None:
    assert raw_argv("/usr/bin/gdcmconv", Path("/w/IM1"), Path("/w/IM1.raw")) == (
        *("/usr/bin/gdcmconv", "--raw", "/w/IM1", "/w/IM1.raw"),
    )


@pytest.mark.parametrize(
    ("content", "rc", "made"),
    [
        (b"%PDF-1.4\n", 0, True),
        (b"\xef\xbb\xbf%PDF-1.4\n", 0, True),
        (b"MZ\x90", 0, False),
        (bytes(2000) + b"%PDF-1.4", 0, False),
        (b"%PDF-1.4\n", 1, False),
        (b"", 0, False),
    ],
)
def test_a_document_is_what_begins_as_a_pdf(
    content: bytes, rc: int, made: bool, fake: FakeProcess, converter: Converter, tmp_path: Path
) -> None:
    document = tmp_path / "d1.pdf"
    argv = document_argv(DCMTK, Path("IM1"), document)
    fake.register(argv, returncode=rc, callback=writing(document, content))
    assert make_document(converter, Path("IM1"), document) is made


def test_without_a_file_there_is_no_document(fake: FakeProcess, converter: Converter, tmp_path: Path) -> None:
    fake.register(document_argv(DCMTK, Path("IM1"), tmp_path / "d1.pdf"))
    assert not make_document(converter, Path("IM1"), tmp_path / "d1.pdf")


@pytest.mark.parametrize(
    ("content", "rc", "told"),
    [
        (b"<p>\xc3\xa9</p></html>\n", 0, "<p>é</p></html>\n"),
        (b"\xff</html>", 0, "�</html>"),
        (b"<p>torn</", 0, None),
        (b"", 0, None),
        (b"<p></p></html>", 2, None),
    ],
)
def test_a_report_is_what_dsr2html_wrote(
    content: bytes, rc: int, told: str | None, fake: FakeProcess, converter: Converter, tmp_path: Path
) -> None:
    page = tmp_path / "r.htm"
    argv = report_argv(DCMTK, Path("IM1"), page, Reading.STRICT)
    fake.register(argv, returncode=rc, callback=writing(page, content))
    assert make_report(converter, Path("IM1"), page, Reading.STRICT) == told


def test_a_page_of_another_reading_counts_for_nothing(fake: FakeProcess, converter: Converter, tmp_path: Path) -> None:
    page = tmp_path / "r.htm"
    page.write_text("of before")
    fake.register(report_argv(DCMTK, Path("IM1"), page, Reading.SKIPPING))
    assert make_report(converter, Path("IM1"), page, Reading.SKIPPING) is None


@pytest.mark.parametrize(("rc", "writes", "decoded"), [(0, True, True), (0, False, False), (1, True, False)])
def test_gdcmconv_has_decoded_where_there_is_a_file(
    rc: int, writes: bool, decoded: bool, fake: FakeProcess, converter: Converter, tmp_path: Path
) -> None:
    raw = tmp_path / "IM1.raw"
    callback = writing(raw, b"DICM") if writes else None
    fake.register(raw_argv("gdcmconv", Path("IM1"), raw), returncode=rc, callback=callback)
    assert decode(converter, "gdcmconv", Path("IM1"), raw) is decoded


def test_gdcmconv_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert installed() is None
    (tmp_path / "gdcmconv").touch(mode=0o700)
    assert installed() == str(tmp_path / "gdcmconv")
