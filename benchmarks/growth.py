"""Discs of 2,000 and of 20,000 MR images in twenty series, from Orthanc: how a disc's time grows with its images.

`python -m benchmarks.growth [--repeat N]` takes some five minutes and 8 GB under /var/tmp.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.far import RECEIVER, in_orthanc
from mkiso.config import parse
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from mkiso.waiting import Cancellation
from tests.support import datasets
from tests.support.ports import free_ports
from tests.support.service import settings
from tests.support.studies import RICHARD, Study, several_series

SERIES = 20
COUNTS = (100, 1_000)  # images of each series
TIMES = 10.0


def seconds(installation: Installation, study: Study) -> float:
    """From the order to the disc's last byte."""
    os.sync()
    began = time.monotonic()
    disc = make_disc(installation, Order((study.accession,), "bench", "legacy"), Cancellation())
    assert sum(map(len, disc)) == disc.size
    return time.monotonic() - began


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="growth", description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    repeat = parser.parse_args(arguments).repeat
    with tempfile.TemporaryDirectory(prefix="mkiso-growth-", dir="/var/tmp") as name:
        directory, (port, receiver) = Path(name), free_ports(2)
        studies = [
            several_series(
                directory / "held", RICHARD, f"GROWTH.{count}", datasets.mr, series=SERIES, count=count, side=256
            )
            for count in COUNTS
        ]
        with in_orthanc(directory / "archive", port, receiver, studies) as title:
            made = settings(directory, port, {RECEIVER: receiver}, retrieve={"calling_ae_title": RECEIVER})
            made["pacs"] |= {"ae_title": title}
            installation = Installation(parse(made))
            runs = [[seconds(installation, study) for study in studies] for _ in range(repeat)]
            installation.ledger.close()
    few, many = (median(times) for times in zip(*runs, strict=True))
    for count, times in zip(COUNTS, zip(*runs, strict=True), strict=True):
        print(f"{SERIES * count} images: {median(times):.2f} s ({min(times):.2f} to {max(times):.2f})")
    verdict = "ok" if many <= TIMES * few else "missed"
    print(f"ten times the images take {many / few:.1f} times as long: {verdict} (target {TIMES:g})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
