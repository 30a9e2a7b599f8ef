"""`mkiso verify` on discs that were made to cost it: time, memory, a disk, or what is not theirs."""

import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from pycdlib import PyCdlib

from mkiso.dicom.records import element, item, written
from mkiso.verify import disc as disc_module
from mkiso.verify import image, medium
from mkiso.verify.dicomdir import read_dicomdir
from mkiso.verify.medium import UnreadableDisc
from mkiso.verify.verify import verify
from tests.integration.test_verify import disc, failed, found, sound
from tests.support import datasets
from tests.support.pdi import as_iso
from tests.support.stage import JOHN, encoded
from tests.support.tools import run

__all__ = ("disc", "sound")  # fixtures
LOCAL, CENTRAL, END = struct.Struct("<4sHHHHHLLLHH"), struct.Struct("<4sHHHHHHLLLHHHHHLL"), struct.Struct("<4sHHHHLLH")
STORED, DEFLATED = 0, 8
XHTML = b'<html xmlns="http://www.w3.org/1999/xhtml"><body>'
MEASURED = """
import resource, sys
from pathlib import Path
from mkiso.commands.cli import main
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
try:
    main()
finally:
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print(int(peak.split()[1]) // 1024, file=sys.stderr)  # not ru_maxrss, which knows the process that forked it
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)  # what traces a test writes at the end
"""


def local(name: bytes, size: int, crc: int = 0, method: int = STORED, packed: int | None = None) -> bytes:
    packed = size if packed is None else packed
    return LOCAL.pack(b"PK\3\4", 20, 0, method, 0, 33, crc, packed, size, len(name), 0) + name


def central(at: int, name: bytes, size: int, crc: int = 0, method: int = STORED, packed: int | None = None) -> bytes:
    packed = size if packed is None else packed
    return CENTRAL.pack(b"PK\1\2", 20, 20, 0, method, 0, 33, crc, packed, size, len(name), 0, 0, 0, 0, 0, at) + name


def archived(path: Path, body: bytes, directory: bytes, count: int) -> Path:
    path.write_bytes(body + directory + END.pack(b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0))
    return path


def nested(path: Path, count: int, begin: bytes) -> Path:
    """Stored members, each of which holds all that follow."""
    names = [b"IMAGES/%05d" % number for number in range(count)]
    piece = len(local(names[0], 0)) + len(begin)
    sizes = [len(begin) + piece * (count - 1 - number) for number in range(count)]
    told = list(zip(names, sizes, strict=True))
    body = b"".join(local(name, size) + begin for name, size in told)
    return archived(path, body, b"".join(central(piece * at, *one) for at, one in enumerate(told)), count)


