"""Isolation, for every test: nothing of it is left, and nothing of the host's was touched."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from mkiso.process import OWNER
from tests.support.tools import wait_until

HOST_PLACES = (Path("/etc/mkiso"), Path("/var/lib/mkiso"), Path("/var/tmp/mkiso"))
UNFINISHED = "SELECT id, state FROM jobs WHERE finished_at IS NULL"
LOOKED_AT: dict[Path, list[int]] = {}


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fails a test that leaves a child process, a job directory, an unfinished row, or touched the host's places.

    The services that a module's tests share are looked at after each of them, too. What a test has left is ended and
    removed, so that no other test fails for it.
    """
    children, places = _children(), _modified()
    yield
    base = tmp_path_factory.getbasetemp()
    left, directories = _children() - children, list(base.glob("*/work/dicomdir_*"))
    try:
        assert left == set(), "child processes are left"
        assert directories == [], "job directories are left"
        wait_until(lambda: not _of_jobs_in(base), 5, lambda: f"programs of jobs are left: {_of_jobs_in(base)}")
        assert _unfinished(base) == [], "unfinished ledger rows are left"
        assert _modified() == places, "the host's own directories were touched"
    except AssertionError:
        _clear_away([*left, *_of_jobs_in(base)], directories)
        raise


def _clear_away(processes: list[psutil.Process], directories: list[Path]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=5)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children())


def _of_jobs_in(directory: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _owner(process).startswith(str(directory))]


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
