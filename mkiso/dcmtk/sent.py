"""What became of an instance that was to be sent, as storescu and dcmsend tell it (PS3.4 B.2.3)."""

from __future__ import annotations

import re
from collections.abc import Iterable
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


UNREADABLE = Sent(Outcome.UNREADABLE, "DCMTK cannot read it")
Report = dict[Path, Sent]
ACCEPTED = "I: Association Accepted"


class Progress:
    """What has become of each file by now, as a program's log tells it line by line."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.told: Report = {file: Sent(Outcome.NOT_TRIED) for file in files}
        self.associated = False

    @property
    def arrived(self) -> int:
        """How many instances the peer has acknowledged."""
        return sum(one.arrived for one in self.told.values())

    def take(self, line: str) -> None:
        """One further line of the log."""
        self.associated = self.associated or line.startswith(ACCEPTED)

    def report(self) -> Report:
        """What became of each file; the program has ended, and its log was taken to its end."""
        return self.told


def answered(text: str) -> Sent:
    """The outcome that a C-STORE response's status stands for, as DCMTK names it."""
    if text == "Success":
        return Sent(Outcome.ACKNOWLEDGED)
    return Sent(Outcome.WARNED if WARNING.search(text) else Outcome.REFUSED, text)
