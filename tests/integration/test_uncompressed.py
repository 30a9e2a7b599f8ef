"""Instances decompressed by the real programs, compared to what they were."""

import stat
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from pydicom import dcmread, uid
from pydicom.data import get_testdata_files
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders import RLELosslessDecoder

from mkiso.browse.pictures import LOSSLESS, RAW
from mkiso.config import Config, Media, Tools
from mkiso.dcmtk import converters
from mkiso.dicom.instances import Instance, read_whole
from mkiso.disc import uncompressed as module
from mkiso.disc.layout import Setting
from mkiso.disc.uncompressed import Uncompressed, uncompressed
from mkiso.errors import Cancelled, DiskFull
from mkiso.waiting import Cancellation
from mkiso.workspace import Workspace
from tests.support import datasets
from tests.support import odd_files as odd
from tests.support.pydicom_files import file, with_uids
from tests.support.stage import encoded
from tests.support.studies import JOHN, mixed_study
from tests.support.tools import run

DCMTK = Path("/usr/bin")
COMMON = datasets.study(JOHN, "CT.001")
# What decoding changes, and what gdcmconv adds.
OF_PIXELS = {
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "LossyImageCompression",
    "LossyImageCompressionMethod",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "PixelData",
}


class Job:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.received = directory / "received"
        self.received.mkdir()
        self.instances: list[Instance] = []

    def put(self, *files: Path | bytes) -> "Job":
        for number, content in enumerate(files):
            path = self.received / f"{number:04}"
            path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
            found = read_whole(path)
            assert found
            self.instances.append(found)
        return self

    def decompressed(
        self, limit: int | None = None, checkpoint: Callable[[], None] = lambda: None, dcmtk_dir: Path = DCMTK
    ) -> Uncompressed:
        """Whatever it does: each instance is there, in its place and its order, and as its file tells."""
        media = Media(uncompressed=True, max_size=None if limit is None else limit + module.FOR_THE_REST)
        config = Config(media=media, tools=Tools(dcmtk_dir=dcmtk_dir))
        result = uncompressed(self.instances, Setting(config, Workspace(self.directory), "iso", checkpoint))
        assert sorted(self.received.iterdir()) == sorted(one.path for one in self.instances)
        assert [one.path for one in result.instances] == [one.path for one in self.instances]
        assert [read_whole(one.path) for one in result.instances] == list(result.instances)
        changed = [one for one, before in zip(result.instances, self.instances, strict=True) if one != before]
        assert len(changed) == result.decompressed
        assert {one.transfer_syntax for one in changed} <= {uid.ExplicitVRLittleEndian}
        return result


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def whole(path: Path) -> Path | bytes:
    """A test file with what the receiver asks of an instance."""
    return path if read_whole(path) else encoded(with_uids(path))


@cache
def compressed_files() -> list[Path]:
    """Those that pydicom brings along, but for one that is no instance."""
    files = (Path(name) for name in sorted(set(get_testdata_files())) if name.endswith(".dcm"))
    return [path for path in files if is_compressed(path) and path.name != "UN_sequence.dcm"]


def is_compressed(path: Path) -> bool:
    syntax = dcmread(path, specific_tags=[], force=True).file_meta.get("TransferSyntaxUID")
    return bool(syntax and (syntax.is_compressed or syntax.is_deflated))


def by_gdcm(path: Path, directory: Path) -> bytes:
    again = directory / "gdcm"
    assert run(("/usr/bin/gdcmconv", "--raw", path, again)).returncode == 0
    return bytes(dcmread(again).PixelData)


def by_pydicom(path: Path) -> bytes:
    """RLE's planes (PS3.5 G.2), pixel by pixel."""
    image = dcmread(path)
    planes = bytes(RLELosslessDecoder.as_buffer(image, raw=True)[0])
    size, samples = image.BitsAllocated // 8, image.SamplesPerPixel
    frame = image.Rows * image.Columns * size
    planar = [planes[at : at + frame] for at in range(0, len(planes), frame)]
    return b"".join(
        plane[at : at + size]
        for first in range(0, len(planar), samples)
        for at in range(0, frame, size)
        for plane in planar[first : first + samples]
    )


