"""The viewer of `make viewer`, opened by file:// from a disc, in Debian's Chromium and Firefox."""

import re
import shutil
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedCTImageStorage

from mkiso.browse.pages import write_pages
from mkiso.browse.shown import Viewer
from tests.support import datasets
from tests.support.browser import AXE, Watched, axe, watched_page
from tests.support.firefox import firefox
from tests.support.pdi import as_iso, made_disc
from tests.support.pydicom_files import file
from tests.support.service import read_disc
from tests.support.shown import about, patient
from tests.support.stage import encoded
from tests.support.studies import HOSTILE, IR87, UTF8
from tests.support.tools import ROOT, run

BUILT = ROOT / "build" / "viewer"
CT, US = datasets.study(UTF8, "CT.001"), datasets.study(IR87, "US.001")
SLICES, FRAMES, SIDE = 12, 5, 128
LUNG, SOFT = (1500, -600), (400, 40)
SHOWN = """(() => {
    const image = document.getElementById('image')
    const copy = document.createElement('canvas')
    copy.width = image.width
    copy.height = image.height
    const context = copy.getContext('2d', { willReadFrequently: true })
    context.drawImage(image, 0, 0)
    const pixels = context.getImageData(0, 0, copy.width, copy.height).data.filter((_, at) => at % 4 < 3)
    return btoa(Array.from(pixels, one => String.fromCharCode(one)).join(''))
})()"""
# How each transfer syntax is made of an image in explicit little endian.
RECODED: dict[str, tuple[str, ...]] = {
    "implicit little endian": ("dcmconv", "+ti"),
    "big endian": ("dcmconv", "+tb"),
    "deflated": ("dcmconv", "+td"),
    "RLE": ("dcmcrle",),
    "JPEG baseline, colour": ("dcmcjpeg", "+eb"),
    "JPEG extended, 12 bits": ("dcmcjpeg", "+ee"),
    "JPEG lossless": ("dcmcjpeg", "+e1"),
    "JPEG-LS lossless": ("dcmcjpls",),
    "JPEG 2000 lossless": ("gdcmconv", "--j2k"),
}


def ct(number: int) -> Dataset:
    image = datasets.ct(CT, 1, number, SIDE)
    image.WindowWidth, image.WindowCenter = [SOFT[0], LUNG[0]], [SOFT[1], LUNG[1]]
    return image


def windowed(image: Dataset, width: int, centre: int) -> list[int]:
    """PS3.3 C.11.2.1.2.1, for each colour of each pixel."""
    stored = memoryview(bytes(image.PixelData)).cast("H")
    slope, intercept = float(image.RescaleSlope), float(image.RescaleIntercept)
    scaled = (((one * slope + intercept - (centre - 0.5)) / (width - 1) + 0.5) * 255 for one in stored)
    return [grey for one in scaled for grey in (min(255, max(0, round(one))),) * 3]


def most_different(some: Sequence[int], others: Sequence[int]) -> int:
    return max(abs(one - other) for one, other in zip(some, others, strict=True))


def disc_of(directory: Path, instances: Sequence[Dataset | bytes]) -> Path:
    """What a person sees of a disc with these instances and the viewer: its image's files, by libarchive."""
    assert BUILT.is_dir(), "`make viewer` has not been run"
    root = made_disc(directory / "made", instances)
    for one in ("INDEX.HTM", "PHONE.HTM"):
        (root / one).unlink()
    shutil.copytree(BUILT, root, dirs_exist_ok=True)
    write_pages((patient(),), about(viewer=Viewer(("VIEWER", "VIEWER.HTM"), "VIEWER.HTM", "VIEWER.HTM")), root)
    read_disc(as_iso(root), directory / "disc")
    return directory / "disc"


@pytest.fixture(scope="module")
def disc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    others = [datasets.ultrasound_loop(US, 1, 1, FRAMES), datasets.report(US, 2, 1), datasets.document(US, 3, 1)]
    return disc_of(tmp_path_factory.mktemp("viewer"), [*(ct(number) for number in range(1, SLICES + 1)), *others])


