"""echoscu: does a peer answer a C-ECHO (PS3.7 9.1.5)?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mkiso.dcmtk.association import Failure, Peer, association_argv, association_failure, words
from mkiso.process import ToolTimeout, run

ANSWERED = "I: Received Echo Response"
ACCEPTED = f"{ANSWERED} (Success)"


def echo_argv(dcmtk_dir: Path, peer: Peer) -> tuple[str, ...]:
    return (
        str(dcmtk_dir / "echoscu"),
        "-v",
        *association_argv(peer, peer.connect_timeout),
        peer.host,
        str(peer.port),
    )


@dataclass(frozen=True)
class EchoFailure:
    """Why a C-ECHO did not succeed; `reached` where the peer was heard of, `busy` where it may answer the next."""

    said: str
    reached: bool
    busy: bool = False

    def __str__(self) -> str:
        return self.said


def echo(dcmtk_dir: Path, peer: Peer, check: Callable[[], None] = lambda: None) -> EchoFailure | None:
    """None where the peer answered with success, else why not; takes at most three `connect_timeout`s."""
    try:
        stderr = run(echo_argv(dcmtk_dir, peer), timeout=3 * peer.connect_timeout, check=check).stderr
    except ToolTimeout as late:
        return EchoFailure(str(late), reached=False)
    if ACCEPTED in stderr:
        return None
    failure = association_failure(stderr)
    reached = ANSWERED in stderr or failure not in (None, Failure.UNREACHABLE)
    return EchoFailure(words(stderr), reached, busy=failure is Failure.BUSY)
