"""What DCMTK's network programs share, and echoscu: does a peer answer a C-ECHO (PS3.7 9.1.5)?

How a peer is named, what a program's log says of an association that failed, when it is tried again, and which error
a caller is told where the peer is the archive.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from mkiso.errors import MkisoError, PacsRejected, PacsUnreachable
from mkiso.process import ToolTimeout, run
from mkiso.waiting import Stopwatch

ECHOSCU = "echoscu"
# echoscu, findscu, movescu and storescp know few attributes, and read no data sets: a small dictionary saves each 12 ms
# of its start.
SMALL_DICTIONARY = {"DCMDICTPATH": str(Path(__file__).with_name("query.dic"))}
LARGEST_PDU = "131072"  # bytes
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
SLICE = 0.05
# The first that is found in a program's standard error counts (findscu says E:, the others F:, dcmsend why with D:).
CANNOT = "F: cannot negotiate network association: "  # dcmsend
LIMIT_REACHED = re.compile(r"^[DEF]: Reason: (?:Local Limit Exceeded|Temporary Congestion)", re.M)
# Not the data set that findscu shows beside an error, whose lines begin with # or a tag.
ERROR_LINE = re.compile(r"^(?:[EF]: (?![#(])|D: (?=Result: Rejected |Reason: ))(.*\S)", re.M)
HUNG_UP = re.compile(r"Connection reset by peer|\(or never connected\)")
TUNNEL = " (where a TLS tunnel leads there, its log tells why)"
ANSWERED = "I: Received Echo Response"
ACCEPTED = f"{ANSWERED} (Success)"


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


FAILURES = (
    (re.compile(r"^[DEF]: Result: Rejected Transient", re.M), Failure.BUSY),
    (re.compile(rf"^[EF]: Association Rejected|^{CANNOT}.*Rejected", re.M), Failure.REJECTED),
    (re.compile(rf"^[EF]: No Acceptable Pres|^{CANNOT}No Acceptable Pres", re.M), Failure.NO_CONTEXT),
    (re.compile(rf"^[EF]: Association Request Failed|^{CANNOT}", re.M), Failure.UNREACHABLE),
)


def whole_seconds(seconds: float) -> str:
    """DCMTK takes timeouts in whole seconds, and 0 would mean none at all."""
    return str(max(1, math.ceil(seconds)))


def association_argv(peer: Peer, timeout: float) -> tuple[str, ...]:
    """The options that say who calls whom, and for how long; `timeout` is for each DIMSE message."""
    limit = whole_seconds(peer.connect_timeout)
    return ("-aet", peer.calling, "-aec", peer.called, "-to", limit, "-ta", limit, "-td", whole_seconds(timeout))


def association_failure(log: str) -> Failure | None:
    """Why no association came about; None where one did."""
    return next((failure for pattern, failure in FAILURES if pattern.search(log)), None)


def attempts(peer: Peer, checkpoint: Callable[[], object]) -> Iterator[None]:
    """Turns to ask a peer that rejects associations for now (PS3.8 9.3.4); the caller leaves when it does not.

    The first comes at once, the others after growing pauses, the last when `connect_timeout` is over;
    `checkpoint` is asked all the while.
    """
    waited, pause = Stopwatch(), FIRST_PAUSE
    yield
    while (left := peer.connect_timeout - waited.seconds()) > 0:
        rested, rest = Stopwatch(), min(pause, left)
        while rested.seconds() < rest:
            checkpoint()
            waited.seconds()
            time.sleep(min(SLICE, rest))
        pause = min(2 * pause, LONGEST_PAUSE)
        yield


def error_text(log: str) -> str:
    """A program's own error lines as one sentence, without their codes.

    A peer that hung up may be a tunnel whose handshake failed: the program cannot know why.
    """
    lines = (re.sub(r"\b[0-9a-f]{4}:[0-9a-f]{4} ", "", line).rstrip(":") for line in ERROR_LINE.findall(log))
    text = "; ".join(dict.fromkeys(lines)) or "it said nothing"
    return text + TUNNEL if HUNG_UP.search(text) else text


def busy_text(peer: Peer, why: str) -> str:
    """What a person is told of a peer that still rejects associations for now, by its own words, and what to do."""
    return (
        f"it has as many associations as it takes, and took no other in {peer.connect_timeout:g} s ({why})."
        " Try again later; if it stays so, have it take more at once"
    )


def association_error(pacs: Peer, log: str) -> MkisoError | None:
    """The error of an association with the archive that did not come about; None where it did."""
    failure = association_failure(log)
    return failure and refusal(pacs, failure, error_text(log), LIMIT_REACHED.search(log) is not None)


def refusal(pacs: Peer, failure: Failure, why: str, limit_reached: bool) -> MkisoError:
    """The error of an association with the archive that failed so, by a program's own words."""
    if failure is Failure.UNREACHABLE:
        return PacsUnreachable(f"No association with the PACS {pacs}: {why}. Check that it runs, and pacs.*.")
    if failure is Failure.BUSY:
        return PacsRejected(f"The PACS {pacs} is busy: {busy_text(pacs, why)}.")
    refused = f"The PACS {pacs} refused the association: {why}."
    if limit_reached:
        return PacsRejected(f"{refused} It has as many associations as it takes. Try again later.")
    return PacsRejected(f"{refused} Check the AE titles: it must know {pacs.calling} and answer to {pacs.called}.")


def silent_error(pacs: Peer) -> PacsUnreachable:
    """The error of a PACS that was not heard of before a program's time was over."""
    return PacsUnreachable(f"The PACS {pacs} did not answer in {pacs.connect_timeout:g} s. Check that it runs.")


def echo_argv(dcmtk_dir: Path, peer: Peer) -> tuple[str, ...]:
    options = association_argv(peer, peer.connect_timeout)
    return (str(dcmtk_dir / ECHOSCU), "-v", *options, peer.host, str(peer.port))


@dataclass(frozen=True)
class EchoFailure:
    """Why a C-ECHO did not succeed; `reached` where the peer was heard of, `busy` where it may answer the next."""

    why: str
    reached: bool
    busy: bool = False


def echo(dcmtk_dir: Path, peer: Peer, checkpoint: Callable[[], None] = lambda: None) -> EchoFailure | None:
    """None where the peer answered with success, else why not; takes at most three `connect_timeout`s."""
    argv, limit = echo_argv(dcmtk_dir, peer), 3 * peer.connect_timeout
    try:
        log = run(argv, timeout=limit, checkpoint=checkpoint, environment=SMALL_DICTIONARY).stderr
    except ToolTimeout as late:
        return EchoFailure(str(late), reached=False)
    if ACCEPTED in log:
        return None
    failure = association_failure(log)
    reached = ANSWERED in log or failure not in (None, Failure.UNREACHABLE)
    return EchoFailure(error_text(log), reached, busy=failure is Failure.BUSY)
