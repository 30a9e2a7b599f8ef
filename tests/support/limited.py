"""A user of few processes: a service that runs as one, and a stranger who takes what is left.

    python -m tests.support.limited

forks for as long as there may be one more process or thread, then says `full`, and takes whatever comes free.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.tools import end, environment

UIDS = range(61000, 64000)  # nobody's on Debian: above adduser's, below systemd's


@dataclass(frozen=True)
class User:
    """`directory` is the user's own; `program` is what the argv begins with of whatever runs as that user."""

    directory: Path
    program: tuple[str, ...]


@contextmanager
def user_of(processes: int) -> Iterator[User]:
    """A user who may have so many processes and threads; needs root (getrlimit(2), RLIMIT_NPROC: it binds others)."""
    uid = random.choice(UIDS)
    become = ("/usr/bin/setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
    with TemporaryDirectory(prefix="mkiso-") as name:
        os.chown(name, uid, uid)
        yield User(Path(name), (*become, "/usr/bin/prlimit", f"--nproc={processes}:{processes}"))


@contextmanager
def filled(user: User) -> Iterator[None]:
    """While the block runs the user has no process to spare."""
    argv = (*user.program, sys.executable, "-m", "tests.support.limited")
    stranger = subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment(), cwd="/", start_new_session=True)
    assert stranger.stdout is not None
    with stranger.stdout:
        try:
            assert stranger.stdout.readline() == b"full\n"
            yield
        finally:
            end(stranger)


def main() -> None:
    parent, told = os.getpid(), False
    while os.getppid() != 1:
        try:
            if not os.fork():
                while os.getppid() == parent:
                    time.sleep(60)
                os._exit(0)
        except BlockingIOError:
            if not told:
                print("full", flush=True)
            told = True
            time.sleep(0.001)


if __name__ == "__main__":
    main()
