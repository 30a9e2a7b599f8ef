import base64
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mkiso.browse import pages
from mkiso.browse.pages import evenly, write_pages
from mkiso.browse.shown import LARGEST_ON_PHONE as LARGEST
from mkiso.browse.shown import WEB, Document, ShownPatient, ShownReport
from tests.support.shown import about, everything, patient, picture, put_files, series


def pictures_of(page: bytes) -> list[bytes]:
    return [base64.b64decode(one) for one in re.findall(rb'src="data:image/jpeg;base64,([^"]+)"', page)]


def page_of(stage: Path, one: ShownPatient, size: int = 6) -> bytes:
    """PHONE.HTM of a disc of which each picture is its file's name, then nothing until it has this size."""
    stage.mkdir()
    put_files((one,), stage)
    for file in (stage / WEB).glob("*.jpg"):
        file.write_bytes(file.name.encode().ljust(size))
    write_pages((one,), about(), stage)
    return (stage / "PHONE.HTM").read_bytes()


def names(page: bytes) -> list[str]:
    return [one.split()[0].decode() for one in pictures_of(page)]


def test_a_small_disc_is_whole_on_the_phone(tmp_path: Path) -> None:
    page = page_of(tmp_path / "stage", everything())
    assert names(page) == [f"p{n:07}.jpg" for n in (*range(1, 19), 21, 23, 25)]
    assert b"left out" not in page


def test_what_does_not_fit_is_left_out_evenly_and_counted(tmp_path: Path) -> None:
    all_series = [series(n, *(picture(100 * n + at) for at in range(12))) for n in range(1, 6)]
    page = page_of(tmp_path / "stage", patient(*all_series), 300_000)
    kept = [int(name[1:8]) for name in names(page)]
    assert LARGEST - 400_000 < len(page) <= LARGEST
    by_series = [[one % 100 for one in kept if one // 100 == n] for n in range(1, 6)]
    assert all(6 in one for one in by_series)
    assert {len(one) for one in by_series} <= {3, 4, 5}
    assert all(max(one) >= 9 and min(one) <= 3 for one in by_series)
    assert f"Images left out so that this file stays small: {60 - len(kept)}.".encode() in page


def test_a_picture_that_does_not_fit_makes_room_for_smaller_ones(tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    stage.mkdir()
    one = patient(series(1, picture(1)), series(2, picture(2)))
    put_files((one,), stage)
    (stage / WEB / "p0000001.jpg").write_bytes(bytes(LARGEST))
    write_pages((one,), about(), stage)
    assert pictures_of((stage / "PHONE.HTM").read_bytes()) == [b"\xff\xd8jpeg"]


def test_reports_count_and_come_after_the_middle_pictures(tmp_path: Path) -> None:
    reports = (ShownReport(str(n), f"Report {n}", f"<p>{'word ' * 600_000}</p>") for n in range(3))
    page = page_of(tmp_path / "stage", patient(series(1, picture(1), picture(2), *reports)), 1_000_000)
    assert len(page) <= LARGEST
    assert names(page) == ["p0000002.jpg"]
    assert page.count(b"<p>word ") == 2
    assert b"Reports left out so that this file stays small: 1." in page
    assert b"Images left out so that this file stays small: 1." in page


def test_documents_are_named_only(tmp_path: Path) -> None:
    page = page_of(tmp_path / "stage", patient(series(1, Document("d0000001.pdf", "1", "Letter"))))
    assert b"Letter" in page
    assert b"d0000001" not in page


def test_more_series_than_fit_are_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "LARGEST_ON_PHONE", 20_000)
    page = page_of(tmp_path / "stage", patient(*(series(n, picture(n)) for n in range(200))))
    shown = page.count(b"<h4 ")
    assert len(page) <= 20_000
    assert shown > 0
    assert f"Series left out so that this file stays small: {200 - shown}.".encode() in page


def test_a_page_filled_to_the_brim_holds_the_sentences_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = series(1, picture(1, number=""), picture(2, number=""), modality="", description="")
    monkeypatch.setattr(pages, "LARGEST_ON_PHONE", 20_000)
    page_of(tmp_path / "stage", patient(two), 3_000)
    (tmp_path / "stage" / WEB / "p0000001.jpg").write_bytes(bytes(20_000))

    def page_of_at_most(largest: int) -> bytes:
        monkeypatch.setattr(pages, "LARGEST_ON_PHONE", largest)
        write_pages((patient(two),), about(language="id"), tmp_path / "stage")
        return (tmp_path / "stage" / "PHONE.HTM").read_bytes()

    full = page_of_at_most(20_000)
    assert names(full) == ["p0000002.jpg"]
    assert all(len(page_of_at_most(len(full) - fewer)) <= len(full) - fewer for fewer in range(0, 100, 4))


@given(st.integers(0, 400))
def test_evenly_gives_each_place_once_and_the_middle_first(count: int) -> None:
    places = list(evenly(count))
    assert sorted(places) == list(range(count))
    assert places[:1] == ([count // 2] if count else [])


@given(st.integers(1, 400), st.integers(1, 400))
def test_any_first_few_lie_evenly_apart(count: int, few: int) -> None:
    chosen = sorted(list(evenly(count))[:few])
    gaps = [b - a for a, b in zip([-1, *chosen], [*chosen, count], strict=True)]
    assert max(gaps) <= 4 * count / (len(chosen) + 1) + 1
