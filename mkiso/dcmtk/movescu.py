"""movescu: C-MOVE of one study, or of one series of it, in the Study Root model (PS3.4 C.4.2).

Its exit status is 0 for timeouts and aborts too; the final response in its debug output is read instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from mkiso.dcmtk.association import Peer, association_argv, words
from mkiso.dcmtk.pacs import association_error
from mkiso.errors import PacsRejected

STATUS = re.compile(r"^D: DIMSE Status +: 0x([0-9a-f]{4})(?:: (.*\S))?", re.M)
FAILED = re.compile(r"^D: Failed Suboperations +: (\d+)", re.M)
FINAL = "I: Received Final Move Response"


class Ending(Enum):
    """How a C-MOVE ended; whether everything arrived is another question."""

    SUCCESS = "success"
    WARNING = "some sub-operations failed"
    LOST = "the association ended without a final response"


@dataclass(frozen=True)
class Outcome:
    ending: Ending
    failed: int = 0
    said: str = ""


def move_argv(
    dcmtk_dir: Path, pacs: Peer, move_destination: str, study_uid: str, timeout: float, series_uid: str | None = None
) -> tuple[str, ...]:
    """`timeout` in seconds; the whole study without `series_uid`."""
    of_series = ("-k", f"SeriesInstanceUID={series_uid}") if series_uid else ()
    return (
        str(dcmtk_dir / "movescu"),
        "-d",
        "-S",
        *association_argv(pacs, timeout),
        "-aem",
        move_destination,
        "-k",
        f"QueryRetrieveLevel={'SERIES' if series_uid else 'STUDY'}",
        "-k",
        f"StudyInstanceUID={study_uid}",
        *of_series,
        pacs.host,
        str(pacs.port),
    )


def outcome(pacs: Peer, move_destination: str, log: str) -> Outcome:
    """How the C-MOVE ended, from movescu's debug output (PS3.4 C.4.2.1.5).

    Raises PacsUnreachable, PacsRejected (no association, or any failure status).
    """
    if error := association_error(pacs, log):
        raise error
    _, final, response = log.rpartition(FINAL)
    status = STATUS.search(response) if final else None
    if status is None:
        return Outcome(Ending.LOST, said=words(log))
    code = status[1]
    if code == "0000":
        return Outcome(Ending.SUCCESS)
    if code == "b000":
        failed = FAILED.search(response)
        return Outcome(Ending.WARNING, int(failed[1]) if failed else 0, status[2] or "")
    raise PacsRejected(_advice(pacs, move_destination, code, status[2] or "no text"))


def _advice(pacs: Peer, move_destination: str, code: str, text: str) -> str:
    said = f"The PACS {pacs} ended the C-MOVE with status {code.upper()} ({text})."
    if code == "a801":
        return f"{said} It must know the move destination {move_destination} with this host and port."
    return f"{said} Its own log tells why; check that it reaches this host as {move_destination}."
