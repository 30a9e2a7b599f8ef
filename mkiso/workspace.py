"""Directories: those of the jobs, whether one of the configuration can be used, and whether its disk is full.

A job directory is made for one job, owned by a lock as long as its process lives, and always removed. Programs that a
job starts carry its directory in their environment: so a sweep knows what a dead job left running.

The locks are the system's, on files and directories: it frees them when their holder dies, however it dies.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import signal
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import psutil

from mkiso.errors import ConfigurationError, DiskFull, Internal, JobExists
from mkiso.process import OWNER, remove_tree
from mkiso.waiting import Stopwatch

PREFIX = "dicomdir_"
CLAIM = ".job_"
OTHERS = 0o077
FULL = (errno.ENOSPC, errno.EDQUOT)
LEAST_FREE = 1 << 16  # bytes; where there are fewer, what fails has failed for that
PATIENCE = 1.0  # s in which the jobs on this host make room, where strangers have taken it
POLL = 0.02
IDENTITY = "identity"
BECAME_FULL = "The disk of storage.work_dir became full. Make room, then ask again."


@contextmanager
def locked(path: Path, operation: int = fcntl.LOCK_EX) -> Iterator[None]:
    """A lock on what is there; BlockingIOError where LOCK_NB finds it taken, FileNotFoundError where it is gone."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, operation)
        if not _is_named(descriptor, path):
            raise FileNotFoundError(path)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def held(file: Path) -> Iterator[None]:
    """A lock on a file that is made where it is absent; BlockingIOError where it is taken.

    A cleaner of old temporary files may remove it: what is locked must be the file that has the name.
    """
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.utime(descriptor)
            if _is_named(descriptor, file):
                yield
                return
        finally:
            os.close(descriptor)


