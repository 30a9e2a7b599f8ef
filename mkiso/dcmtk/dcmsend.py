"""dcmsend: C-STORE of every file of a directory, decompressed where the peer takes no other (PS3.4 B).

Its report tells what became of each file. One that is absent from it, or from which it is absent, failed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from mkiso.dcmtk.association import Peer, association_argv
from mkiso.dcmtk.sent import UNREADABLE, Outcome, Report, Sent, answered

RESPONSE = re.compile(
    r"^D: Message Type +: C-STORE RSP$(?:\nD: .*)*?"
    r"\nD: Affected SOP Instance UID +: (?P<uid>[0-9.]+)$(?:\nD: .*)*?"
    r"\nD: DIMSE Status +: 0x[0-9a-f]{4}: (?P<status>.*)$",
    re.M,
)
ENTRY = re.compile(r"^Filename +: (?P<file>[^\n]*)$.*?^DIMSE Status +: (?P<status>[^\n]*)$", re.M | re.S)
STATUS = re.compile(r"0x[0-9a-f]{4} \((.*)\)")
ERRORS = re.compile(r"^E: .*?([0-9a-f]{4}:[0-9a-f]{4}) ", re.M)
# Whatever is not a matter of the network is one of the file.
UNREAD = re.compile(r"^E: cannot send SOP instance from file: (?P<file>.*?): (?!.*(?:DIMSE|DUL|TCP|[Aa]ssoc))", re.M)
BAD_CONTEXT = "0006:0101"
NO_CONTEXT = "<no acceptable presentation context>"


def send_argv(
    dcmtk_dir: Path, peer: Peer, decompress: str, report_file: Path, directory: Path, timeout: float
) -> tuple[str, ...]:
    """`decompress` is -dn (never) or +dly (lossless and lossy, where the peer takes no compressed syntax)."""
    return (
        str(dcmtk_dir / "dcmsend"),
        "-d",
        "-nh",
        *association_argv(peer, timeout),
        "--max-send-pdu",
        "131072",
        decompress,
        "+ma",
        "+sd",
        "+r",
        "--create-report-file",
        str(report_file),
        peer.host,
        str(peer.port),
        str(directory),
    )


def report(text: str, log: str, files: Iterable[Path]) -> Report:
    """What became of each file, named by its SOP Instance UID, from dcmsend's report.

    Where it was ended before it wrote one (`text` is empty), from the responses in its debug output.
    """
    told: Report = {file: Sent(Outcome.NOT_TRIED) for file in files}
    by_uid = {file.name: file for file in told}
    responses = ((by_uid.get(response["uid"]), response["status"]) for response in RESPONSE.finditer(log))
    told |= {file: answered(status.partition(":")[0]) for file, status in responses if file}
    refused = ERRORS.findall(log)
    no_context = bool(refused) and set(refused) == {BAD_CONTEXT}
    told |= {Path(entry["file"]): _sent(entry["status"].strip(), no_context) for entry in ENTRY.finditer(text)}
    return told | {Path(one["file"]): UNREADABLE for one in UNREAD.finditer(log) if Path(one["file"]) in told}


def _sent(status: str, no_context: bool) -> Sent:
    """Of what was not sent, the report tells why only where it could have been decompressed; the log tells the rest."""
    if known := STATUS.fullmatch(status):
        return answered(known[1])
    if status == NO_CONTEXT or no_context:
        return Sent(
            Outcome.NOT_NEGOTIATED, "the peer accepts none of its transfer syntaxes, and it cannot be converted"
        )
    return Sent(Outcome.UNANSWERED, status.strip("<>"))
