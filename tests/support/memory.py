"""What a process has had of memory (proc(5))."""

from pathlib import Path

import psutil


def peak(process: psutil.Process) -> int:
    """The most resident bytes since `forget_peak`."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def forget_peak(process: psutil.Process) -> None:
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
