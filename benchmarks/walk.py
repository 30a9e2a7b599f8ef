"""1,000 CT files read as received ones are, against pydicom's headers alone: `make bench` runs it."""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pydicom import dcmread

from mkiso.dicom.instances import read_whole
from tests.support.studies import RICHARD, ct_study

FILES, REPEAT = 1000, 7
TARGET = 0.04
WANTED = ["SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID"]


def header(path: Path) -> object:
    """What pydicom tells of a file without a proof that it is whole."""
    return dcmread(path, stop_before_pixels=True, specific_tags=WANTED).SOPInstanceUID


def seconds(read: Callable[[Path], object], files: Sequence[Path]) -> float:
    began = time.perf_counter()
    assert all(read(path) for path in files)
    return time.perf_counter() - began


def figures(files: Sequence[Path]) -> tuple[float, float]:
    """Seconds of our walk and of pydicom's headers, the best of several: turn by turn, the cache warm."""
    runs = [(seconds(read_whole, files), seconds(header, files)) for _ in range(REPEAT)]
    return min(ours for ours, _ in runs), min(theirs for _, theirs in runs)


def main(_arguments: Sequence[str] = ()) -> int:
    with tempfile.TemporaryDirectory(prefix="mkiso-bench-", dir="/var/tmp") as name:
        files = ct_study(Path(name), RICHARD, "BENCH.WALK", count=FILES, side=512).files
        ours, theirs = figures(files)
    print(f"{'ok' if ours <= TARGET else 'missed':<6}  {FILES} CT files walked: {ours:.3f} s (target {TARGET})")
    print(f"{'':<6}  pydicom's headers, and no proof: {theirs:.3f} s, {theirs / ours:.1f} times as long")
    return 0


if __name__ == "__main__":
    sys.exit(main())
