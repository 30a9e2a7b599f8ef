from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_subprocess import FakeProcess

from mkiso.config import Media
from mkiso.dicom.instances import Instance
from mkiso.disc.product import image_size, master_argv, mastering, require_small_files
from mkiso.errors import DiscTooLarge, Internal

TOOL = Path("/opt/genisoimage")
GRAFTS = [("DICOMDIR", Path("/w/disc/DICOMDIR"))]
OPTIONS = ("-quiet", "-r", "-J", "-f", "-input-charset", "utf-8", "-V")


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Path]:
    """A program in genisoimage's place: it does what `behave` wrote."""
    return tmp_path / "genisoimage"


def behave(program: Path, sectors: int, script: str) -> None:
    sized = f'case "$*" in *-print-size*) echo {sectors}; exit;; esac'
    program.write_text(f"#!/bin/sh\n{sized}\n{script}\n")
    program.chmod(0o700)


def given(program: Path, sectors: int) -> bytes:
    """The image as its reader has it."""
    with mastering(program, Media(), GRAFTS, program.parent, lambda: None) as image:
        assert image.size == sectors * 2048
        return b"".join(image.chunks())


def test_the_argv_of_genisoimage() -> None:
    assert master_argv(TOOL, Media(), GRAFTS) == (
        *("/opt/genisoimage", *OPTIONS, "DICOM"),
        *("-graft-points", "/DICOMDIR=/w/disc/DICOMDIR"),
    )


def test_the_viewers_files_come_to_the_root_and_names_are_escaped(tmp_path: Path) -> None:
    viewer = tmp_path / "a=b\\c"
    viewer.mkdir()
    (tmp_path / "link").symlink_to(viewer)
    media = Media(viewer_dir=tmp_path / "link", volume_id="-X = Y")
    assert master_argv(TOOL, media, [("IM=1", Path("/w/=\\"))], ("-print-size",)) == (
        *("/opt/genisoimage", *OPTIONS, "-X = Y", "-print-size", "-graft-points"),
        f"/={tmp_path}/a\\=b\\\\c",
        "/IM\\=1=/w/\\=\\\\",
    )


def test_the_size_is_counted_in_sectors(fake: FakeProcess) -> None:
    fake.register(master_argv(TOOL, Media(), GRAFTS, ("-print-size",)), stdout="183\n")
    assert image_size(TOOL, Media(), GRAFTS) == 183 * 2048


@pytest.mark.parametrize(("max_size", "fits"), [(183 * 2048, True), (183 * 2048 - 1, False)])
def test_a_disc_larger_than_max_size_is_refused(max_size: int, fits: bool, fake: FakeProcess) -> None:
    media = Media(max_size=max_size)
    fake.register(master_argv(TOOL, media, GRAFTS, ("-print-size",)), stdout="183\n")
    if fits:
        assert image_size(TOOL, media, GRAFTS) == max_size
        return
    with pytest.raises(DiscTooLarge) as raised:
        image_size(TOOL, media, GRAFTS)
    assert raised.value.fields == {"size": 183 * 2048, "limit": max_size}


@pytest.mark.parametrize(
    ("rc", "stderr"),
    [
        (2, "genisoimage: No such file or directory. Invalid node - /w/disc"),
        (0, "/w/disc/CT: Permission denied, ignoring"),
    ],
)
def test_a_size_with_a_word_of_complaint_is_internal_and_shows_no_path(rc: int, stderr: str, fake: FakeProcess) -> None:
    argv = master_argv(TOOL, Media(), GRAFTS, ("-print-size",))
    fake.register(argv, stdout="183\n", stderr=stderr, returncode=rc)
    with pytest.raises(Internal) as raised:
        image_size(TOOL, Media(), GRAFTS)
    assert "/w" not in str(raised.value)
    assert stderr in "".join(raised.value.__notes__)


@pytest.mark.parametrize(("size", "fits"), [(2**32 - 1, True), (2**32, False)])
def test_an_instance_of_4_gib_is_too_large(size: int, fits: bool) -> None:
    instance = Instance(Path("/w/f"), "1.5", "1.2", "1.3", "1.4", "1.2.840.10008.1.2", size, (size, 0))
    if fits:
        require_small_files([instance])
        return
    with pytest.raises(DiscTooLarge) as raised:
        require_small_files([instance])
    assert raised.value.fields["size"] == size


@pytest.mark.parametrize("sectors", [1, 150, 500])
def test_an_image_comes_whole(sectors: int, program: Path) -> None:
    behave(program, sectors, f"head -c {sectors * 2048} /dev/zero")
    assert given(program, sectors) == bytes(sectors * 2048)


@pytest.mark.parametrize(
    "script",
    [
        "exit 0",
        "exit 2",
        "head -c 2047 /dev/zero",
        "head -c 2049 /dev/zero",
        "head -c 2048 /dev/zero; exit 1",
        "head -c 2048 /dev/zero; kill -KILL $$",
        "head -c 2048 /dev/zero; echo /w/CT: Permission denied, ignoring >&2",
    ],
)
def test_an_image_that_is_not_what_was_promised_does_not_end_well(script: str, program: Path) -> None:
    behave(program, 1, script)
    with pytest.raises(Internal):
        given(program, 1)


def test_a_reader_that_leaves_ends_genisoimage(program: Path) -> None:
    behave(program, 2**30, f"echo $$ > {program}.pid; exec cat /dev/zero")
    with mastering(program, Media(), GRAFTS, program.parent, lambda: None) as image:
        assert next(image.chunks())
        pid = int(Path(f"{program}.pid").read_text())
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()
