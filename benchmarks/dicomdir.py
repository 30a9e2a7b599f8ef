"""The DICOMDIR of 2,000 and of 20,000 small instances in one series: does its cost grow with their number?"""

import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mkiso.dcmtk.dcmmkdir import Indexer
from mkiso.disc.dicomdir import make_dicomdir
from tests.support.stage import staged_series

SMALL, LARGE = 2_000, 20_000
DCMTK = Path("/usr/bin")
TARGET = 1.3


def seconds(stage: Path, files: Sequence[str], work: Path) -> float:
    began = time.perf_counter()
    made = make_dicomdir(Indexer(DCMTK, stage, "BENCH"), files, work, lambda: None)
    assert made.indexed == tuple(files)
    return time.perf_counter() - began


def main(_arguments: Sequence[str] = ()) -> int:
    with tempfile.TemporaryDirectory(prefix="mkiso-bench-", dir="/var/tmp") as name:
        stage, work = Path(name, "stage"), Path(name, "work")
        work.mkdir()
        files = staged_series(stage, LARGE)
        few, many = (seconds(stage, files[:count], work) for count in (SMALL, LARGE))
        size = (stage / "DICOMDIR").stat().st_size
    ratio = (many / LARGE) / (few / SMALL)
    print(f"{SMALL} instances: {few:.2f} s, {LARGE}: {many:.2f} s, a DICOMDIR of {size / 1e6:.1f} MB")
    print(f"{'ok' if ratio <= TARGET else 'missed'}  an instance among many costs {ratio:.2f} times one among few")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