OF_A_DECODER = 1  # by which lossy decoders may differ
BROKEN = "JPEG2000-embedded-sequence-delimiter.dcm"  # GDCM cannot, either


@pytest.mark.parametrize("path", compressed_files(), ids=lambda path: path.name)
def test_every_compressed_test_file_is_the_same_instance_afterwards(path: Path, job: Job) -> None:
    before = job.put(whole(path)).instances[0]
    old, result = dcmread(before.path), job.decompressed()
    new = dcmread(before.path)
    assert (result.decompressed, result.left_compressed) == ((0, 1) if path.name == BROKEN else (1, 0))
    differing = {element.keyword for element in [*old, *new] if str(old.get(element.tag)) != str(new.get(element.tag))}
    assert differing <= OF_PIXELS
    if before.transfer_syntax not in LOSSLESS and path.name != BROKEN:
        assert new.LossyImageCompression == "01"


@pytest.mark.parametrize(
    "path", [one for one in compressed_files() if "rle" in one.name.lower()], ids=lambda path: path.name
)
def test_pixels_of_rle_are_those_that_pydicom_decodes(path: Path, job: Job) -> None:
    job.put(path).decompressed()
    assert dcmread(job.instances[0].path).PixelData == by_pydicom(path)


@pytest.mark.parametrize(
    "name",
    [
        "JPEG-lossy.dcm",
        "JPGExtended.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
        "SC_rgb_dcmtk_+eb+cr.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "SC_rgb_jls_lossy_line.dcm",
        "SC_rgb_jls_lossy_sample.dcm",
    ],
)
def test_pixels_are_those_that_gdcm_decodes(name: str, job: Job) -> None:
    job.put(whole(file(name))).decompressed()
    ours, theirs = dcmread(job.instances[0].path).PixelData, by_gdcm(file(name), job.directory)
    assert max(abs(one - other) for one, other in zip(ours, theirs, strict=True)) <= OF_A_DECODER


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("MR_small_RLE.dcm", "MR_small.dcm"),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
        ("rtdose_rle.dcm", "rtdose.dcm"),
        ("rtdose_rle_1frame.dcm", "rtdose_1frame.dcm"),
    ],
)
def test_pixels_are_those_before_their_lossless_compression(name: str, original: str, job: Job) -> None:
    job.put(file(name)).decompressed()
    assert dcmread(job.instances[0].path).PixelData == dcmread(file(original)).PixelData


def test_every_transfer_syntax_of_one_image_becomes_the_same_image(job: Job, tmp_path: Path) -> None:
    study = mixed_study(tmp_path / "study")
    result = job.put(*study.files).decompressed()
    assert (result.decompressed, result.left_compressed) == (5, 0)  # JPEG, JPEG-LS, JPEG 2000, RLE, deflated
    for number, one in enumerate(result.instances[:7], 1):
        if one.transfer_syntax == uid.ExplicitVRLittleEndian:
            assert dcmread(one.path).PixelData == datasets.ct(COMMON, 1, number, 128).PixelData


def test_what_is_not_compressed_is_left_alone(job: Job) -> None:
    kinds = (datasets.ct, datasets.report, datasets.document, datasets.private_instance)
    job.put(*(encoded(make(COMMON, series, 1)) for series, make in enumerate(kinds, 1)), file("MR_small_bigendian.dcm"))
    result = job.decompressed()
    assert result == Uncompressed(tuple(job.instances), 0, 0)


LOSSY = ("JPEG-lossy.dcm", "SC_rgb_jpeg_dcmtk.dcm", "JPEG2000.dcm")
GROWN = {"JPEG-lossy.dcm": 1024 * 256 * 2, "SC_rgb_jpeg_dcmtk.dcm": 100 * 100 * 3, "JPEG2000.dcm": 1024 * 256 * 2}


