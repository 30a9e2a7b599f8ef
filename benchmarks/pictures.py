"""What a picture costs: dcmj2pnm, started once for each, beside pydicom, NumPy and Pillow in one child for all of them.

Processor time by the kernel, of 48 and of 384 CT images of 512 pixels a side, windowed, as JPEGs of the same quality;
the least of five runs, which alternate. NumPy is no library of mkiso's: `.venv/bin/pip install numpy` before, and
`.venv/bin/pip uninstall numpy` afterwards.
"""

import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from mkiso.dcmtk.converters import OWN_WINDOW, Converter, View, make_picture
from tests.support.studies import RICHARD, ct_study

COUNTS, RUNS = (48, 384), 5
CHILD = """
import sys
import numpy
from PIL import Image
from pydicom import dcmread
from pydicom.pixels import apply_modality_lut, apply_voi_lut
for at, file in enumerate(sys.argv[2:]):
    dataset = dcmread(file)
    grey = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    low, high = grey.min(), grey.max()
    grey = ((grey - low) / max(1, high - low) * 255).astype(numpy.uint8)
    Image.fromarray(grey).save(f"{sys.argv[1]}/{at}.jpg", quality=85)
"""


def processor(act: Callable[[], object]) -> float:
    """Seconds of the processor that the programs took which an act started and waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    act()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(_arguments: Sequence[str] = ()) -> int:
    with tempfile.TemporaryDirectory(prefix="mkiso-bench-", dir="/var/tmp") as name:
        directory = Path(name)
        files = ct_study(directory / "study", RICHARD, "PICTURES", count=max(COUNTS), side=512).files
        converter = Converter(Path("/usr/bin"), directory, lambda: None)

        def one_program_each(some: Sequence[Path]) -> None:
            for file in some:
                assert make_picture(converter, file, directory / "one.jpg", View(1, OWN_WINDOW))

        def one_child(some: Sequence[Path]) -> None:
            subprocess.run((sys.executable, "-c", CHILD, directory, *some), check=True)

        for count in COUNTS:
            some, ways = files[:count], (one_program_each, one_child)
            runs = [[processor(partial(way, some)) for way in ways] for _ in range(RUNS)]
            each, child = (1000 * min(times) / count for times in zip(*runs, strict=True))
            print(f"{count} images: dcmj2pnm {each:.1f} ms of an image, one child {child:.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
