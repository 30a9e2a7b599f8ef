"""How programs are run, how their logs are read, and how they are ended: the only import of subprocess.

Every program gets a process group of its own, so that it can be ended with all that it forked, and a
terminal's Ctrl-C reaches mkiso alone. DCMTK's programs want TCP_NODELAY: without it each C-STORE
loses 40 ms to Nagle's algorithm.
"""

from __future__ import annotations

import os
import resource
import select
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mkiso.errors import Internal
from mkiso.waiting import Stopwatch, awaited

ENVIRONMENT = {"TCP_NODELAY": "1", "LC_ALL": "C", "HOME": "/nonexistent"}
INHERITED = ("PATH", "LD_LIBRARY_PATH", "DCMDICTPATH", "TMPDIR", "TZ")
RM = "/bin/rm"
OWNER = "MKISO_JOB_DIRECTORY"
PRIVATE = 0o077
SLICE = 0.05
KEPT_OF_LOG = 1 << 16
LONGEST_LINE = 1 << 16
NICE = 10
# Takes up to so many bytes out of a pipe, by its descriptor, and gives how many: none at its end, or where it cannot.
Take = Callable[[int, int], int]


@dataclass(frozen=True)
class Limits:
    """What a program that reads what strangers made may take: bytes of memory and of each file, seconds of processor.

    It leaves no core: there would be patients' data in it.
    """

    memory: int
    file: int = 1 << 62
    processor: int = 1 << 30

    def hold(self, pid: int) -> None:
        """Limit a process that runs, and what it starts from now on; no limit that it has already is raised.

        The moment that the program ran without is no harm: what it had then, it keeps, and it gets no more.
        """
        limits = {
            resource.RLIMIT_AS: self.memory,
            resource.RLIMIT_FSIZE: self.file,
            resource.RLIMIT_CPU: self.processor,
            resource.RLIMIT_CORE: 0,
        }
        with suppress(ProcessLookupError):
            for kind, most in limits.items():
                _, hard = resource.prlimit(pid, kind)
                allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
                resource.prlimit(pid, kind, (allowed, allowed))


@dataclass(frozen=True)
class Result:
    """What a program did. Its exit status proves little: the wrappers read what it wrote."""

    rc: int
    stdout: str
    stderr: str


class ToolTimeout(Exception):
    """The program was ended after its time."""

    def __init__(self, argv: Sequence[str], seconds: float) -> None:
        super().__init__(f"{Path(argv[0]).name} was ended after {seconds:g} s")


