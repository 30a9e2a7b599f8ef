"""dcmsend: C-STORE of every file of a directory, decompressed where the peer takes no other (PS3.4 B).

Its debug output tells each C-STORE's status as it comes, and its report what became of each file in the end:
one that is absent from the report failed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from mkiso.dcmtk.association import Peer, association_argv
from mkiso.dcmtk.storescu import UNREADABLE, Outcome, Progress, Report, Sent, answered

MESSAGE = re.compile(
    r"D: Message Type +: (?P<type>C-STORE R\w+)"
    r"|D: Affected SOP Instance UID +: (?P<uid>[0-9.]+)"
    r"|D: DIMSE Status +: 0x[0-9a-f]{4}: (?P<status>.*)"
    r"|E: .*?(?P<error>[0-9a-f]{4}:[0-9a-f]{4}) "
)
UNREAD = re.compile(r"E: cannot send SOP instance from file: (.*?): (?!.*(?:DIMSE|DUL|TCP|[Aa]ssoc|network))")
ENTRY = re.compile(r"^Filename +: (?P<file>[^\n]*)$.*?^DIMSE Status +: (?P<status>[^\n]*)$", re.M | re.S)
STATUS = re.compile(r"0x[0-9a-f]{4} \((.*)\)")
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


class Sending(Progress):
    """What has become of each file, named by its SOP Instance UID.

    From dcmsend's debug output, in which a response follows its request, and need not name the instance (PS3.7
    9.3.1.2); in the end from its report, which it does not write where it was ended.
    """

    def __init__(self, files: Iterable[Path], report_file: Path) -> None:
        super().__init__(files)
        self._report_file = report_file
        self._by_uid = {file.name: file for file in self.told}
        self._requesting, self._uid = False, ""
        self._errors: set[str] = set()
        self._unread: set[Path] = set()

    def take(self, line: str) -> None:
        super().take(line)
        if unread := UNREAD.match(line):
            self._unread.add(Path(unread[1]))
        said = MESSAGE.match(line)
        if said is None:
            return
        if said["type"]:
            self._requesting = said["type"] == "C-STORE RQ"
        elif said["uid"] and self._requesting:
            self._uid = said["uid"]
        elif said["error"]:
            self._errors.add(said["error"])
        elif said["status"] and (file := self._by_uid.get(self._uid)):
            self.told[file] = answered(said["status"])

    def report(self) -> Report:
        text = self._report_file.read_text(errors="replace") if self._report_file.exists() else ""
        no_context = self._errors == {BAD_CONTEXT}
        entries = {Path(entry["file"]): _sent(entry["status"].strip(), no_context) for entry in ENTRY.finditer(text)}
        return self.told | entries | dict.fromkeys(self._unread & self.told.keys(), UNREADABLE)


def _sent(status: str, no_context: bool) -> Sent:
    """Of what was not sent, the report tells why only where it could have been decompressed; the log tells the rest."""
    if known := STATUS.fullmatch(status):
        return answered(known[1])
    if status == NO_CONTEXT or no_context:
        return Sent(
            Outcome.NOT_NEGOTIATED, "the peer accepts none of its transfer syntaxes, and it cannot be converted"
        )
    return Sent(Outcome.UNANSWERED, status.strip("<>"))