def deflated(path: Path, contents: Mapping[str, bytes], size: int = 0) -> Path:
    """Members, with zeros behind their contents up to a size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in contents.items():
            with made.open(name, "w", force_zip64=True) as member:
                member.write(content)
                for _ in range(len(content), size, 1 << 24):
                    member.write(bytes(1 << 24))
    return path


def measured(path: Path) -> tuple[str, int]:
    """What the command says, and the memory that it took, in MB."""
    done = run((sys.executable, "-c", MEASURED, "verify", path))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    return done.stdout, int(done.stderr)


def test_members_that_overlap_are_refused_before_they_are_read(tmp_path: Path) -> None:
    instance = encoded(datasets.ct(datasets.study(JOHN, "CT.001"), 1, 1, side=16))[:600]
    said, memory = measured(nested(tmp_path / "disc.zip", 8_000, instance))
    assert said == (
        "FAIL  medium: it cannot be read as a disc: its members overlap: IMAGES/00001 begins within IMAGES/00000\n"
    )
    assert memory < 150


LIES: list[tuple[str, Callable[[], tuple[bytes, bytes, int]], str]] = [
    ("twice", lambda: (local(b"A", 1) + b"x", central(0, b"A", 1) + central(0, b"B", 1), 2), "members overlap"),
    ("behind the end", lambda: (local(b"A", 1) + b"x", central(0, b"A", 999), 1), "members overlap"),
    ("in the directory", lambda: (local(b"A", 9) + b"x", central(0, b"A", 9), 1), "members overlap"),
    ("nowhere", lambda: (local(b"A", 1) + b"x", central(1 << 30, b"A", 1), 1), "does not begin where"),
]


@pytest.mark.parametrize(("made", "said"), [one[1:] for one in LIES], ids=[one[0] for one in LIES])
def test_members_that_cannot_lie_where_they_are_said_to_are_refused(
    made: Callable[[], tuple[bytes, bytes, int]], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UnreadableDisc, match=said):
        verify(archived(tmp_path / "disc.zip", *made()))


CRC, TEXT = zlib.crc32(b"text"), b"text"
TWO_FACED: list[tuple[str, bytes, bytes]] = [
    ("name", local(b"B", 4, CRC) + TEXT, central(0, b"A", 4, CRC)),
    ("method", local(b"A", 4, CRC, DEFLATED) + TEXT, central(0, b"A", 4, CRC)),
    ("size", local(b"A", 3, CRC) + TEXT, central(0, b"A", 4, CRC)),
    ("CRC", local(b"A", 4, 1) + TEXT, central(0, b"A", 4, CRC)),
    ("two sizes", local(b"A", 999, CRC, packed=4) + TEXT, central(0, b"A", 999, CRC, packed=4)),
    ("an odd method", local(b"A", 4, CRC, 14) + TEXT, central(0, b"A", 4, CRC, 14)),
    ("no member", b"PK\1\1" + local(b"A", 4, CRC)[4:] + TEXT, central(0, b"A", 4, CRC)),
]


@pytest.mark.parametrize(("body", "told"), [one[1:] for one in TWO_FACED], ids=[one[0] for one in TWO_FACED])
def test_a_member_that_programs_take_for_different_things_is_none(body: bytes, told: bytes, tmp_path: Path) -> None:
    file = archived(tmp_path / "disc.zip", body, told, 1)
    assert found(file, "medium").startswith("A ")
    assert {"medium", "DICOM files at the root"} <= failed(file)


def test_an_archive_of_too_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medium, "MOST_FILES", 50)
    body = b"".join(local(b"%d" % number, 0) for number in range(10, 61))
    told = b"".join(central(32 * at, b"%d" % (10 + at), 0) for at in range(51))
    with pytest.raises(UnreadableDisc, match="more than 50 members"):
        verify(archived(tmp_path / "disc.zip", body, told, 51))


def test_nothing_is_unpacked_to_a_disk_or_into_memory(tmp_path: Path) -> None:
    """The command may write to no file at all."""
    instance = encoded(datasets.ct(datasets.study(JOHN, "CT.001"), 1, 1, side=16))
    names = ("DICOMDIR", "README.TXT", "INDEX.HTM", "IMAGES/IM000001", "IHE_PDI/A.JPG", "viewer.exe")
    contents = {name: instance if name.startswith("IMAGES") else b"x" for name in names}
    said, memory = measured(deflated(tmp_path / "disc.zip", contents, 1 << 26))
    assert "[Errno" not in said
    assert "ok    medium" in said
    assert memory < 150


def test_a_dicomdir_of_more_records_than_the_disc_has_files_is_not_taken_apart() -> None:
    many = written([], "CD1")
    for record in (b"", element(0x00041430, b"CS", b"IMAGE")):
        data = bytearray(many + item(record) * 20_000)
        at = data.index(b"\x04\0\x20\x12SQ") + 8
        data[at : at + 4] = struct.pack("<L", len(data) - len(many))
        with pytest.raises(UnreadableDisc):
            read_dicomdir(bytes(data), 64 * 1_008)
        assert read_dicomdir(bytes(data[: len(many)].replace(data[at : at + 4], bytes(4)))).entries == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<a>" * 300, "more elements in elements"),
        (b"<a " + b" ".join(b"a%d=''" % number for number in range(300)) + b"/>", "too many attributes"),
        (b'<a href="x"/>' * 20_000, "more elements in elements, or links"),
    ],
)
def test_a_page_that_would_fill_the_memory_is_no_page(content: bytes, said: str) -> None:
    assert said in str(disc_module.read_page("A.HTM", XHTML + content, 10_000).fault)


def test_text_of_many_equals_signs_is_a_page() -> None:
    assert disc_module.read_page("A.HTM", XHTML + b"<p>" + b"=" * 3_000 + b"</p></body></html>").fault is None


def test_an_image_whose_files_overlap_is_refused_and_one_whose_files_are_the_same_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    (folder / "IMAGES").mkdir(parents=True)
    for name in "AB":
        (folder / "IMAGES" / name).write_bytes(name.encode() * 9_000)
    os.link(folder / "IMAGES" / "A", folder / "IMAGES" / "C")
    file = as_iso(folder)
    assert "overlap" not in found(file, "medium")
    first, second = (place(file, f"/IMAGES/{name}") for name in "AB")
    file.write_bytes(file.read_bytes().replace(both(second), both(first + 1)))
    with pytest.raises(UnreadableDisc, match="its files overlap: IMAGES/B begins within IMAGES/"):
        verify(file)


def place(file: Path, name: str) -> int:
    """The first sector of a file."""
    opened = PyCdlib()
    opened.open(str(file))
    sector: int = opened.get_record(rr_path=name).extent_location()
    opened.close()
    return sector


def both(number: int) -> bytes:
    """As directory records have it (ECMA-119 7.3.3)."""
    return struct.pack("<L", number) + struct.pack(">L", number)


def test_files_of_one_place_are_walked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tree"
    (folder / "DICOMDIR").mkdir(parents=True)
    (folder / "DICOMDIR" / "1").write_bytes(encoded(datasets.ct(datasets.study(JOHN, "CT.001"), 1, 1, side=16)))
    for number in range(2, 30):
        os.link(folder / "DICOMDIR" / "1", folder / "DICOMDIR" / str(number))
    walked = []
    read = disc_module.instance_within
    monkeypatch.setattr(disc_module, "instance_within", lambda *given: walked.append(1) or read(*given))
    for made in (folder, as_iso(folder)):
        walked.clear()
        assert "instances" in failed(made)
        assert len(walked) == 1


@pytest.mark.parametrize(
    ("limit", "value", "said"),
    [
        ("EMPTY_FILES", -100_000, "too many records"),
        ("LARGEST_PATH_TABLE", 10, "path table is too large"),
        ("LARGEST_DIRECTORIES", 4_096, "too large, or overlap"),
    ],
)
def test_an_image_of_far_too_many_directory_records_is_not_read(
    limit: str, value: int, said: str, disc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = as_iso(disc)
    monkeypatch.setattr(image, limit, value)
    with pytest.raises(UnreadableDisc, match=said):
        verify(file)


def test_a_folder_of_far_too_many_files_is_not_read(disc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkiso.verify.medium.MOST_FILES", 10)
    with pytest.raises(UnreadableDisc, match="more than 10 files"):
        verify(disc)
