"""The benchmark: 3, 200 and 2,000 images by the notes' flow, at the floor, and by mkiso over HTTP.

mkiso makes an ISO, a ZIP and a protected ZIP with the layout legacy, and ISOs with the layout pdi, with pictures and
without.

`python -m benchmarks.bench [--only 3,200,2000] [--repeat N]`, on a quiet machine with 6 GB free under /var/tmp.
It never signals anything but what it started.
The exit status says whether everything worked, not how fast it was.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import processes, report
from benchmarks.flows import Case, Flow, http_flow, shell_flow
from benchmarks.service import Observed, Service, observe, pages, running_service, warm_up
from tests.support.ports import free_ports
from tests.support.testpacs import RunningPacs, running_testpacs

ACCESSIONS = {3: "BENCH.003", 200: "BENCH.200", 2000: "LARGE.001"}
WARM = "BENCH.003"
VIEWER_BYTES = 10**9
BLOCK = 10**6
OBSERVABLE = 32 * 10**6


def _sizes(text: str) -> list[int]:
    sizes = [int(part) for part in text.split(",") if part.strip().isdecimal()]
    if not sizes or not set(sizes) <= set(ACCESSIONS):
        raise argparse.ArgumentTypeError(f"some of {','.join(map(str, ACCESSIONS))}")
    return sizes


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("a number from 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description="How long a disc takes, and what it costs.")
    parser.add_argument("--only", type=_sizes, default=list(ACCESSIONS), metavar="3,200,2000", help="how many images")
    parser.add_argument("--repeat", type=_positive, default=3, help="runs of each flow (default: %(default)s)")
    return parser


@contextmanager
def _interruptible() -> Iterator[None]:
    """Adopt orphans, end in good order at Ctrl-C and SIGTERM, and leave no process behind."""
    processes.adopt_orphans()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        processes.end_descendants()


def _case(pacs: RunningPacs, images: int) -> Case:
    study = pacs.study(ACCESSIONS[images])
    return Case(study.accession, study.files)


def _measure(case: Case, flows: dict[str, Flow], service: Service, repeat: int) -> report.Measured:
    """Every flow `repeat` times, one after the other and every second time the other way round.

    So a noisy moment hits all alike, and none is always behind the same other. The notes' flow of the
    largest study takes minutes, and runs once.
    """
    measured = report.Measured(case, {name: [] for name in flows}, [], [])
    for number in range(repeat):
        for name, flow in list(flows.items())[:: -1 if number % 2 else 1]:
            if name != "notes" or case.images < max(ACCESSIONS) or number == 0:
                measured.runs[name].append(flow(case))
                _say(f"{case.images} images, {name}: {measured.runs[name][-1].seconds:.3f} s")
        if case.bytes > OBSERVABLE:
            measured.observed.append(observe(service, case.accession))
    if case.bytes > OBSERVABLE:
        measured.pages.append(pages(service, case.accession))
    return measured


def _large_disc(directory: Path, pacs: RunningPacs, receiver: int) -> Observed:
    """A disc of 2 GB: the largest study beside a viewer of 1 GB."""
    viewer = directory / "viewer"
    viewer.mkdir()
    with (viewer / "viewer.bin").open("wb") as file:
        for _ in range(VIEWER_BYTES // BLOCK):
            file.write(os.urandom(BLOCK))
    (port,) = free_ports(1)
    with running_service(directory / "viewing", port, pacs.port, receiver, viewer_dir=str(viewer)) as service:
        warm_up(service, WARM)
        return observe(service, ACCESSIONS[2000])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _bench(directory: Path, sizes: Sequence[int], repeat: int) -> None:
    pacs_port, http_port, plain_port, *receivers = free_ports(6)
    ae_titles = dict(zip(("NOTES", "FLOOR", "CDRECORD"), receivers, strict=True))
    _say("writing the studies into a test PACS")
    with (
        running_testpacs(directory / "pacs", pacs_port, ae_titles, large=2000 in sizes, bench=True) as pacs,
        running_service(directory / "mkiso", http_port, pacs_port, ae_titles["CDRECORD"]) as service,
        running_service(directory / "plain", plain_port, pacs_port, ae_titles["CDRECORD"], pictures=0) as plain,
    ):
        for one in (service, plain):
            warm_up(one, WARM)
        flows = {
            "notes": shell_flow("notes.sh", directory, pacs_port, "NOTES", ae_titles["NOTES"]),
            "floor": shell_flow("floor.sh", directory, pacs_port, "FLOOR", ae_titles["FLOOR"]),
            "mkiso": http_flow(service, "legacy"),
            "zip": http_flow(service, "legacy", "zip"),
            "protected": http_flow(service, "legacy", "zip", ("password=benchmark",)),
            "pdi": http_flow(service, "pdi"),
            "pdi, no pictures": http_flow(plain, "pdi"),
        }
        load = " ".join(f"{one:.2f}" for one in os.getloadavg())
        measured = [_measure(_case(pacs, images), flows, service, repeat) for images in sizes]
        service.process.terminate()
        service.process.wait(timeout=30)
        large_disc = _large_disc(directory, pacs, ae_titles["CDRECORD"]) if 2000 in sizes else None
    print(f"load average before: {load}; {os.cpu_count()} cores\n\n{report.table(measured)}\n")
    print("\n".join(report.details(one) for one in measured), end="\n\n")
    print(report.targets(measured, large_disc))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; 0 where everything worked, 1 where something failed, 130 where it was interrupted."""
    options = _parser().parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="mkiso-bench-", dir="/var/tmp") as directory, _interruptible():
            _bench(Path(directory), options.only, options.repeat)
    except KeyboardInterrupt:
        return 130
    except Exception as problem:  # the boundary
        print(f"bench: {type(problem).__name__}: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
