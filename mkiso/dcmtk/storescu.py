"""storescu: C-STORE of every file of a directory in the transfer syntax that it has (PS3.4 B).

As it comes, storescu proposes uncompressed syntaxes alone and loses compressed images with exit
status 0. So it gets an association profile made from the very instances; -nh has it go on behind
a failure, and its log tells what became of each file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mkiso.dcmtk.association import Peer, association_argv
from mkiso.dcmtk.sent import UNREADABLE, Outcome, Report, Sent, answered

Context = tuple[str, str]
MOST_CONTEXTS = 128  # PS3.8 9.3.2.2: odd numbers from 1 to 255
PROFILE = "Instances"
EVENT = re.compile(
    r"^I: Sending file: (?P<file>.*)$"
    r"|^I: Converting transfer syntax: (?P<given>.*) -> (?P<taken>.*)$"
    r"|^I: Received Store Response \((?P<status>.*)\)$"
    r"|^E: Bad DICOM file: (?P<unreadable>.*?): .*$"
    r"|^E: (?P<no_context>No presentation context for: .*)$"
    r"|^E: (?P<lost>[0-9a-f]{4}:[0-9a-f]{4} .*)$",
    re.M,
)
AS_IT_IS = Path(__file__).with_name("as_it_is.py")
NOT_SENT = "0006:020e"


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


def report(log: str, files: Iterable[Path]) -> Report:
    """What became of each file, from storescu's verbose output."""
    told: Report = {file: Sent(Outcome.NOT_TRIED) for file in files}
    file, compressed_to_plain = Path(), False
    for event in EVENT.finditer(log):
        if event["unreadable"] is not None:
            told[Path(event["unreadable"])] = UNREADABLE
        elif event["file"] is not None:
            file, compressed_to_plain = Path(event["file"]), False
            told[file] = Sent(Outcome.UNANSWERED)
        elif event["given"] is not None:
            compressed_to_plain = event["given"] != event["taken"]
        elif event["status"] is not None:
            told[file] = answered(event["status"])
        elif event["no_context"] is not None:
            told[file] = Sent(Outcome.NOT_NEGOTIATED, event["no_context"])
        elif told.get(file) == Sent(Outcome.UNANSWERED):
            told[file] = _lost(event["lost"], compressed_to_plain)
    return told


def _lost(said: str, compressed_to_plain: bool) -> Sent:
    """storescu cannot decompress: what the peer takes in plain syntaxes alone fails before it is sent."""
    if not said.startswith(NOT_SENT):
        return Sent(Outcome.UNANSWERED, said.partition(" ")[2])
    if compressed_to_plain:
        return Sent(Outcome.NOT_NEGOTIATED, "the peer takes it uncompressed only")
    return Sent(Outcome.NOT_TRIED, "the association was lost")
