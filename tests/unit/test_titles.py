"""What the pages call a study, a day and what is in a report, in each language."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mkiso.browse.shown import ShownReport, ShownSeries, ShownStudy
from mkiso.browse.words import Titles
from mkiso.texts import texts
from tests.support.shown import series

ENGLISH, INDONESIAN = (Titles(texts(language)) for language in ("en", "id"))
HEAD = """<table>
<tr>
<td><b>Patient:</b></td>
<td>JOHN DOE (male, *1970-01-01, #PAT001)</td>
</tr>
<tr>
<td><b>Completion Flag:</b></td>
<td>PARTIAL</td>
</tr>
<tr>
<td><b>Content Date/Time:</b></td>
<td>2024-03-01 10:15:00</td>
</tr>
</table>
<hr />
"""


def study(*all_series: ShownSeries, date: str = "20261128") -> ShownStudy:
    return ShownStudy(date, "described", "A.1", all_series)


@pytest.mark.parametrize(
    ("found", "english", "indonesian"),
    [
        ([("DX", "CHEST")], "Chest X-ray", "Rontgen dada"),
        ([("CT", "CHEST"), ("CT", ""), ("SR", "CHEST")], "Chest CT scan", "CT scan dada"),
        ([("MR", "T SPINE")], "Thoracic spine MRI scan", "MRI tulang belakang dada"),
        ([("CT", "HEAD"), ("CT", "NECK")], "CT scan", "CT scan"),
        ([("PT", "WHOLEBODY"), ("CT", "")], "Whole-body PET scan and CT scan", "PET scan dan CT scan seluruh tubuh"),
        ([("MG", "BREAST")], "Mammogram", "Mamografi"),
        ([("US", "<NOWHERE>")], "Ultrasound", "USG"),
        ([("DOC", "")], "Document", "Dokumen"),
        ([("??", "CHEST")], "Study", "Pemeriksaan"),
        ([], "Study", "Pemeriksaan"),
    ],
)
def test_a_study_is_a_line_in_words(found: list[tuple[str, str]], english: str, indonesian: str) -> None:
    one = study(*(series(1, modality=modality, body_part=part) for modality, part in found))
    assert ENGLISH.in_words(one) == f"{english}, 28 November 2026"
    assert INDONESIAN.in_words(one) == f"{indonesian}, 28 November 2026"


@pytest.mark.parametrize(
    ("date", "english", "indonesian"),
    [
        ("20240301", "1 March 2024", "1 Maret 2024"),
        ("20241231 ", "31 December 2024", "31 Desember 2024"),
        ("20240230", "20240230", "20240230"),
        ("", "", ""),
    ],
)
def test_a_day_is_in_words(date: str, english: str, indonesian: str) -> None:
    assert (ENGLISH.date(date), INDONESIAN.date(date)) == (english, indonesian)


def test_a_report_s_title_is_in_words_where_it_is_a_common_one() -> None:
    assert INDONESIAN.report(ShownReport("1", "Radiology Report", "")) == "Laporan radiologi"
    assert INDONESIAN.report(ShownReport("1", "Surat", "")) == "Surat"
    assert INDONESIAN.report(ShownReport("7", "", "")) == "Laporan 7"


def test_what_dcmtk_says_in_english_is_in_the_page_s_language() -> None:
    shown = INDONESIAN.body(f"{HEAD}<div>\n<p>\nObservation Context: Name = x\n</p>\n</div>", 2)
    for english in ("Patient", "male", "Completion Flag", "PARTIAL", "Content Date/Time", "Observation Context"):
        assert english not in shown
    for kept in ("<td>JOHN DOE (laki-laki, *1970-01-01, #PAT001)</td>", "2024-03-01 10:15:00", ": Name = x"):
        assert kept in shown


def test_common_headings_are_in_words_and_what_the_doctor_wrote_is_not_touched() -> None:
    written = "Findings: none. Impression\n<br />\nProperties: Findings"
    shown = INDONESIAN.body(f"<h3>Findings</h3><div>\n{written}</div><b>Impression:</b><p>Findings</p>", 2)
    assert shown == f"<h2>Temuan</h2><div>\n{written}</div><b>Kesan:</b><p>Findings</p>"


def test_a_heading_that_repeats_the_title_is_left_out_once() -> None:
    said = "<h2>Radiology Report</h2><h3>Radiology Report</h3>"
    assert ENGLISH.body(said, 2, "Radiology Report") == "<h2>Radiology report</h2>"
    assert ENGLISH.body("<h2>Q&amp;A</h2>", 2, "Q&A") == ""
    assert ENGLISH.body("<h2></h2>", 2) == "<h2></h2>"


@given(st.text(st.sampled_from("<>/ bhtdp:r12\n&;F")))
def test_what_is_no_common_heading_stays_as_it_is(text: str) -> None:
    """But for the level of headings."""
    said = f"<h2>a</h2>{text}<h2>b</h2>"
    shown = INDONESIAN.body(said, 2)
    assert re.sub("h[1-6]>", "h>", shown) == re.sub("h[1-6]>", "h>", said)