def _is_named(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class Workspace:
    """One job's directory and the rooms in it."""

    path: Path

    @property
    def job_id(self) -> str:
        return self.path.name.removeprefix(PREFIX)

    @property
    def received(self) -> Path:
        return self.path / "received"

    @property
    def disc(self) -> Path:
        return self.path / "disc"


def leash_of(work_dir: Path, job_id: str) -> Path:
    """The file that is touched as long as the ledger has news of the job."""
    return Workspace(work_dir / f"{PREFIX}{job_id}").path / "in_the_ledger"


def ensure_work_dir(work_dir: Path) -> None:
    """Make the directory that holds the job directories; ConfigurationError unless it is this user's alone.

    Raises OSError where the disk is full.
    """
    try:
        work_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = work_dir.lstat()
    except OSError as error:
        if means_full_disk(error):
            raise
        raise _unusable(work_dir, f"cannot be made ({error.strerror}). Make it, or choose another") from error
    if stat.S_ISLNK(status.st_mode):
        raise _unusable(work_dir, "is a symbolic link. Name the directory itself")
    if status.st_uid != os.geteuid():
        owner, user = user_name(status.st_uid), user_name(os.geteuid())
        raise _unusable(work_dir, f"belongs to {owner}, and this is {user}. Run as {owner}, or choose another")
    if status.st_mode & OTHERS:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        raise _unusable(work_dir, f"is open to other users (mode {mode}). Look what is in it, then: chmod 0700")


def _unusable(work_dir: Path, why: str) -> ConfigurationError:
    return ConfigurationError(f"storage.work_dir: {work_dir} {why}.")


def require_directory(path: Path) -> None:
    """Raise ConfigurationError unless this user can write to a directory, or make it where it is not there yet."""
    if not (there := existing_part(path)).is_dir():
        raise ConfigurationError(f"{there} is no directory. Choose another place than {path}.")
    require_writable(path)


def require_writable(path: Path) -> None:
    """Raise ConfigurationError unless this user can write to what is there, or to the directory in which it would be
    made.
    """
    there = existing_part(path)
    owner, user = user_name(there.stat().st_uid), user_name(os.geteuid())
    if os.geteuid() == 0 and there.stat().st_uid != 0:
        raise ConfigurationError(f"{ownership(path)}: what root makes there {owner} cannot use. Run as {owner}.")
    if not os.access(there, os.W_OK | (os.X_OK if there.is_dir() else 0)):
        run_as = f"Run as {owner}, or as root: chown {user} {path}."
        remedy = run_as if there == path else f"As root: install -d -o {user} -m 0700 {path}."
        raise ConfigurationError(f"{ownership(path)}, who may not write there. {remedy}")


def existing_part(path: Path) -> Path:
    """The path itself, or of the directories above it the first that is there."""
    return next(one for one in (path, *path.parents) if os.path.lexists(one))


def ownership(path: Path) -> str:
    """Where a path is or would be, whose that is, and which user asks."""
    there = existing_part(path)
    absent = "" if there == path else f"{path} is not there, and "
    status = there.stat()
    owner, mode = user_name(status.st_uid), f"{stat.S_IMODE(status.st_mode):04o}"
    return f"{absent}{there} belongs to {owner} (mode {mode}), and this is {user_name(os.geteuid())}"


def user_name(uid: int) -> str:
    """A user's name, whatever the environment says."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


@contextmanager
def claimed(work_dir: Path, job_id: str) -> Iterator[None]:
    """The job is this process's, also when its directory is gone: until its row has ended, in which the block ends.

    Where that cannot be written down, the directory alone tells it.
    """
    file = work_dir / f"{CLAIM}{job_id}"
    with ExitStack() as claim:
        with suppress(OSError):
            claim.enter_context(held(file))
            claim.callback(file.unlink, missing_ok=True)
        yield


@contextmanager
def job_directory(work_dir: Path, job_id: str) -> Iterator[Workspace]:
    """The directory `dicomdir_<job_id>` (mode 0700), locked by this process, gone at the end of the block.

    Raises ConfigurationError for the `work_dir`, JobExists where a job has it, OSError where it cannot be made.
    """
    ensure_work_dir(work_dir)
    workspace = Workspace(work_dir / f"{PREFIX}{job_id}")
    with ExitStack() as made:
        with locked(work_dir, fcntl.LOCK_SH):  # so that no sweep takes it for a dead job's while it is made
            try:
                workspace.path.mkdir(mode=0o700)
            except FileExistsError:
                if not workspace.path.is_dir():
                    raise
                raise JobExists(f"A job {job_id} is running. Choose another UUID, or none.") from None
            try:
                lock = os.open(workspace.path, os.O_RDONLY)
            except OSError:
                workspace.path.rmdir()
                raise
            made.callback(os.close, lock)
            made.callback(remove_tree, workspace.path)
            fcntl.flock(lock, fcntl.LOCK_EX)
        with _blaming_a_full_disk(work_dir):
            workspace.received.mkdir()
            workspace.disc.mkdir()
            yield workspace


@contextmanager
def _blaming_a_full_disk(work_dir: Path) -> Iterator[None]:
    """What fails where no room is left fails for that: programs tell it in many ways, or not at all."""
    try:
        yield
    except Exception as error:
        if getattr(error, "http_status", Internal.http_status) >= Internal.http_status and is_full(work_dir):
            raise DiskFull(BECAME_FULL) from error
        raise


def require_space(work_dir: Path, min_free: int, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Raise DiskFull where less than `min_free` bytes are kept free, and PATIENCE does not help.

    `meanwhile` is asked while it has it.
    """
    waited = None
    while (free := free_space(work_dir)) < min_free:
        waited = waited or Stopwatch()
        if waited.seconds() > PATIENCE:
            raise DiskFull(
                f"{free} bytes are free where the job directories are, and storage.min_free keeps {min_free}."
                " Make room, or lower it."
            )
        meanwhile()
        time.sleep(POLL)


def require_room(directory: Path) -> None:
    """Raise DiskFull where nothing more can be written: a program that failed there may have failed for that."""
    if is_full(directory):
        raise DiskFull(BECAME_FULL)


def is_full(directory: Path) -> bool:
    """Whether so little is free where the directory is that nothing more can be written."""
    return free_space(directory) < LEAST_FREE


def means_full_disk(error: BaseException) -> bool:
    """Whether the system raised this for want of space on a disk."""
    return isinstance(error, OSError) and error.errno in FULL


def free_space(work_dir: Path) -> int:
    """In bytes, as this user may fill it."""
    status = os.statvfs(work_dir)
    return status.f_bavail * status.f_frsize


def sweep(work_dir: Path) -> list[str]:
    """End the programs and remove the directories of jobs that no living process owns; the ids of those jobs.

    `work_dir` is locked meanwhile, so that a directory that is being made is not taken for a dead job's.
    """
    ensure_work_dir(work_dir)
    with locked(work_dir, fcntl.LOCK_EX):
        swept = [path for path in _directories(work_dir) if _abandoned(path)]
        for path in swept:
            _end_programs(path)
            remove_tree(path)
        for claim in _claims(work_dir):
            if _abandoned(claim):
                claim.unlink(missing_ok=True)
    return [Workspace(path).job_id for path in swept]


def living_jobs(work_dir: Path) -> set[str]:
    """The ids of the jobs that have a process."""
    directories = {Workspace(path).job_id for path in _directories(work_dir) if not _abandoned(path)}
    return directories | {path.name.removeprefix(CLAIM) for path in _claims(work_dir) if not _abandoned(path)}


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


def _directories(work_dir: Path) -> list[Path]:
    return sorted(path for path in work_dir.glob(f"{PREFIX}*") if path.is_dir() and not path.is_symlink())


def _claims(work_dir: Path) -> list[Path]:
    return list(work_dir.glob(f"{CLAIM}*"))


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
