"""movescu: C-MOVE of one study, or of one series of it, in the Study Root model (PS3.4 C.4.2).

Its exit status is 0 for timeouts and aborts too; the responses in its debug output are read instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from mkiso.dcmtk.association import Failure, Peer, association_argv, association_error, association_failure, error_text

MOVESCU = "movescu"
STATUS = re.compile(r"^D: DIMSE Status +: 0x([0-9a-f]{4})(?:: (.*\S))?", re.M)
COUNTS = re.compile(r"^D: (Completed|Failed|Warning) Suboperations +: (\d+)", re.M)
REMAINING = re.compile(r"^D: Remaining Suboperations +: (\d+)", re.M)
FAILED_UIDS = re.compile(r"^D: \(0008,0058\) UI \[([0-9.\\]*)", re.M)
FINAL, RESPONSE = "I: Received Final Move Response", "D: Message Type                  : C-MOVE RSP"
CANCELLED = "fe00"


class Ending(Enum):
    """How a C-MOVE ended; whether everything arrived is another question."""

    SUCCESS = "success"
    WARNING = "a warning: some sub-operations failed, or something else that the archive thinks odd"
    FAILURE = "a failure status"
    LOST = "no final response, or that of a C-CANCEL that nobody sent"


WORSE = (Ending.SUCCESS, Ending.WARNING, Ending.LOST, Ending.FAILURE)


@dataclass(frozen=True)
class MoveResult:
    """What the archive said of a C-MOVE: its ending, and how many sub-operations it counted (PS3.4 C.4.2.1.6).

    `explanation` is its own; of a failure, with what to do.
    """

    ending: Ending
    completed: int = 0
    failed: int = 0
    warning: int = 0
    failed_uids: frozenset[str] = frozenset()
    explanation: str = ""
    remaining: int = 0

    @property
    def counted(self) -> int:
        """The sub-operations that the archive has tried."""
        return self.completed + self.failed + self.warning

    @property
    def broke_off(self) -> bool:
        """Whether the archive still had something to send when the C-MOVE was lost or ended."""
        return self.ending is Ending.LOST and self.remaining > 0


def move_argv(
    dcmtk_dir: Path, pacs: Peer, move_destination: str, study_uid: str, timeout: float, series_uid: str | None = None
) -> tuple[str, ...]:
    """`timeout` in seconds; the whole study without `series_uid`."""
    of_series = ("-k", f"SeriesInstanceUID={series_uid}") if series_uid else ()
    return (
        *(str(dcmtk_dir / MOVESCU), "-d", "-S"),
        *association_argv(pacs, timeout),
        *("-aem", move_destination),
        *("-k", f"QueryRetrieveLevel={'SERIES' if series_uid else 'STUDY'}"),
        *("-k", f"StudyInstanceUID={study_uid}"),
        *of_series,
        *(pacs.host, str(pacs.port)),
    )


def combined(results: Iterable[MoveResult]) -> MoveResult:
    """What the C-MOVEs of a study's parts come to: the worst ending, and all that was counted."""
    ends = {ending: number for number, ending in enumerate(WORSE)}
    one, *others = sorted(results, key=lambda result: ends[result.ending]) or [MoveResult(Ending.LOST)]
    for other in others:
        one = MoveResult(
            other.ending,
            one.completed + other.completed,
            one.failed + other.failed,
            one.warning + other.warning,
            one.failed_uids | other.failed_uids,
            other.explanation or one.explanation,
            one.remaining + other.remaining,
        )
    return one


def failure(log: str) -> Failure | None:
    """Why the archive took no association; None where it took one."""
    return association_failure(log) if RESPONSE not in log else None


def announced(log: str) -> int | None:
    """How many sub-operations the C-MOVE has by its first response, done and to come; None where it does not tell."""
    _, _, first = log.partition(RESPONSE)
    first, _, behind = first.partition(RESPONSE)
    remaining = REMAINING.search(first)
    if remaining is None or not (behind or STATUS.search(first)):
        return None
    return int(remaining[1]) + sum(int(number) for _, number in COUNTS.findall(first))


def move_result(pacs: Peer, move_destination: str, log: str) -> MoveResult:
    """How the C-MOVE ended, by its debug output (PS3.4 C.4.2.1.5), and the highest counts of its last responses.

    Raises PacsUnreachable or PacsRejected where there was no association.
    """
    if RESPONSE not in log and (error := association_error(pacs, log)):
        raise error
    ending, explanation = _ending(pacs, move_destination, log)
    counts = {"Completed": 0, "Failed": 0, "Warning": 0}
    last = log[max(0, log.rfind(RESPONSE, 0, log.rfind(RESPONSE))) :]  # two of them: the final one need not count
    for name, number in COUNTS.findall(last):
        counts[name] = max(counts[name], int(number))
    named = frozenset(uid for uids in FAILED_UIDS.findall(last) for uid in uids.split("\\") if uid)
    remaining = [int(number) for number in REMAINING.findall(last)]
    completed, failed, warning = counts.values()
    return MoveResult(ending, completed, failed, warning, named, explanation, remaining[-1] if remaining else 0)


def _ending(pacs: Peer, move_destination: str, log: str) -> tuple[Ending, str]:
    _, final, response = log.rpartition(FINAL)
    status = STATUS.search(response) if final else None
    if status is None:
        return Ending.LOST, error_text(log)
    code, text = status[1], status[2] or ""
    if code == "0000":
        return Ending.SUCCESS, ""
    if code.startswith("b"):
        return Ending.WARNING, text or f"status {code.upper()}"
    if code == CANCELLED:
        return Ending.LOST, f"status {code.upper()}, though nothing was cancelled"
    return Ending.FAILURE, _advice(pacs, move_destination, code, text or "no text")


def _advice(pacs: Peer, move_destination: str, code: str, text: str) -> str:
    ended = f"The PACS {pacs} ended the C-MOVE with status {code.upper()} ({text})."
    if code == "a801":
        return f"{ended} It must know the move destination {move_destination} with this host and port."
    return f"{ended} Its own log tells why; check that it reaches this host as {move_destination}."
