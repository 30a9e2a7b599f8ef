"""Archives that are far away: the time of a study by one C-MOVE at a time, by four, and by C-GET, at round trips of 0
to 40 ms; and of 2,000 CT images beside the archive.

`python -m benchmarks.far` takes some half an hour; `--archive`, `--study` and `--round-trip` (ms) choose a part of it.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from benchmarks.line import line
from mkiso.config import parse
from mkiso.installation import Installation
from mkiso.job import Order, running_job
from mkiso.ledger.record import Unrecorded
from mkiso.waiting import Cancellation
from tests.support import datasets, dcmqrscp, orthanc, tools
from tests.support.ports import free_ports
from tests.support.service import settings
from tests.support.studies import RICHARD, Study, several_series

RECEIVER = "RECEIVER"
ROUND_TRIPS = (0, 2, 5, 20, 40)  # ms
LARGE = "2000 CT"
STUDIES = {
    "CT": (40, 512),
    "MR": (200, 256),
    LARGE: (250, 512),
}  # instances of each of 8 series, and their pixels a side
SERIES = 8
WAYS: dict[str, dict[str, object]] = {
    "one": {"parallel_moves": 1},
    "four": {"parallel_moves": 4},
    "C-GET": {"parallel_moves": 4, "retrieve": "get"},
}  # of `pacs`
# By study and round trip: how many times as fast four C-MOVEs have to be as one.
TARGETS = {("CT", 5): 2.0, ("MR", 5): 2.5, ("MR", 20): 3.0, ("CT", 0): 0.95, ("MR", 0): 0.95}
MOST_BY_GET = 1.5  # times as long as by C-MOVE may the large study take by C-GET
SLOW = 10  # ms of a round trip at which a run is long enough to be taken once


def written(root: Path, kind: str) -> Study:
    count, side = STUDIES[kind]
    make = datasets.mr if kind == "MR" else datasets.ct
    return several_series(root, RICHARD, f"FAR.{kind.replace(' ', '')}", make, series=SERIES, count=count, side=side)


@contextmanager
def in_dcmqrscp(
    directory: Path, port: int, receiver: int, studies: Iterable[Study], *, gets: bool = True
) -> Iterator[str]:
    argv = dcmqrscp.configure(directory, port, {RECEIVER: receiver}, gets=gets)
    dcmqrscp.index(directory, (file for study in studies for file in study.files))
    process = dcmqrscp.start(argv, directory, port)
    try:
        yield dcmqrscp.AE_TITLE
    finally:
        tools.end(process)


@contextmanager
def in_orthanc(directory: Path, port: int, receiver: int, studies: Iterable[Study]) -> Iterator[str]:
    (http,) = free_ports(1)
    with orthanc.running_orthanc(directory, (port, http), {RECEIVER: receiver}) as archive:
        for study in studies:
            archive.put(study.files)
        yield orthanc.AE_TITLE


ARCHIVES: dict[str, Callable[..., object]] = {"dcmqrscp": in_dcmqrscp, "Orthanc": in_orthanc}


def seconds(directory: Path, pacs: tuple[int, str], receiver: int, way: dict[str, object], study: Study) -> float:
    """From the look at the archive's list to the proof that everything is there."""
    configuration = settings(directory, pacs[0], {RECEIVER: receiver}, retrieve={"calling_ae_title": RECEIVER})
    configuration["pacs"] |= {"ae_title": pacs[1], **way}
    installation, cancellation = Installation(parse(configuration)), Cancellation()
    order = Order((study.accession,), "bench")
    record = Unrecorded(installation.writer, order.job_id, cancellation)
    os.sync()
    try:
        with running_job(installation, order, cancellation, record) as job:
            studies = job.look_up()
            began = time.monotonic()
            assert len(job.retrieve(studies)) == len(study.files)
            return time.monotonic() - began
    finally:
        installation.ledger.close()


def measured(archive: str, kinds: Sequence[str], round_trips: Sequence[int], repeat: int) -> Iterator[str]:
    """A line for each study and round trip. Each run of a kind follows one of the other."""
    with tempfile.TemporaryDirectory(prefix="mkiso-far-", dir="/var/tmp") as name, ExitStack() as held:
        directory = Path(name)
        far, port, far_receiver, receiver = free_ports(4)
        studies = {kind: written(directory / "held", kind) for kind in kinds}
        title = held.enter_context(ARCHIVES[archive](directory / "archive", port, far_receiver, studies.values()))
        for round_trip in round_trips:
            with line(far, port, round_trip / 1000), line(far_receiver, receiver, round_trip / 1000):
                for kind, study in studies.items():
                    if kind == LARGE and round_trip:
                        continue
                    times: dict[str, list[float]] = {way: [] for way in WAYS}
                    for _ in range(1 if round_trip > SLOW else repeat):
                        for way, settings_of_way in WAYS.items():
                            times[way].append(seconds(directory, (far, title), receiver, settings_of_way, study))
                    yield told(archive, kind, round_trip, study, times)


def told(archive: str, kind: str, round_trip: int, study: Study, times: dict[str, list[float]]) -> str:
    images, size = len(study.files), sum(file.stat().st_size for file in study.files)
    one, four, got = (median(times[way]) for way in WAYS)
    verdicts = [f"four {one / four:.2f} times as fast as one", f"C-GET takes {got / four:.2f} of the time of four"]
    if (target := TARGETS.get((kind, round_trip))) is not None:
        verdicts[0] += f": {'ok' if one / four >= target else 'missed'} (target {target:g})"
    if kind == LARGE:
        verdicts[1] += f": {'ok' if got <= MOST_BY_GET * four else 'missed'} (target {MOST_BY_GET:g})"
    parts = [
        f"{way} {median(runs):.2f} s ({min(runs):.2f} to {max(runs):.2f}),"
        f" {images / median(runs):.0f} images/s, {size / median(runs) / 1e6:.0f} MB/s"
        for way, runs in times.items()
    ]
    return f"{archive} {kind} {round_trip} ms: {'; '.join([*parts, *verdicts])}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="far", description=__doc__)
    parser.add_argument("--archive", choices=ARCHIVES, action="append")
    parser.add_argument("--study", choices=STUDIES, action="append")
    parser.add_argument("--round-trip", type=int, action="append", metavar="MS")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args(arguments)
    for archive in options.archive or ARCHIVES:
        for result in measured(
            archive, options.study or tuple(STUDIES), options.round_trip or ROUND_TRIPS, options.repeat
        ):
            print(result, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
