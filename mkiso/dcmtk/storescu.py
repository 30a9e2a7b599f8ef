"""storescu: C-STORE of every file of a directory in the transfer syntax that it has (PS3.4 B).

As it comes, storescu proposes uncompressed syntaxes alone and loses compressed images with exit
status 0. So it gets an association profile made from the very instances; -nh has it go on behind
a failure, and its log tells what became of each file.

What became of an instance that was to be sent, as storescu and dcmsend tell it (PS3.4 B.2.3).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mkiso.dcmtk.association import Peer, association_argv

WARNING = re.compile(r"Warning\b|0xb[0-9a-f]{3}", re.I)
ACCEPTED = "I: Association Accepted"
Context = tuple[str, str]
MOST_CONTEXTS = 128  # PS3.8 9.3.2.2: odd numbers from 1 to 255
PROFILE = "Instances"
EVENT = re.compile(
    r"^I: Sending file: (?P<file>.*)$"
    r"|^I: Converting transfer syntax: (?P<given>.*) -> (?P<taken>.*)$"
    r"|^I: Received Store Response \((?P<status>.*)\)$"
    r"|^E: Bad DICOM file: (?P<unreadable>.*?): .*$"
    r"|^E: (?P<no_context>No presentation context for: .*)$"
    r"|^E: (?P<lost>[0-9a-f]{4}:[0-9a-f]{4} .*)$"
)
NOT_SENT = "0006:020e"


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


AS_IT_IS = Path(__file__).with_name("as_it_is.py")


def store_argv(dcmtk_dir: Path, peer: Peer, profile: Path, directory: Path, timeout: float) -> tuple[str, ...]:
    return (
        str(dcmtk_dir / "storescu"),
        "-v",
        "-nh",
        *association_argv(peer, timeout),
        "-pdu",
        "131072",
        "--max-send-pdu",
        "131072",
        "-xf",
        str(profile),
        PROFILE,
        "+sd",
        "+r",
        peer.host,
        str(peer.port),
        str(directory),
    )


def store_as_it_is_argv(peer: Peer, directory: Path, timeout: float) -> tuple[str, ...]:
    """The same by `as_it_is`, byte for byte."""
    return (
        *(sys.executable, "-I", str(AS_IT_IS)),
        *(peer.calling, peer.called, peer.host, str(peer.port), str(peer.connect_timeout), str(timeout)),
        str(directory),
    )


@cache
def contexts_for(sop_class: str, transfer_syntax: str) -> frozenset[Context]:
    """The presentation contexts that an instance may go in: its own, and plain ones where that loses nothing."""
    syntaxes = {transfer_syntax}
    if not UID(transfer_syntax).is_encapsulated:
        syntaxes |= {ExplicitVRLittleEndian, ImplicitVRLittleEndian}
    return frozenset((sop_class, str(syntax)) for syntax in syntaxes)


def batches(needed: Iterable[frozenset[Context]]) -> list[set[Context]]:
    """The contexts put into as few associations as come of filling one after the other (at most 128 each)."""
    associations: list[set[Context]] = []
    for contexts in sorted(set(needed), key=sorted):
        if not associations or len(associations[-1] | contexts) > MOST_CONTEXTS:
            associations.append(set())
        associations[-1] |= contexts
    return associations


def association_profile(contexts: Iterable[Context]) -> str:
    """An association configuration (dcmtk's asconfig) that proposes these contexts, each by itself."""
    ordered = sorted(contexts)
    syntaxes = sorted({syntax for _, syntax in ordered})
    lists = "".join(f"[Syntax{n}]\nTransferSyntax1 = {syntax}\n" for n, syntax in enumerate(syntaxes, 1))
    proposed = "".join(
        f"PresentationContext{n} = {sop_class}\\Syntax{syntaxes.index(syntax) + 1}\n"
        for n, (sop_class, syntax) in enumerate(ordered, 1)
    )
    return (
        f"[[TransferSyntaxes]]\n{lists}[[PresentationContexts]]\n[Contexts]\n{proposed}"
        f"[[Profiles]]\n[{PROFILE}]\nPresentationContexts = Contexts\n"
    )


class Sending(Progress):
    """What has become of each file, from storescu's verbose output."""

    def __init__(self, files: Iterable[Path]) -> None:
        super().__init__(files)
        self._file, self._compressed_to_plain = Path(), False

    def take(self, line: str) -> None:
        super().take(line)
        event = EVENT.match(line)
        if event is None:
            return
        if event["unreadable"] is not None:
            self.told[Path(event["unreadable"])] = UNREADABLE
        elif event["file"] is not None:
            self._file, self._compressed_to_plain = Path(event["file"]), False
            self.told[self._file] = Sent(Outcome.UNANSWERED)
        elif event["given"] is not None:
            self._compressed_to_plain = event["given"] != event["taken"]
        elif event["status"] is not None:
            self.told[self._file] = answered(event["status"])
        elif event["no_context"] is not None:
            self.told[self._file] = Sent(Outcome.NOT_NEGOTIATED, event["no_context"])
        elif self.told.get(self._file) == Sent(Outcome.UNANSWERED):
            self.told[self._file] = _lost(event["lost"], self._compressed_to_plain)


def _lost(said: str, compressed_to_plain: bool) -> Sent:
    """storescu cannot decompress: what the peer takes in plain syntaxes alone fails before it is sent."""
    if not said.startswith(NOT_SENT):
        return Sent(Outcome.UNANSWERED, said.partition(" ")[2])
    if compressed_to_plain:
        return Sent(Outcome.NOT_NEGOTIATED, "the peer takes it uncompressed only")
    return Sent(Outcome.NOT_TRIED, "the association was lost")
