"""A crowd of strangers at one receiver's port, who do all at once whatever takes something from others.

    python -m tests.support.crowd PORT DIRECTORY

says `ready` when each of them has done it once, or cannot, and goes on until it is ended.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from pydicom.filereader import read_file_meta_info

from tests.support.hostile import instances
from tests.support.strangers import DEFLATED, PART, STUDY, Stranger, of_many_steps
from tests.support.tools import end, environment

IDLE = 200
ATTEMPT = 8.0  # s
PACE = 1 / 2000  # s between two parts of an object
ENOUGH = 1 << 28  # bytes, by which a small disk is full
PIXELS = b"\xe0\x7f\x10\x00OB\0\0\xf0\xff\xff\xff"
PREAMBLE = 144  # bytes before the file meta information's length counts (PS3.10 7.1)


@contextmanager
def crowd(port: int, directory: Path) -> Iterator[None]:
    """While the block runs, each of them is at it, behind others: they would have a machine of their own."""
    argv = ("/usr/bin/nice", sys.executable, "-m", "tests.support.crowd", str(port), directory)
    strangers = subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment(), start_new_session=True)
    assert strangers.stdout is not None
    with strangers.stdout:
        try:
            assert strangers.stdout.readline() == b"ready\n"
            yield
        finally:
            end(strangers)


def _wait_idly(port: int, done: Event) -> None:
    """Associations over which nothing is sent; for each that is ended another one."""
    held: list[Stranger] = []
    opened = 0
    while True:
        held = [one for one in held if not one.is_over()]
        while len(held) < IDLE:
            held.append(Stranger(port))
            opened += 1
            if opened == IDLE:
                done.set()
        time.sleep(0.05)


def _fill_the_disk(port: int, done: Event) -> None:
    """An object without an end, until somebody ends it."""
    sent = 0
    try:
        with Stranger(port) as stranger:
            stranger.begin(b"1.2.3.668")
            stranger.send(STUDY + PIXELS)
            while True:
                stranger.send(bytes(PART))
                time.sleep(PACE)
                sent += PART
                if sent > ENOUGH:
                    done.set()
    finally:
        done.set()


def _send_hostile(port: int, files: list[tuple[str, bytes]], done: Event) -> None:
    for syntax, data in files:
        with Stranger(port, syntax) as stranger:
            stranger.store(data)
    done.set()
    time.sleep(1)


def _read(file: Path) -> tuple[str, bytes]:
    """Transfer syntax and data set, which nobody here inflates."""
    meta = read_file_meta_info(file)
    return meta.TransferSyntaxUID, file.read_bytes()[PREAMBLE + meta.FileMetaInformationGroupLength :]


def _again_and_again(attack: Callable[[], None]) -> None:
    while True:
        with suppress(OSError):
            attack()
        time.sleep(0.1)


def main(port: int, directory: Path) -> None:
    hostile, slow = [_read(file) for file in instances(directory)], [(DEFLATED, of_many_steps())] * 5
    done = [Event() for _ in range(4)]
    attacks = (
        lambda: _wait_idly(port, done[0]),
        lambda: _fill_the_disk(port, done[1]),
        lambda: _send_hostile(port, hostile, done[2]),
        lambda: _send_hostile(port, slow, done[3]),
    )
    for attack in attacks:
        Thread(target=_again_and_again, args=(attack,), daemon=True).start()
    until = time.monotonic() + ATTEMPT
    for one in done:
        one.wait(until - time.monotonic())
    print("ready", flush=True)
    Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
