"""The receivers: which is free, and a storescp on it that is started for one job alone and ended with its group.

One retrieval at a time has a receiver, whichever process asks: its slot is a lock on a file, which the system itself
frees when its holder dies, however it dies.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from mkiso.addresses import bind_error
from mkiso.clock import Checkpoint, Stopwatch
from mkiso.config import Receiver, Retrieve, Tools
from mkiso.dcmtk.association import words
from mkiso.dcmtk.storescp import Transfers, failed_handshakes, faults, receive_argv, unusable, without_speakers
from mkiso.errors import Busy, ReceiverUnavailable
from mkiso.process import Child, said, spawned
from mkiso.workspace import Workspace, held

PATIENCE = 0.02
START_LIMIT = 10.0
END_LIMIT = 2.0
TELL_LIMIT = 0.5
POLL = 0.003


def lock_file(work_dir: Path, receiver: Receiver) -> Path:
    return work_dir / f"receiver_{receiver.port}.lock"


@contextmanager
def receiver_slot(
    work_dir: Path, receivers: Sequence[Receiver], timeout: float, checkpoint: Checkpoint
) -> Iterator[Receiver]:
    """The first receiver that is free, held until the end of the block.

    Waits `timeout` seconds at most, and calls `checkpoint` all the while; raises Busy after that.
    """
    waited = Stopwatch()
    with ExitStack() as slot:
        while (receiver := _first_free(work_dir, receivers, slot)) is None:
            checkpoint()
            if waited.seconds() >= timeout:
                raise Busy(f"No receiver came free in {timeout:g} s. Try again, or configure more receivers.")
            time.sleep(random.uniform(PATIENCE, 3 * PATIENCE))  # noqa: S311  (so that waiters do not march in step)
        yield receiver


def slot_is_taken(work_dir: Path, receiver: Receiver) -> bool:
    """Whether a job holds the receiver now."""
    with suppress(BlockingIOError), held(lock_file(work_dir, receiver)):
        return False
    return True


def taken(work_dir: Path, receivers: Sequence[Receiver]) -> int:
    """How many of the receivers jobs hold now."""
    return sum(slot_is_taken(work_dir, receiver) for receiver in receivers)


def _first_free(work_dir: Path, receivers: Sequence[Receiver], slot: ExitStack) -> Receiver | None:
    for receiver in receivers:
        with suppress(BlockingIOError):
            slot.enter_context(held(lock_file(work_dir, receiver)))
            return receiver
    return None


class RunningReceiver:
    """What the retrieval sees of a storescp that listens."""

    def __init__(self, child: Child, receiver: Receiver, log: Path) -> None:
        self._child = child
        self._listened = False
        self._ended: set[int] = set()  # of its children, until it has seen it
        self.receiver = receiver
        self._log = log
        self.transfers = Transfers(log)

    def wait_until_it_listens(self) -> None:
        """Raise ReceiverUnavailable, with storescp's own words, where it does not come to listen."""
        waited = Stopwatch()
        while not _listens(self._child.pid, self.receiver.port):
            if self._child.rc is not None:
                raise _unavailable(self.receiver, words(self._said()))
            if waited.seconds() > START_LIMIT:
                raise _unavailable(self.receiver, f"it did not listen within {START_LIMIT:g} s")
            time.sleep(POLL)
        self._listened = True

    def require_alive(self) -> None:
        """Raise ReceiverUnavailable where storescp has died."""
        if self._child.rc is not None:
            raise _unavailable(self.receiver, f"storescp died: {words(self._said())}")

    def failed_handshakes(self) -> str:
        """Why peers could not send, where TLS kept them from it, with what is wrong on this side; empty where none is.

        storescp tells it a moment after the peer has been hung up on.
        """
        if self.receiver.tls is None:
            return ""
        waited = Stopwatch()
        while not (why := failed_handshakes(self._said())):
            if waited.seconds() > TELL_LIMIT:
                return ""
            time.sleep(POLL)
        return " ".join([why, *_sentences(faults(self.receiver.tls))])

    def children(self) -> list[int]:
        """The processes of `storescp --fork` that live, one for each connection, the oldest first."""
        if self._child.rc is not None:
            return []
        pids = self._pids()
        self._ended = {pid for pid in pids if pid in self._ended or _state(pid) in "ZX"}
        return [pid for pid in pids if pid not in self._ended]

    def end(self, child: int) -> None:
        """Kill one of its children; what it writes stays torn."""
        if child in self._pids():
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            self._ended.add(child)

    def _pids(self) -> list[int]:
        children = Path(f"/proc/{self._child.pid}/task/{self._child.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def shorten_log(self) -> None:
        """Let the log begin anew; its writers stand still meanwhile, so that no line is lost."""
        self.require_alive()
        os.killpg(self._child.pid, signal.SIGSTOP)
        try:
            waited = Stopwatch()
            while any(_state(pid) not in "TZX" for pid in (self._child.pid, *self.children())):
                if waited.seconds() > TELL_LIMIT:
                    return
                time.sleep(POLL)
            self.transfers.read_on()
            self.transfers.begin_anew()
        finally:
            os.killpg(self._child.pid, signal.SIGCONT)

    def _said(self) -> str:
        return without_speakers(said(self._log))

    def wait_until_its_port_is_free(self) -> None:
        """Until every process of the killed group has let go of the port: the next receiver needs it at once."""
        deadline = time.monotonic() + END_LIMIT
        while self._listened and bind_error("", self.receiver.port) and time.monotonic() < deadline:
            time.sleep(POLL)


@contextmanager
def started_receiver(
    tools: Tools, receiver: Receiver, retrieve: Retrieve, workspace: Workspace
) -> Iterator[RunningReceiver]:
    """A storescp that writes to `workspace.received`, starting when the block begins, its port free after it."""
    _require_usable_tls(receiver)
    log = workspace.path / "storescp.log"
    argv = receive_argv(receiver, tools.dcmtk_dir, workspace.received, retrieve.stall_timeout)
    with ExitStack() as afterwards, spawned(argv, cwd=workspace.path, log=log) as child:
        running = RunningReceiver(child, receiver, log)
        afterwards.callback(running.wait_until_its_port_is_free)
        yield running


def _require_usable_tls(receiver: Receiver) -> None:
    """storescp listens before it reads its files, and without the CA's it goes on, and refuses everybody."""
    if receiver.tls and (wrong := unusable(receiver.tls)):
        raise ReceiverUnavailable(
            f"The receiver {receiver.ae_title} on port {receiver.port} cannot speak TLS."
            f" {' '.join(_sentences(wrong))} Mend it; mkiso check looks again."
        )


def _sentences(wrong: dict[str, str]) -> list[str]:
    return [f"Its tls.{key} {why}." for key, why in wrong.items()]


def _state(pid: int) -> str:
    """One letter (proc_pid_stat(5)); X where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def _listens(pid: int, port: int) -> bool:
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp4")
    except psutil.Error:
        return False
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections)


def _unavailable(receiver: Receiver, why: str) -> ReceiverUnavailable:
    return ReceiverUnavailable(
        f"The receiver {receiver.ae_title} on port {receiver.port}: {why}. Free the port, or change receivers."
    )