@pytest.mark.parametrize(
    ("room", "grown"),
    [
        (-1, []),
        (GROWN["SC_rgb_jpeg_dcmtk.dcm"], ["SC_rgb_jpeg_dcmtk.dcm"]),
        (GROWN["JPEG-lossy.dcm"] - 1, ["SC_rgb_jpeg_dcmtk.dcm"]),
        (GROWN["JPEG-lossy.dcm"], ["JPEG-lossy.dcm"]),
        (sum(GROWN.values()) - 1, ["JPEG-lossy.dcm", "SC_rgb_jpeg_dcmtk.dcm"]),
        (sum(GROWN.values()), list(LOSSY)),
        (None, list(LOSSY)),
    ],
)
def test_lossy_instances_grow_only_while_the_disc_has_room(room: int | None, grown: list[str], job: Job) -> None:
    job.put(*map(file, LOSSY))
    limit = None if room is None else sum(one.bytes for one in job.instances) + room
    result = job.decompressed(limit)
    assert [name for name, one in zip(LOSSY, result.instances, strict=True) if one.transfer_syntax in RAW] == grown
    assert result.left_compressed == 3 - len(grown)
    assert limit is None or not grown or sum(one.bytes for one in result.instances) <= limit


def test_lossless_instances_grow_in_any_case_and_count(job: Job) -> None:
    job.put(file("MR_small_RLE.dcm"), file("SC_rgb_jpeg_dcmtk.dcm"))
    before = sum(one.bytes for one in job.instances)
    result = job.decompressed(before + GROWN["SC_rgb_jpeg_dcmtk.dcm"])
    assert [one.transfer_syntax in RAW for one in result.instances] == [True, False]


def test_an_instance_that_grows_beyond_what_it_said_stays_as_it_is(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "pixel_bytes", lambda _header: 0)
    assert job.put(file("SC_rgb_jpeg_dcmtk.dcm")).decompressed(1 << 30).left_compressed == 1


def test_pixels_that_take_too_much_memory_stay_as_they_are(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 64 * 64 * 2 - 1)
    assert job.put(file("MR_small_RLE.dcm")).decompressed().left_compressed == 1


