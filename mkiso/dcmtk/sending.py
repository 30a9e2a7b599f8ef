"""storescu, dcmsend and `as_it_is`: C-STORE of every file of a directory, and what became of each (PS3.4 B.2.3).

As it comes, storescu proposes uncompressed syntaxes alone and loses compressed images with exit status 0. So it gets
an association profile made from the very instances; -nh has it go on behind a failure.

dcmsend decompresses where the peer takes no other. Its debug output tells each C-STORE's status as it comes, and its
report what became of each file in the end: one that is absent from the report failed.

`as_it_is` sends byte for byte, and writes what storescu writes.
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

from mkiso.dcmtk.association import LARGEST_PDU, Peer, association_argv

STORESCU, DCMSEND = "storescu", "dcmsend"
AS_IT_IS = Path(__file__).with_name("as_it_is.py")
Context = tuple[str, str]
MOST_CONTEXTS = 128  # PS3.8 9.3.2.2: odd numbers from 1 to 255
PROFILE = "Instances"
WARNING = re.compile(r"Warning\b|0xb[0-9a-f]{3}", re.I)
DUPLICATE = re.compile(r"\b0x0?111\b|DuplicateSOPInstance")  # PS3.7 C.4.1
ACCEPTED = "I: Association Accepted"
EVENT_OF_STORESCU = re.compile(
    r"^I: Sending file: (?P<file>.*)$"
    r"|^I: Converting transfer syntax: (?P<given>.*) -> (?P<taken>.*)$"
    r"|^I: Received Store Response \((?P<status>.*)\)$"
    r"|^E: Bad DICOM file: (?P<unreadable>.*?): .*$"
    r"|^E: (?P<no_context>No presentation context for: .*)$"
    r"|^E: (?P<lost>[0-9a-f]{4}:[0-9a-f]{4} .*)$"
)
NOT_SENT = "0006:020e"
EVENT_OF_DCMSEND = re.compile(
    r"D: Message Type +: (?P<type>C-STORE R\w+)"
    r"|D: Affected SOP Instance UID +: (?P<uid>[0-9.]+)"
    r"|D: DIMSE Status +: 0x[0-9a-f]{4}: (?P<status>.*)"
    r"|E: .*?(?P<error>[0-9a-f]{4}:[0-9a-f]{4}) "
)
UNREAD = re.compile(r"E: cannot send SOP instance from file: (.*?): (?!.*(?:DIMSE|DUL|TCP|[Aa]ssoc|network))")
BAD_CONTEXT = "0006:0101"
ENTRY_OF_REPORT = re.compile(r"^Filename +: (?P<file>[^\n]*)$.*?^DIMSE Status +: (?P<status>[^\n]*)$", re.M | re.S)
STATUS_OF_REPORT = re.compile(r"0x[0-9a-f]{4} \((.*)\)")
NO_CONTEXT = "<no acceptable presentation context>"


class Outcome(Enum):
    """What became of an instance that was to be sent."""

    ACKNOWLEDGED = "acknowledged"
    WARNED = "warned"
    ALREADY_THERE = "already there"
    ARRIVED_BEFORE = "arrived before"
    REFUSED = "refused"
    NOT_NEGOTIATED = "not negotiated"
    UNANSWERED = "unanswered"
    NOT_TRIED = "not tried"
    UNREADABLE = "unreadable"
    NOT_CONFIRMED = "not confirmed"

    @property
    def arrived(self) -> bool:
        """Whether the peer has the instance, by its own word: a warning (B0xx) says so too, and a duplicate (0111)."""
        return self in (Outcome.ACKNOWLEDGED, Outcome.WARNED, Outcome.ALREADY_THERE, Outcome.ARRIVED_BEFORE)


@dataclass(frozen=True)
class StoreResult:
    """One instance's outcome, and why, where the peer or the program tells."""

    outcome: Outcome
    why: str = ""

    @property
    def arrived(self) -> bool:
        return self.outcome.arrived


UNREADABLE = StoreResult(Outcome.UNREADABLE, "DCMTK cannot read it")


def store_result(status: str) -> StoreResult:
    """What a C-STORE response's status says, as DCMTK names it."""
    if status == "Success":
        return StoreResult(Outcome.ACKNOWLEDGED)
    if DUPLICATE.search(status):
        return StoreResult(Outcome.ALREADY_THERE)
    return StoreResult(Outcome.WARNED if WARNING.search(status) else Outcome.REFUSED, status)


