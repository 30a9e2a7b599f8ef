"""Run a program, and kill it where its leash, a file, is not touched for so many seconds.

`python -I leash.py FILE SECONDS PROGRAM ARGUMENT…`; the exit status is the program's. It holds a sender whose mkiso is
suspended, or away from the ledger, so that another host may take the job for dead and send the same.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

TICK = 0.5


def holding(leash: Path, seconds: float, argv: Sequence[str]) -> tuple[str, ...]:
    """The command that runs a program so."""
    return (sys.executable, "-I", __file__, str(leash), f"{seconds:g}", *argv)


def held(leash: str, seconds: float, argv: list[str]) -> int:
    """The program's exit status; negative where a signal has ended it."""
    program, touched, since = subprocess.Popen(argv), None, _seconds()
    while True:
        try:
            return program.wait(TICK)
        except subprocess.TimeoutExpired:
            if (now := _touched(leash)) != touched:
                touched, since = now, _seconds()
            elif _seconds() - since > seconds:
                program.kill()


def _touched(leash: str) -> int | None:
    try:
        return os.stat(leash).st_mtime_ns
    except FileNotFoundError:
        return None


def _seconds() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # those of a suspended host, too


if __name__ == "__main__":
    sys.exit(held(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))
