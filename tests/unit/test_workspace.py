import errno
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mkiso.errors import Cancelled, ConfigurationError, DiskFull, JobExists, PacsTimeout
from mkiso.process import OWNER
from mkiso.workspace import (
    claimed,
    ensure_work_dir,
    identity,
    job_directory,
    living_jobs,
    require_room,
    require_space,
    sweep,
)

JOB = "123e4567-e89b-12d3-a456-426614174000"
HOLD = """
import sys
from pathlib import Path
from mkiso.workspace import job_directory
with job_directory(Path(sys.argv[1]), sys.argv[2]) as workspace:
    (workspace.received / "image").write_text("image")
    print("made", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    """The directory that holds the job directories."""
    return tmp_path / "jobs"


@contextmanager
def job_of_another_process(work_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    argv = (sys.executable, "-c", HOLD, str(work_dir), JOB)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"made\n"
        try:
            yield owner
        finally:
            owner.kill()


@contextmanager
def program_of(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that was started for a job."""
    with subprocess.Popen(("/bin/sleep", "60"), env=os.environ | {OWNER: str(directory)}) as program:
        try:
            yield program
        finally:
            program.kill()


@contextmanager
def left_by_a_dead_job(work_dir: Path) -> Iterator[Path]:
    with job_of_another_process(work_dir) as owner:
        owner.kill()
    yield work_dir / f"dicomdir_{JOB}"


def test_a_job_directory_is_its_owners_alone_and_gone_in_the_end(jobs: Path) -> None:
    with job_directory(jobs, JOB) as workspace:
        assert workspace.path == jobs / f"dicomdir_{JOB}"
        assert [path.stat().st_mode & 0o777 for path in (jobs, workspace.path)] == [0o700, 0o700]
        assert workspace.received.is_dir()
        assert workspace.disc.is_dir()
        (workspace.received / "image").write_text("image")
    assert list(jobs.iterdir()) == []


def test_a_job_directory_is_gone_after_a_failure(jobs: Path) -> None:
    with pytest.raises(KeyError), job_directory(jobs, JOB):
        raise KeyError
    assert list(jobs.iterdir()) == []


def test_two_jobs_of_one_id_do_not_share_a_directory(jobs: Path) -> None:
    with job_directory(jobs, JOB) as first:
        with pytest.raises(JobExists), job_directory(jobs, JOB):
            pytest.fail("shared")
        assert first.path.is_dir()


def test_a_job_whose_process_died_is_swept(jobs: Path) -> None:
    with left_by_a_dead_job(jobs) as directory:
        assert (directory / "received" / "image").exists()
        assert living_jobs(jobs) == set()
        assert sweep(jobs) == [JOB]
    assert list(jobs.iterdir()) == []
    assert sweep(jobs) == []


def test_a_sweep_kills_what_a_dead_job_left_running_and_nothing_else(jobs: Path) -> None:
    with (
        left_by_a_dead_job(jobs) as directory,
        program_of(directory) as one,
        program_of(directory) as two,
        program_of(jobs / f"{directory.name}0") as other,
    ):
        sweep(jobs)
        one.wait(10)
        two.wait(10)
        assert other.poll() is None


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_living_job_is_left_alone(where: str, jobs: Path) -> None:
    running = job_directory(jobs, JOB) if where == "here" else job_of_another_process(jobs)
    with running, program_of(jobs / f"dicomdir_{JOB}") as program:
        assert sweep(jobs) == []
        assert living_jobs(jobs) == {JOB}
        assert program.poll() is None
        assert (jobs / f"dicomdir_{JOB}" / "received").is_dir()


def test_a_job_lives_until_its_row_has_ended_although_its_directory_is_gone(jobs: Path) -> None:
    jobs.mkdir(mode=0o700)
    with claimed(jobs, JOB):
        with job_directory(jobs, JOB):
            pass
        assert sweep(jobs) == []
        assert living_jobs(jobs) == {JOB}
    assert living_jobs(jobs) == set()
    assert list(jobs.iterdir()) == []


def test_the_claim_of_a_process_that_died_says_nothing_and_is_swept(jobs: Path) -> None:
    jobs.mkdir(mode=0o700)
    (jobs / f".job_{JOB}").touch()
    assert living_jobs(jobs) == set()
    assert sweep(jobs) == []
    assert list(jobs.iterdir()) == []


