"""The benchmark's processes: what they and all that they started have written, and the end of every one of them.

The benchmark adopts orphans (PR_SET_CHILD_SUBREAPER), so that a receiver's forked child, which outlives its
parent for a moment, is neither lost to the account nor left behind.
"""

import ctypes
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil

_PR_SET_CHILD_SUBREAPER = 36
_ARCHIVE = "dcmqrscp"


def adopt_orphans() -> None:
    """From now on, descendants whose parent died become children of this process (Linux)."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this system has no child subreaper")


def bytes_written() -> int:
    """What this process and all its descendants, dead or alive, have written to files so far.

    `write_bytes` of /proc/PID/io counts the pages of files that a process made dirty, also where the file is
    removed before they reach the disk; a parent inherits the count of a child that it has waited for. So the
    sum over the tree never loses a process. The archive's own log is not the disc's: it is left out.
    """
    tree = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(_written(process) for process in tree if process.name() != _ARCHIVE)


def _written(process: psutil.Process) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{process.pid}/io").read_text().splitlines():
            if line.startswith("write_bytes: "):
                return int(line.rpartition(" ")[2])
    return 0


def bury_orphans() -> None:
    """Wait for the adopted children that have ended, so that they do not pile up; others are left alone."""
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess, ChildProcessError):
            if child.status() == psutil.STATUS_ZOMBIE and child.name() == "storescp":
                os.waitpid(child.pid, os.WNOHANG)


def end_descendants() -> None:
    """Kill whatever is left of what the benchmark started."""
    deadline = time.monotonic() + 10
    while (left := psutil.Process().children(recursive=True)) and time.monotonic() < deadline:
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


def rss(pid: int) -> int:
    """Resident memory of a process in bytes."""
    return status(pid, "VmRSS")


def peak_rss(pid: int) -> int:
    """The most resident memory in bytes that a process had since `forget_peak`."""
    return status(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def status(pid: int, field: str) -> int:
    """A field of /proc/PID/status that is in kB, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
