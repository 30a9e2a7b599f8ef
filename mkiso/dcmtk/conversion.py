"""What the programs that make one file of another have in common."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mkiso.process import Limits, Result, run

LIMIT = 60.0
# What a program may take, in bytes. It is not by what an instance says of itself, for that may be a lie. Two run
# at once for a job, and the unit has 4 GB. dcmj2pnm takes 2.4 times the frame, GDCM 4.6 times all frames, DCMTK twice
# these where it decodes all, once what a deflated instance or a document is: more is too large for a picture,
MEMORY = 1500 << 20
# and more than this to be sent, or decompressed for a disc.
MEMORY_FOR_ALL = 3 << 30
LARGEST_FILE = 5 << 28  # decoded pixels with what is around them, a document
LARGEST_PICTURE = 1 << 23  # as large as one of 1,200 pixels a side without compression; the worker reads it
LARGEST_PAGE = 1 << 21  # of a report; the worker reads it


class TooLarge(Exception):
    """More than may be read, decoded or written."""


@dataclass(frozen=True)
class Converter:
    """Runs them for the job that has `directory`, each `limit` seconds at most, where `nice` behind other programs.

    Each has `memory` bytes: one that needs more fails as on any other instance.
    """

    dcmtk_dir: Path
    directory: Path
    check: Callable[[], None]
    limit: float = LIMIT
    nice: bool = True
    memory: int = MEMORY

    def run(self, argv: Sequence[str], largest: int = LARGEST_FILE) -> Result:
        """Raises ToolTimeout, Internal where it cannot be started, TooLarge for its file, and what `check` raises."""
        limits = Limits(self.memory, largest)
        result = run(
            argv,
            timeout=self.limit,
            cwd=self.directory,
            check=self.check,
            nice=self.nice,
            limits=limits,
            heard=False,
        )
        if result.rc == -signal.SIGXFSZ:
            raise TooLarge
        return result

    def makes(self, argv: Sequence[str], product: Path, largest: int = LARGEST_FILE) -> bool:
        """Whether the program ended well and its product is there. Raises what `run` raises."""
        return self.run(argv, largest).rc == 0 and product.exists()
