"""Time as a program that waits counts it: all of it, but for that in which it could not run."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mkiso import waiting
from mkiso.waiting import Stopwatch
from tests.support.tools import wait_until

SUSPENDED = """
import sys
from mkiso.waiting import Stopwatch
watch = Stopwatch()
print("begun", flush=True)
sys.stdin.readline()
print(watch.seconds(), flush=True)
"""


def test_a_long_look_counts_as_long_as_it_took() -> None:
    began, watch = time.monotonic(), Stopwatch()
    time.sleep(0.6)
    assert watch.seconds() == pytest.approx(time.monotonic() - began, abs=0.2)


def test_a_process_that_was_suspended_has_not_waited() -> None:
    with subprocess.Popen(
        (sys.executable, "-c", SUSPENDED), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGSTOP)
        stat = Path(f"/proc/{process.pid}/stat")
        wait_until(lambda: stat.read_text().split()[2] == "T", 5, str)
        time.sleep(1.2)
        process.send_signal(signal.SIGCONT)
        process.stdin.write("\n")
        process.stdin.flush()
        assert float(process.stdout.readline()) < 1


def test_a_forked_process_counts_too() -> None:
    Stopwatch()
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        watch = Stopwatch()
        time.sleep(0.6)
        os.write(writer, b"%.3f" % watch.seconds())
        os._exit(0)
    os.waitpid(child, 0)
    assert float(os.read(reader, 100)) > 0.5
    os.close(reader)
    os.close(writer)


def test_without_a_thread_who_looks_often_is_right_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    monkeypatch.setattr(waiting, "_running", waiting._RunningTime())
    watch = Stopwatch()
    for _ in range(6):
        time.sleep(0.1)
        watch.seconds()
    assert watch.seconds() > 0.5
