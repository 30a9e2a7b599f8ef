"""C-MOVEs, one alone or several at once: how each is begun, watched and ended, and what the archive said of it.

One C-MOVE is one association, on which an image is sent when the one before it has been acknowledged: the longer the
way, the longer the line stands idle. So the series of a study are moved side by side, into the one receiver. No more
of them than serve: one begins, and a further one comes while the rate still grows and the archive takes it.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

from mkiso.accession import uid_fault
from mkiso.dcmtk.movescu import Ending, MoveResult, combined
from mkiso.dicom.instances import Key
from mkiso.process import Child
from mkiso.retrieve.inbox import Evidence, Inbox, Said
from mkiso.retrieve.scu import Part, Scu
from mkiso.retrieve.studies import Study
from mkiso.waiting import Stopwatch

LOOK = 0.03
FEWEST = 100  # instances of a study that is moved by series: fewer are there before a second C-MOVE could help
EARLY = 0.25  # of its instances: what has come by one C-MOVE of all comes once more with the series
WORTH = 2.0  # seconds that the rest of a study takes at least by one C-MOVE: several begin as one does
FAST = 300  # images a second: a line that is so short stands idle for nobody, and a second C-MOVE takes from the first
LEAST = 10  # instances of a series, on the average: each C-MOVE begins with two associations
GROWTH, LEAP = 1.1, 1.5  # with one more, for a further one, and for two
SEEN, SHORTEST = 8, 0.08  # instances and seconds that show that a rate has grown
LONG_ENOUGH = 10  # so many times both, or
LONGEST = 4.0  # so many seconds, that it has not: what came in a moment says little
WAITS = 1.5  # times as long as the first took to its first image: the archive lets it wait
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0


class NotBySeries(Exception):
    """The archive refuses a C-MOVE at SERIES level, or would send more for it than the series."""


def by_series(study: Study) -> list[Part]:
    """The series of a whole study; none where it takes no longer to move it at once, or a series has no UID."""
    found: dict[str, set[Key]] = defaultdict(set)
    for sop, series_uid in study.instances.items():
        found[series_uid].add((study.study_uid, sop))
    is_small = len(study.instances) < max(FEWEST, LEAST * len(found))
    if len(found) == 1 or is_small or any(map(uid_fault, found)):
        return []
    return [Part(study.study_uid, series_uid, frozenset(keys), study.instances) for series_uid, keys in found.items()]


@dataclass
class Move:
    """A study, or a series of it, as the archive has been found to list it, and how its C-MOVE goes.

    `began` is when the first study of its accession number did. `results` are what the archive said, by series, or
    under None of the whole study. `examined` is the evidence for a cut list that a new look at the list left.
    """

    study: Study
    began: Stopwatch = field(default_factory=Stopwatch)
    results: dict[str | None, MoveResult] = field(default_factory=dict)
    examined: Evidence | None = None

    @property
    def ended(self) -> MoveResult:
        return combined(self.results.values())

    @property
    def said(self) -> list[Said]:
        """As evidence for or against the list."""
        listed, wanted = self.study.instances.items(), self.study.series_uid
        return [
            Said(uid, {sop for sop, series in listed if uid in (None, wanted, series)}, result)
            for uid, result in self.results.items()
        ]


class Alone(NamedTuple):
    """What was seen of a C-MOVE with none beside it: the seconds to its first image, images and bytes per second."""

    delay: float
    images: float
    bytes: float


@dataclass
class Trial:
    """The C-MOVE of a whole study, until it is known whether its series are better moved side by side.

    Where it has been stopped for that, `found` is what it did.
    """

    part: Part
    scu: Scu
    inbox: Inbox
    found: Alone | None = None
    _began: float = field(default_factory=time.monotonic)
    _since: tuple[float, int, int] | None = None

    def is_over(self) -> bool:
        """Whether it is to be ended: the first instances come slowly, much is to come, and just what is listed."""
        came, size, now = len(self.part.keys & self.inbox.keys), self.inbox.bytes, time.monotonic()
        if not came or came > EARLY * len(self.part.keys):
            return False
        since, came_then, size_then = self._since = self._since or (now, came, size)
        seconds, came_since = now - since, came - came_then
        if came_since < SEEN / 2 or seconds < SHORTEST or came_since > FAST * seconds:
            return False
        left = (len(self.part.keys) - came) * seconds / came_since
        if left > WORTH and self.scu.announced(self.part) == len(self.part.keys):
            self.found = Alone(since - self._began, came_since / seconds, (size - size_then) / seconds)
        return self.found is not None


class Pace:
    """How many C-MOVEs at once serve: one more while the rate, in images or in bytes, grows by more than a tenth.

    The second begins with the first's first image: until it sends itself, the rate of one is known; or as the first
    does, where it is known already, what one did `alone`. One that the archive takes and lets wait costs nothing.
    dcmqrscp begins none beside those that it sends, and then all that wait.
    """

    def __init__(self, most: int, now: float, alone: Alone | None = None) -> None:
        self.number, self._most = 1 if alone is None else min(2, most), most
        self._delay, *rates = alone or Alone(0.0, 0.0, 0.0)  # of the first's first image
        self._rates: tuple[float, ...] = (*rates,)  # images and bytes per second with one less
        self._since: tuple[float, int, int] | None = None
        self._is_based = alone is not None  # whether that of one is known, as far as it will be
        self._began = now  # the last that was added

    def refused(self, others: int) -> None:
        """The archive took no association beside those of so many others."""
        self.number = self._most = max(1, others)

    def look(self, sending: int, images: int, size: int, now: float) -> None:
        """So many images and bytes are there at this moment; so many C-MOVEs are `sending`."""
        if sending == 0 or self.number >= self._most:
            return
        if self.number == 1:
            self._delay, self._since = now - self._began, (now, images, size)
            self._add(1, now)
        elif sending >= self.number:
            self._judge(images, size, now)
        elif now - self._began > WAITS * self._delay:
            self._add(self._most, now)

    def _add(self, more: int, now: float) -> None:
        self.number, self._began = min(self._most, self.number + more), now

    def _judge(self, images: int, size: int, now: float) -> None:
        """By what came since all of them send; of the first alone, since its first image."""
        then, images_then, size_then = self._since or (now, images, size)
        seconds, came = now - then, images - images_then
        times = min(came / SEEN, seconds / SHORTEST)
        rates = (came / seconds, (size - size_then) / seconds) if times >= 1 else (0.0, 0.0)
        if self._since is None or not self._is_based:
            self._rates = self._rates if self._is_based else rates
            self._since, self._is_based = (now, images, size), True
        elif times >= 1 and any(rate > GROWTH * before for rate, before in zip(rates, self._rates, strict=True)):
            leaps = all(rate > LEAP * before > 0 for rate, before in zip(rates, self._rates, strict=True))
            self._rates, self._since = rates, None
            self._add(2 if leaps else 1, now)
        elif times >= LONG_ENOUGH or seconds >= LONGEST:
            self.number = self._most = max(1, self.number - 1)


@dataclass
class _Running:
    """A C-MOVE that runs; `whole` is when all of its instances were there."""

    child: Child
    held: ExitStack
    whole: Stopwatch | None = None
    sends: bool = False
    is_checked: bool = False


@dataclass
class SideBySide:
    """Several C-MOVEs into the one receiver; `late` raises where all of them together take too long.

    Whether everything came is another question, as after any C-MOVE.
    """

    scu: Scu
    inbox: Inbox
    tick: Callable[[float], float]
    late: Callable[[bool], None]
    results: dict[Part, MoveResult] = field(default_factory=dict)

    def run(self, parts: Iterable[Part], most: int, alone: Alone | None = None) -> None:
        """Move the parts, the largest first, `most` at once; what the archive says of each is in `results`.

        `alone` is what one did with none beside it, where that is known. Raises NotBySeries where the archive does not
        give series alone.
        """
        self._waiting = deque(sorted(parts, key=lambda one: (-len(one.keys), one.series_uid or "")))
        self._running: dict[Part, _Running] = {}
        self._pace, self._quiet = Pace(most, time.monotonic(), alone), Stopwatch()
        self._pause, self._not_before, self._refused = FIRST_PAUSE, 0.0, Stopwatch()
        try:
            while self._waiting or self._running:
                self._begin()
                time.sleep(self.tick(LOOK))
                self._look()
        finally:
            for one in self._running.values():
                one.held.close()

    def _begin(self) -> None:
        while self._waiting and len(self._running) < self._pace.number and time.monotonic() >= self._not_before:
            part, held = self._waiting.popleft(), ExitStack()
            self._running[part] = _Running(held.enter_context(self.scu.begun(part)), held)

    def _look(self) -> None:
        for part, one in list(self._running.items()):
            one.sends = one.sends or not part.keys.isdisjoint(self.inbox.keys)
            if one.whole is None and part.keys <= self.inbox.keys:
                one.whole = Stopwatch()
            goes_on = one.whole is not None and one.whole.seconds() > self.scu.config.retrieve.settle_timeout
            if goes_on or one.child.rc is not None:
                self._end(part)
            elif one.whole is None and not one.is_checked:
                self._check(part, one)
        self._require_progress()
        self._pace.look(self._sending(), self.inbox.received, self.inbox.bytes, time.monotonic())

    def _sending(self) -> int:
        """Of how many that run something has come."""
        return sum(one.sends for one in self._running.values())

    def _check(self, part: Part, one: _Running) -> None:
        """An archive that takes no notice of the series says at its first response how much it is about to send."""
        if (count := self.scu.announced(part)) is not None:
            one.is_checked = True
            if count > len(part.keys):
                raise NotBySeries

    def _end(self, part: Part) -> None:
        self._running.pop(part).held.close()
        if self.scu.failure(part):
            self._wait_with(part)
            return
        self._not_before, self._pause = 0.0, FIRST_PAUSE
        self._refused = Stopwatch()
        self.results[part] = result = self.scu.result(part)
        if result.ending is Ending.FAILURE:
            if not any(one.completed for one in self.results.values()) and not self._sending():
                raise NotBySeries
            self._pace.refused(len(self._running))

    def _wait_with(self, part: Part) -> None:
        """No association beside the others: it is asked for again, alone for no longer than `connect_timeout`."""
        if not self._running and self._refused.seconds() > self.scu.pacs.connect_timeout:
            raise NotBySeries
        self._pace.refused(len(self._running))
        self._waiting.appendleft(part)
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _require_progress(self) -> None:
        """Silent ones are given up where the others are done: they are asked for once more."""
        silent = [part for part, one in self._running.items() if one.whole is None]
        if not silent:
            return
        is_silent = self._is_quiet()
        if is_silent:
            self.inbox.look()  # what came while others were read, which may take as long
            is_silent = self._is_quiet()
        self.late(is_silent and bool(self._waiting))
        if is_silent:
            for part in silent:
                self._end(part)

    def _is_quiet(self) -> bool:
        quiet = min(self._quiet.seconds(), self.inbox.quiet.seconds())
        return quiet > self.scu.config.retrieve.stall_timeout
