"""A C-STORE peer that fails, refuses, hangs and comes back as its seed has it, and writes down what came when.

A line each: the time (of the host's monotonic clock), the association's number, and `open`, `close` or the SOP Instance
UID of what it acknowledged.
"""

import argparse
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import Verification

from tests.support import tools
from tests.support.anything import take_anything
from tests.support.tools import LOCALHOST

OUT_OF_RESOURCES = 0xA700
HANGS, FAILS, ABORTS = 0.02, 0.04, 0.06  # of instances, each of the one before included
PAUSE = 2.0


@contextmanager
def running_moody(port: int, log: Path, seed: int = 0, mood: float = 1.0) -> Iterator[None]:
    """A destination in a process of its own; with `mood` 0 it takes everything, `log` is added to."""
    words = (f"--port={port}", f"--log={log}", f"--seed={seed}", f"--mood={mood}")
    argv = (sys.executable, "-m", "tests.support.moody", *words)
    with tools.listening(argv, port, log.with_suffix(".err")):
        yield


class Moody:
    def __init__(self, log: Path, seed: int, mood: float) -> None:
        self._log, self._chance, self._mood = log.open("a", buffering=1), random.Random(seed), mood
        self._lock = threading.Lock()

    def tell(self, association: int, what: str) -> None:
        with self._lock:
            self._log.write(f"{time.monotonic():.3f} {os.getpid()}.{association} {what}\n")

    def store(self, event: evt.Event) -> int:
        mood = self._chance.random() / self._mood if self._mood else 1.0
        if mood < HANGS:
            time.sleep(PAUSE)
        elif mood < FAILS:
            return OUT_OF_RESOURCES
        elif mood < ABORTS:
            event.assoc.abort()
            return OUT_OF_RESOURCES
        self.tell(id(event.assoc), str(event.request.AffectedSOPInstanceUID))
        return 0x0000


def main() -> None:
    parser = argparse.ArgumentParser(prog="moody", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--mood", type=float, required=True)
    options = parser.parse_args()
    moody = Moody(options.log, options.seed, options.mood)
    entity = AE("ANY-SCP")
    entity.maximum_pdu_size = 131072
    entity.add_supported_context(Verification)
    _config.UNRESTRICTED_STORAGE_SERVICE = True
    take_anything(entity)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    handlers = [
        (evt.EVT_C_STORE, moody.store),
        (evt.EVT_ACCEPTED, lambda event: moody.tell(id(event.assoc), "open")),
        (evt.EVT_CONN_CLOSE, lambda event: moody.tell(id(event.assoc), "close")),
    ]
    entity.start_server((LOCALHOST, options.port), block=False, evt_handlers=handlers)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
    os._exit(0)