def choose(watched: Watched, disc: Path) -> None:
    watched.open(disc / "VIEWER.HTM")
    watched.page.set_input_files("#folder", disc)
    watched.page.locator("#contents button").first.wait_for()


@pytest.fixture
def opened(browser: Browser, disc: Path) -> Iterator[Watched]:
    with watched_page(browser) as watched:
        choose(watched, disc)
        says(watched, f"Image 1 of {SLICES} ")
        yield watched
        assert watched.faults == []


def says(watched: Watched, text: str) -> None:
    """Wait until the line below the image says so: it is drawn then."""
    watched.page.locator("#told", has_text=text).wait_for()


def shown(watched: Watched) -> list[int]:
    return list(b64decode(watched.page.evaluate(SHOWN)))


def test_a_person_comes_from_the_overview_and_sees_what_the_dicomdir_names(whole_browser: Browser, disc: Path) -> None:
    with watched_page(whole_browser) as watched:
        watched.open(disc / "INDEX.HTM")
        assert watched.page.get_by_text("choose this disc's folder there once").is_visible()
        watched.page.get_by_role("link", name="start the viewer VIEWER.HTM").click()
        watched.page.get_by_text("Choose the disc itself").wait_for()
        watched.page.set_input_files("#folder", disc)
        says(watched, f"Image 1 of {SLICES} ")
        contents = watched.page.locator("#contents")
        assert contents.get_by_role("heading", level=2).all_inner_texts() == [
            "YAMADA TARO · 山田 太郎",
            "Yamada Tarou · 山田 太郎 · やまだ たろう",
        ]
        assert (
            contents.get_by_role("heading", level=3).first.inner_text().startswith("1 March 2024 · Synthetic study CT")
        )
        told = [one.replace("\n", ", ") for one in contents.get_by_role("button").all_inner_texts()]
        others = "reports and documents: 1 (INDEX.HTM shows them)"
        assert told == [
            f"CT · Series 1, images: {SLICES}",
            "US · Series 1, images: 1",
            f"SR · Series 2, {others}",
            f"DOC · Series 3, {others}",
        ]
        assert watched.faults == []


def test_a_series_is_scrolled_by_keys_wheel_and_slider_each_image_as_stored(opened: Watched) -> None:
    page = opened.page
    steps: list[tuple[Callable[[], object], int]] = [
        (lambda: page.press("#stage", "ArrowDown"), 2),
        (lambda: page.press("#stage", "End"), SLICES),
        (lambda: page.press("#stage", "PageUp"), SLICES - 10),
        (lambda: (page.hover("#stage"), page.mouse.wheel(0, 100)), SLICES - 9),
        (lambda: page.fill("#place", "7"), 7),
    ]
    for step, number in steps:
        step()
        says(opened, f"Image {number} of {SLICES} ")
        assert most_different(shown(opened), windowed(ct(number), *SOFT)) <= 1


def test_a_window_is_chosen_or_dragged_and_goes_back(opened: Watched) -> None:
    page, image = opened.page, ct(1)
    assert page.locator("#windows option").all_inner_texts()[:4] == [
        "As stored",
        "400 / 40",
        "1500 / -600",
        "Soft tissue",
    ]
    for option in ("1500 / -600", "Lung"):
        page.select_option("#windows", label="Bone")
        says(opened, "width 2000, centre 400")
        page.select_option("#windows", label=option)
        says(opened, "width 1500, centre -600")
        assert most_different(shown(opened), windowed(image, *LUNG)) <= 1
    page.hover("#stage")
    page.mouse.down()
    page.mouse.move(*middle_of_stage(opened, right=100))
    page.mouse.up()
    says(opened, "centre -600")
    page.wait_for_function("parseInt(/width (\\d+)/.exec(document.getElementById('told').textContent)[1]) > 1600")
    page.get_by_role("button", name="Reset").click()
    says(opened, "width 400, centre 40")
    assert most_different(shown(opened), windowed(image, *SOFT)) <= 1


