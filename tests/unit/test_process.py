import io
import os
import resource
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from mkiso.errors import Internal
from mkiso.process import (
    KEPT_OF_LOG,
    LONGEST_LINE,
    NICE,
    Child,
    GrowingLog,
    Limits,
    ToolTimeout,
    read_log,
    remove_tree,
    run,
    spawned,
)
from tests.support.allowance import GB, require_files_of

Wait = Callable[[Callable[[], object]], None]
FOREVER = 60.0


def nothing() -> None:
    """What is asked all the while, and never objects."""


def shell(script: str) -> tuple[str, ...]:
    return "/bin/sh", "-c", script


def family(directory: Path) -> tuple[str, ...]:
    """A program that leaves its own pid and that of a grandchild in `directory`, and both wait."""
    return shell(
        f"echo one >&2; sleep 60 & echo $! > {directory}/pid.part; mv {directory}/pid.part {directory}/pid; wait"
    )


def is_dead(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def grandchild(directory: Path) -> int:
    return int((directory / "pid").read_text())


@contextmanager
def in_background(kind: str, argv: tuple[str, ...], directory: Path) -> Iterator[Child]:
    with spawned(argv, cwd=directory, log=directory / "log", piped=kind == "piped") as child:
        yield child


def test_a_result_tells_what_a_program_did() -> None:
    result = run(shell("echo out; echo err >&2; exit 3"), timeout=FOREVER)
    assert (result.rc, result.stdout, result.stderr) == (3, "out\n", "err\n")


def test_output_that_is_no_utf8_is_read_too() -> None:
    assert run(shell(r"printf 'A\377B'"), timeout=FOREVER).stdout == "A\N{REPLACEMENT CHARACTER}B"


def test_a_signal_that_ended_a_program_is_its_negative_status() -> None:
    assert run(shell("kill -TERM $$"), timeout=FOREVER).rc == -15


def test_much_output_on_both_pipes_does_not_block() -> None:
    result = run(shell("head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero"), timeout=FOREVER)
    assert (len(result.stdout), len(result.stderr)) == (300000, 300000)


def test_a_timeout_kills_the_group_and_keeps_what_was_said(tmp_path: Path, eventually: Wait) -> None:
    log = tmp_path / "log"
    with pytest.raises(ToolTimeout):
        run(family(tmp_path), timeout=0.3, log=log)
    assert read_log(log) == "one\n"
    eventually(lambda: is_dead(grandchild(tmp_path)))


def test_a_check_that_raises_kills_the_group(tmp_path: Path, eventually: Wait) -> None:
    def checkpoint() -> None:
        if (tmp_path / "pid").exists():
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        run(family(tmp_path), timeout=FOREVER, checkpoint=checkpoint)
    eventually(lambda: is_dead(grandchild(tmp_path)))


@pytest.mark.parametrize("kind", ["logged", "piped"])
def test_a_program_in_the_background_ends_with_its_group_when_its_block_raises(
    kind: str, tmp_path: Path, eventually: Wait
) -> None:
    children: list[Child] = []

    def fail() -> None:
        with in_background(kind, family(tmp_path), tmp_path) as child:
            children.append(child)
            eventually((tmp_path / "pid").exists)
            assert child.rc is None
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert is_dead(children[0].pid)
    assert children[0].rc == -9
    eventually(lambda: is_dead(grandchild(tmp_path)))


@pytest.mark.parametrize("kind", ["logged", "piped"])
def test_a_group_ends_also_where_its_leader_ended_before(kind: str, tmp_path: Path, eventually: Wait) -> None:
    leaves = shell(f"sleep 60 >/dev/null 2>&1 & echo $! > {tmp_path}/pid")
    with in_background(kind, leaves, tmp_path) as child:
        eventually(lambda: child.rc == 0)
        assert not is_dead(grandchild(tmp_path))
    eventually(lambda: is_dead(grandchild(tmp_path)))


@pytest.mark.parametrize(("script", "rc"), [("exit 7", 7), ("kill -KILL $$", -9), ("kill -TERM $$", -15)])
def test_the_status_of_a_child_is_negative_where_a_signal_ended_it(script: str, rc: int, tmp_path: Path) -> None:
    with spawned(shell(script), cwd=tmp_path, log=tmp_path / "log") as child:
        assert child.wait(FOREVER, nothing) == rc
        assert child.rc == rc
    assert child.rc == rc


def test_output_in_the_background_is_appended_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    with spawned(shell("echo out; echo err >&2"), cwd=tmp_path, log=log) as child:
        child.wait(FOREVER, nothing)
    assert log.read_text() == "before\nout\nerr\n"


def test_a_stream_comes_from_standard_output_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with spawned(shell("printf bytes; echo err >&2"), cwd=tmp_path, log=log, piped=True) as child:
        assert child.read(100, nothing) == b"bytes"
        assert child.read(100, nothing) == b""
        assert child.wait(FOREVER, nothing) == 0
    assert log.read_text() == "err\n"


def test_a_program_has_its_own_session_and_says_whose_it_is(tmp_path: Path) -> None:
    script = "import os; print(os.getsid(0) == os.getpid(), oct(os.umask(0)), os.getcwd(), os.read(0, 1));"
    names = ("TCP_NODELAY", "LC_ALL", "HOME", "MKISO_JOB_DIRECTORY")
    script += f"print(*(os.environ.get(name) for name in {names}))"
    told = run((sys.executable, "-c", script), timeout=FOREVER, cwd=tmp_path).stdout.splitlines()
    assert told == [f"True 0o77 {tmp_path} b''", f"1 C /nonexistent {tmp_path}"]


@pytest.mark.parametrize("missing", ["program", "right"])
def test_a_program_that_cannot_be_run_is_internal_and_shows_no_path(missing: str, tmp_path: Path) -> None:
    program = tmp_path / "movescu"
    if missing == "right":
        program.write_text("#!/bin/sh\n")
    with pytest.raises(Internal) as raised:
        run((str(program),), timeout=FOREVER)
    assert "movescu" in raised.value.detail
    assert str(tmp_path) not in str(raised.value)


def test_no_descriptor_of_ours_reaches_a_program(tmp_path: Path) -> None:
    with (tmp_path / "held").open("w") as held:
        listed = run(("/bin/ls", "/proc/self/fd"), timeout=FOREVER).stdout.split()
        assert os.fstat(held.fileno())
        assert len(listed) == 4  # 0, 1, 2 and the directory that ls reads


def test_a_program_does_not_run_where_the_caller_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run((sys.executable, "-c", "import os; print(os.getcwd())"), timeout=10).stdout == "/\n"


def test_a_program_learns_nothing_else_of_our_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HIS_PASSWORD", "LD_PRELOAD", "TZ"):
        monkeypatch.setenv(name, "Asia/Jakarta")
    names = {line.partition("=")[0] for line in run(("/usr/bin/env",), timeout=FOREVER, cwd=tmp_path).stdout.split()}
    ours = {"TCP_NODELAY", "LC_ALL", "HOME", "MKISO_JOB_DIRECTORY"}
    assert names - {"PATH", "LD_LIBRARY_PATH", "DCMDICTPATH", "TMPDIR"} == {"TZ", *ours}


@pytest.mark.parametrize("waits", ["read", "wait"])
def test_who_waits_for_a_program_can_be_called_away(waits: str, tmp_path: Path) -> None:
    def checkpoint() -> None:
        raise KeyError

    with spawned(shell("sleep 60"), cwd=tmp_path, log=tmp_path / "log", piped=True) as child, pytest.raises(KeyError):
        child.read(1, checkpoint) if waits == "read" else child.wait(FOREVER, checkpoint)


def test_a_program_that_does_not_end_in_time_is_told(tmp_path: Path) -> None:
    with spawned(shell("sleep 60"), cwd=tmp_path, log=tmp_path / "log") as child, pytest.raises(ToolTimeout):
        child.wait(0.1, nothing)


@pytest.mark.parametrize("size", [0, 1, KEPT_OF_LOG, 2 * KEPT_OF_LOG])
def test_a_short_log_is_told_whole(size: int, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("x" * size)
    assert read_log(tmp_path / "log") == "x" * size


def test_of_a_long_log_its_beginning_and_its_end_are_told(tmp_path: Path) -> None:
    require_files_of(2 * GB)
    with (tmp_path / "log").open("w") as log:
        log.write("first line\n")
        log.truncate(1 << 30)
        log.seek(0, os.SEEK_END)
        log.write("last line\n")
    told = read_log(tmp_path / "log")
    assert told.startswith("first line\n")
    assert told.endswith("last line\n")
    assert len(told) == 2 * KEPT_OF_LOG + 1


def test_a_growing_log_tells_each_line_once_and_when_it_is_whole(tmp_path: Path) -> None:
    log = GrowingLog(tmp_path / "log")
    with (tmp_path / "log").open("w") as program:
        told = []
        for written in ("one\ntw", "", "o\n\nthr", "ee\nno end"):
            program.write(written)
            program.flush()
            told.append(list(log.new_lines()))
    assert told == [["one"], [], ["two", ""], ["three"]]


def test_of_a_growing_log_no_byte_is_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0
    opened = Path.open

    class Counting(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes | None:
            nonlocal read
            block = super().read(size)
            read += len(block or b"")
            return block

    monkeypatch.setattr(Path, "open", lambda path, mode: Counting(path) if mode == "rb" else opened(path, mode))
    log, lines = GrowingLog(tmp_path / "log"), 0
    for _ in range(50):
        with (tmp_path / "log").open("ab") as program:
            program.write(b"D: a line of a log\n" * 5000 + b"D: begun")
        lines += len(list(log.new_lines()))
    assert lines == 50 * 5000
    assert read == (tmp_path / "log").stat().st_size


def test_a_line_without_an_end_costs_no_memory(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as program:
        program.write(b"x" * LONGEST_LINE)
        program.truncate(200 << 20)
        program.seek(0, os.SEEK_END)
        program.write(b"\nlast\n")
    tracemalloc.start()
    try:
        first, last = GrowingLog(tmp_path / "log").new_lines()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert (first, last) == ("x" * LONGEST_LINE, "last")


def test_a_tree_is_removed_also_without_a_descriptor_left(tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "deeper" / "file").touch()
    with no_descriptor_left():
        with pytest.raises(OSError, match="Too many open files"):
            os.listdir(tmp_path)
        remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        with ExitStack() as opened:
            with suppress(OSError):
                while True:
                    opened.enter_context(open(os.devnull))
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_program_has_the_environment_that_it_is_given_in_the_place_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DCMDICTPATH", "/opt/own.dic")
    given = {"DCMDICTPATH": "/opt/other.dic"}
    assert "DCMDICTPATH=/opt/own.dic\n" in run(("/usr/bin/env",), timeout=FOREVER).stdout
    assert "DCMDICTPATH=/opt/other.dic\n" in run(("/usr/bin/env",), timeout=FOREVER, environment=given).stdout
    with spawned(("/usr/bin/env",), cwd=tmp_path, log=tmp_path / "log", environment=given) as child:
        child.wait(FOREVER, nothing)
    assert "DCMDICTPATH=/opt/other.dic\n" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("nice", [True, False])
def test_only_a_program_that_is_to_be_nice_runs_behind_others(nice: bool) -> None:
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    until = f'until [ "$(nice)" = {NICE} ]; do sleep 0.01; done' if nice else "sleep 0.2"  # it is made so as it runs
    told = run(shell(f"{until}; nice"), timeout=FOREVER, nice=nice).stdout
    assert int(told) == (NICE if nice else ours)


def test_a_nice_program_that_has_ended_at_once_is_no_failure() -> None:
    assert [run(("/bin/true",), timeout=FOREVER, nice=True).rc for _ in range(50)] == [0] * 50


LIMITED = Limits(memory=1 << 27, file=1 << 20, processor=1)


@pytest.mark.parametrize(
    ("script", "signal_of_its_end"),
    [
        ("exec head -c 100000000 /dev/zero > large", "XFSZ"),
        ("while :; do :; done", "XCPU"),
        ("exec sleep 0", None),
        ("exec head -c 1000000 /dev/zero > small", None),
    ],
)
def test_a_program_that_takes_more_than_it_may_is_ended(
    script: str, signal_of_its_end: str | None, tmp_path: Path
) -> None:
    rc = run(shell(script), timeout=FOREVER, cwd=tmp_path, limits=LIMITED, keep_output=False).rc
    expected = {"XFSZ": (-signal.SIGXFSZ,), "XCPU": (-signal.SIGXCPU, -signal.SIGKILL)}
    assert rc in expected.get(signal_of_its_end or "", (0,))


def test_a_program_has_no_more_memory_than_it_may_and_leaves_no_core(tmp_path: Path) -> None:
    limited = "resource.getrlimit(resource.RLIMIT_AS)[0] == 1 << 27"
    taken = f"import resource, time\nwhile not {limited}: time.sleep(0.01)\nx = bytes(1 << 28)"
    result = run((sys.executable, "-c", taken), timeout=FOREVER, cwd=tmp_path, limits=LIMITED)
    assert (result.rc, "MemoryError" in result.stderr) == (1, True)
    with spawned(("/bin/sleep", "60"), cwd=tmp_path, log=tmp_path / "log", limits=LIMITED) as child:
        assert resource.prlimit(child.pid, resource.RLIMIT_AS) == (1 << 27, 1 << 27)
        assert resource.prlimit(child.pid, resource.RLIMIT_CORE) == (0, 0)


def test_a_limit_raises_no_limit_that_is_there_already(tmp_path: Path) -> None:
    with spawned(shell("ulimit -f 0; echo; exec sleep 60"), cwd=tmp_path, log=tmp_path / "log", piped=True) as child:
        child.read(1, nothing)
        LIMITED.hold(child.pid)
        assert resource.prlimit(child.pid, resource.RLIMIT_FSIZE) == (0, 0)


def test_a_program_that_has_ended_has_no_limits_any_more() -> None:
    popen = subprocess.Popen(("/bin/true",))
    popen.wait()
    LIMITED.hold(popen.pid)
