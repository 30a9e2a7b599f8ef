"""The receivers: which is free, and a storescp on it that is started for one job alone and ended with its group.

One retrieval at a time has a receiver, whichever process asks: its slot is a lock on a file, which the system itself
frees when its holder dies, however it dies.

Whoever reaches the receiver's port beside the archive is bounded in processes, in space and in what holds a job up.
storescp forks for each connection, as many as come, and writes whatever it is sent. So what it has not been asked for
gives way to what it has: the processes of associations that have sent nothing expected, and the files that grow and
will be nothing expected. Those that are, and what nothing is known of yet, are let be.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from mkiso.addresses import bind_error
from mkiso.config import Config, Receiver, Retrieve, Tools
from mkiso.dcmtk.association import SMALL_DICTIONARY, error_text
from mkiso.dcmtk.storescp import (
    ASSOCIATION_LIMIT,
    Transfers,
    failed_handshakes,
    faults,
    file_number,
    receive_argv,
    unusable,
    without_speakers,
)
from mkiso.errors import Busy, ReceiverUnavailable
from mkiso.process import Child, read_log, spawned
from mkiso.retrieve.inbox import Inbox
from mkiso.waiting import Checkpoint, Stopwatch
from mkiso.workspace import Workspace, free_space, held

PATIENCE = 0.02
START_LIMIT = 10.0
END_LIMIT = 2.0
TELL_LIMIT = 0.5
POLL = 0.003
MOST = 32  # associations that have sent nothing expected yet; an archive opens some 8 at once
MOST_YOUNG = 256  # of those that are so young that an archive's first image may still come, in whose midst it may be
YOUNG = 2.0
UNASSOCIATED = float(ASSOCIATION_LIMIT)  # s: storescp has none of its own in TLS's handshake
MOST_SMALL = 4096  # fragments that make next to nothing, and a line of the log each
MOST_LOG = 1 << 24  # bytes
PAUSE = 0.05
FASTEST = 2 << 30  # bytes a second that a peer may write


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
                raise _unavailable(self.receiver, error_text(self._said()))
            if waited.seconds() > START_LIMIT:
                raise _unavailable(self.receiver, f"it did not listen within {START_LIMIT:g} s")
            time.sleep(POLL)
        self._listened = True

    def require_alive(self) -> None:
        """Raise ReceiverUnavailable where storescp has died."""
        if self._child.rc is not None:
            raise _unavailable(self.receiver, f"storescp died: {error_text(self._said())}")

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
        return without_speakers(read_log(self._log))

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
    with ExitStack() as afterwards, spawned(argv, cwd=workspace.path, log=log, environment=SMALL_DICTIONARY) as child:
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


class Strangers:
    """Those who send to a receiver what its inbox does not expect.

    `ended` tells how many of their connections were ended, `removed` how many bytes of what they sent.
    """

    def __init__(self, receiver: RunningReceiver, inbox: Inbox, config: Config) -> None:
        self.receiver, self.inbox = receiver, inbox
        self._storage, self._receivers = config.storage, len(config.receivers)
        self._clock, self._kept = Stopwatch(), Stopwatch()
        self._files: frozenset[str] = frozenset()  # of the inbox, not whole
        self._since: dict[int, float] = {}  # when each process of a connection was first seen, the oldest first
        self._is_keeping = False
        self.ended = self.removed = 0

    def keep_in_bounds_sometimes(self) -> None:
        """As `keep_in_bounds`, for whoever asks more often than need be, or while it reads what a file will be."""
        if self._kept.seconds() > PAUSE and not self._is_keeping:
            self.keep_in_bounds(self.inbox.unended())

    def keep_in_bounds(self, files: Set[str]) -> None:
        """End what takes too much now. `files` are those of the inbox that are not whole."""
        self._is_keeping, self._files = True, frozenset(files)
        try:
            self._see()
            self._make_room()
            self._end_unassociated()
            self._shorten_log()
            if len(self._since) > MOST:
                self._end_surplus()
        finally:
            self._is_keeping, self._kept = False, Stopwatch()

    def next_look(self) -> float:
        """Seconds after which there may be no room left, however much there is now."""
        return free_space(self._storage.work_dir) / FASTEST

    def _see(self) -> None:
        now, before = self._clock.seconds(), self._since
        self._since = {child: before.get(child, now) for child in self.receiver.children()}
        self.receiver.transfers.read_on()
        gone = before.keys() - self._since.keys()
        self.receiver.transfers.forget_children(gone)
        self.inbox.senders -= gone

    def _end_unassociated(self) -> None:
        now, associated = self._clock.seconds(), self.receiver.transfers.associated
        for child in [one for one, since in self._since.items() if now - since > UNASSOCIATED]:
            if child not in associated:
                self._end(child)

    def _end_surplus(self) -> None:
        """The oldest go first, so that one that comes now has its time; before all those without an association."""
        now, associated = self._clock.seconds(), self.receiver.transfers.associated
        strangers = sorted(
            self._since.keys() - self._of_expected(), key=lambda one: (one in associated, self._since[one], one)
        )
        for behind, child in zip(range(len(strangers), MOST, -1), strangers, strict=False):
            if behind > MOST_YOUNG or now - self._since[child] > YOUNG:
                self._end(child)

    def _make_room(self) -> None:
        """What grows and is not expected has its share of what is free; the largest goes first."""
        share = max(0, free_space(self._storage.work_dir) - self._storage.min_free) // self._receivers
        sizes = {name: self.inbox.size(name) for name in self._files}
        if sum(sizes.values()) <= share:
            return
        foreign = {name: size for name, size in sizes.items() if self._is_foreign(name)}
        total = sum(foreign.values())
        for name in sorted(foreign, key=foreign.__getitem__, reverse=True):
            if total > share:
                self._end(file_number(name)[0])
                self._remove(name)
                total -= foreign[name]

    def _shorten_log(self) -> None:
        """storescp tells of each fragment, which may be of two bytes, and of two others."""
        small = self.receiver.transfers.small
        if many := {child for child in self._since if small[child] > MOST_SMALL}:
            for child in many - self._of_expected():
                self._end(child)
        if self._since and self.receiver.transfers.read > MOST_LOG:
            self.receiver.shorten_log()

    def _of_expected(self) -> set[int]:
        """The processes that have received what is expected, or do now."""
        return self.inbox.senders | {file_number(one)[0] for one in self._files if self.inbox.is_expected(one)}

    def _is_foreign(self, name: str) -> bool:
        """Not of one who has sent what is expected: the archive itself, whose association is not cut."""
        return file_number(name)[0] not in self.inbox.senders and self.inbox.is_expected(name) is False

    def _end(self, child: int) -> None:
        """What it has begun to write is gone, too."""
        if self._since.pop(child, None) is not None:
            self.receiver.end(child)
            self.receiver.transfers.forget_children({child})
            self.ended += 1
            for name in self._files:
                if file_number(name)[0] == child:
                    self._remove(name)

    def _remove(self, name: str) -> None:
        self.removed += self.inbox.size(name)
        self.inbox.remove(name)
