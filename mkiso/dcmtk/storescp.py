"""storescp: the receiver of a C-MOVE's sub-operations (PS3.4 B.2.2).

`--fork` keeps a connection that is held open, or a second association, from stalling the first; `+B`
writes what came bit for bit; `+xa -pm` takes every transfer syntax and private SOP classes; `+uf` gives each
file a name of its own, so that nothing that came is overwritten.
"""

from __future__ import annotations

from pathlib import Path

from mkiso.dcmtk.association import whole_seconds, words

IDLE_LIMIT = 600
OUT_OF_SPACE = "Cannot write to file"


def receive_argv(dcmtk_dir: Path, ae_title: str, port: int, directory: Path, stall_timeout: float) -> tuple[str, ...]:
    return (
        str(dcmtk_dir / "storescp"),
        "-v",
        "--fork",
        "-aet",
        ae_title,
        "+xa",
        "-pm",
        "+B",
        "-pdu",
        "131072",
        "+uf",
        "-ta",
        "5",
        "-ts",
        whole_seconds(max(IDLE_LIMIT, 2 * stall_timeout)),
        "-od",
        str(directory),
        str(port),
    )


def complaint(log: str) -> str:
    """storescp's own words on why it did not start."""
    return words(log)


def ran_out_of_space(line: str) -> bool:
    """Whether it tells here that it refused an instance for want of space (A700, PS3.4 B.2.3)."""
    return OUT_OF_SPACE in line