def middle_of_stage(watched: Watched, right: float = 0) -> tuple[float, float]:
    box = watched.page.locator("#stage").bounding_box()
    assert box
    return box["x"] + box["width"] / 2 + right, box["y"] + box["height"] / 2


def test_an_image_is_made_larger_and_moved(opened: Watched) -> None:
    page = opened.page
    before = page.locator("#image").bounding_box()
    page.get_by_role("button", name="Larger").click()
    page.get_by_role("button", name="Move").click()
    page.hover("#stage")
    page.mouse.down()
    page.mouse.move(*middle_of_stage(opened, right=50))
    page.mouse.up()
    after = page.locator("#image").bounding_box()
    assert before
    assert after
    assert after["width"] == pytest.approx(before["width"] * 1.25, abs=1)
    middles = [box["x"] + box["width"] / 2 for box in (before, after)]
    assert middles[1] - middles[0] == pytest.approx(50, abs=2)


def test_a_cine_is_played_and_each_of_its_frames_is_an_image(opened: Watched) -> None:
    page = opened.page
    page.get_by_role("button", name="US · Series 1").click()
    says(opened, f"Image 1 of {FRAMES}")
    assert page.input_value("#rate") == "25"
    pixels = bytes(datasets.ultrasound_loop(US, 1, 1, FRAMES).PixelData)
    size = len(pixels) // FRAMES
    for number in range(FRAMES):
        page.fill("#place", str(number + 1))
        says(opened, f"Image {number + 1} of {FRAMES}")
        assert shown(opened) == list(pixels[number * size : (number + 1) * size])
    play = page.get_by_role("button", name="Play")
    play.click()
    for number in (2, 4, 1):
        says(opened, f"Image {number} of {FRAMES}")
    play.click()
    assert play.get_attribute("aria-pressed") == "false"


def test_an_enhanced_object_tells_of_each_frame_what_its_values_mean(browser: Browser, tmp_path: Path) -> None:
    image = ct(1)
    groups = []
    for intercept in (-1024, -500):
        image.RescaleIntercept, group, of_values, of_window = intercept, Dataset(), Dataset(), Dataset()
        of_values.RescaleIntercept, of_values.RescaleSlope, of_values.RescaleType = intercept, 1, "HU"
        of_window.WindowCenter, of_window.WindowWidth = SOFT[1], SOFT[0]
        group.PixelValueTransformationSequence, group.FrameVOILUTSequence = [of_values], [of_window]
        groups.append((group, windowed(image, *SOFT)))
    for keyword in ("RescaleIntercept", "RescaleSlope", "WindowCenter", "WindowWidth"):
        del image[keyword]
    image.PixelData, image.NumberOfFrames = image.PixelData * 2, 2
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    image.PerFrameFunctionalGroupsSequence = [group for group, _ in groups]
    with watched_page(browser) as watched:
        choose(watched, disc_of(tmp_path, [image]))
        for number, (_, expected) in enumerate(groups, 1):
            watched.page.fill("#place", str(number))
            says(watched, f"Image {number} of 2 · width 400, centre 40")
            assert most_different(shown(watched), expected) <= 1


def converted(file: bytes, how: Sequence[str], directory: Path) -> bytes:
    source, target = directory / "source", directory / "target"
    source.write_bytes(file)
    finished = run((f"/usr/bin/{how[0]}", *how[1:], source, target))
    assert finished.returncode == 0, finished.stderr
    return target.read_bytes()


@pytest.mark.parametrize("name", RECODED)
def test_each_transfer_syntax_is_shown(name: str, browser: Browser, tmp_path: Path) -> None:
    """What was compressed with a loss, as DCMTK decompresses it."""
    is_colour = name.endswith("colour")
    image = datasets.ultrasound(CT, 1, 1) if is_colour else ct(1)
    file = converted(encoded(image), RECODED[name], tmp_path)
    if name.startswith(("JPEG baseline", "JPEG extended")):
        image = dcmread(BytesIO(converted(file, ("dcmdjpeg",), tmp_path)))
    with watched_page(browser) as watched:
        choose(watched, disc_of(tmp_path, [file]))
        says(watched, "Image 1 of 1")
        assert watched.page.locator("#problem").inner_text() == ""
        expected = list(bytes(image.PixelData)) if is_colour else windowed(image, *SOFT)
        assert most_different(shown(watched), expected) <= 2
        assert watched.faults == []