def test_a_sweep_follows_no_symbolic_link(jobs: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    jobs.mkdir(mode=0o700)
    (jobs / "dicomdir_left").mkdir()
    (jobs / "dicomdir_left" / "link").symlink_to(precious)
    (jobs / "dicomdir_link").symlink_to(precious)
    assert sweep(jobs) == ["left"]
    assert (precious / "file").read_text() == "kept"


def test_a_sweep_touches_only_job_directories(jobs: Path) -> None:
    jobs.mkdir(mode=0o700)
    (jobs / "receiver_10104.lock").touch()
    (jobs / "dicomdir_file").touch()
    (jobs / "other").mkdir()
    assert sweep(jobs) == []
    assert {path.name for path in jobs.iterdir()} == {"receiver_10104.lock", "dicomdir_file", "other"}


def absent_below_a_file(directory: Path) -> Path:
    (directory / "file").touch()
    return directory / "file" / "jobs"


def a_file(directory: Path) -> Path:
    (directory / "jobs").touch()
    return directory / "jobs"


def symbolic_link(directory: Path) -> Path:
    (directory / "real").mkdir(mode=0o700)
    (directory / "jobs").symlink_to(directory / "real")
    return directory / "jobs"


def open_to_a_group(directory: Path) -> Path:
    (directory / "jobs").mkdir()
    (directory / "jobs").chmod(0o710)
    return directory / "jobs"


def of_another_user(directory: Path) -> Path:
    (directory / "jobs").mkdir(mode=0o700)
    os.chown(directory / "jobs", 65534, 65534)
    return directory / "jobs"


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (absent_below_a_file, "Not a directory"),
        (a_file, "File exists"),
        (symbolic_link, "symbolic link"),
        (open_to_a_group, "mode 0710"),
        (of_another_user, "belongs to nobody"),
    ],
)
def test_a_work_dir_that_is_not_this_users_alone_is_refused_by_name(
    made: Callable[[Path], Path], why: str, tmp_path: Path
) -> None:
    work_dir = made(tmp_path)
    with pytest.raises(ConfigurationError) as raised:
        ensure_work_dir(work_dir)
    assert str(work_dir) in raised.value.detail
    assert why in raised.value.detail


@pytest.mark.parametrize(("min_free", "enough"), [(4096 * 10, True), (4096 * 10 + 1, False)])
def test_less_than_min_free_is_disk_full(
    min_free: int, enough: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=10, f_bfree=99, f_frsize=4096, f_bsize=1))
    monkeypatch.setattr("mkiso.workspace.PATIENCE", 0)
    if enough:
        require_space(tmp_path, min_free)
    else:
        with pytest.raises(DiskFull):
            require_space(tmp_path, min_free)


@pytest.mark.parametrize(
    ("free", "raised", "told"),
    [
        (40_000, PacsTimeout("late"), DiskFull),
        (40_000, OSError("torn"), DiskFull),
        (40_000, Cancelled("left"), Cancelled),
        (100_000, PacsTimeout("late"), PacsTimeout),
    ],
)
def test_what_fails_on_a_full_disk_fails_for_that(
    free: int, raised: Exception, told: type[Exception], jobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=free, f_frsize=1))
    with pytest.raises(told), job_directory(jobs, JOB):
        raise raised
    assert list(jobs.iterdir()) == []


def test_a_job_directory_for_which_no_descriptor_is_left_is_not_left_either(
    jobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(path: object, *rest: Any) -> int:
        if str(path).endswith(JOB):
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path, *rest)

    real = os.open
    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(OSError, match="Too many"), job_directory(jobs, JOB):
        pytest.fail("made")
    assert list(jobs.iterdir()) == []


def test_a_sweep_beside_jobs_that_end_leaves_nothing(jobs: Path) -> None:
    ended = threading.Event()

    def make_jobs() -> None:
        while not ended.wait(0.001):
            with job_directory(jobs, str(uuid.uuid4())):
                pass

    makers = [threading.Thread(target=make_jobs) for _ in range(2)]
    for maker in makers:
        maker.start()
    for _ in range(300):
        assert sweep(jobs) == []
    ended.set()
    for maker in makers:
        maker.join()
    assert list(jobs.iterdir()) == []


IDENTIFY = """
import sys
from pathlib import Path
from mkiso.workspace import identity
print("ready", flush=True)
sys.stdin.readline()
print(identity(Path(sys.argv[1])))
"""


def test_a_work_dir_has_one_identity_whoever_asks_first(tmp_path: Path) -> None:
    argv = (sys.executable, "-c", IDENTIFY, str(tmp_path))
    asking = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [one.stdout.readline() for one in asking] == ["ready\n"] * 4
    for one in asking:
        one.stdin.write("go\n")
        one.stdin.flush()
    assert {one.communicate()[0].strip() for one in asking} == {identity(tmp_path)}
    assert [(file.name, file.stat().st_mode & 0o777) for file in tmp_path.iterdir()] == [("identity", 0o600)]
    assert uuid.UUID(identity(tmp_path))


def test_two_work_dirs_have_two_identities(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    assert identity(one) != identity(two)


def test_an_identity_that_cannot_be_kept_is_nobodys(tmp_path: Path) -> None:
    assert identity(tmp_path / "gone") != identity(tmp_path / "gone")
    (tmp_path / "identity").write_text("")
    assert identity(tmp_path) != identity(tmp_path)


@pytest.mark.parametrize("free", [0, (1 << 16) - 1, 1 << 16, 1 << 30])
def test_a_program_that_failed_without_room_failed_for_that(
    free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mkiso.workspace.free_space", lambda _directory: free)
    if free < 1 << 16:
        with pytest.raises(DiskFull):
            require_room(tmp_path)
    else:
        require_room(tmp_path)


def test_room_that_others_make_in_time_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 10

    def make_room() -> None:
        nonlocal free
        free += 30

    monkeypatch.setattr("mkiso.workspace.free_space", lambda _directory: free)
    require_space(tmp_path, 100, make_room)
    assert free == 100
    monkeypatch.setattr("mkiso.workspace.PATIENCE", 0.05)
    with pytest.raises(DiskFull, match=r"storage\.min_free keeps 101"):
        require_space(tmp_path, 101)
