"""What became of an instance that was to be sent, as storescu and dcmsend tell it (PS3.4 B.2.3)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

WARNING = re.compile(r"Warning\b|0xb[0-9a-f]{3}", re.I)


class Outcome(Enum):
    ACKNOWLEDGED = "acknowledged"
    WARNED = "warned"
    REFUSED = "refused"
    NOT_NEGOTIATED = "not negotiated"
    UNANSWERED = "unanswered"
    NOT_TRIED = "not tried"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Sent:
    """One file's outcome, and the peer's words where it had any."""

    outcome: Outcome
    said: str = ""

    @property
    def arrived(self) -> bool:
        """Whether the peer has stored the instance: a warning (B0xx) says so too."""
        return self.outcome in (Outcome.ACKNOWLEDGED, Outcome.WARNED)


Report = dict[Path, Sent]
UNREADABLE = Sent(Outcome.UNREADABLE, "DCMTK cannot read it")
ARRIVED = re.compile(r"^I: Received (?:Store|C-STORE) Response \((?:Success|Warning)", re.M)


def arrived(log: str) -> int:
    """How many instances the peer has acknowledged by now, from either program's verbose output."""
    return len(ARRIVED.findall(log))


def answered(text: str) -> Sent:
    """The outcome that a C-STORE response's status stands for, as DCMTK names it."""
    if text == "Success":
        return Sent(Outcome.ACKNOWLEDGED)
    return Sent(Outcome.WARNED if WARNING.search(text) else Outcome.REFUSED, text)
