"""Isolation, for every test: nothing of it is left, and nothing of the host's was touched."""

import gc
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from _pytest.unraisableexception import gc_collect_iterations_key

from mkiso.process import OWNER
from tests.support.tools import wait_until

HOST_PLACES = (Path("/etc/mkiso"), Path("/var/lib/mkiso"), Path("/var/tmp/mkiso"))
UNFINISHED = "SELECT id, state FROM jobs WHERE finished_at IS NULL"
LOOKED_AT: dict[Path, list[int]] = {}


def pytest_configure(config: pytest.Config) -> None:
    """Five times over, as is the default, takes each process a second at its end."""
    config.stash[gc_collect_iterations_key] = 1


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
    before, children, places = _processes(), _children(), _modified()
    yield
    left, directories = _children() - children, list(base.glob("*/work/dicomdir_*"))

    def of_jobs() -> list[psutil.Process]:
        return [one for one in map(_process, _processes() - before) if one and _owner(one).startswith(str(base))]

    try:
        assert [_process(pid) for pid in left] == [], "child processes are left"
        assert directories == [], "job directories are left"
        wait_until(lambda: not of_jobs(), 20, lambda: f"programs of jobs are left: {of_jobs()}")
        assert _unfinished(base) == [], "unfinished ledger rows are left"
        assert _modified() == places, "the host's own directories were touched"
    except (AssertionError, TimeoutError):
        _clear_away([*filter(None, map(_process, left)), *of_jobs()], directories)
        raise


def _clear_away(processes: list[psutil.Process], directories: list[Path]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=5)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


def _processes() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdecimal()}


def _children() -> set[int]:
    """Of each thread (proc(5)): psutil would look at every process."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return set()
    found: set[int] = set()
    for file in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            found.update(map(int, file.read_text().split()))
    return found


def _process(pid: int) -> psutil.Process | None:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid)
    return None


def _owner(process: psutil.Process) -> str:
    try:
        return process.environ().get(OWNER, "")
    except psutil.Error:
        return ""


def _unfinished(directory: Path) -> list[tuple[str, str]]:
    """Those in the ledgers that were written to since they were looked at last: a row is told once."""
    rows = []
    for file in directory.glob("*/ledger.db"):
        written = [path.stat().st_mtime_ns for path in (file, file.with_name("ledger.db-wal")) if path.exists()]
        if LOOKED_AT.get(file) != written:
            LOOKED_AT[file] = written
            with closing(sqlite3.connect(file)) as connection:
                rows += connection.execute(UNFINISHED).fetchall()
    return rows


def _modified() -> list[float | None]:
    return [os.stat(place).st_mtime if place.exists() else None for place in HOST_PLACES]
