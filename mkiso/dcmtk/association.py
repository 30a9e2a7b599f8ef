"""What DCMTK's SCU programs share: how a peer is named, and how an association that failed reads."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import Enum


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
    REJECTED = "rejected"
    NO_CONTEXT = "no accepted presentation context"


# The first that is found in a program's standard error counts (movescu and storescu say F:, findscu and echoscu E:).
CANNOT = "F: cannot negotiate network association: "  # dcmsend
FAILURES = (
    (re.compile(rf"^[EF]: Association Rejected|^{CANNOT}.*Rejected", re.M), Failure.REJECTED),
    (re.compile(rf"^[EF]: No Acceptable Pres|^{CANNOT}No Acceptable Pres", re.M), Failure.NO_CONTEXT),
    (re.compile(rf"^[EF]: Association Request Failed|^{CANNOT}", re.M), Failure.UNREACHABLE),
)
# Not the data set that findscu shows beside an error, whose lines begin with # or a tag.
SPOKEN = re.compile(r"^[EF]: (?![#(])(.*\S)", re.M)
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


def words(stderr: str) -> str:
    """The program's own error lines as one sentence, without their codes.

    A peer that hung up may be a tunnel whose handshake failed: the program cannot know why.
    """
    spoken = (re.sub(r"\b[0-9a-f]{4}:[0-9a-f]{4} ", "", line).rstrip(":") for line in SPOKEN.findall(stderr))
    said = "; ".join(dict.fromkeys(spoken)) or "it said nothing"
    return said + TUNNEL if HUNG_UP.search(said) else said
