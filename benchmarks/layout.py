"""A pdi disc of 2,000 and of 20,000 small instances in one series, laid out: does its cost grow with their number?"""

import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mkiso.config import Config
from mkiso.dicom.instances import Instance, read_whole
from mkiso.disc.layout import Setting, pdi
from mkiso.workspace import Workspace
from tests.support.stage import staged_series

SMALL, LARGE = 2_000, 20_000
TARGET = 1.3


def received(directory: Path, count: int) -> list[Instance]:
    files = staged_series(directory, count)
    return [instance for file in files if (instance := read_whole(directory / file))]


def seconds(directory: Path, count: int) -> float:
    """Of a layout in a directory of its own, from the received instances to the tree: DICOMDIR, pictures, pages."""
    instances = received(directory / "received", count)
    workspace = Workspace(directory)
    workspace.disc.mkdir()
    began = time.perf_counter()
    tree = pdi(instances, Setting(Config(), workspace, "iso", lambda: None))
    assert (len(instances), tree.not_indexed) == (count, 0)
    return time.perf_counter() - began


def main(_arguments: Sequence[str] = ()) -> int:
    with tempfile.TemporaryDirectory(prefix="mkiso-bench-", dir="/var/tmp") as name:
        few, many = (seconds(Path(name, f"{count}"), count) for count in (SMALL, LARGE))
        size = Path(name, f"{LARGE}", "disc", "DICOMDIR").stat().st_size
    ratio = (many / LARGE) / (few / SMALL)
    print(f"{SMALL} instances: {few:.2f} s, {LARGE}: {many:.2f} s, a DICOMDIR of {size / 1e6:.1f} MB")
    print(f"{'ok' if ratio <= TARGET else 'missed'}  an instance among many costs {ratio:.2f} times one among few")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
