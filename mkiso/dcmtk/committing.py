"""`commit`: Storage Commitment (PS3.4 J.3), which no program of DCMTK does, and what a peer said of each instance."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mkiso.dcmtk.association import Peer
from mkiso.dcmtk.converters import MEMORY
from mkiso.process import Limits

COMMIT = Path(__file__).with_name("commit.py")
LIMITS = Limits(MEMORY)
# Failure Reason (PS3.3 C.14.1.1)
REASONS = {
    0x0110: "processing failure",
    0x0112: "no such instance",
    0x0119: "class and instance conflict",
    0x0122: "SOP class not supported",
    0x0131: "duplicate transaction",
    0x0213: "resource limitation",
}
UNNAMED = "its report does not name it"


@dataclass(frozen=True)
class Told:
    """The instances that a peer has committed itself to, those that it has not, with its reasons, and `why` not all.

    Where it is `busy` it takes no association for now.
    """

    confirmed: frozenset[str]
    failed: Mapping[str, str]
    why: str = ""
    busy: bool = False


def commit_argv(peer: Peer, port: int, timeout: float, file: Path) -> tuple[str, ...]:
    """`file` has the SOP classes of the instances by their UIDs, as JSON; without a `port`, 0, it does not listen."""
    return (
        *(sys.executable, "-I", str(COMMIT)),
        *(peer.calling, peer.called, peer.host, str(peer.port), str(peer.connect_timeout), str(timeout)),
        *(str(port), str(file)),
    )


def told(peer: Peer, output: str, errors: str) -> Told:
    """What the program wrote, a JSON object a line: {"uid": …, "reason": …} of an instance, null where it is there."""
    confirmed, failed, why, busy = set[str](), dict[str, str](), "it ended without a word", False
    for line in output.splitlines():
        try:
            one = json.loads(line)
        except ValueError:  # it was killed as it wrote
            continue
        if "uid" not in one:
            why, busy = one["why"], one["busy"]
        elif one["reason"] is None:
            confirmed.add(one["uid"])
        else:
            failed[one["uid"]] = (
                REASONS.get(one["reason"], f"failure reason {one['reason']:04x}") if one["reason"] else UNNAMED
            )
    if not output and errors.strip():
        why = errors.strip().splitlines()[-1]
    return Told(frozenset(confirmed), failed, f"{peer} does not commit itself: {why}." if why else "", busy)
