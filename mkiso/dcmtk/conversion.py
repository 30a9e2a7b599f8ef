"""What the programs that make one file of another have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mkiso.process import Result, run

LIMIT = 60.0


@dataclass(frozen=True)
class Converter:
    """Runs them for the job that has `directory`, each `limit` seconds at most, where `nice` behind other programs."""

    dcmtk_dir: Path
    directory: Path
    check: Callable[[], None]
    limit: float = LIMIT
    nice: bool = True

    def run(self, argv: Sequence[str]) -> Result:
        """Raises ToolTimeout, Internal where the program cannot be started, and whatever `check` raises."""
        return run(argv, timeout=self.limit, cwd=self.directory, check=self.check, nice=self.nice)

    def makes(self, argv: Sequence[str], product: Path) -> bool:
        """Whether the program ended well and its product is there. Raises what `run` raises."""
        return self.run(argv).rc == 0 and product.exists()
