import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mkiso.dicom.datasets import disc_file_name, display_name, single_file_name

hostile = st.text() | st.text(st.sampled_from("^=\\/.;\"'\r\n\0 ÄЯ山A9"), max_size=200)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("DOE^JOHN", "JOHN DOE"),
        ("DOE^JOHN^MID^DR^JR", "DR JOHN MID DOE JR"),
        (" DOE ^ JOHN ", "JOHN DOE"),
        ("DOE^^^DR", "DR DOE"),
        ("YAMADA^TARO=山田^太郎=やまだ^たろう", "TARO YAMADA"),
        ("=山田^太郎", "山田 太郎"),
        ("==やまだ^たろう", "やまだ たろう"),
        ("=^=やまだ^たろう", "やまだ たろう"),
        ("", ""),
    ],
)
def test_a_person_name_is_shown_as_people_read_it(name: str, shown: str) -> None:
    assert display_name(name) == shown


@given(hostile)
def test_every_name_can_be_shown_on_one_line(name: str) -> None:
    shown = display_name(name)
    assert shown == " ".join(shown.split())
    assert "^" not in shown


@pytest.mark.parametrize(
    ("name", "accessions", "file_name"),
    [
        ("DOE^JOHN", ("MR.001", "CT.002"), "DOEJOHN-MR001CT002.iso"),
        ("Müller^Jörg", ("CT.002",), "MullerJorg-CT002.iso"),
        ("Łukasiewicz", ("CT.002",), "Lukasiewicz-CT002.iso"),
        ("小东", ("CT.002",), "XiaoDong-CT002.iso"),
        ("=小东", ("CT.002",), "XiaoDong-CT002.iso"),
        ("^ ==やまだ^たろう", ("CT.002",), "yamadatarou-CT002.iso"),
        ("^", ("CT.002",), "UNKNOWN-CT002.iso"),
        ("DOE^JOHN=山田^太郎", ("--",), "DOEJOHN-UNKNOWN.iso"),
        ("", ("../../etc/passwd",), "UNKNOWN-etcpasswd.iso"),
    ],
)
def test_a_disc_of_a_list_is_named_after_its_patient_and_its_numbers(
    name: str, accessions: tuple[str, ...], file_name: str
) -> None:
    assert disc_file_name(name, accessions) == file_name


@pytest.mark.parametrize(
    ("accessions", "days", "file_name"),
    [
        ((), ("20240301", "20240305", "", "20231231"), "DOEJOHN-20240305.zip"),
        ((), ("2024.03.01", "unknown"), "DOEJOHN-20240301.zip"),
        ((), ("../..",), "DOEJOHN.zip"),
        ((), (), "DOEJOHN.zip"),
        (("CT.002",), ("20240301",), "DOEJOHN-CT002.zip"),
    ],
)
def test_a_disc_of_studies_without_numbers_is_named_after_the_newest_ones_date(
    accessions: tuple[str, ...], days: tuple[str, ...], file_name: str
) -> None:
    assert disc_file_name("DOE^JOHN", accessions, "zip", days) == file_name


@given(st.sampled_from(("iso", "zip")), hostile, st.lists(hostile, min_size=1, max_size=20))
def test_a_hostile_name_makes_a_plain_file_name(ending: str, name: str, accessions: list[str]) -> None:
    file_name = disc_file_name(name, accessions, ending)
    assert re.fullmatch(rf"[A-Za-z0-9]+-[A-Za-z0-9]+\.{ending}", file_name)
    assert len(file_name) <= 120


@pytest.mark.parametrize(("letters", "numbers"), [(64, 20), (200, 1), (200, 20), (3, 20)])
def test_a_long_name_is_cut_to_120_characters_with_something_left_of_each_part(letters: int, numbers: int) -> None:
    file_name = disc_file_name("X" * letters, ["1" * 64] * numbers)
    assert re.fullmatch(r"X+-1+\.iso", file_name)
    assert len(file_name) == 120


def test_a_disc_of_one_number_is_named_after_it_as_it_was_given() -> None:
    assert single_file_name("MR.001-a/b") == "MR.001-a/b.iso"
    assert single_file_name("MR.001-a/b", "zip") == "MR.001-a/b.zip"