def test_what_cannot_be_shown_says_so_and_holds_nothing_else_up(browser: Browser, tmp_path: Path) -> None:
    disc = disc_of(tmp_path, [ct(number) for number in (1, 2, 3, 4)])
    files = sorted(one for one in (disc / "IMAGES").rglob("*") if one.is_file())
    files[0].write_bytes(b"no DICOM at all")
    files[1].unlink()
    files[2].write_bytes(files[2].read_bytes()[:-1000])
    with watched_page(browser) as watched:
        choose(watched, disc)
        for number, problem in enumerate(("cannot be shown here", "not in this folder", "is missing", ""), 1):
            says(watched, f"Image {number} of 4")
            assert problem in watched.page.locator("#problem").inner_text()
            assert watched.page.locator("#problem").is_visible() == bool(problem)
            watched.page.press("#stage", "ArrowDown")
        assert "files that are not in this folder: 1" in watched.page.locator("#status").inner_text()
        assert most_different(shown(watched), windowed(ct(4), *SOFT)) <= 1


def test_a_disc_without_a_dicomdir_and_one_whose_names_are_shown_otherwise(
    browser: Browser, disc: Path, tmp_path: Path
) -> None:
    """As the layout `legacy` has it; and as a system shows ISO 9660 that knows of no other names."""
    shutil.copytree(disc, tmp_path / "legacy")
    (tmp_path / "legacy" / "DICOMDIR").unlink()
    shutil.copytree(disc, tmp_path / "plain")
    for one in sorted((tmp_path / "plain" / "IMAGES").rglob("*"), reverse=True):
        one.rename(one.with_name(one.name.lower() + (";1" if one.is_file() else "")))
    (tmp_path / "plain" / "IMAGES").rename(tmp_path / "plain" / "images")
    (tmp_path / "plain" / "DICOMDIR").rename(tmp_path / "plain" / "dicomdir;1")
    for name in ("legacy", "plain"):
        with watched_page(browser) as watched:
            choose(watched, tmp_path / name)
            says(watched, f"Image 1 of {SLICES}")
            assert watched.page.locator("#contents button").count() == 4
            assert most_different(shown(watched), windowed(ct(1), *SOFT)) <= 1
            assert watched.faults == []


def test_no_text_of_an_instance_is_markup(browser: Browser, tmp_path: Path) -> None:
    common = datasets.study(datasets.Patient(HOSTILE[:64], HOSTILE), "HOSTILE.001")
    common.StudyDescription = HOSTILE
    with watched_page(browser) as watched:
        choose(watched, disc_of(tmp_path, [datasets.ct(common, 1, 1)]))
        says(watched, "Image 1 of 1")
        assert "<script>alert(2)</script>" in watched.page.locator("#contents h2").inner_text()
        assert HOSTILE in watched.page.locator("#contents h3").inner_text()
        assert watched.pictures() == 0
        assert watched.faults == []


def test_axe_finds_nothing(browser: Browser, disc: Path) -> None:
    with watched_page(browser, bypass_csp=True) as watched:
        watched.open(disc / "VIEWER.HTM")
        watched.page.evaluate(axe())
        assert watched.page.evaluate(AXE) == []
        watched.page.set_input_files("#folder", disc)
        says(watched, "Image 1 of")
        assert watched.page.evaluate(AXE) == []


def test_firefox_shows_the_same(disc: Path, tmp_path: Path) -> None:
    compressed = disc_of(tmp_path, [converted(encoded(ct(1)), RECODED["JPEG 2000 lossless"], tmp_path)])
    with firefox(tmp_path) as browser:
        for folder, count in ((disc, SLICES), (compressed, 1)):
            browser.open(folder / "VIEWER.HTM")
            browser.choose_folder("#folder", folder)
            browser.wait_for(f"document.getElementById('told').textContent.startsWith('Image 1 of {count} ')")
            assert most_different(b64decode(browser.evaluate(SHOWN)), windowed(ct(1), *SOFT)) <= 1


