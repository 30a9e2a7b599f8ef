"""A C-STORE peer that refuses, warns, aborts or goes silent at the third instance, or takes no one, or no C-ECHO."""

import argparse
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import Verification

from tests.support import tools
from tests.support.anything import take_anything
from tests.support.tools import LOCALHOST

NEVER = threading.Event()


@dataclass
class Peer:
    """What came, and what is answered from the third instance on, or to the third alone."""

    behaviour: str
    status: int
    directory: Path
    count: int = field(default=0)

    def store(self, event: evt.Event) -> int:
        self.count += 1
        if self.count == 3 and (odd := ODD.get(self.behaviour)):
            return odd(self, event)
        uid = event.request.AffectedSOPInstanceUID
        (self.directory / str(uid)).write_bytes(event.encoded_dataset())
        return 0x0000


def _status(peer: Peer, _event: evt.Event) -> int:
    return peer.status


def _abort(_peer: Peer, event: evt.Event) -> int:
    event.assoc.abort()
    return 0x0000


def _silence(_peer: Peer, _event: evt.Event) -> int:
    NEVER.wait()
    return 0x0000


ODD: dict[str, Callable[[Peer, evt.Event], int]] = {"status": _status, "abort": _abort, "silent": _silence}
BEHAVIOURS = (*ODD, "normal", "reject", "hang", "no-context", "no-verification", "deaf")


def serve(port: int, peer: Peer) -> None:
    """Listen until this process is ended."""
    if peer.behaviour == "hang":
        _accept_and_hang(port)
    entity = AE("DESTINATION")
    entity.maximum_pdu_size = 131072
    entity.require_called_aet = peer.behaviour == "reject"
    if peer.behaviour == "reject":
        entity.ae_title = "ANOTHER"
    if peer.behaviour != "no-verification":
        entity.add_supported_context(Verification)
    _config.UNRESTRICTED_STORAGE_SERVICE = peer.behaviour != "no-context"
    if peer.behaviour != "no-context":
        take_anything(entity)
    echo: Callable[[evt.Event], int] = partial(_silence, peer) if peer.behaviour == "deaf" else lambda _event: 0x0000
    entity.start_server((LOCALHOST, port), evt_handlers=[(evt.EVT_C_STORE, peer.store), (evt.EVT_C_ECHO, echo)])


def _accept_and_hang(port: int) -> None:
    with socket.create_server((LOCALHOST, port)) as listener:
        held = []
        while True:
            held.append(listener.accept())


@dataclass(frozen=True)
class RunningDestination:
    port: int
    directory: Path

    def received(self) -> set[str]:
        return {path.name for path in self.directory.iterdir()}


@contextmanager
def running_destination(port: int, behaviour: str = "normal", status: int = 0) -> Iterator[RunningDestination]:
    """A destination in a process of its own, listening."""
    with tempfile.TemporaryDirectory(prefix="destination-") as name:
        directory = Path(name, "received")
        directory.mkdir()
        words = (f"--port={port}", f"--behaviour={behaviour}", f"--status={status:04x}", f"--directory={directory}")
        argv = (sys.executable, "-m", "tests.support.destination", *words)
        process = tools.start_listener(argv, port, Path(name, "log"))
        try:
            yield RunningDestination(port, directory)
        finally:
            tools.end(process)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--behaviour", choices=BEHAVIOURS, default="normal")
    parser.add_argument("--status", type=lambda text: int(text, 16), default=0)
    parser.add_argument("--directory", type=Path, required=True)
    options = parser.parse_args()
    serve(options.port, Peer(options.behaviour, options.status, options.directory))


if __name__ == "__main__":
    main()
