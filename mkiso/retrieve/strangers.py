"""Whoever reaches a receiver's port beside the archive: bounded in processes, in space and in what holds a job up.

storescp forks for each connection, as many as come, and writes whatever it is sent. So what it has not been asked for
gives way to what it has: the processes of associations that have sent nothing expected, and the files that grow and
will be nothing expected. Those that are, and what nothing is known of yet, are let be.
"""

from __future__ import annotations

from collections.abc import Set

from mkiso.clock import Stopwatch
from mkiso.config import Config
from mkiso.dcmtk.storescp import ASSOCIATION_LIMIT, file_number
from mkiso.retrieve.inbox import Inbox
from mkiso.retrieve.receiver import RunningReceiver
from mkiso.workspace import free_space

MOST = 32  # associations that have sent nothing expected yet; an archive opens some 8 at once
MOST_YOUNG = 256  # of those that are so young that an archive's first image may still come, in whose midst it may be
YOUNG = 2.0
UNASSOCIATED = float(ASSOCIATION_LIMIT)  # s: storescp has none of its own in TLS's handshake
MOST_SMALL = 4096  # fragments that make next to nothing, and a line of the log each
MOST_LOG = 1 << 24  # bytes
PAUSE = 0.05
FASTEST = 2 << 30  # bytes a second that a peer may write


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