def test_an_image_of_another_maker_is_shown_as_its_window_says(browser: Browser, tmp_path: Path) -> None:
    image = dcmread(file("MR_small_jp2klossless.dcm"))
    with watched_page(browser) as watched:
        choose(watched, disc_of(tmp_path, [encoded(image)]))
        says(watched, f"width {int(image.WindowWidth)}, centre {int(image.WindowCenter)}")
        assert len(set(shown(watched))) > 100


def test_an_x_ray_that_is_stored_inverted_has_white_bones(browser: Browser, tmp_path: Path) -> None:
    """MONOCHROME1: the smallest value is white (PS3.3 C.7.6.3.1.2)."""
    image = ct(1)
    image.PhotometricInterpretation = "MONOCHROME1"
    with watched_page(browser) as watched:
        choose(watched, disc_of(tmp_path, [image]))
        says(watched, "Image 1 of 1")
        assert most_different(shown(watched), [255 - one for one in windowed(ct(1), *SOFT)]) <= 1


# What the kernel is asked to heed of an image's longer names, and what it then calls VIEWER.HTM.
NAMES = {
    "Rock Ridge": ("", "VIEWER.HTM"),
    "Joliet": (",norock", "VIEWER.HTM"),
    "neither": (",norock,nojoliet", "viewer.htm"),
    "neither, and as they are": (",norock,nojoliet,map=off", "VIEWER.HTM;1"),
}
FORBIDS = re.compile(
    "permission denied|not permitted|must be superuser|only root|unknown filesystem type|failed to setup loop", re.I
)


@contextmanager
def mounted(image: Path, where: Path, options: str) -> Iterator[None]:
    """The image as the kernel shows it, where this host lets it be mounted."""
    where.mkdir()
    done = run(("mount", "-t", "iso9660", "-o", f"loop,ro{options}", image, where))
    if FORBIDS.search(done.stderr):
        pytest.skip(f"no image can be mounted here: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    try:
        yield
    finally:
        assert run(("umount", where)).returncode == 0


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of a disc with an image that is compressed and one that is not."""
    directory = tmp_path_factory.mktemp("image")
    disc_of(directory, [converted(encoded(ct(1)), RECODED["JPEG 2000 lossless"], directory), ct(2)])
    return directory / "made" / "disc.iso"


@pytest.mark.parametrize("names", NAMES)
def test_a_mounted_disc_is_read_by_whatever_names_the_kernel_gives_it(
    names: str, image: Path, disc: Path, browser: Browser, tmp_path: Path
) -> None:
    """Where these are not the image's own, the page comes from elsewhere: it leads to its neighbours in capitals."""
    options, viewer = NAMES[names]
    with mounted(image, tmp_path / "disc", options), watched_page(browser) as watched:
        assert (tmp_path / "disc" / viewer).is_file()
        with pytest.raises(OSError, match="Read-only"):
            (tmp_path / "disc" / "new").touch()
        watched.open((tmp_path / "disc" if viewer == "VIEWER.HTM" else disc) / "VIEWER.HTM")
        watched.page.set_input_files("#folder", tmp_path / "disc")
        for number in (1, 2):
            says(watched, f"Image {number} of 2")
            assert most_different(shown(watched), windowed(ct(number), *SOFT)) <= 1
            watched.page.press("#stage", "ArrowDown")
        assert watched.faults == []


def test_firefox_reads_a_mounted_disc(image: Path, tmp_path: Path) -> None:
    with mounted(image, tmp_path / "disc", ""), firefox(tmp_path) as browser:
        browser.open(tmp_path / "disc" / "VIEWER.HTM")
        browser.choose_folder("#folder", tmp_path / "disc")
        browser.wait_for("document.getElementById('told').textContent.startsWith('Image 1 of 2 ')")
        assert most_different(b64decode(browser.evaluate(SHOWN)), windowed(ct(1), *SOFT)) <= 1
