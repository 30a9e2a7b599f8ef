import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mkiso.browse.pages import shown_text, write_pages
from mkiso.browse.pictures import NOT_XML
from mkiso.browse.shown import (
    About,
    Document,
    Logo,
    Marks,
    Nothing,
    NotIndexed,
    Other,
    ShownPatient,
    ShownReport,
    ShownStudy,
    Viewer,
    Why,
)
from mkiso.browse.words import Titles
from mkiso.texts import texts
from tests.support.shown import (
    BODY,
    HOSTILE,
    about,
    everything,
    hostile,
    hostile_about,
    patient,
    picture,
    put_files,
    series,
)

XHTML = "{http://www.w3.org/1999/xhtml}"
LANGUAGES = ("en", "id")


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    stage = tmp_path / "stage"
    stage.mkdir()
    return stage


def written(stage: Path, patients: tuple[ShownPatient, ...], told: About) -> dict[str, ElementTree.Element]:
    """Every page below the stage, parsed as XML."""
    put_files(patients, stage)
    write_pages(patients, told, stage)
    return {str(file.relative_to(stage)): ElementTree.parse(file).getroot() for file in page_files(stage)}


def page_files(stage: Path) -> list[Path]:
    return sorted(file for file in stage.rglob("*") if file.suffix.lower() == ".htm")


def text_of(page: ElementTree.Element) -> str:
    return " ".join("".join(page.itertext()).split())


def links(page: ElementTree.Element) -> Iterator[str]:
    for element in page.iter():
        yield from (element.attrib[name] for name in ("href", "src") if name in element.attrib)


def structure(page: ElementTree.Element) -> list[tuple[str, list[str]]]:
    """Elements and attributes in order, without the places where a long word may break."""
    return [(one.tag, sorted(one.attrib)) for one in page.iter() if one.tag != f"{XHTML}wbr"]


