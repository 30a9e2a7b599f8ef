"""What is forked from the tests' parent sees what the same program sees that was started as it is."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import preloaded
from tests.support.preloaded import MKISO

SEEN = """
import json, os, signal, sys, threading
seen = {
    "arguments": sys.argv, "directory": os.getcwd(), "environment": dict(os.environ), "read": sys.stdin.read(),
    "main": __name__, "descriptors": len(os.listdir("/proc/self/fd")), "parent": os.getppid(),
    "leads": os.getsid(0) == os.getpid(), "umask": os.umask(0o22), "threads": threading.active_count(),
    "signals": [str(signal.getsignal(one)) for one in signal.valid_signals()],
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
}
print(json.dumps(seen))
print("an error", file=sys.stderr)
sys.exit(7)
"""
LEFT_FOR_THE_EXIT = """
import atexit, sys, threading
atexit.register(print, "left for the exit")
threading.Thread(target=lambda: (threading.main_thread().join(), print("said by a thread"))).start()
"""
UNREAD = """
import os, sys
reader, writer = os.pipe()
os.dup2(writer, 1), os.close(reader)
sys.stdout = open(1, "w", closefd=False)
print("to nobody"), sys.exit(5)
"""
Start = Callable[..., "subprocess.Popen[Any]"]


def seen(start: Start, directory: Path, in_new_session: bool) -> tuple[Any, str, int]:
    process = start(
        (sys.executable, "-c", SEEN, "one", "zwei drei"),
        **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE),
        text=True,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": "/", "OF_A_TEST": "ÄÖ"},
        start_new_session=in_new_session,
    )
    output, errors = process.communicate("a text", timeout=60)
    return json.loads(output), errors, process.returncode


@pytest.mark.parametrize("in_new_session", [True, False])
def test_a_program_sees_what_it_sees_at_a_start_of_its_own(in_new_session: bool, tmp_path: Path) -> None:
    forked, started = (seen(start, tmp_path, in_new_session) for start in (preloaded.start, subprocess.Popen))
    assert forked == started
    assert (forked[0]["parent"], forked[0]["leads"]) == (os.getpid(), in_new_session)


def test_a_command_ends_as_at_a_start_of_its_own() -> None:
    for words in (("iso", "--help"), ("fly",), ("jobs", "--config", "/nowhere")):
        done = []
        for start in (preloaded.start, subprocess.Popen):
            process = start((MKISO, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            done.append((*process.communicate(timeout=60), process.returncode))
        assert done[0] == done[1]


@pytest.mark.parametrize(
    "program",
    [
        LEFT_FOR_THE_EXIT,
        LEFT_FOR_THE_EXIT + "sys.exit()",
        LEFT_FOR_THE_EXIT + "sys.exit(300)",
        "import sys; sys.exit('no number')",
        UNREAD,
    ],
)
def test_a_program_ends_as_at_a_start_of_its_own(program: str) -> None:
    done = []
    for start in (preloaded.start, subprocess.Popen):
        process = start((sys.executable, "-c", program), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        done.append((*process.communicate(timeout=60), process.returncode))
    assert done[0] == done[1]


def test_a_program_is_told_to_stop_and_how_it_ended() -> None:
    process = preloaded.start((sys.executable, "-c", "import time; time.sleep(600)"))
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
