"""Job directories: made for one job, owned by a lock as long as its process lives, and always removed.

Programs that a job starts carry its directory in their environment: so a sweep knows what a dead job left running.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import psutil

from mkiso.errors import DiskFull, Internal
from mkiso.locks import locked
from mkiso.process import OWNER

PREFIX = "dicomdir_"
IDENTITY = "identity"


@dataclass(frozen=True)
class Workspace:
    """One job's directory and the rooms in it."""

    path: Path

    @property
    def received(self) -> Path:
        return self.path / "received"

    @property
    def disc(self) -> Path:
        return self.path / "disc"


def ensure_work_dir(work_dir: Path) -> None:
    """Make the directory that holds the job directories (mode 0700); Internal where that fails."""
    try:
        work_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Internal(
            f"The directory of storage.work_dir cannot be made ({error.strerror}). Make it, or choose another."
        ) from error
    if not os.access(work_dir, os.R_OK | os.W_OK | os.X_OK):
        raise Internal(
            "The directory of storage.work_dir may not be written to by this user. Run as the service's user."
        )
    status = work_dir.stat()
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Internal(
            "The directory of storage.work_dir belongs to another user, or others may write to it. Run the service"
            " and its commands as one user, and give that user a directory of its own."
        )


def making_jobs(work_dir: Path) -> AbstractContextManager[None]:
    """While a job's directory is made, no sweep takes it for a dead one's."""
    ensure_work_dir(work_dir)
    return locked(work_dir, fcntl.LOCK_SH)


@contextmanager
def job_directory(work_dir: Path, job_id: str) -> Iterator[Workspace]:
    """The directory `dicomdir_<job_id>` (mode 0700), locked by this process, gone at the end of the block.

    Raises OSError where it cannot be made.
    """
    workspace = Workspace(work_dir / f"{PREFIX}{job_id}")
    with making_jobs(work_dir):
        workspace.path.mkdir(mode=0o700)
        lock = os.open(workspace.path, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        workspace.received.mkdir()
        workspace.disc.mkdir()
        yield workspace
    finally:
        shutil.rmtree(workspace.path, ignore_errors=True)
        os.close(lock)


def require_space(work_dir: Path, min_free: int) -> None:
    """Raise DiskFull where less than `min_free` bytes would be kept free."""
    status = os.statvfs(work_dir)
    free = status.f_bavail * status.f_frsize
    if free < min_free:
        raise DiskFull(
            f"{free} bytes are free where the job directories are, and storage.min_free keeps {min_free}."
            " Make room, or lower it."
        )


def sweep(work_dir: Path) -> list[str]:
    """End the programs and remove the directories of jobs that no living process owns; the ids of those jobs.

    `work_dir` is locked meanwhile, so that a directory that is being made is not taken for a dead job's.
    """
    ensure_work_dir(work_dir)
    with locked(work_dir, fcntl.LOCK_EX):
        swept = [path for path in _directories(work_dir) if _abandoned(path)]
        for path in swept:
            _end_programs(path)
            shutil.rmtree(path, ignore_errors=True)
    return [_job_id(path) for path in swept]


def living_jobs(work_dir: Path) -> set[str]:
    """The ids of the jobs that have a directory and a process."""
    return {_job_id(path) for path in _directories(work_dir) if not _abandoned(path)}


def identity(work_dir: Path) -> str:
    """The UUID of a work_dir, by which a ledger tells it from another host's of the same path.

    Whoever comes first makes it; it must not be copied to another host. Where it can be neither
    read nor made, what is given is nobody's.
    """
    file, new = work_dir / IDENTITY, str(uuid.uuid4())
    try:
        with suppress(FileNotFoundError):
            os.utime(file)  # so that no cleaner of old temporary files takes it
            return str(uuid.UUID(file.read_text()))
        with NamedTemporaryFile("w", dir=work_dir, prefix=f".{IDENTITY}.") as made:
            made.write(new)
            made.flush()
            os.fsync(made.fileno())
            with suppress(FileExistsError):
                os.link(made.name, file)
        return str(uuid.UUID(file.read_text()))
    except (OSError, ValueError):
        return new


def _job_id(path: Path) -> str:
    return path.name.removeprefix(PREFIX)


def _directories(work_dir: Path) -> list[Path]:
    return sorted(path for path in work_dir.glob(f"{PREFIX}*") if path.is_dir() and not path.is_symlink())


def _abandoned(path: Path) -> bool:
    with suppress(BlockingIOError, FileNotFoundError), locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
        return True
    return False


def _end_programs(path: Path) -> None:
    """Kill, until there is none, what was started for a job: a receiver forks while it is being killed."""
    deadline = time.monotonic() + 5
    while (found := _programs_in(path)) and time.monotonic() < deadline:
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(found, timeout=1)


def _programs_in(path: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(OWNER) == str(path) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