class StoreProgress:
    """What has become of each file by now, as a program's log tells it line by line."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.results = {file: StoreResult(Outcome.NOT_TRIED) for file in files}
        self.associated = False
        self.arrived = 0  # how many instances the peer has acknowledged
        self._news: list[Path] = []

    def news(self) -> list[Path]:
        """The files that have arrived since the last call."""
        news, self._news = self._news, []
        return news

    def _answered(self, file: Path, status: str) -> None:
        before, now = self.results.get(file), store_result(status)
        self.arrived += now.arrived - (before is not None and before.arrived)
        self.results[file] = now
        if now.arrived:
            self._news.append(file)

    def take(self, line: str) -> None:
        """One further line of the log."""
        self.associated = self.associated or line.startswith(ACCEPTED)

    def final_results(self) -> dict[Path, StoreResult]:
        """What became of each file; the program has ended, and its log was taken to its end."""
        return self.results


class StorescuProgress(StoreProgress):
    """As storescu's verbose output tells it."""

    def __init__(self, files: Iterable[Path]) -> None:
        super().__init__(files)
        self._file, self._compressed_to_plain = Path(), False

    def take(self, line: str) -> None:
        super().take(line)
        event = EVENT_OF_STORESCU.match(line)
        if event is None:
            return
        if event["unreadable"] is not None:
            self.results[Path(event["unreadable"])] = UNREADABLE
        elif event["file"] is not None:
            self._file, self._compressed_to_plain = Path(event["file"]), False
            self.results[self._file] = StoreResult(Outcome.UNANSWERED)
        elif event["given"] is not None:
            self._compressed_to_plain = event["given"] != event["taken"]
        elif event["status"] is not None:
            self._answered(self._file, event["status"])
        elif event["no_context"] is not None:
            self.results[self._file] = StoreResult(Outcome.NOT_NEGOTIATED, event["no_context"])
        elif self.results.get(self._file) == StoreResult(Outcome.UNANSWERED):
            self.results[self._file] = self._lost(event["lost"])

    def _lost(self, error: str) -> StoreResult:
        """storescu cannot decompress: what the peer takes in plain syntaxes alone fails before it is sent."""
        if not error.startswith(NOT_SENT):
            return StoreResult(Outcome.UNANSWERED, error.partition(" ")[2])
        if self._compressed_to_plain:
            return StoreResult(Outcome.NOT_NEGOTIATED, "the peer takes it uncompressed only")
        return StoreResult(Outcome.NOT_TRIED, "the association was lost")


class DcmsendProgress(StoreProgress):
    """As dcmsend tells it, of files that are named by their SOP Instance UIDs.

    In its debug output a response follows its request, and need not name the instance (PS3.7 9.3.1.2); what counts in
    the end is its report, which it does not write where it was ended.
    """

    def __init__(self, files: Iterable[Path], report_file: Path) -> None:
        super().__init__(files)
        self._report_file = report_file
        self._by_uid = {file.name: file for file in self.results}
        self._requesting, self._uid = False, ""
        self._errors: set[str] = set()
        self._unread: set[Path] = set()

    def take(self, line: str) -> None:
        super().take(line)
        if unread := UNREAD.match(line):
            self._unread.add(Path(unread[1]))
        event = EVENT_OF_DCMSEND.match(line)
        if event is None:
            return
        if event["type"]:
            self._requesting = event["type"] == "C-STORE RQ"
        elif event["uid"] and self._requesting:
            self._uid = event["uid"]
        elif event["error"]:
            self._errors.add(event["error"])
        elif event["status"] and (file := self._by_uid.get(self._uid)):
            self._answered(file, event["status"])

    def final_results(self) -> dict[Path, StoreResult]:
        report = self._report_file.read_text(errors="replace") if self._report_file.exists() else ""
        entries = ENTRY_OF_REPORT.finditer(report)
        reported = {Path(entry["file"]): self._reported(entry["status"].strip()) for entry in entries}
        return self.results | reported | dict.fromkeys(self._unread & self.results.keys(), UNREADABLE)

    def _reported(self, status: str) -> StoreResult:
        """Of what was not sent, the report tells why only where it could be decompressed; the log tells the rest."""
        if known := STATUS_OF_REPORT.fullmatch(status):
            return store_result(known[1])
        if status == NO_CONTEXT or self._errors == {BAD_CONTEXT}:
            why = "the peer accepts none of its transfer syntaxes, and it cannot be converted"
            return StoreResult(Outcome.NOT_NEGOTIATED, why)
        return StoreResult(Outcome.UNANSWERED, status.strip("<>"))


def storescu_argv(dcmtk_dir: Path, peer: Peer, profile: Path, directory: Path, timeout: float) -> tuple[str, ...]:
    return (
        *(str(dcmtk_dir / STORESCU), "-v", "-nh"),
        *association_argv(peer, timeout),
        *("-pdu", LARGEST_PDU, "--max-send-pdu", LARGEST_PDU),
        *("-xf", str(profile), PROFILE),
        *("+sd", "+r", peer.host, str(peer.port), str(directory)),
    )


def dcmsend_argv(
    dcmtk_dir: Path, peer: Peer, decompress: str, report_file: Path, directory: Path, timeout: float
) -> tuple[str, ...]:
    """`decompress` is -dn (never) or +dly (lossless and lossy, where the peer takes no compressed syntax)."""
    return (
        *(str(dcmtk_dir / DCMSEND), "-d", "-nh"),
        *association_argv(peer, timeout),
        *("--max-send-pdu", LARGEST_PDU, decompress, "+ma"),
        *("+sd", "+r", "--create-report-file", str(report_file)),
        *(peer.host, str(peer.port), str(directory)),
    )


def as_it_is_argv(peer: Peer, directory: Path, timeout: float) -> tuple[str, ...]:
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
