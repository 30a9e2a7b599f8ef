"""How programs are run: the only import of subprocess.

Every program gets a process group of its own, so that it can be ended with all that it forked, and a
terminal's Ctrl-C reaches mkiso alone. DCMTK's programs want TCP_NODELAY: without it each C-STORE
loses 40 ms to Nagle's algorithm.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mkiso.errors import Internal

ENVIRONMENT = {"TCP_NODELAY": "1", "LC_ALL": "C", "HOME": "/nonexistent"}
OWNER = "MKISO_JOB_DIRECTORY"
PRIVATE = 0o077
SLICE = 0.05


@dataclass(frozen=True)
class Result:
    """What a program did. Its exit status proves little: the wrappers read what it said."""

    argv: tuple[str, ...]
    rc: int
    stdout: str
    stderr: str
    seconds: float


class ToolTimeout(Exception):
    """The program was ended after its time; `stderr` is what it had said by then."""

    def __init__(self, argv: Sequence[str], seconds: float, stderr: str) -> None:
        super().__init__(f"{Path(argv[0]).name} was ended after {seconds:g} s")
        self.stderr = stderr


class ToolFailed(Exception):
    """The program ended with a status that its caller did not name."""

    def __init__(self, result: Result) -> None:
        super().__init__(f"{Path(result.argv[0]).name} ended with status {result.rc}")
        self.result = result


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

    def wait(self) -> int:
        """Wait for the program's end; for one whose output has just ended."""
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        assert self.rc is not None
        return self.rc

    def end(self) -> None:
        """Kill the whole group. Nothing that these programs could still save is wanted."""
        if self._popen.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()
        for pipe in (self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                pipe.close()


def _popen(
    argv: Sequence[str], *, cwd: Path | None, stdout: int | IO[bytes], stderr: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            tuple(argv),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=os.environ | ENVIRONMENT | ({OWNER: str(cwd)} if cwd else {}),
            bufsize=0,
            umask=PRIVATE,
            start_new_session=True,
        )
    except OSError as error:
        tool = Path(argv[0]).name
        raise Internal(
            f"The program {tool} cannot be run ({error.strerror}). Install it, or set tools.* in the configuration."
        ) from error


@contextmanager
def spawned(argv: Sequence[str], *, cwd: Path, log: Path) -> Iterator[Child]:
    """A program in the background, its output appended to `log`; ended with its group on leaving."""
    with log.open("ab") as output:
        child = Child(argv, _popen(argv, cwd=cwd, stdout=output, stderr=output))
    try:
        yield child
    finally:
        child.end()


@contextmanager
def streamed(argv: Sequence[str], *, cwd: Path, log: Path) -> Iterator[Child]:
    """A program whose standard output is read from `Child.stdout`, its standard error going to `log`."""
    with log.open("ab") as errors:
        child = Child(argv, _popen(argv, cwd=cwd, stdout=subprocess.PIPE, stderr=errors))
    try:
        yield child
    finally:
        child.end()


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    cwd: Path | None = None,
    ok: tuple[int, ...] | None = (0,),
    check: Callable[[], None] = lambda: None,
) -> Result:
    """Run a program to its end, `timeout` seconds at most, asking `check` all the while.

    Raises ToolTimeout, ToolFailed (a status not in `ok`; None takes every status), Internal where it
    cannot be started, and whatever `check` raises; the program and its group are dead by then.
    """
    started = time.monotonic()
    popen = _popen(argv, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    child = Child(argv, popen)
    try:
        stdout, stderr = _output(popen, argv, started + timeout, check)
    finally:
        child.end()
    result = Result(tuple(argv), popen.returncode, _text(stdout), _text(stderr), time.monotonic() - started)
    if ok is not None and result.rc not in ok:
        raise ToolFailed(result)
    return result


def _output(
    popen: subprocess.Popen[bytes], argv: Sequence[str], deadline: float, check: Callable[[], None]
) -> tuple[bytes, bytes]:
    started = time.monotonic()
    while True:
        try:
            return popen.communicate(timeout=SLICE)
        except subprocess.TimeoutExpired as expired:
            check()
            if time.monotonic() >= deadline:
                said = expired.stderr if isinstance(expired.stderr, bytes) else b""
                raise ToolTimeout(argv, time.monotonic() - started, _text(said)) from None


def _text(output: bytes) -> str:
    return output.decode("utf-8", errors="replace")