def test_what_inflates_to_much_more_than_its_pixels_stays_as_it_is(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_REST", 100_000)
    image = encoded(datasets.ct(datasets.study(JOHN, "CT.001"), 1, 1, side=16))
    large = odd.changed(image, {0x00291010: odd.element(0x00291010, b"OB", bytes(200_000))})
    result = job.put(odd.deflated(image), odd.deflated(large)).decompressed()
    assert (result.decompressed, result.left_compressed) == (1, 1)


def test_jpeg_2000_stays_as_it_is_where_gdcmconv_is_not(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converters, "gdcmconv_installed", lambda: None)
    result = job.put(file("JPEG2000.dcm"), file("MR_small_jp2klossless.dcm"), file("MR_small_RLE.dcm")).decompressed()
    assert (result.decompressed, result.left_compressed) == (1, 2)


def test_video_stays_as_it_is(job: Job) -> None:
    video = datasets.ultrasound_loop(COMMON, 1, 1)
    video.file_meta.TransferSyntaxUID = uid.MPEG4HP41
    video.PixelData = encapsulate([b"video "])
    video["PixelData"].is_undefined_length = True
    assert job.put(encoded(video)).decompressed() == Uncompressed(tuple(job.instances), 0, 1)


def instead(directory: Path, script: str) -> Path:
    """A directory with programs in the place of DCMTK's: IN and OUT are their last words."""
    (directory / "bin").mkdir()
    for name in ("dcmdjpeg", "dcmdrle", "dcmdjpls", "dcmconv"):
        program = directory / "bin" / name
        program.write_text(f'#!/bin/bash\nin="${{@: -2:1}}"; out="${{@: -1}}"\n{script}\n')
        program.chmod(stat.S_IRWXU)
    return directory / "bin"


DONE = '/usr/bin/dcmdrle "$in" "$out"'


@pytest.mark.parametrize(
    "script",
    [
        "exit 0",
        "exit 1",
        "kill -SEGV $$",
        'touch "$out"',
        'cp "$in" "$out"',
        f'{DONE}; truncate -s -2 "$out"',
        f"{DONE}; exit 1",
        f'{DONE}; dcmodify -q -nb -gin "$out"',
        f'{DONE}; dcmodify -q -nb -m "(0020,000d)=1.2.3" "$out"',
        f'{DONE}; dcmodify -q -nb -m "(0020,000e)=1.2.3" "$out"',
        f'{DONE}; dcmodify -q -nb -m "(0008,0016)=1.2.840.10008.5.1.4.1.1.2" "$out"',
        f'{DONE}; dcmodify -q -nb -m "(0010,0020)=OTHER" "$out"',
        f'{DONE}; dcmodify -q -nb -m "(0028,0010)=32" "$out"',
        f'{DONE}; dcmodify -q -nb -m "(0028,0100)=8" -ea "(7fe0,0010)" "$out"',
        f'{DONE}; dcmconv -q +ti "$out" "$out"',
    ],
)
def test_what_is_not_proven_to_be_the_same_instance_takes_no_place(
    script: str, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converters, "gdcmconv_installed", lambda: None)
    job.put(file("MR_small_RLE.dcm"))
    content = job.instances[0].path.read_bytes()
    assert job.decompressed(dcmtk_dir=instead(job.directory, script)).left_compressed == 1
    assert job.instances[0].path.read_bytes() == content


def test_a_lossy_instance_that_would_not_say_so_any_more_stays_as_it_is(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converters, "gdcmconv_installed", lambda: None)
    forgets = '/usr/bin/dcmdjpeg "$in" "$out"; dcmodify -q -nb -ea "(0028,2110)" "$out"'
    job.put(file("JPEG-lossy.dcm"))
    assert job.decompressed(dcmtk_dir=instead(job.directory, forgets)).left_compressed == 1


def test_a_lossy_instance_that_did_not_say_so_does_afterwards(job: Job) -> None:
    silent = dcmread(file("JPEG-lossy.dcm"))
    del silent.LossyImageCompression
    assert job.put(encoded(silent)).decompressed().decompressed == 1
    assert dcmread(job.instances[0].path).LossyImageCompression == "01"


def test_programs_that_are_not_there_or_hang_leave_it_as_it_is(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converters, "gdcmconv_installed", lambda: None)
    job.put(file("MR_small_RLE.dcm"))
    assert job.decompressed(dcmtk_dir=job.directory / "none").left_compressed == 1
    monkeypatch.setattr(module, "LIMIT", 0.2)
    assert job.decompressed(dcmtk_dir=instead(job.directory, "sleep 600")).left_compressed == 1


@pytest.mark.parametrize("error", [Cancelled("enough"), DiskFull("full")])
def test_a_cancel_and_a_full_disk_end_it_and_its_programs_at_once(error: Exception, job: Job) -> None:
    began = job.directory / "began"

    def checkpoint() -> None:
        if began.exists():
            raise error

    job.put(file("MR_small_RLE.dcm"), file("rtdose_rle.dcm"))
    programs = instead(job.directory, f'touch {began} "$out"; sleep 600 & wait')
    with pytest.raises(type(error)):
        job.decompressed(checkpoint=checkpoint, dcmtk_dir=programs)
    assert [read_whole(one.path) for one in job.instances] == job.instances
    assert len(list(job.received.iterdir())) == 2


def test_a_job_that_was_cancelled_before_starts_nothing(job: Job) -> None:
    cancellation = Cancellation()
    cancellation.cancel("enough")
    with pytest.raises(Cancelled):
        job.put(file("MR_small_RLE.dcm")).decompressed(
            checkpoint=cancellation.checkpoint, dcmtk_dir=instead(job.directory, f"touch {job.directory}/began")
        )
    assert not (job.directory / "began").exists()


def test_what_fails_on_a_full_disk_is_told_as_such(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkiso.workspace.free_space", lambda _directory: 100)
    with pytest.raises(DiskFull):
        job.put(file("MR_small_RLE.dcm")).decompressed(dcmtk_dir=instead(job.directory, "exit 1"))


def test_two_run_at_a_time(job: Job) -> None:
    log = job.directory / "log"
    script = f"echo +1 >> {log}; sleep 0.05; {DONE}; echo -1 >> {log}"
    job.put(*[file("MR_small_RLE.dcm")] * 6).decompressed(dcmtk_dir=instead(job.directory, script))
    running = [int(line) for line in log.read_text().split()]
    assert max(sum(running[:end]) for end in range(len(running) + 1)) == 2