def test_the_pages_of_a_disc_are_these(stage: Path) -> None:
    assert list(written(stage, (everything(),), about())) == [
        "INDEX.HTM",
        "PHONE.HTM",
        *(f"ihe_pdi/i{number:07}.htm" for number in (*range(1, 19), 21, 23, 25)),
        "ihe_pdi/index.htm",
        "ihe_pdi/r0000001.htm",
        *(f"ihe_pdi/s000000{place}.htm" for place in range(1, 7)),
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_link_is_in_lower_case_and_leads_to_what_is_there(stage: Path, language: str) -> None:
    for name in ("View er#1%.exe", "README.TXT"):
        (stage / name).touch()
    told = about(language=language, viewer=Viewer(("View er#1%.exe",), "View er#1%.exe"))
    pages = written(stage, (everything(), patient(series(1, picture(99)))), told)
    reached = {"INDEX.HTM", "PHONE.HTM"}
    for name, page in pages.items():
        ids = [one.attrib["id"] for one in page.iter() if "id" in one.attrib]
        assert len(ids) == len(set(ids))
        for link in links(page):
            target, _, anchor = link.partition("#")
            if target.startswith("data:"):
                assert name == "PHONE.HTM"
            elif not target:
                assert anchor in ids, link
            else:
                assert target.islower() or target.endswith(("View%20er%231%25.exe", "README.TXT"))
                file = (stage / name).parent / unquote(target)
                assert file.is_file()
                reached.add(str(file.resolve().relative_to(stage.resolve())))
    there = {str(file.relative_to(stage)) for file in stage.rglob("*") if file.is_file()}
    assert there - reached == {"ihe_pdi/index.htm"} - reached


def test_no_name_of_a_page_needs_more_than_8_3(stage: Path) -> None:
    written(stage, (everything(),), about())
    names = [file.name for file in stage.rglob("*") if file.is_file()]
    assert [name for name in names if not re.fullmatch(r"[A-Za-z0-9_]{1,8}\.[A-Za-z]{3}", name)] == []


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_text_on_every_page(stage: Path, tmp_path: Path, text: str) -> None:
    told, tame = (hostile_about(one, not_indexed=(NotIndexed("OTHER/A", one),)) for one in (text, "x"))
    pages = written(stage, (hostile(text),), told)
    harmless = tmp_path / "harmless"
    harmless.mkdir()
    for name, page in written(harmless, (hostile("x"),), tame).items():
        assert structure(pages[name]) == structure(page), name
        assert " ".join(NOT_XML.sub("\ufffd", text).split()) in text_of(pages[name])
        assert not any(link.startswith("javascript:") for link in links(pages[name]))


@given(st.text(st.characters(exclude_categories=[])))
@settings(max_examples=40)
def test_any_text_makes_pages_that_parse(text: str) -> None:
    with TemporaryDirectory() as directory:
        pages = written(Path(directory), (hostile(text),), about(institution=text, contact=text))
        assert len(pages) == 7


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_page_has_script_or_style_and_each_has_a_policy(stage: Path, language: str) -> None:
    for name, page in written(stage, (everything(),), about(language=language)).items():
        tags = {one.tag.removeprefix(XHTML) for one in page.iter()}
        assert tags & {"script", "style", "link", "iframe", "object", "embed", "form", "base"} == set()
        attributes = {attribute for one in page.iter() for attribute in one.attrib}
        assert [one for one in attributes if one.startswith("on") or one == "style"] == []
        policy = page.find(f".//{XHTML}meta[@http-equiv='Content-Security-Policy']")
        assert policy is not None
        rules = [rule.strip() for rule in policy.attrib["content"].split(";")]
        assert rules == ["default-src 'none'", *pictures_from(name), "base-uri 'none'", "form-action 'none'"]
        assert page.attrib["lang"] == page.attrib["{http://www.w3.org/XML/1998/namespace}lang"] == language
        assert (stage / name).read_text().startswith("<!DOCTYPE html>\n")


def pictures_from(name: str) -> list[str]:
    if name == "PHONE.HTM":
        return ["img-src data:"]
    return [] if name.startswith("ihe_pdi/r") else ["img-src 'self' file:"]


def test_the_overview_says_what_is_on_the_disc(stage: Path) -> None:
    told = about(viewer=Viewer(("viewer.exe",), "viewer.exe"), not_indexed=(NotIndexed("OTHER/A", "1.2"),) * 3)
    (stage / "viewer.exe").touch()
    page = written(stage, (everything(),), told)["INDEX.HTM"]
    said = text_of(page)
    for expected in (
        "Example Hospital",
        "Example Street 1",
        "JOHN DOE",
        "PAT001",
        "4 March 1962",
        "Sex: male",
        "CT scan and ultrasound and ECG, 1 March 2024",
        "Study: CT of the thorax",
        "CT.000200",
        "Thorax 2 CT scan · Series 2 · 200 images",
        "Loop Ultrasound · Series 3 · 5 frames",
        "Read the report: Radiology report",
        "Open the document (PDF): Letter",
        "Series 6: Thorax 6: 2 DICOM files",
        "start the viewer viewer.exe",
        "PHONE.HTM",
        "import it into your PACS or viewer by its DICOMDIR",
        "not for diagnosis",
        "does not name: 3.",
    ):
        assert expected in said
    pictures = [one.attrib["src"] for one in page.iter(f"{XHTML}img")]
    assert pictures == [f"ihe_pdi/p{middle:07}.jpg" for middle in (4, 13, 23)]
    assert said.index("Read the report") < said.index("Thorax 2")


def test_a_disc_without_viewer_links_to_none(stage: Path) -> None:
    assert "start the viewer" not in text_of(written(stage, (everything(),), about())["INDEX.HTM"])


def test_the_logo_is_on_the_pages_that_may_show_it(stage: Path) -> None:
    (stage / "ihe_pdi").mkdir()
    (stage / "ihe_pdi" / "logo.png").touch()
    pages = written(stage, (everything(),), about(logo=Logo("logo.png", 120, 60)))
    shown = {name: [one for one in links(page) if "logo" in one] for name, page in pages.items()}
    assert shown["INDEX.HTM"] == ["ihe_pdi/logo.png"]
    assert shown["ihe_pdi/index.htm"] == shown["ihe_pdi/s0000001.htm"] == ["logo.png"]
    assert shown["PHONE.HTM"] == shown["ihe_pdi/r0000001.htm"] == []


def test_a_series_leads_to_its_neighbours_and_to_the_overview(stage: Path) -> None:
    pages = written(stage, (everything(),), about())
    ways = [[link for link in links(pages[f"ihe_pdi/s000000{n}.htm"]) if re.match("s|index", link)] for n in (1, 2, 6)]
    assert ways == [
        ["index.htm", "s0000002.htm"],
        ["s0000001.htm", "index.htm", "s0000003.htm"],
        ["s0000005.htm", "index.htm"],
    ]


def test_an_image_leads_to_its_neighbours_and_to_its_series(stage: Path) -> None:
    pages = written(stage, (everything(),), about())
    ways = [[link for link in links(pages[f"ihe_pdi/i{n:07}.htm"]) if link.endswith(".htm")] for n in (7, 8, 18)]
    assert ways == [
        ["s0000002.htm", "i0000008.htm"],
        ["i0000007.htm", "s0000002.htm", "i0000009.htm"],
        ["i0000017.htm", "s0000002.htm"],
    ]
    assert [link for link in links(pages["ihe_pdi/s0000002.htm"]) if re.match("i0", link)] == [
        f"i{number:07}.htm" for number in range(7, 19)
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_image_says_where_it_is_and_both_windows_are_beside_each_other(stage: Path, language: str) -> None:
    other = Other("q0000001.jpg", 490, 490, "LUNG")
    where = Marks("-12.5", "R", "L", "B", "MLO")
    one = picture(1, place=7, places=150, window="MEDIASTINUM", marks=where, other=other)
    page = written(stage, (patient(series(1, one)),), about(language=language))["ihe_pdi/s0000001.htm"]
    said, text = texts(language)["pages"], text_of(page)
    for expected in (
        said["place"].format(place=7, places=150),
        said["position"].format(position="-12.5"),
        f"{said['window']}: MEDIASTINUM",
        f"{said['window']}: LUNG",
        f"{texts(language)['laterality']['B']} \u00b7 MLO",
    ):
        assert expected in text
    assert [one.text for one in page.iter(f"{XHTML}b") if one.text in {"L", "R"}] == ["R", "L"] * 2
    assert [one.attrib["src"] for one in page.iter(f"{XHTML}img")] == ["p0000001.jpg", "q0000001.jpg"]
    assert [one.attrib["width"] for one in page.iter(f"{XHTML}td") if one.get("width") in {"490", "512"}] == ["512"] * 2


def test_a_card_of_a_mammogram_says_which_side_and_view_it_is(stage: Path) -> None:
    views = (picture(at, marks=Marks(laterality=side, view="CC")) for at, side in enumerate("RL", 1))
    page = written(stage, (patient(series(1, *views)),), about())["ihe_pdi/s0000001.htm"]
    assert [text_of(one) for one in page.iter(f"{XHTML}small")][:3] == [
        *("Example Street 1, +00 000 000", "Image 1 \u00b7 right \u00b7 CC", "Image 2 \u00b7 left \u00b7 CC")
    ]


def test_a_picture_says_what_it_is(stage: Path) -> None:
    page = written(stage, (everything(),), about())["ihe_pdi/s0000003.htm"]
    said = [one.attrib["alt"] for one in page.iter(f"{XHTML}img")]
    assert said == [f"Ultrasound, Loop, Image 1, frame {frame} of 5" for frame in (1, 3, 5)]


def test_a_series_of_one_picture_shows_it_once_and_large(stage: Path) -> None:
    page = written(stage, (patient(series(1, picture(1, width=2000, height=1600))),), about())["ihe_pdi/s0000001.htm"]
    (shown,) = page.iter(f"{XHTML}img")
    widths = [
        cell.attrib["width"] for cell in page.iter(f"{XHTML}td") if shown in cell.iter() and "width" in cell.attrib
    ]
    assert (shown.attrib["width"], widths[-1]) == ("100%", "2000")
    assert [link for link in links(page) if link.endswith(".htm")] == ["index.htm"]
    assert not (stage / "ihe_pdi" / "i0000001.htm").exists()


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_page_says_that_a_picture_has_its_full_size(stage: Path, language: str) -> None:
    for page in written(stage, (everything(),), about(language=language)).values():
        assert not re.search("full size|ukuran penuh", text_of(page), re.IGNORECASE)


def test_reports_and_documents_are_no_images(stage: Path) -> None:
    pictures = (picture(number, number="1", frame=number, frames=2, is_page=True) for number in (1, 2))
    report, letter = ShownReport("1", "Letter", BODY), Document("d0000001.pdf", "1", "Letter")
    mixed = series(1, picture(3), report, letter, *pictures, Nothing("9", "ECG", Why.NO_PIXELS), instances=10)
    reports = series(2, *(ShownReport(str(n), "Report", BODY) for n in range(3)), modality="SR", instances=3)
    index = text_of(written(stage, (patient(mixed, reports),), about())["INDEX.HTM"])
    assert "Series 1 · 7 images, 1 report, 1 document, 1 other DICOM file" in index
    assert "3 images" not in index
    assert index.count("Read the report") == 4


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_cannot_be_shown_says_why(stage: Path, language: str) -> None:
    pages = written(stage, (everything(),), about(language=language))
    why = texts(language)["why"]
    assert why[Why.SYNTAX] in text_of(pages["ihe_pdi/s0000002.htm"])
    assert f"2 \u00d7 ECG Storage: {why[Why.NO_PIXELS]}" in text_of(pages["ihe_pdi/s0000006.htm"])
    assert f"2 \u00d7 ECG Storage: {why[Why.NO_PIXELS]}" in text_of(pages["PHONE.HTM"])


def test_a_report_is_on_its_page_and_on_the_phone_s(stage: Path) -> None:
    pages = written(stage, (everything(),), about())
    for name in ("ihe_pdi/r0000001.htm", "PHONE.HTM"):
        assert "A synthetic finding." in text_of(pages[name])


def test_the_overview_leads_to_every_report_and_document(stage: Path) -> None:
    pages = written(stage, (everything(),), about())
    for name, folder in (("INDEX.HTM", "ihe_pdi/"), ("ihe_pdi/index.htm", "")):
        found = set(links(pages[name]))
        assert {f"{folder}r0000001.htm", f"{folder}d0000001.pdf"} <= found
        assert "Radiology report" in text_of(pages[name])


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_pages_of_a_document_are_pictures_beside_it(stage: Path, language: str) -> None:
    pictures = (picture(number, number="1", frame=number, frames=2, is_page=True) for number in (1, 2))
    one = patient(series(1, Document("d0000001.pdf", "1", "Letter"), *pictures, modality="DOC"))
    pages, said = written(stage, (one,), about(language=language)), texts(language)["pages"]
    page, phone = pages["ihe_pdi/s0000001.htm"], pages["PHONE.HTM"]
    assert {"d0000001.pdf"} <= set(links(page))
    assert said["its_pages"] in text_of(page)
    for shown in (page, phone):
        assert f"{said['document'].format(number=1)}, {said['page'].format(page=2)}" in text_of(shown)
    assert said["whole_document"] in text_of(phone)
    assert said["document_elsewhere"] not in text_of(phone)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("cut", [0, 1])
def test_where_a_document_has_more_pages_than_are_shown_it_is_said(stage: Path, language: str, cut: int) -> None:
    page = picture(1, number="1", is_page=True)
    one = patient(series(1, Document("d0000001.pdf", "1", "Letter", cut), page, modality="DOC"))
    pages, said = written(stage, (one,), about(language=language)), texts(language)["pages"]["pages_cut"]
    for name in ("ihe_pdi/s0000001.htm", "PHONE.HTM"):
        assert text_of(pages[name]).count(said.format(count=1)) == cut


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("why", [Why.LARGE, Why.PAGES])
def test_what_is_too_large_to_be_shown_is_told_in_words(why: Why, language: str, stage: Path) -> None:
    one = patient(series(1, Document("d0000001.pdf", "1", "Letter"), Nothing("1", "Encapsulated PDF Storage", why)))
    pages = written(stage, (one,), about(language=language))
    for name in ("ihe_pdi/s0000001.htm", "PHONE.HTM"):
        assert texts(language)["why"][why] in text_of(pages[name])
    assert texts(language)["pages"]["its_pages"] not in text_of(pages["ihe_pdi/s0000001.htm"])


LEVELS = re.compile(r"<h(\d)")


def test_headings_of_one_rank_are_on_one_level() -> None:
    said = "".join(f"<h{level}>{at}</h{level}>" for at, level in enumerate((2, 3, 3, 4, 3, 2, 4, 4, 2)))
    assert LEVELS.findall(Titles(texts("en")).body(said, 2)) == [*"233432332"]


def test_headings_never_skip_a_level(stage: Path) -> None:
    odd = "<h3>a</h3><h1>b</h1><h6>c</h6><p>d</p><h2>e</h2>"
    reports = (ShownReport(str(n), "t", text) for n, text in enumerate((BODY, odd)))
    for page in written(stage, (patient(series(1, *reports)), everything()), about()).values():
        levels = [int(one.tag[-1]) for one in page.iter() if re.fullmatch(rf"{XHTML}h[1-6]", one.tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert [(a, b) for a, b in itertools.pairwise(levels) if b > a + 1] == []


def test_a_disc_without_pictures_has_its_pages(stage: Path) -> None:
    empty = (
        patient(series(1), series(2, description="", modality="")),
        patient(studies=()),
        ShownPatient("", "", "", "", ()),
    )
    nameless = ShownPatient("", "", "", "", (ShownStudy("", "", "", (series(1, number="", instances=0),)),))
    pages = written(stage, (*empty, nameless), about(institution="", contact=""))
    assert [one for page in pages.values() for one in page.iter(f"{XHTML}img")] == []
    assert "without a picture here: Series 1: Thorax 1: 200 DICOM files" in text_of(pages["INDEX.HTM"])


def test_a_disc_of_nobody_has_its_pages(stage: Path) -> None:
    assert "No studies." in text_of(written(stage, (), about())["INDEX.HTM"])


def test_the_series_of_several_patients_are_numbered_through(stage: Path) -> None:
    pages = written(stage, (everything(), patient(series(1, picture(50)), name="MARY MOE")), about())
    assert "MARY MOE" in text_of(pages["ihe_pdi/s0000007.htm"])
    assert "JOHN DOE" not in text_of(pages["ihe_pdi/s0000007.htm"])
    assert {"JOHN DOE", "MARY MOE"} <= set(re.findall("JOHN DOE|MARY MOE", text_of(pages["INDEX.HTM"])))


def test_a_long_word_may_break_and_an_endless_text_ends() -> None:
    assert shown_text("a" * 20) == "<bdi>aaaaaaaa<wbr/>aaaaaaaa<wbr/>aaaa</bdi>"
    assert shown_text("<" * 20) == f"<bdi>{'&lt;' * 8}<wbr/>{'&lt;' * 8}<wbr/>{'&lt;' * 4}</bdi>"
    assert len(shown_text("a b " * 10_000)) < 1_100


def test_a_report_s_headings_begin_where_the_page_is() -> None:
    assert Titles(texts("en")).body("<h1>a</h1><h3>b</h3><h2>c</h2>", 2) == "<h2>a</h2><h3>b</h3><h3>c</h3>"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_report_that_may_lack_parts_says_so_wherever_it_stands(stage: Path, language: str) -> None:
    one = patient(series(1, ShownReport("1", "t", BODY, whole=False), ShownReport("2", "t", BODY)))
    pages = written(stage, (one,), about(language=language))
    warning = texts(language)["pages"]["report_not_whole"]
    told = {name: text_of(page).count(warning) for name, page in pages.items()}
    assert told == dict.fromkeys(pages, 0) | {"PHONE.HTM": 1, "ihe_pdi/r0000001.htm": 1}
