"""What DCMTK's SCU programs share: how a peer is named, why an association failed, and when it is tried again."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from mkiso.clock import Stopwatch

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
SLICE = 0.05


@dataclass(frozen=True)
class Peer:
    """An application entity as a program calls it; `connect_timeout` in seconds, for TCP and for the association."""

    called: str
    host: str
    port: int
    calling: str
    connect_timeout: float

    def __str__(self) -> str:
        return f"{self.called} at {self.host}:{self.port}"


class Failure(Enum):
    """Why there was no association."""

    UNREACHABLE = "unreachable"
    BUSY = "rejected for now"
    REJECTED = "rejected"
    NO_CONTEXT = "no accepted presentation context"


# The first that is found in a program's standard error counts (findscu says E:, the others F:, dcmsend why with D:).
CANNOT = "F: cannot negotiate network association: "  # dcmsend
FAILURES = (
    (re.compile(r"^[DEF]: Result: Rejected Transient", re.M), Failure.BUSY),
    (re.compile(rf"^[EF]: Association Rejected|^{CANNOT}.*Rejected", re.M), Failure.REJECTED),
    (re.compile(rf"^[EF]: No Acceptable Pres|^{CANNOT}No Acceptable Pres", re.M), Failure.NO_CONTEXT),
    (re.compile(rf"^[EF]: Association Request Failed|^{CANNOT}", re.M), Failure.UNREACHABLE),
)
LIMIT_REACHED = re.compile(r"^[DEF]: Reason: (?:Local Limit Exceeded|Temporary Congestion)", re.M)
# Not the data set that findscu shows beside an error, whose lines begin with # or a tag.
SPOKEN = re.compile(r"^(?:[EF]: (?![#(])|D: (?=Result: Rejected |Reason: ))(.*\S)", re.M)
HUNG_UP = re.compile(r"Connection reset by peer|\(or never connected\)")
TUNNEL = " (where a TLS tunnel leads there, its log tells why)"


def whole_seconds(seconds: float) -> str:
    """DCMTK takes timeouts in whole seconds, and 0 would mean none at all."""
    return str(max(1, math.ceil(seconds)))


def association_argv(peer: Peer, timeout: float) -> tuple[str, ...]:
    """The options that say who calls whom, and for how long; `timeout` is for each DIMSE message."""
    limit = whole_seconds(peer.connect_timeout)
    return ("-aet", peer.calling, "-aec", peer.called, "-to", limit, "-ta", limit, "-td", whole_seconds(timeout))


def association_failure(stderr: str) -> Failure | None:
    """Why no association came about; None where one did."""
    return next((failure for pattern, failure in FAILURES if pattern.search(stderr)), None)


def attempts(peer: Peer, check: Callable[[], object]) -> Iterator[None]:
    """Turns to ask a peer that rejects associations for now (PS3.8 9.3.4); the caller leaves when it does not.

    The first comes at once, the others after growing pauses, the last when `connect_timeout` is over;
    `check` is asked all the while.
    """
    waited, pause = Stopwatch(), FIRST_PAUSE
    yield
    while (left := peer.connect_timeout - waited.seconds()) > 0:
        rested, rest = Stopwatch(), min(pause, left)
        while rested.seconds() < rest:
            check()
            waited.seconds()
            time.sleep(min(SLICE, rest))
        pause = min(2 * pause, LONGEST_PAUSE)
        yield


def words(stderr: str) -> str:
    """The program's own error lines as one sentence, without their codes.

    A peer that hung up may be a tunnel whose handshake failed: the program cannot know why.
    """
    spoken = (re.sub(r"\b[0-9a-f]{4}:[0-9a-f]{4} ", "", line).rstrip(":") for line in SPOKEN.findall(stderr))
    said = "; ".join(dict.fromkeys(spoken)) or "it said nothing"
    return said + TUNNEL if HUNG_UP.search(said) else said


def busy(peer: Peer, stderr: str) -> str:
    """What a person is told of a peer that still rejects associations for now, and what to do."""
    return (
        f"it has as many associations as it takes, and took no other in {peer.connect_timeout:g} s ({words(stderr)})."
        " Try again later; if it stays so, have it take more at once"
    )
