"""ZIPs with a password over HTTP and by command: what opens them, how they end, and where the password is not."""

import os
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pyzipper
import requests

from mkiso.config import Media
from mkiso.disc import product
from mkiso.disc.product import zipping
from tests.integration.conftest import Site
from tests.support.ports import free_ports
from tests.support.preloaded import MKISO
from tests.support.service import Service, file_name, instances_of, instances_on, mkiso, running_service
from tests.support.testpacs import RunningPacs
from tests.support.tools import environment, wait_until

PASSWORD = "drowsy pony+relish%20=cable&"
URL = "/mkiso.php?accession_number=CT.001&format=zip"


def by_7z(archive: Path, password: str | None, directory: Path) -> bool:
    options = (f"-p{password or ''}", f"-o{directory}", "-y")
    done = subprocess.run(("/usr/bin/7z", "x", *options, archive), capture_output=True, check=False)
    return done.returncode == 0


def by_bsdtar(archive: Path, password: str | None, directory: Path) -> bool:
    directory.mkdir()
    options = () if password is None else ("--passphrase", password)
    argv = ("/usr/bin/bsdtar", "-xf", archive, "-C", directory, *options)
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def by_python(archive: Path, password: str | None, directory: Path) -> bool:
    try:
        with pyzipper.AESZipFile(archive) as opened:
            opened.extractall(directory, pwd=password and password.encode())
    except RuntimeError:
        return False
    return True


def by_pythons_own(archive: Path, password: str | None, directory: Path) -> bool:
    """It knows no AES, and says so."""
    with zipfile.ZipFile(archive) as opened, pytest.raises(NotImplementedError):
        opened.extractall(directory, pwd=password and password.encode())
    return False


OPENERS: dict[str, Callable[[Path, str | None, Path], bool]] = {
    "7z": by_7z,
    "bsdtar": by_bsdtar,
    "Python with pyzipper": by_python,
}


def post(service: Service, url: str = URL, **more: Any) -> requests.Response:
    options: dict[str, Any] = {"data": {"password": PASSWORD}, "timeout": 60}
    return requests.post(service.url + url, **options | more)


