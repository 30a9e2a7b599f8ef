import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mkiso
from mkiso.browse.readme import ascii_name, initials, readme
from mkiso.browse.shown import WEB, About, NotIndexed, ShownPatient, Viewer
from mkiso.dicom.datasets import page_name
from tests.support.shown import HOSTILE, about, hostile, hostile_about, patient

LANGUAGES = ("en", "id")
UID = "1.2.826.0.1.3680043.8.498.12345678901234567890123456789012345678"
NOT_INDEXED = NotIndexed("OTHER/ST000001/SE000001/IM000001", UID)


def lines(patients: tuple[Any, ...] = (patient(),), **changes: Any) -> list[str]:
    text = readme(about(**changes), patients).decode("ascii")
    assert text.endswith("\r\n")
    return text.removesuffix("\r\n").split("\r\n")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_program_finds_what_it_looks_up_in_every_language(language: str) -> None:
    viewer = Viewer(("viewer.exe", "My  Docs", "größe.txt"), "viewer.exe")
    found = lines(language=language, file_set_id="CD1", volume_id="DISC", viewer=viewer, not_indexed=(NOT_INDEXED,))
    assert "File-set ID: CD1" in found
    assert "Volume ID: DISC" in found
    listed = [line for line in found if re.match("  [^ ]", line)]
    assert listed == ["  viewer.exe", "  My  Docs", "  grosse.txt", f"  {NOT_INDEXED.file}  {UID}"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_says_whose_the_disc_is_and_what_made_it_and_when(language: str) -> None:
    found = "\n".join(lines(language=language))
    for told in ("Example Hospital", "Example Street 1", "J. D.", "2024-03-01 10:15", f"mkiso {mkiso.__version__}"):
        assert told in found
    for file in ("DICOMDIR", "INDEX.HTM", "PHONE.HTM", f"{WEB}:"):
        assert file in found


def test_a_patient_is_named_by_initials_alone() -> None:
    found = "\n".join(lines())
    assert [word for word in ("JOHN", "DOE", "PAT001", "1962", "19620304") if word in found] == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("JOHN DOE", "J. D."),
        ("Dr. Siti Østergård", "D. S. O."),
        ("12 34", "-"),
        ("", "-"),
        ("山田 太郎", "S. T."),
        ("(Ann)", "A."),
    ],
)
def test_initials_are_ascii_letters(name: str, expected: str) -> None:
    assert initials(name) == expected


@pytest.mark.parametrize("name", ["YAMADA^TARO=山田^太郎", "YAMADA^TARO=山田^太郎=やまだ^たろう", "YAMADA^TARO"])
def test_a_name_in_two_scripts_has_its_initials_once(name: str) -> None:
    assert initials(page_name(name)) == "T. Y."


def test_each_patient_of_a_mixed_disc_has_initials() -> None:
    assert "Patient (initials): J. D., M. M." in lines((patient(), patient(name="MARY MOE")))


def test_only_a_disc_whose_volume_id_differs_says_so() -> None:
    sentence = "The volume ID of this disc differs from its file-set ID."
    assert sentence in lines(volume_id="DISC")
    assert sentence not in lines()


def test_only_a_disc_that_fits_a_profile_names_it() -> None:
    assert "DICOM profile: STD-GEN-CD" in lines(profile="STD-GEN-CD")
    assert [line for line in lines() if "profile" in line] == []


def test_what_was_decompressed_and_what_was_not_is_counted() -> None:
    assert [line[-2:] for line in lines(decompressed=3, left_compressed=4) if "compressed" in line] == ["3.", "4."]
    assert [line for line in lines() if "compressed" in line] == []


def test_a_disc_without_viewer_and_with_everything_indexed_lists_nothing() -> None:
    assert [line for line in lines() if re.match("  [^ ]", line) or "viewer" in line.lower() or "OTHER" in line] == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("start", "in_browser", "named"),
    [
        ("view.exe", None, ["view.exe"]),
        ("view.exe", "VIEWER.HTM", ["view.exe", "VIEWER.HTM"]),
        ("VIEWER.HTM", "VIEWER.HTM", ["VIEWER.HTM"]),
    ],
)
def test_it_names_the_program_to_start_and_the_page_for_any_browser(
    language: str, start: str, in_browser: str | None, named: list[str]
) -> None:
    found = " ".join(lines(language=language, viewer=Viewer((), start, in_browser)))
    assert re.findall(r"view\.exe|VIEWER\.HTM", found) == named


@pytest.mark.parametrize("text", [*HOSTILE, "a\r\nFile-set ID: EVIL", "a\u2028  viewer.exe\x85\x0b  x", "x " * 300])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_hostile_text_breaks_no_line(text: str, language: str) -> None:
    found, tame = (starts(hostile_about(one, language=language), hostile(one)) for one in (text, "x"))
    assert len(found) == len(tame)
    assert sum(line.startswith("File-set ID: ") for line in found) == 1


def starts(told: About, whose: ShownPatient) -> list[str]:
    """The lines that are not what hangs below the one before."""
    content = readme(told, (whose,)).decode("ascii")
    return [line for line in content.split("\r\n") if not line.startswith("   ")]


@given(st.text(st.characters(exclude_categories=[])))
def test_any_text_makes_ascii_lines_of_a_bounded_length(text: str) -> None:
    content = readme(about(institution=text, contact=text), (patient(name=text),)).decode("ascii")
    assert content.count("\r\n") == content.count("\n") == content.count("\r")
    assert all(character.isprintable() for line in content.split("\r\n") for character in line)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_an_ascii_name_is_listed_exactly(name: str) -> None:
    assert ascii_name(name) == name


def test_lines_fit_a_narrow_window() -> None:
    found = lines(language="id", volume_id="DISC", decompressed=1, institution="Rumah Sakit " * 20)
    assert max(map(len, found)) <= 76
