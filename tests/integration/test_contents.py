"""What is shown of a disc, made by the real programs."""

import random
import stat
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pydicom import Dataset, dcmread, uid
from pydicom.data import get_charset_files, get_testdata_files
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence

from mkiso.browse import pictures, shown
from mkiso.browse.contents import PAGES
from mkiso.browse.pages import write_pages
from mkiso.browse.pictures import ELEMENTS
from mkiso.browse.shown import (
    LARGEST_ON_PHONE,
    Document,
    Marks,
    Nothing,
    Picture,
    ShownPatient,
    ShownReport,
    ShownSeries,
    ShownStudy,
    Why,
    room_for_pages,
)
from mkiso.dcmtk import converters
from mkiso.dcmtk.converters import Converter, jpeg_size
from mkiso.errors import Cancelled, DiskFull
from mkiso.waiting import Cancellation
from tests.support import datasets, hostile
from tests.support.contents import Showing, grey_of, items, series_of
from tests.support.pydicom_files import file, with_uids
from tests.support.shown import about
from tests.support.stage import encoded, presentation
from tests.support.studies import GB18030, IR87, JANE, JOHN, UTF8, mixed_study

COMMON = datasets.study(JOHN, "CT.001")


@pytest.fixture
def job(tmp_path: Path) -> Showing:
    return Showing(tmp_path)


def ct(number: int = 1, side: int = 64, **values: object) -> Dataset:
    one = datasets.ct(COMMON, 1, number, side)
    for keyword, value in values.items():
        setattr(one, keyword, value)
    return one


def made(job: Showing, *instances: Dataset | bytes | Path) -> list[object]:
    return list(job.put(*instances).items())


def test_a_series_has_its_pictures_in_the_order_of_its_instances(job: Showing) -> None:
    (patient,) = job.put(
        *(ct(number, PatientName="DOE^JOHN=王", BodyPartExamined="CHEST") for number in range(1, 31))
    ).shown(pictures=3)
    expected = tuple(
        Picture(f"p{n:07}.jpg", 64, 64, f"{number}", place=number, places=30, marks=Marks(f"{2 * number}.0", "R", "L"))
        for n, number in ((1, 1), (2, 16), (3, 30))
    )
    series = ShownSeries("1", "CT", "Series 1", 30, expected, "CHEST")
    study = ShownStudy("20240301", "Synthetic study CT.001", "CT.001", (series,))
    assert patient == ShownPatient(patient.name, "PAT001", "19620304", "M", (study,))


def test_what_is_shown_is_the_same_every_time(job: Showing) -> None:
    job.put(*(datasets.ct(COMMON, series, n, 64) for series in (1, 2, 3) for n in range(1, 9)))
    first = job.shown()
    content = {path.name: path.read_bytes() for path in job.web.iterdir()}
    assert job.shown() == first
    assert {path.name: path.read_bytes() for path in job.web.iterdir()} == content


@pytest.mark.parametrize("patient", [UTF8, GB18030, IR87])
def test_a_name_is_decoded_by_its_character_set(patient: datasets.Patient, job: Showing) -> None:
    (shown,) = job.put(datasets.ct(datasets.study(patient, "X.001"), 1, 1, 64)).shown()
    assert patient.name.split("=")[1].replace("^", " ") in shown.name


def test_patients_and_studies_stay_apart_and_in_their_order(job: Showing) -> None:
    john, jane = (datasets.study(one, "X.001", number) for number, one in enumerate((JOHN, JANE), 1))
    other = datasets.study(JOHN, "X.001", 3)
    shown = job.put(*(datasets.ct(one, series, 1, 64) for one in (john, jane, other) for series in (2, 1))).shown()
    assert [(one.patient_id, [study.date for study in one.studies]) for one in shown] == [
        ("PAT001", ["20240301", "20240303"]),
        ("PAT002", ["20240302"]),
    ]
    assert [one.number for one in series_of(shown)] == ["1", "2"] * 3