@pytest.fixture(scope="module")
def archive(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    answer = post(service)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/zip")
    assert file_name(answer) == "CT.001.zip"
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    job = service.get(f"/api/jobs/{answer.headers['X-Job-Id']}").json()
    assert (job["state"], job["encrypted"], job["bytes"]) == ("done", True, len(answer.content))
    file = tmp_path_factory.mktemp("protected") / "disc.zip"
    file.write_bytes(answer.content)
    return file


@pytest.mark.parametrize("opener", OPENERS)
def test_a_protected_zip_opens_with_its_password(opener: str, archive: Path, pacs: RunningPacs, tmp_path: Path) -> None:
    assert OPENERS[opener](archive, PASSWORD, tmp_path / "disc")
    files = {str(one.relative_to(tmp_path / "disc")): one for one in (tmp_path / "disc").rglob("*") if one.is_file()}
    assert instances_on(files) == instances_of(pacs.of("CT.001"))
    assert files["docs/a=b é.txt"].read_text() == "how to"


@pytest.mark.parametrize("other", [None, PASSWORD.upper(), f"{PASSWORD} "])
@pytest.mark.parametrize("opener", ["7z", "Python with pyzipper"])
def test_a_protected_zip_opens_with_no_other_password(
    opener: str, other: str | None, archive: Path, tmp_path: Path
) -> None:
    """(bsdtar asks for one at a terminal, again and again.)"""
    assert not OPENERS[opener](archive, other, tmp_path / "disc")
    left = [one for one in tmp_path.rglob("*") if one.is_file()]
    assert [one for one in left if b"DICM" in one.read_bytes()] == []


def test_pythons_own_library_opens_no_protected_zip(archive: Path, tmp_path: Path) -> None:
    assert not by_pythons_own(archive, PASSWORD, tmp_path)


def test_a_plain_zip_says_that_it_is_not_protected(service: Service) -> None:
    answer = service.get(URL)
    assert service.get(f"/api/jobs/{answer.headers['X-Job-Id']}").json()["encrypted"] is False


@pytest.mark.parametrize("opener", OPENERS)
def test_a_protected_zip_whose_later_members_are_in_zip64_opens_too(
    opener: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree").mkdir()
    for number in range(50):
        (tmp_path / "tree" / f"{number:02}").write_bytes(b"x" * number * 100)
    monkeypatch.setattr(product, "LARGEST_OFFSET", 50_000)
    with zipping(Media(), [("IMAGES", tmp_path / "tree")], lambda: None, PASSWORD) as made:
        (tmp_path / "disc.zip").write_bytes(b"".join(made.chunks()))
    with zipfile.ZipFile(tmp_path / "disc.zip") as read:
        assert {one.extract_version for one in read.infolist()} == {20, 45}
    assert OPENERS[opener](tmp_path / "disc.zip", PASSWORD, tmp_path / "disc")
    sizes = {one.name: one.stat().st_size for one in (tmp_path / "disc" / "IMAGES").iterdir()}
    assert sizes == {f"{number:02}": number * 100 for number in range(50)}


@pytest.fixture
def own(site: Site, tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path, free_ports(1)[0], site.settings()) as service:
        yield service


@pytest.mark.parametrize("ends", ["its client leaves", "it is cancelled"])
def test_a_protected_zip_that_ends_before_its_end_leaves_nothing(ends: str, own: Service, tmp_path: Path) -> None:
    with post(own, "/mkiso.php?accession_number=BENCH.200&format=zip", stream=True) as answer:
        job = f"/api/jobs/{answer.headers['X-Job-Id']}"
        next(answer.iter_content(1024))
        if ends == "it is cancelled":
            assert requests.post(f"{own.url}{job}/cancel", timeout=10).ok
            with pytest.raises(requests.exceptions.RequestException):
                b"".join(answer.iter_content(1 << 16))
    wait_until(lambda: own.get(job).json()["state"] == "cancelled", 10, lambda: own.get(job).text)
    wait_until(lambda: list(tmp_path.glob("work/dicomdir_*")) == [], 5, str)


class Watch(threading.Thread):
    """What the processes of a service show of themselves to the host, and what lies in its directories."""

    def __init__(self, service: Service, marker: bytes) -> None:
        super().__init__()
        self._process, self._root, self._marker = (
            psutil.Process(service.process.pid),
            service.config_file.parent,
            marker,
        )
        self.is_over = False
        self.programs: set[str] = set()
        self.found: set[str] = set()

    def run(self) -> None:
        while not self.is_over:
            for one in (self._process, *self._process.children(recursive=True)):
                for name in ("cmdline", "environ"):
                    self._look(Path(f"/proc/{one.pid}/{name}"))
                self._look_at_name(one)
            for folder, _, names in os.walk(self._root):
                for name in names:
                    self._look(Path(folder, name))
            time.sleep(0.01)

    def _look_at_name(self, one: psutil.Process) -> None:
        try:
            self.programs.add(one.name())
        except psutil.NoSuchProcess:
            return

    def _look(self, file: Path) -> None:
        try:
            if file.is_file() and self._marker in file.read_bytes():
                self.found.add(str(file))
        except OSError:  # it is gone meanwhile
            return


def test_the_password_is_in_no_file_no_log_no_argument_and_no_environment(site: Site, tmp_path: Path) -> None:
    marker = "mark3r-of-a-Secret"
    configuration = site.settings(media={"layout": "pdi"})
    with running_service(tmp_path, free_ports(1)[0], configuration) as service:
        watch = Watch(service, marker.encode())
        watch.start()
        try:
            answers = [
                post(service, f"/mkiso_multiple.php?accession_number={number}&format=zip", data={"password": marker})
                for number in ("CT.001,MR.001", "SR.001", "NONE.001")
            ]
            refused = service.get(f"{URL}&password={marker}")
        finally:
            watch.is_over = True
            watch.join()
    assert [answer.status_code for answer in (*answers, refused)] == [200, 200, 404, 400]
    assert watch.found == set()
    assert {"storescp", "dcmmkdir"} & watch.programs
    everything = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {"ledger.db", "service.log"} <= {file.name for file in everything}
    assert [file for file in everything if marker.encode() in file.read_bytes()] == []
    assert marker not in "".join(answer.text for answer in (*answers[2:], refused))


def test_no_process_of_the_service_leaves_a_core(own: Service) -> None:
    for one in (psutil.Process(own.process.pid), *own.workers()):
        assert one.rlimit(psutil.RLIMIT_CORE) == (0, 0)


@pytest.fixture
def config_file(site: Site, tmp_path: Path) -> Path:
    file = tmp_path / "mkiso.yaml"
    file.write_text(str(site.settings()))
    return file


def test_the_command_makes_a_protected_zip_that_verify_opens(config_file: Path, tmp_path: Path) -> None:
    disc, secret = tmp_path / "disc.zip", tmp_path / "password"
    secret.write_text(f"{PASSWORD}\n")
    done = mkiso("iso", "CT.001", "-o", disc, "--layout", "pdi", "--password-file", secret, "--config", config_file)
    assert done.returncode == 0, done.stderr
    assert by_7z(disc, PASSWORD, tmp_path / "disc")
    assert mkiso("verify", disc, "--password-file", secret).returncode == 0


def test_the_command_takes_the_password_from_standard_input(config_file: Path, tmp_path: Path) -> None:
    disc = tmp_path / "disc.zip"
    argv = (MKISO, "iso", "SR.001", "-o", disc, "--password-file", "-", "--config", config_file)
    done = subprocess.run(argv, input=PASSWORD.encode(), capture_output=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    assert by_7z(disc, PASSWORD, tmp_path / "disc")


@pytest.mark.parametrize(
    ("name", "password", "says"),
    [
        ("disc.iso", PASSWORD, "format=zip"),
        ("disc.zip", "", "is empty"),
        ("disc.zip", "s3cret", "has 6 characters"),
        ("disc.zip", "a s3cret\nand another", "ASCII"),
        ("disc.zip", "s3cretes Müll", "ASCII"),
        ("disc.zip", "s3cret behind it ", "space"),
    ],
)
def test_the_command_refuses_what_is_no_password_and_does_not_repeat_it(
    name: str, password: str, says: str, config_file: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text(password)
    done = mkiso("iso", "SR.001", "-o", tmp_path / name, "--password-file", secret, "--config", config_file)
    assert (done.returncode, done.stdout) == (2, b"")
    assert says in done.stderr.decode()
    assert "s3cret" not in done.stderr.decode()
    assert not (tmp_path / name).exists()


def test_a_password_is_no_value_of_an_option(config_file: Path, tmp_path: Path) -> None:
    done = mkiso("iso", "SR.001", "-o", tmp_path / "disc.zip", "--password", PASSWORD, "--config", config_file)
    assert done.returncode == 2
    assert PASSWORD not in done.stderr.decode()