class Child:
    """A running program and its process group."""

    def __init__(self, argv: Sequence[str], popen: subprocess.Popen[bytes]) -> None:
        self.argv = tuple(argv)
        self._popen = popen

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def rc(self) -> int | None:
        """The exit status, None while it runs, negative where a signal ended it.

        The program is not reaped: its process group keeps its number, and `end` kills no other.
        """
        if self._popen.returncode is not None:
            return self._popen.returncode
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    @property
    def stdout(self) -> IO[bytes]:
        assert self._popen.stdout is not None
        return self._popen.stdout

    def ends_within(self, seconds: float) -> bool:
        """Wait for the program's end, up to `seconds`; whether it has come."""
        poll = select.poll()
        descriptor = os.pidfd_open(self.pid)
        try:
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(seconds * 1000))
        finally:
            os.close(descriptor)

    def wait(self, timeout: float, checkpoint: Callable[[], None]) -> int:
        """Wait for the program's end, asking `checkpoint` all the while; its exit status, or ToolTimeout."""
        waited = Stopwatch()
        while not self.ends_within(SLICE):
            checkpoint()
            if waited.seconds() >= timeout:
                raise ToolTimeout(self.argv, timeout)
        assert self.rc is not None
        return self.rc

    def read(self, size: int, checkpoint: Callable[[], None]) -> bytes:
        """What the program has written, up to `size` bytes, asking `checkpoint` until there is any; b"" at its end."""
        self._wait_for_output(checkpoint)
        return self.stdout.read(size)

    def pour(self, take: Take, most: int, checkpoint: Callable[[], None]) -> int:
        """Have `take` take up to `most` bytes of what the program writes, asking `checkpoint`; how many it took."""
        poured = 0
        while poured < most:
            self._wait_for_output(checkpoint)
            if not (taken := take(self.stdout.fileno(), most - poured)):
                break
            poured += taken
            checkpoint()
        return poured

    def _wait_for_output(self, checkpoint: Callable[[], None]) -> None:
        """Wait until the program has written something, or has ended."""
        poll = select.poll()
        poll.register(self.stdout, select.POLLIN)
        while not poll.poll(SLICE * 1000):
            checkpoint()

    def output(self, timeout: float, checkpoint: Callable[[], None]) -> tuple[str, str]:
        """What the program has written to its pipes when it ends, asking `checkpoint` all the while, or ToolTimeout."""
        waited, piped = Stopwatch(), self._popen.stdout or self._popen.stderr
        while True:
            try:  # without pipes communicate() looks for the end now and then: late by up to half of it all
                stdout, stderr = self._popen.communicate(timeout=SLICE if piped or self.ends_within(SLICE) else 0)
                return _text(stdout or b""), _text(stderr or b"")
            except subprocess.TimeoutExpired:
                checkpoint()
                if waited.seconds() >= timeout:
                    raise ToolTimeout(self.argv, timeout) from None

    def end(self) -> None:
        """Kill the whole group. Nothing that these programs could still save is wanted."""
        if self._popen.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()
        for pipe in (self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                pipe.close()


@contextmanager
def _running(
    argv: Sequence[str],
    *,
    stdout: int | IO[bytes],
    stderr: int | IO[bytes],
    cwd: Path | None,
    environment: Mapping[str, str] | None,
    limits: Limits | None,
    checkpoint: Callable[[], None] = lambda: None,
) -> Iterator[Child]:
    """A program that knows its owner, and of our own surroundings only what it needs to run; ended with the block."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    owner = {OWNER: str(cwd)} if cwd else {}

    def begin() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            tuple(argv),
            cwd=cwd or "/",  # not the caller's: genisoimage wants to read a .genisoimagerc there
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**inherited, **(environment or {}), **ENVIRONMENT, **owner},
            bufsize=0,
            umask=PRIVATE,
            start_new_session=True,
        )

    try:
        child = Child(argv, awaited(begin, checkpoint))
    except OSError as error:
        tool = Path(argv[0]).name
        raise Internal(
            f"The program {tool} cannot be run ({error.strerror}). Look whether tools.* names it."
        ) from error
    try:
        if limits:
            limits.hold(child.pid)
        yield child
    finally:
        child.end()


@contextmanager
def spawned(
    argv: Sequence[str],
    *,
    cwd: Path,
    log: Path,
    piped: bool = False,
    limits: Limits | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Child]:
    """A program in the background, ended with its group on leaving.

    Its output is appended to `log`; where it is `piped`, standard output is read from the child instead.
    """
    with ExitStack() as running:
        with log.open("ab") as output:  # the program has it by itself then
            stdout = subprocess.PIPE if piped else output
            started = _running(argv, stdout=stdout, stderr=output, cwd=cwd, environment=environment, limits=limits)
            child = running.enter_context(started)
        yield child


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    cwd: Path | None = None,
    log: Path | None = None,
    checkpoint: Callable[[], None] = lambda: None,
    nice: bool = False,
    limits: Limits | None = None,
    environment: Mapping[str, str] | None = None,
    keep_output: bool = True,
) -> Result:
    """Run a program to its end, `timeout` seconds at most, asking `checkpoint`; behind others where `nice`.

    One that may write much writes its standard error to a new `log`, of which the result has what `read_log` gives;
    its standard output is dropped then, and both are where `keep_output` is false.
    Raises ToolTimeout, Internal where it cannot be started, Busy where the host has no room for it, and whatever
    `checkpoint` raises; the program and its group are dead by then.
    """
    pipe = subprocess.PIPE if keep_output else subprocess.DEVNULL
    with (
        log.open("wb") if log else nullcontext() as file,
        _running(
            argv,
            stdout=subprocess.DEVNULL if log else pipe,
            stderr=file or pipe,
            cwd=cwd,
            environment=environment,
            limits=limits,
            checkpoint=checkpoint,
        ) as child,
    ):
        if nice:
            with suppress(OSError):  # where that is not allowed, it only takes others' time
                os.setpriority(os.PRIO_PROCESS, child.pid, NICE)
        stdout, stderr = child.output(timeout, checkpoint)
    assert child.rc is not None
    return Result(child.rc, stdout, read_log(log) if log else stderr)


def remove_tree(directory: Path) -> None:
    """Remove a directory and all in it; by a program where this process has no file descriptor left to do it."""
    shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():
        os.waitpid(awaited(lambda: os.posix_spawn(RM, (RM, "-rf", "--", str(directory)), ENVIRONMENT)), 0)


def read_log(log: Path) -> str:
    """The text of a program's log: all of a short one, the beginning and the end of a long one."""
    with log.open("rb") as file:
        text = file.read(KEPT_OF_LOG)
        behind = file.seek(0, os.SEEK_END) - len(text)
        if behind > KEPT_OF_LOG:
            text += b"\n"
        file.seek(-min(behind, KEPT_OF_LOG), os.SEEK_END)
        return _text(text + file.read())


class GrowingLog:
    """A program's log, read while the program writes it: each byte once, and each line when it is whole."""

    def __init__(self, file: Path) -> None:
        self._file, self._position, self._begun = file, 0, b""

    def new_lines(self) -> Iterator[str]:
        """The lines that were ended since the last call, without their ends; all of them are to be taken.

        A line longer than LONGEST_LINE bytes is cut there.
        """
        with self._file.open("rb") as file:
            file.seek(self._position)
            while block := file.read(LONGEST_LINE):
                self._position += len(block)
                *ended, begun = (self._begun + block).split(b"\n")
                self._begun = begun[:LONGEST_LINE]
                yield from (_text(line[:LONGEST_LINE]) for line in ended)


def _text(output: bytes) -> str:
    return output.decode("utf-8", errors="replace")
