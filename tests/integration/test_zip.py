"""ZIPs over HTTP and by command, and what reads them: unzip, 7z, bsdtar (from a file and through a pipe), Python."""

import os
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import requests

from mkiso.config import Media
from mkiso.disc import product
from mkiso.disc.product import CHUNK, zipping
from mkiso.errors import DiscTooLarge
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from mkiso.waiting import Cancellation
from tests.integration.conftest import Site
from tests.support.allowance import require_files_of
from tests.support.service import Service, file_name, instances_of, instances_on, mkiso, read_disc
from tests.support.testpacs import RunningPacs

GIB = 1 << 30
URLS = {
    "/mkiso.php?accession_number=CT.001": "CT.001",
    "/mkiso_multiple.php?accession_number=CT.001,MR.001": "DOEJOHN-CT001MR001",
    "/api/iso/download?accession_number=CT.001": "CT.001",
    "/api/iso/download-multiple?accession_numbers=CT.001,MR.001": "DOEJOHN-CT001MR001",
}


def run(*argv: str | Path) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (argv, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def piped(archive: Path) -> str:
    """bsdtar at the end of a pipe cannot look at the archive's end first; it reads the members' bytes, too."""
    with subprocess.Popen(("/bin/cat", archive), stdout=subprocess.PIPE) as cat:
        done = subprocess.run(("/usr/bin/bsdtar", "-tf", "-"), stdin=cat.stdout, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def by_python(archive: Path) -> str:
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        return "\n".join(opened.namelist())


def by_unzip(archive: Path) -> str:
    """But for a member of 4 GiB: it takes half a minute for one."""
    left_out = ("-x", "*/4GIB") if archive.stat().st_size > 4 * GIB else ()
    assert "No errors detected" in run("/usr/bin/unzip", "-tq", archive, *left_out)
    return run("/usr/bin/unzip", "-Z1", archive)


def by_7z(archive: Path) -> str:
    assert "Everything is Ok" in run("/usr/bin/7z", "t", archive)
    listed = run("/usr/bin/7z", "l", "-ba", "-slt", archive).splitlines()
    return "\n".join(line.removeprefix("Path = ") for line in listed if line.startswith("Path = "))


def by_bsdtar(archive: Path) -> str:
    return run("/usr/bin/bsdtar", "-tf", archive)


READERS: dict[str, Callable[[Path], str]] = {
    "unzip": by_unzip,
    "7z": by_7z,
    "bsdtar": by_bsdtar,
    "bsdtar through a pipe": piped,
    "Python": by_python,
}


@pytest.mark.parametrize("url", URLS)
def test_a_zip_holds_the_same_files_as_the_iso(url: str, service: Service, tmp_path: Path) -> None:
    iso, archive = service.get(url), service.get(f"{url}&format=zip")
    assert archive.status_code == 200
    assert file_name(archive) == f"{URLS[url]}.zip"
    assert archive.headers["Content-Type"] == "application/zip"
    assert int(archive.headers["Content-Length"]) == len(archive.content)
    unpacked = [read_disc(answer.content, tmp_path / name) for answer, name in ((iso, "iso"), (archive, "zip"))]
    trees = [{name: file.read_bytes() for name, file in disc.items()} for disc in unpacked]
    assert trees[0] == trees[1]
    assert "docs/a=b é.txt" in trees[1]
    assert folders(tmp_path / "iso") == folders(tmp_path / "zip")


def folders(directory: Path) -> set[Path]:
    return {one.relative_to(directory) for one in directory.rglob("*") if one.is_dir()}


@pytest.fixture(scope="module")
def small(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("small") / "disc.zip"
    file.write_bytes(service.get("/mkiso.php?accession_number=CT.001&format=zip").content)
    return file


@pytest.mark.parametrize("reader", READERS)
def test_a_zip_opens_in(reader: str, small: Path, pacs: RunningPacs) -> None:
    held = {f"DICOMDIR/{uid}" for study in pacs.of("CT.001") for uid in study.sop_instance_uids}
    assert held < set(READERS[reader](small).splitlines())


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70,000 files: the same hundred below each of 700 names."""
    directory = tmp_path_factory.mktemp("many")
    (directory / "tree").mkdir()
    for number in range(100):
        (directory / "tree" / f"{number:02d}").write_bytes(b"an instance")
    return written([(f"IMAGES/{number:03d}", directory / "tree") for number in range(700)], directory / "many.zip")


def written(grafts: list[tuple[str, Path]], file: Path) -> Path:
    """An archive in a file, with holes for zeros."""
    zeros = bytes(CHUNK)
    with file.open("wb") as output, zipping(Media(), grafts, lambda: None) as product:
        for chunk in product.chunks():
            output.seek(CHUNK, os.SEEK_CUR) if chunk == zeros else output.write(chunk)
    assert file.stat().st_size == product.size
    return file


@pytest.mark.parametrize("reader", READERS)
def test_a_zip_of_70000_files_opens_in(reader: str, many: Path) -> None:
    named = [f"IMAGES/{number // 100:03d}/{number % 100:02d}" for number in range(70_000)]
    assert sorted(READERS[reader](many).split()) == named


@pytest.fixture(scope="module")
def large() -> Iterator[Path]:
    """A small file, one of 4 GiB, and a small one behind it; all sparse, where a hole is read without a page for it."""
    require_files_of(5 * GIB)
    with TemporaryDirectory(dir="/dev/shm") as made:
        directory = Path(made)
        (directory / "tree").mkdir()
        for name, size in (("1ST", 1000), ("4GIB", 4 * GIB), ("LAST", 1000)):
            with (directory / "tree" / name).open("wb") as file:
                file.truncate(size)
        yield written([("IMAGES", directory / "tree")], directory / "large.zip")


@pytest.mark.parametrize("reader", READERS)
def test_a_zip_with_a_file_of_4_gib_opens_in(reader: str, large: Path) -> None:
    assert READERS[reader](large).split() == ["IMAGES/1ST", "IMAGES/4GIB", "IMAGES/LAST"]


def test_zip64_begins_with_the_file_that_crosses_4_gib(large: Path) -> None:
    with zipfile.ZipFile(large) as opened:
        assert [member.extract_version for member in opened.infolist()] == [20, 45, 45]


def test_no_instance_is_too_large_for_a_zip(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "LARGEST_FILE", 1000)
    installation = Installation(site.config())
    disc = make_disc(installation, Order(("CT.001",), "test", format="zip"), Cancellation())
    assert sum(map(len, disc)) == disc.size
    with pytest.raises(DiscTooLarge):
        make_disc(installation, Order(("CT.001",), "test"), Cancellation())
    installation.ledger.close()


def test_the_ledger_tells_the_format_and_the_medium(service: Service) -> None:
    jobs = {}
    for chosen in ("iso", "zip"):
        answer = service.get(f"/mkiso.php?accession_number=SR.001&format={chosen}")
        jobs[chosen] = service.get(f"/api/jobs/{answer.headers['X-Job-Id']}").json()
        assert jobs[chosen]["bytes"] == len(answer.content)
    assert {chosen: (job["kind"], job["format"], job["medium"]) for chosen, job in jobs.items()} == {
        "iso": ("iso", "iso", "CD"),
        "zip": ("iso", "zip", None),
    }
    failed = service.get("/mkiso.php?accession_number=NONE.001&format=zip").headers["X-Job-Id"]
    job = service.get(f"/api/jobs/{failed}").json()
    assert (job["format"], job["medium"]) == ("zip", None)


def test_a_head_tells_what_a_zip_would_be(service: Service) -> None:
    answer = requests.head(f"{service.url}/mkiso.php?accession_number=CT.001&format=zip", timeout=10)
    assert (answer.headers["Content-Type"], file_name(answer)) == ("application/zip", "CT.001.zip")


@pytest.mark.parametrize(
    ("name", "options", "magic"),
    [
        ("disc.zip", (), b"PK\x03\x04"),
        ("DISC.ZIP", (), b"PK\x03\x04"),
        ("disc.iso", ("--format", "zip"), b"PK\x03\x04"),
        ("-", ("--format", "zip"), b"PK\x03\x04"),
        ("disc.zip", ("--format", "iso"), bytes(4)),
        ("disc.img", (), bytes(4)),
        ("-", (), bytes(4)),
    ],
)
def test_the_command_writes_the_format_that_is_asked_for(
    name: str, options: tuple[str, ...], magic: bytes, site: Site, tmp_path: Path
) -> None:
    file = tmp_path / "mkiso.yaml"
    file.write_text(str(site.settings()))
    output = name if name == "-" else tmp_path / name
    done = mkiso("iso", "SR.001", "-o", output, *options, "--config", file)
    disc = done.stdout if name == "-" else (tmp_path / name).read_bytes()
    fits = b", for a CD" if magic == bytes(4) else b""
    assert (done.returncode, done.stderr) == (0, b"%d bytes written%s\n" % (len(disc), fits))
    assert disc[:4] == magic
    assert instances_on(read_disc(disc, tmp_path / "disc")) == instances_of(site.pacs.of("SR.001"))
