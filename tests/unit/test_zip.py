import io
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mkiso.config import Media
from mkiso.disc import product as zip_module
from mkiso.disc.product import CHUNK, Graft, zipping
from mkiso.errors import Cancelled, Internal

part = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 100
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A stage of the legacy layout."""
    folder = tmp_path / "stage" / "DICOMDIR"
    folder.mkdir(parents=True)
    for uid in ("1.5", "1.6"):
        (folder / uid).write_bytes(f"instance {uid}".encode())
    return folder


@pytest.fixture
def viewer(tmp_path: Path) -> Path:
    viewer = tmp_path / "viewer"
    (viewer / "docs" / "empty").mkdir(parents=True)
    (viewer / "viewer.exe").write_bytes(b"MZ")
    (viewer / "docs" / "müller 山田.txt").write_bytes(b"how to")
    return viewer


def grafts(tree: Path) -> list[Graft]:
    return [("DICOMDIR", tree)]


def archived(grafts: list[Graft], media: Media = Media()) -> bytes:  # noqa: B008
    """The archive as its reader has it."""
    with zipping(media, grafts, lambda: None) as product:
        whole = b"".join(product.chunks())
    assert len(whole) == product.size
    return whole


def opened(archive: bytes) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(archive))


def contents(archive: bytes) -> dict[str, bytes]:
    with opened(archive) as read:
        return {name: read.read(name) for name in read.namelist()}


def test_an_archive_holds_the_viewers_files_at_its_root_and_what_is_grafted(tree: Path, viewer: Path) -> None:
    """In the order of their names, so that what is read forward comes forward."""
    assert list(contents(archived(grafts(tree), Media(viewer_dir=viewer))).items()) == [
        ("docs/empty/", b""),
        ("docs/müller 山田.txt", b"how to"),
        ("viewer.exe", b"MZ"),
        ("DICOMDIR/1.5", b"instance 1.5"),
        ("DICOMDIR/1.6", b"instance 1.6"),
    ]


def test_a_single_file_may_be_grafted(tree: Path) -> None:
    assert contents(archived([("DICOMDIR", tree / "1.5"), ("IMAGES", tree)])).keys() == {
        *("DICOMDIR", "IMAGES/1.5", "IMAGES/1.6")
    }


def test_members_are_stored_read_only_in_utf_8_and_without_a_data_descriptor(tree: Path, viewer: Path) -> None:
    with opened(archived(grafts(tree), Media(viewer_dir=viewer))) as read:
        for member in read.infolist():
            assert member.compress_type == zipfile.ZIP_STORED
            assert member.flag_bits == 0x800
            assert member.external_attr >> 16 == (0o040555 if member.is_dir() else 0o100444)
            assert member.extract_version == 20


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.dictionaries(part, st.binary(max_size=50) | st.none(), max_size=8), st.integers(1, 300), st.integers(1, 9))
def test_the_size_that_is_told_is_the_size_that_comes(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes | None], largest: int, most: int
) -> None:
    """Whichever members are in ZIP64."""
    root = tmp_path_factory.mktemp("tree")
    for name, content in files.items():
        (root / name).mkdir() if content is None else (root / name).write_bytes(content)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(zip_module, "LARGEST_OFFSET", largest)
        patched.setattr(zip_module, "MOST_MEMBERS", most)
        whole = archived([("", root)])
    expected = {f"{name}/" if content is None else name: content or b"" for name, content in files.items()}
    assert contents(whole) == expected


@pytest.mark.parametrize(
    ("limit", "value", "versions"),
    [
        ("MOST_MEMBERS", 4, [20, 20, 20, 45, 45]),
        ("MOST_MEMBERS", 5, [20, 20, 20, 20, 45]),
        ("MOST_MEMBERS", 6, [20] * 5),
        ("LARGEST_OFFSET", 3 * (64 + 1 + 10), [20, 20, 45, 45, 45]),
        ("LARGEST_OFFSET", 3 * (64 + 1 + 10) + 1, [20, 20, 20, 45, 45]),
    ],
)
def test_zip64_begins_with_the_member_that_needs_it(
    limit: str, value: int, versions: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "12345":
        (tmp_path / name).write_bytes(bytes(10))
    monkeypatch.setattr(zip_module, limit, value)
    with opened(archived([("", tmp_path)])) as read:
        assert [member.extract_version for member in read.infolist()] == versions


def test_symbolic_links_are_followed(tree: Path, viewer: Path) -> None:
    (viewer / "again").symlink_to("docs")
    (viewer / "link.exe").symlink_to("viewer.exe")
    held = contents(archived(grafts(tree), Media(viewer_dir=viewer)))
    assert held["again/müller 山田.txt"] == b"how to"
    assert held["link.exe"] == b"MZ"


def loop(viewer: Path) -> None:
    for name in ("one", "two"):
        (viewer / "docs" / name).symlink_to("..")


def hide_ours(viewer: Path) -> None:
    (viewer / "DICOMDIR").mkdir()
    (viewer / "DICOMDIR" / "1.6").write_bytes(b"another")


WRONG: dict[str, Callable[[Path], object]] = {
    "it is gone": lambda viewer: (viewer / "gone").symlink_to("nowhere"),
    "its links go round": loop,
    "it is a pipe": lambda viewer: os.mkfifo(viewer / "pipe"),
    "its name is no text": lambda viewer: Path(os.fsdecode(bytes(viewer) + b"/\xff")).touch(),
    "it has one of our names": hide_ours,
    "it is in the place of our folder": lambda viewer: (viewer / "DICOMDIR").touch(),
    "the viewer is not there": lambda viewer: viewer.rename(viewer.with_name("elsewhere")),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_file_that_cannot_be_taken_in_is_internal_before_a_byte(wrong: str, tree: Path, viewer: Path) -> None:
    WRONG[wrong](viewer)
    with pytest.raises(Internal) as raised, zipping(Media(viewer_dir=viewer), grafts(tree), lambda: None):
        pytest.fail("it began")
    assert str(viewer) not in raised.value.detail
    assert re.search(r"gone|docs/(one|two)|pipe|udcff|DICOMDIR|/viewer", ascii(raised.value.__notes__))


def test_a_file_that_may_not_be_read_is_internal_before_a_byte(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path).name != "1.6")
    with pytest.raises(Internal) as raised, zipping(Media(), grafts(tree), lambda: None):
        pytest.fail("it began")
    assert "1.6" in "".join(raised.value.__notes__)


def test_an_archive_needs_no_medium_and_has_no_limit(tree: Path) -> None:
    assert len(archived(grafts(tree), Media(max_size=1))) > 1


def altered(file: Path) -> None:
    """Other bytes of the same number and the same age."""
    state = file.stat()
    file.write_bytes(bytes(state.st_size))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def renewed(file: Path) -> None:
    os.utime(file, (1, 1))


def shrunk(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def grown(file: Path) -> None:
    with file.open("ab") as more:
        more.write(bytes(10 * CHUNK))


def changing(tree: Path, chunks_before: int, change: Callable[[], object]) -> Iterator[bytes]:
    with zipping(Media(), grafts(tree), lambda: None) as product:
        for number, chunk in enumerate(product.chunks(), start=1):
            yield chunk
            if number == chunks_before:
                change()


def streamed(*arguments: Any) -> Iterator[bytes]:
    with pytest.raises(Internal) as raised:
        yield from changing(*arguments)
    assert re.search(r"DICOMDIR/1\.[56]|bytes came", "".join(raised.value.__notes__))


@pytest.mark.parametrize(
    ("name", "change", "chunks_before"),
    [
        *(("1.6", change, 1) for change in (renewed, shrunk, grown, Path.unlink)),  # before it is its turn
        *(("1.5", change, 1) for change in (altered, renewed, shrunk, grown, Path.unlink)),  # its header is written
        *(("1.5", change, 2) for change in (altered, shrunk, grown)),  # it is being read
    ],
)
def test_a_file_that_changes_while_it_is_streamed_is_internal(
    name: str, change: Callable[[Path], None], chunks_before: int, tree: Path
) -> None:
    for file in tree.iterdir():
        file.write_bytes(b"x" * (2 * CHUNK + 10))
    whole = len(archived(grafts(tree)))
    assert len(b"".join(streamed(tree, chunks_before, lambda: change(tree / name)))) < whole


def test_a_check_is_asked_while_the_files_are_read(tree: Path) -> None:
    def cancelled() -> None:
        raise Cancelled("Enough.")

    with pytest.raises(Cancelled), zipping(Media(), grafts(tree), cancelled):
        pytest.fail("it began")


def test_a_reader_that_leaves_leaves_no_file_open(tree: Path) -> None:
    (tree / "1.5").write_bytes(bytes(3 * CHUNK))
    before = os.listdir("/proc/self/fd")
    with zipping(Media(), grafts(tree), lambda: None) as product:
        chunks = product.chunks()
        assert sum(len(next(chunks)) for _ in range(2)) > CHUNK
        assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    assert len(os.listdir("/proc/self/fd")) == len(before)