def test_a_series_of_several_folders_is_one(job: Showing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkiso.disc.layout.A_FOLDER", 3)
    (series,) = series_of(job.put(*(ct(number, 16) for number in range(1, 11))).shown(pictures=2))
    assert (series.instances, [item.number for item in series.items]) == (10, ["1", "10"])


def test_without_pictures_there_are_reports_and_documents(job: Showing) -> None:
    kinds = (datasets.ct, datasets.report, datasets.document, datasets.private_instance)
    job.put(*(make(COMMON, series, 1) for series, make in enumerate(kinds, 1)))
    assert [type(item) for item in job.items(pictures=0)] == [ShownReport, Document, Nothing]


def test_every_transfer_syntax_has_its_picture(job: Showing) -> None:
    study = mixed_study(job.directory / "log")
    (patient,) = job.put(*study.files).shown()
    counts = Counter(type(item).__name__ for item in items((patient,)))
    assert counts == {"Picture": 9, "ShownReport": 1, "Document": 1, "Nothing": 1}


@pytest.mark.parametrize("name", ["JPEGLSNearLossless_16.dcm", "JPEG2000.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_what_dcmtk_cannot_decode_is_told_where_gdcmconv_is_not(
    name: str, job: Showing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converters, "gdcmconv_installed", lambda: None)
    (item,) = made(job, with_uids(file(name)))
    assert isinstance(item, Nothing)
    assert (item.why, item.kind) == (Why.SYNTAX, uid.UID(dcmread(file(name)).SOPClassUID).name)


@pytest.mark.parametrize(
    "name",
    [
        "JPEGLSNearLossless_08.dcm",
        "JPEGLSNearLossless_16.dcm",
        "SC_rgb_jls_lossy_line.dcm",
        "SC_rgb_jls_lossy_sample.dcm",
    ],
)
def test_what_dcmtk_cannot_decode_is_shown_where_gdcmconv_is(name: str, job: Showing) -> None:
    assert [type(item) for item in made(job, with_uids(file(name)))] == [Picture]


def test_gdcmconv_is_asked_too_where_dcmtk_should_have_been_able_to(job: Showing) -> None:
    assert [type(item) for item in made(job, file("SC_rgb_jpeg.dcm"))] == [Picture]


def test_a_video_is_told_as_what_cannot_be_decoded(job: Showing) -> None:
    video = datasets.ultrasound_loop(COMMON, 1, 1)
    video.file_meta.TransferSyntaxUID = uid.MPEG4HP41
    video.PixelData = encapsulate([b"video "])
    video["PixelData"].is_undefined_length = True
    assert made(job, video) == [Nothing("1", "Ultrasound Multi-frame Image Storage", Why.SYNTAX)] * 5


def test_an_instance_is_decoded_once_for_all_its_frames(job: Showing, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[object] = []
    decode = converters.decode
    monkeypatch.setattr(converters, "decode", lambda *words: decoded.append(words) or decode(*words))
    source = dcmread(file("JPEG2000.dcm"))
    source.SOPClassUID = source.file_meta.MediaStorageSOPClassUID = (
        uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    )
    source.NumberOfFrames = 3
    frame = next(generate_frames(source.PixelData, number_of_frames=1))
    source.PixelData = encapsulate([frame] * 3)
    assert [type(item) for item in made(job, source)] == [Picture] * 3
    assert len(decoded) == 1


def test_an_instance_that_gdcmconv_cannot_decode_is_tried_once(job: Showing, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []
    monkeypatch.setattr(converters, "decode", lambda *words: bool(tried.append(words)))
    loop = datasets.ultrasound_loop(COMMON, 1, 1)
    loop.file_meta.TransferSyntaxUID = uid.JPEG2000
    loop.PixelData = encapsulate([b"torn"])
    loop["PixelData"].is_undefined_length = True
    assert made(job, loop) == [Nothing("1", "Ultrasound Multi-frame Image Storage", Why.BROKEN)] * 5
    assert len(tried) == 1


def test_a_disk_that_gdcmconv_filled_is_not_told_as_broken(job: Showing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its torn file is gone when the others are looked at."""
    monkeypatch.setattr(converters, "decode", lambda *_words: False)
    monkeypatch.setattr(
        "mkiso.workspace.free_space", lambda place: 0 if place.name.startswith("pictures-") else 1 << 30
    )
    with pytest.raises(DiskFull):
        made(job, file("JPEG2000.dcm"))


@pytest.mark.parametrize("shape", [{"Rows": 600, "Columns": 1200}, {"Rows": 1200, "Columns": 600}])
def test_a_large_picture_is_made_as_wide_or_as_high_as_a_page_shows(shape: dict[str, int], job: Showing) -> None:
    (item,) = made(job, ct(PixelData=bytes(600 * 1200 * 2), **shape))
    assert isinstance(item, Picture)
    assert (item.width, item.height) == ((1024, 512) if shape["Rows"] == 600 else (512, 1024))
    assert jpeg_size((job.web / item.file).read_bytes()) == (item.width, item.height)


def test_a_small_picture_keeps_its_size(job: Showing) -> None:
    (item,) = made(job, ct(side=40))
    assert isinstance(item, Picture)
    assert (item.width, item.height) == (40, 40)


@pytest.mark.parametrize("spacing", [[1, 1], [4, 1], [1, 4], [10_000, 1], [1, 10_000], ["x", "y"], [0, 0], None])
def test_pixels_that_are_not_square_make_no_picture_of_any_size(spacing: object, job: Showing) -> None:
    one = ct(side=600)
    one.PixelSpacing = None
    one["PixelSpacing"]._value = spacing and [str(value) for value in spacing]  # type: ignore[attr-defined]
    (item,) = made(job, one)
    assert isinstance(item, Nothing) or max(item.width, item.height) <= 600  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("stored", "black"),
    [
        ({"WindowCenter": 2000, "WindowWidth": 10}, True),
        ({"WindowCenter": -5000, "WindowWidth": 10}, False),
        ({"WindowCenter": 40, "WindowWidth": -1}, None),
        ({}, None),
    ],
)
def test_a_stored_window_is_used_and_else_that_of_the_pixels(
    stored: dict[str, int], black: bool | None, job: Showing
) -> None:
    """The image goes from 0 to 2000, and by its rescale intercept from -1024 to 976."""
    (item,) = made(job, ct(**stored))
    assert isinstance(item, Picture)
    pixels = grey_of(job.web / item.file, job.directory)
    expected = {True: max(pixels) < 8, False: min(pixels) > 247, None: min(pixels) < 50 and max(pixels) > 200}
    assert expected[black]


BOTH = {"WindowCenter": ["40", "-600"], "WindowWidth": ["400", "1500"]}


def test_the_second_stored_window_is_shown_beside_the_first(job: Showing) -> None:
    (item,) = made(job, ct(**BOTH, WindowCenterWidthExplanation=["SOFT TISSUE", "LUNG"]))
    assert isinstance(item, Picture)
    assert item.other is not None
    assert (item.window, item.other.window) == ("SOFT TISSUE", "LUNG")
    first, second = (grey_of(job.web / file, job.directory) for file in (item.file, item.other.file))
    assert min(first) < 8, "air is black in the first"
    assert min(second) > 40, "and not in the second"
    assert (item.other.width, item.other.height) == jpeg_size((job.web / item.other.file).read_bytes())


def test_a_window_without_a_name_is_told_by_its_values(job: Showing) -> None:
    (item,) = made(job, ct(**BOTH))
    assert isinstance(item, Picture)
    assert item.other is not None
    assert (item.window, item.other.window) == ("40 / 400", "-600 / 1500")


@pytest.mark.parametrize(
    "stored",
    [
        {"WindowCenter": ["40", "40"], "WindowWidth": ["400", "400"]},
        {"WindowCenter": ["40", "-600"], "WindowWidth": ["400", "0"]},
        {"WindowCenter": ["40", "-600"], "WindowWidth": ["400"]},
        {"WindowCenter": ["40"], "WindowWidth": ["400"]},
    ],
)
def test_where_no_second_window_is_of_use_there_is_one_picture(stored: dict[str, object], job: Showing) -> None:
    (item,) = made(job, ct(**stored))
    assert isinstance(item, Picture)
    assert item.other is None


def test_of_an_instance_without_its_pixels_no_window_is_left(job: Showing) -> None:
    lost = ct(2, **BOTH)
    del lost.PixelData
    whole, broken = made(job, ct(1, **BOTH), lost)
    assert (type(whole), type(broken)) == (Picture, Nothing)


@pytest.mark.parametrize(
    ("make", "side"),
    [
        (uid.DigitalXRayImageStorageForPresentation, 2000),
        (uid.DigitalMammographyXRayImageStorageForPresentation, 2000),
        (uid.ComputedRadiographyImageStorage, 2000),
        (uid.SecondaryCaptureImageStorage, 2000),
        (uid.MRImageStorage, 1024),
    ],
)
def test_an_x_ray_and_a_scan_are_shown_larger(make: uid.UID, side: int, job: Showing) -> None:
    one = ct(Rows=2500, Columns=1000, PixelData=bytes(2500 * 1000 * 2), SOPClassUID=make)
    (item,) = made(job, one)
    assert isinstance(item, Picture)
    assert max(item.width, item.height) == side


def noise(side: int) -> bytes:
    """Bits of a generator's: no JPEG is small of it."""
    return random.Random(1).randbytes(side * side * 2)


@pytest.mark.parametrize("megabytes", [16, 150, 1500])
def test_the_pages_take_a_small_part_of_the_disc_however_badly_its_pictures_compress(
    megabytes: int, job: Showing
) -> None:
    """Three hundredths, of a small one 3.15 MB. The instances say that they are so large, and need not be."""
    stack = [ct(number, 512, PixelData=noise(512), BitsStored=16, HighBit=15, **BOTH) for number in range(1, 31)]
    job.put(*stack)
    size = megabytes * 1_000_000 // len(stack)
    job.staged = [replace(one, instance=replace(one.instance, bytes=size)) for one in job.staged]
    patients = job.shown()
    assert all(isinstance(item, Picture) and item.other for item in items(patients))
    most = room_for_pages(one.instance for one in job.staged)
    assert most == max(3_150_000, size * len(stack) * 3 // 100)
    write_pages(patients, about(), job.stage, most)
    phone = (job.stage / "PHONE.HTM").stat().st_size
    taken = sum(file.stat().st_size for file in (*job.web.iterdir(), job.stage / "INDEX.HTM")) + phone
    assert taken <= most
    assert phone <= LARGEST_ON_PHONE
    assert all(max(item.width, item.height) >= 256 for item in items(patients) if isinstance(item, Picture))


def test_a_small_disc_has_its_pictures_on_the_phone_too(job: Showing) -> None:
    one = ct(Rows=2500, Columns=2000, PixelData=noise(2236)[: 2500 * 2000 * 2].ljust(2500 * 2000 * 2, b"0"))
    one.BitsStored, one.HighBit, one.SOPClassUID = 16, 15, uid.DigitalXRayImageStorageForPresentation
    patients = job.put(one).shown()
    write_pages(patients, about(), job.stage, room_for_pages(one.instance for one in job.staged))
    (picture,) = items(patients)
    assert isinstance(picture, Picture)
    assert max(picture.width, picture.height) >= 1000
    assert b"data:image/jpeg;base64," in (job.stage / "PHONE.HTM").read_bytes()


def test_a_stored_table_is_used(job: Showing) -> None:
    table = Dataset()
    table.LUTDescriptor = [2001, -1024, 8]
    table["LUTDescriptor"].VR = "SS"
    table.LUTData = [0] * 2001
    table["LUTData"].VR = "US"
    one = ct(VOILUTSequence=Sequence([table]))
    (item,) = made(job, one)
    assert isinstance(item, Picture)
    assert max(grey_of(job.web / item.file, job.directory)) < 8


def test_frames_of_a_loop_are_evenly_spaced(job: Showing) -> None:
    loop = datasets.ultrasound_loop(COMMON, 1, 1, frames=10)
    found = job.put(loop, datasets.ultrasound(COMMON, 1, 2)).items(pictures=4)
    assert found == [
        Picture("p0000001.jpg", 160, 120, "1", 1, 10, place=1, places=11),
        Picture("p0000002.jpg", 160, 120, "1", 4, 10, place=4, places=11),
        Picture("p0000003.jpg", 160, 120, "1", 8, 10, place=8, places=11),
        Picture("p0000004.jpg", 160, 120, "2", 1, 1, place=11, places=11),
    ]
    assert len({(job.web / one.file).read_bytes() for one in found[:3] if isinstance(one, Picture)}) == 3


def test_a_frame_that_is_not_there_is_broken_and_the_others_are_shown(job: Showing) -> None:
    loop = datasets.ultrasound_loop(COMMON, 1, 1, frames=4)
    loop.PixelData = loop.PixelData[: 3 * 120 * 160 * 3]
    assert [type(item) for item in made(job, loop)] == [Picture] * 3 + [Nothing]


def test_colours_are_those_of_the_instance(job: Showing) -> None:
    (item,) = made(job, file("examples_palette.dcm"))
    assert isinstance(item, Picture)
    assert (item.width, item.height) == (800, 350)


def test_an_instance_without_pixels_and_one_that_lost_them_are_told_apart(job: Showing) -> None:
    bare, lost = ct(1), ct(2)
    for keyword in ("Rows", "Columns", "PixelData"):
        del bare[keyword]
    del lost.PixelData
    assert [getattr(item, "why", item) for item in made(job, bare, lost)] == [Why.NO_PIXELS, Why.BROKEN]


def test_what_a_browser_does_not_show_is_named(job: Showing) -> None:
    assert made(job, presentation(COMMON, 1, 1), datasets.private_instance(COMMON, 2, 3)) == [
        Nothing("1", "Grayscale Softcopy Presentation State Storage", Why.NO_PIXELS),
        Nothing("3", str(datasets.PRIVATE_SOP_CLASS), Why.NO_PIXELS),
    ]


def test_every_test_file_is_shown_or_told(job: Showing) -> None:
    files = [Path(one) for one in sorted(set(get_testdata_files())) if Path(one).is_file()]
    shown = job.put(*files).shown(pictures=100)
    why = Counter(item.why for item in items(shown) if isinstance(item, Nothing))
    assert sum(one.instances for one in series_of(shown)) == len(job.staged)
    assert sum(isinstance(item, Picture) for item in items(shown)) > 100
    assert (why[Why.SYNTAX], why[Why.LATE], why[Why.BROKEN]) == (0, 0, 1)  # GDCM cannot decode one of them, either
    for item in items(shown):
        if isinstance(item, Picture):
            assert jpeg_size((job.web / item.file).read_bytes()) == (item.width, item.height)


def test_pictures_are_the_same_with_the_small_dictionary_as_with_all_of_dicom(
    job: Showing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of what an implicit transfer syntax does not tell the value representation of."""
    names = ("MR_small_implicit.dcm", "examples_overlay.dcm", "examples_palette.dcm")
    first = job.put(*(with_uids(file(name)) for name in names)).shown()
    content = {path.name: path.read_bytes() for path in job.web.iterdir()}
    assert len(content) >= len(names)
    everything = max(Path("/usr/share").glob("libdcmtk*/dicom.dic"))
    monkeypatch.setenv("DCMDICTPATH", str(everything))
    assert job.shown() == first
    assert {path.name: path.read_bytes() for path in job.web.iterdir()} == content


def assert_harmless(report: object) -> str:
    """Its text."""
    assert isinstance(report, ShownReport)
    body = ElementTree.fromstring(f"<body>{report.body}</body>")
    assert {one.tag for one in body.iter()} - {"body"} <= ELEMENTS
    assert not [one for one in body.iter() if one.attrib]
    return "".join(body.itertext())


def test_a_report_is_xhtml_without_the_footer(job: Showing) -> None:
    (item,) = made(job, file("test-SR.dcm"))
    text = assert_harmless(item)
    assert isinstance(item, ShownReport)
    assert (item.title, item.whole) == ("Diagnosis", True)
    assert "Jörg Riesmeier" in text
    assert "A mass of\n1\n3 cm" in text
    assert "<sup>1</sup>" in item.body
    assert "This page was generated" not in text
    assert "localhost" not in item.body


@pytest.mark.parametrize("patient", [IR87, GB18030, UTF8])
def test_a_report_is_read_in_its_character_set(patient: datasets.Patient, job: Showing) -> None:
    one = datasets.report(datasets.study(patient, "SR.001"), 1, 1)
    one.ContentSequence[0].TextValue = "所見 あ" if patient is IR87 else "检查所见" if patient is GB18030 else "所見"
    (item,) = made(job, one)
    text = assert_harmless(item)
    assert one.ContentSequence[0].TextValue in text
    assert isinstance(item, ShownReport)
    assert item.whole


def test_a_report_whose_items_have_a_character_set_of_their_own_is_read(job: Showing) -> None:
    one = datasets.report(datasets.study(IR87, "SR.001"), 1, 1)
    one.ContentSequence[0].SpecificCharacterSet = IR87.character_set.split("\\")
    one.ContentSequence[0].TextValue = "所見"
    (item,) = made(job, one)
    assert "所見" in assert_harmless(item)
    assert isinstance(item, ShownReport)
    assert item.whole


def test_a_report_that_says_nothing_of_its_characters_is_read(job: Showing) -> None:
    one = datasets.report(COMMON, 1, 1)
    one.ContentSequence[0].TextValue = "Größe"
    content = encoded_without_character_set(one)
    (item,) = made(job, content)
    assert "Größe" in assert_harmless(item)


def encoded_without_character_set(one: Dataset) -> bytes:
    content = encoded(one)
    at = content.index(b"\x08\x00\x05\x00CS")
    length = int.from_bytes(content[at + 6 : at + 8], "little")
    return content[:at] + content[at + 8 + length :]


def test_a_report_against_the_rules_is_read_and_says_so(job: Showing) -> None:
    (item,) = made(job, file("reportsi.dcm"))
    assert_harmless(item)
    assert isinstance(item, ShownReport)
    assert not item.whole


HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'


def test_a_hostile_report_is_text(job: Showing) -> None:
    one = datasets.report(COMMON, 1, 1)
    before, of, by = Dataset(), Dataset(), Dataset()
    by.ReferencedSOPClassUID = uid.BasicTextSRStorage
    by.ReferencedSOPInstanceUID = "1.2.3"
    by["ReferencedSOPInstanceUID"]._value = HOSTILE
    of.SeriesInstanceUID, of.ReferencedSOPSequence = "1.2.4", Sequence([by])
    before.StudyInstanceUID, before.ReferencedSeriesSequence = "1.2.5", Sequence([of])
    one.PredecessorDocumentsSequence = Sequence([before])
    one.SeriesDescription = HOSTILE
    one.ContentSequence[0].TextValue = HOSTILE
    one.ContentSequence[0].ConceptNameCodeSequence[0].CodeMeaning = HOSTILE
    one.ConceptNameCodeSequence[0].CodeMeaning = HOSTILE
    (item,) = made(job, one)
    assert HOSTILE in assert_harmless(item)
    assert isinstance(item, ShownReport)
    assert "<script" not in item.body
    assert "<img" not in item.body


@pytest.mark.parametrize("what", [b"", b"MZ", b"PK\3\4 no PDF here "])
def test_what_is_no_pdf_is_broken(what: bytes, job: Showing) -> None:
    one = datasets.document(COMMON, 1, 1)
    one.EncapsulatedDocument = what
    assert made(job, one) == [Nothing("1", "Encapsulated PDF Storage", Why.BROKEN)]


def test_a_document(job: Showing) -> None:
    one = datasets.document(COMMON, 1, 1)
    document, page = made(job, one)
    assert document == Document("d0000001.pdf", "1", "Synthetic report")
    assert page == Picture("p0000001.jpg", 848, 1200, "1", is_page=True)
    assert not document.cut  # type: ignore[attr-defined]
    grey = grey_of(job.web / page.file, job.directory)
    assert (min(grey) < 100, max(grey) > 250) == (True, True)
    assert (job.web / "d0000001.pdf").read_bytes() == one.EncapsulatedDocument.rstrip(b"\0")


def document_of(pdf: bytes) -> Dataset:
    one = datasets.document(COMMON, 1, 1)
    one.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    return one


def test_of_a_long_document_the_first_pages_are_shown_in_their_order(job: Showing) -> None:
    one = document_of(hostile.pdf(30, 1000))
    document, *pages = made(job, one, ct())
    assert [(page.file, page.frame, page.is_page) for page in pages] == [
        *((f"p{number:07}.jpg", number, True) for number in range(1, PAGES + 1)),
        (f"p{PAGES + 1:07}.jpg", 1, False),
    ]
    assert document.cut == PAGES


def test_a_document_that_has_just_so_many_pages_is_not_cut(job: Showing) -> None:
    document, *pages = made(job, document_of(hostile.pdf(PAGES, 1000)))
    assert (len(pages), document.cut) == (PAGES, 0)


def test_of_a_document_whose_pages_are_too_large_the_first_is_shown(
    job: Showing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "OF_ANY", 1000)
    document, *pages = made(job, document_of(hostile.pdf(3, 1000)))
    assert (len(pages), document.cut) == (1, 1)


def test_pages_that_were_made_before_the_program_hung_are_shown(job: Showing, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = 'pdftoppm "${@:1:$#-2}" -l 2 "${@: -2}"; printf "\\xff\\xd8 torn" > "${@: -1}-3.jpg"; sleep 600'
    program = instead(job.directory, hanging) / "dcmj2pnm"
    monkeypatch.setattr(converters, "pdftoppm_installed", lambda: str(program))
    document, *pages = job.put(document_of(hostile.pdf(5, 1000))).items(limit=3)
    assert (len(pages), document.cut) == (2, 2)


@pytest.mark.parametrize("pdf", [b"%PDF-1.4\nno objects", b"%PDF-1.4 " + bytes(100_000)])
def test_a_document_that_poppler_refuses_costs_its_pictures_alone(pdf: bytes, job: Showing) -> None:
    document, nothing = made(job, document_of(pdf))
    assert isinstance(document, Document)
    assert nothing == Nothing("1", "Encapsulated PDF Storage", Why.PAGES)


@pytest.mark.parametrize("script", ["sleep 600", "kill -ABRT $$", 'touch "${@: -1}-1.jpg"', "exit 1", None])
def test_whatever_becomes_of_poppler_the_document_is_there(
    script: str | None, job: Showing, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = instead(job.directory, script) / "dcmj2pnm" if script else None
    monkeypatch.setattr(converters, "pdftoppm_installed", lambda: str(program) if program else None)
    job.put(datasets.document(COMMON, 1, 1))
    document, nothing = job.items(limit=1)
    assert isinstance(document, Document)
    assert nothing == Nothing("1", "Encapsulated PDF Storage", Why.PAGES)


def test_no_script_in_a_document_is_on_a_page(job: Showing) -> None:
    """The document is as it came; its pictures are JPEGs."""
    script = b"/OpenAction << /S /JavaScript /JS (app.alert\\(1\\)) >>"
    pdf = hostile.pdf(1, 500).replace(b"/Type /Catalog", b"/Type /Catalog " + script)
    document, page = made(job, document_of(pdf))
    assert script in (job.web / document.file).read_bytes()
    assert jpeg_size((job.web / page.file).read_bytes()) == (page.width, page.height)


def test_a_uid_that_is_a_path_leads_nowhere(job: Showing) -> None:
    """GDCM's raw file, and a report's page, are named after the staged file."""
    one, two = dcmread(file("JPEG2000.dcm")), datasets.report(COMMON, 1, 1)
    for dataset in (one, two):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1"
        dataset["SOPInstanceUID"]._value = dataset.file_meta["MediaStorageSOPInstanceUID"]._value = "/../../../x"
    assert sorted(type(item).__name__ for item in made(job, one, two)) == ["Picture", "ShownReport"]
    assert not (job.directory.parent / "x.raw").exists()


def instead(directory: Path, script: str) -> Path:
    """A directory with programs in the place of DCMTK's."""
    (directory / "bin").mkdir()
    for name in ("dcmj2pnm", "dsr2html", "dcm2pdf"):
        program = directory / "bin" / name
        program.write_text(f"#!/bin/bash\n{script}\n")
        program.chmod(stat.S_IRWXU)
    return directory / "bin"


@pytest.fixture
def everything(job: Showing) -> Showing:
    """An image, a loop of 5, a report and a document."""
    kinds = (datasets.ct, datasets.ultrasound_loop, datasets.report, datasets.document)
    return job.put(*(make(COMMON, series, 1) for series, make in enumerate(kinds, 1)))


@pytest.mark.parametrize(
    "script",
    [
        "exit 0",
        "exit 1",
        "kill -SEGV $$",
        'printf "\\xff\\xd8 torn" > "${@: -1}"',
        'touch "${@: -1}"',
        "echo x >&2; exit 2",
    ],
)
def test_programs_that_fail_fail_no_disc(script: str, everything: Showing) -> None:
    found = items(everything.shown(dcmtk_dir=instead(everything.directory, script)))
    assert [getattr(item, "why", None) for item in found] == [Why.BROKEN] * 8


def test_programs_that_are_not_there_fail_no_disc(everything: Showing) -> None:
    found = items(everything.shown(dcmtk_dir=everything.directory / "none"))
    assert [getattr(item, "why", None) for item in found] == [Why.BROKEN] * 8


def test_a_program_that_hangs_is_late_and_of_its_instance_nothing_more_is_tried(everything: Showing) -> None:
    tried = everything.directory / "log"
    programs = instead(everything.directory, f"echo >> {tried}; sleep 600")
    found = items(everything.shown(dcmtk_dir=programs, limit=0.3))
    assert [getattr(item, "why", None) for item in found] == [Why.LATE] * 8
    assert len(tried.read_text()) == 4


def test_when_the_time_is_over_the_rest_is_late(job: Showing) -> None:
    job.put(*(datasets.ct(COMMON, series, n, 64) for series in (1, 2) for n in range(1, 41)))
    programs = instead(job.directory, 'sleep 0.1; exec /usr/bin/dcmj2pnm "$@"')
    found = items(job.shown(dcmtk_dir=programs, pictures=40, limit_of_all=1.0))
    late = [getattr(item, "why", None) is Why.LATE for item in found]
    assert 2 <= late.count(False) <= 40
    assert abs(late[:40].count(True) - late[40:].count(True)) <= 2, "one series was made before the other"


def test_nothing_is_started_when_the_time_is_over(everything: Showing) -> None:
    programs = instead(everything.directory, f"touch {everything.directory}/began")
    found = items(everything.shown(dcmtk_dir=programs, limit_of_all=0.0))
    assert [getattr(item, "why", None) for item in found] == [Why.LATE] * 8
    assert not (everything.directory / "began").exists()


def ending_as(job: Showing, error: Exception) -> Callable[[], None]:
    """A check that raises as soon as a program has begun."""

    def checkpoint() -> None:
        if (job.directory / "began").exists():
            raise error

    return checkpoint


@pytest.mark.parametrize("error", [Cancelled("enough"), DiskFull("full")])
def test_a_cancel_and_a_full_disk_end_it_and_its_programs_at_once(error: Exception, everything: Showing) -> None:
    programs = instead(everything.directory, f"touch {everything.directory}/began; sleep 600 & wait")
    with pytest.raises(type(error)):
        everything.shown(ending_as(everything, error), dcmtk_dir=programs)
    assert not [one for one in everything.directory.iterdir() if one.name.startswith("pictures-")]


def test_a_job_that_was_cancelled_before_starts_nothing(everything: Showing) -> None:
    cancellation = Cancellation()
    cancellation.cancel("enough")
    programs = instead(everything.directory, f"touch {everything.directory}/began")
    with pytest.raises(Cancelled):
        everything.shown(cancellation.checkpoint, dcmtk_dir=programs)
    assert not (everything.directory / "began").exists()


def test_what_fails_on_a_full_disk_is_not_told_as_broken(everything: Showing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkiso.workspace.free_space", lambda _directory: 100)
    with pytest.raises(DiskFull):
        everything.shown(dcmtk_dir=instead(everything.directory, "exit 1"))


def test_two_run_at_a_time_and_behind_all_others(job: Showing) -> None:
    log = job.directory / "log"
    once_nice = "for _ in $(seq 500); do [ $(nice) = 10 ] && break; sleep 0.01; done"  # it is made so as it runs
    script = f'{once_nice}; echo +1 $(nice) >> {log}; sleep 0.05; /usr/bin/dcmj2pnm "$@"; echo -1 >> {log}'
    job.put(*(ct(number) for number in range(1, 9))).shown(dcmtk_dir=instead(job.directory, script))
    lines = [line.split() for line in log.read_text().splitlines()]
    assert {line[1] for line in lines if len(line) > 1} == {"10"}
    running = [int(line[0]) for line in lines]
    assert max(sum(running[:end]) for end in range(len(running) + 1)) == 2


def test_a_picture_that_would_take_too_much_is_told_as_too_large(job: Showing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "LARGEST", 64 * 64 * 2 - 1)
    assert made(job, ct()) == [Nothing("1", "CT Image Storage", Why.LARGE)]


def test_a_report_that_would_take_too_much_is_told_as_too_large(job: Showing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkiso.browse.pictures.LARGEST_REPORT", 100)
    assert made(job, datasets.report(COMMON, 1, 1)) == [Nothing("1", "Basic Text SR Storage", Why.LARGE)]


def test_a_report_that_is_a_long_page_is_told_as_too_large(job: Showing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkiso.dcmtk.converters.LARGEST_PAGE", 100)
    assert made(job, datasets.report(COMMON, 1, 1)) == [Nothing("1", "Basic Text SR Storage", Why.LARGE)]


def test_reports_that_a_discs_pages_cannot_hold_are_told_as_too_large(
    job: Showing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "LARGEST_OF_REPORTS", 1500)
    found = made(job, *(datasets.report(COMMON, 1, number) for number in range(1, 9)))
    assert {getattr(one, "why", None) for one in found} == {None, Why.LARGE}


def test_a_program_that_writes_without_end_costs_its_picture(job: Showing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkiso.dcmtk.converters.LARGEST_PICTURE", 10_000)
    job.put(ct())
    (item,) = items(job.shown(dcmtk_dir=instead(job.directory, 'exec cat /dev/zero > "${@: -1}"')))
    assert item.why is Why.LARGE


def test_a_program_that_takes_memory_without_end_costs_its_picture(
    job: Showing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mkiso.browse.contents.Converter", partial(Converter, memory=1 << 27))
    job.put(ct())
    script = "a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done"
    (item,) = items(job.shown(dcmtk_dir=instead(job.directory, script)))
    assert item.why is Why.BROKEN


def test_a_program_that_says_without_end_costs_nothing(job: Showing) -> None:
    job.put(ct())
    tracemalloc.start()
    job.shown(dcmtk_dir=instead(job.directory, "head -c 100000000 /dev/zero; head -c 100000000 /dev/zero >&2"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_no_two_instances_share_what_lies_between(job: Showing) -> None:
    bench = shown.Bench(None, Path("/w/room"), Path("/w/web"))  # type: ignore[arg-type]
    job.put(ct(1), ct(2))
    assert len({bench.path(one.instance, "raw") for one in job.staged}) == 2


@pytest.mark.parametrize("path", get_charset_files("*.dcm"))
def test_every_character_set_is_no_failure(path: str, job: Showing) -> None:
    job.put(Path(path)).shown()
