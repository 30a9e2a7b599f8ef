"""echoscu: does a peer answer a C-ECHO (PS3.7 9.1.5)?"""

from __future__ import annotations

from pathlib import Path

from mkiso.dcmtk.association import Peer, association_argv, whole_seconds, words
from mkiso.process import ToolTimeout, run

ACCEPTED = "I: Received Echo Response (Success)"


def echo_argv(dcmtk_dir: Path, peer: Peer) -> tuple[str, ...]:
    return (
        str(dcmtk_dir / "echoscu"),
        "-v",
        *association_argv(peer),
        "-td",
        whole_seconds(peer.connect_timeout),
        peer.host,
        str(peer.port),
    )


def echo(dcmtk_dir: Path, peer: Peer) -> str | None:
    """None where the peer answered with success, else why not; takes at most three `connect_timeout`s."""
    try:
        result = run(echo_argv(dcmtk_dir, peer), timeout=3 * peer.connect_timeout, ok=None)
    except ToolTimeout as late:
        return str(late)
    return None if ACCEPTED in result.stderr else words(result.stderr)
