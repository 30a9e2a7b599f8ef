"""Isolation, for every test: nothing of it is left, and nothing of the host's was touched."""

import gc
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from _pytest.unraisableexception import gc_collect_iterations_key

from mkiso.process import OWNER
from tests.support.tools import wait_until

HOST_PLACES = (Path("/etc/mkiso"), Path("/var/lib/mkiso"), Path("/var/tmp/mkiso"))
IN_MEMORY, MOST_FILES = Path("/dev/shm"), 2 << 30  # bytes, of all tests at once
UNFINISHED = "SELECT id, state FROM jobs WHERE finished_at IS NULL"
LOOKED_AT: dict[str, list[int]] = {}


def pytest_configure(config: pytest.Config) -> None:
    """The tests' files are in memory where it has room for thrice what they take, unless TMPDIR names another place.

    Garbage is collected once at the end: five times over, as is the default, takes each process a second.
    """
    config.stash[gc_collect_iterations_key] = 1
    room = min(shutil.disk_usage(IN_MEMORY).free, psutil.virtual_memory().available) if IN_MEMORY.is_dir() else 0
    if room > 3 * MOST_FILES:
        os.environ.setdefault("TMPDIR", str(IN_MEMORY))
        tempfile.tempdir = None  # it is looked for again


def pytest_collection_finish() -> None:
    """What all tests are made of stays: nobody looks through it for garbage again and again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fails a test that leaves a child process, a job directory, an unfinished row, or touched the host's places.

    The services that a module's tests share are looked at after each of them, too. What a test has left is ended and
    removed, so that no other test fails for it. A test's own directory is there until it was looked at, and then goes.
    """
    if "tmp_path" in request.fixturenames:
        request.getfixturevalue("tmp_path")
    base = tmp_path_factory.getbasetemp()
    before, places = _processes(), _modified()
    yield
    since = _processes() - before
    left, directories = list(filter(_is_ours, since)), _job_directories(base)
    owned = f"\0{OWNER}={base}".encode()
    of_jobs = [pid for pid in since if owned in _environment(pid)]

    def running() -> list[psutil.Process]:
        return [*filter(None, map(_process, (pid for pid in of_jobs if owned in _environment(pid))))]

    try:
        assert [_process(pid) for pid in left] == [], "child processes are left"
        assert directories == [], "job directories are left"
        wait_until(lambda: not running(), 20, lambda: f"programs of jobs are left: {running()}")
        assert _unfinished(base) == [], "unfinished ledger rows are left"
        assert _modified() == places, "the host's own directories were touched"
    except (AssertionError, TimeoutError):
        _clear_away([*filter(None, map(_process, left)), *running()], directories)
        raise


def _clear_away(processes: list[psutil.Process], directories: list[str]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=5)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


def _processes() -> set[str]:
    """By number, and what else has a name in /proc (proc(5))."""
    return set(os.listdir("/proc"))


def _is_ours(pid: str) -> bool:
    """Whether it is a child of this process (proc(5)); psutil would look at every process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) == os.getpid()
    except OSError:
        return False


def _directories(base: Path) -> list[str]:
    """Of the tests; many, so that none becomes a Path."""
    with os.scandir(base) as entries:
        return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]


def _job_directories(base: Path) -> list[str]:
    found = []
    for directory in _directories(base):
        with suppress(OSError):
            work = f"{directory}/work"
            found += [f"{work}/{name}" for name in os.listdir(work) if name.startswith("dicomdir_")]
    return found


def _process(pid: str) -> psutil.Process | None:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(int(pid))
    return None


def _environment(pid: str) -> bytes:
    try:
        return b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _unfinished(base: Path) -> list[tuple[str, str]]:
    """Those in the ledgers that were written to since they were looked at last: a row is told once."""
    rows = []
    for directory in _directories(base):
        file = f"{directory}/ledger.db"
        written = [_changed(file), _changed(f"{file}-wal")]
        if written[0] and LOOKED_AT.get(file) != written:
            LOOKED_AT[file] = written
            with closing(sqlite3.connect(file)) as connection:
                rows += connection.execute(UNFINISHED).fetchall()
    return rows


def _modified() -> list[int]:
    return list(map(_changed, HOST_PLACES))


def _changed(file: str | Path) -> int:
    """When, in ns; 0 for none."""
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return 0
