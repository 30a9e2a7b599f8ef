"""The relay of 200 CT images against bare storescu, and what of a mixed study is lost: `make bench` runs it."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from mkiso.config import parse
from mkiso.installation import Installation
from mkiso.job import Order, relay
from mkiso.waiting import Cancellation
from tests.support.archive import running_archive
from tests.support.ports import free_ports
from tests.support.service import settings
from tests.support.studies import Study, mixed_study
from tests.support.testpacs import running_testpacs
from tests.support.tools import LOCALHOST, running_storescp

AE_TITLE = "DESTINATION"
REPEAT = 7
TARGET = 1.3
TUNED = ("-v", "-nh", "-pdu", "131072", "--max-send-pdu", "131072")


class Bench:
    """One destination, and an installation whose archive can be changed."""

    def __init__(self, directory: Path, receiver: int, port: int) -> None:
        self.directory, self.receiver, self.port = directory, receiver, port
        self.arrived = directory / "arrived"

    def bare(self, study: Study, *options: str, tuned: bool) -> float:
        """Seconds of the notes' `storescu +sd +r`, with the tuned options and without Nagle's delay where asked."""
        argv = ("/usr/bin/storescu", "-aet", "CDRECORD", "-aec", AE_TITLE, *options, "+sd", "+r")
        began = time.monotonic()
        words = (*argv, LOCALHOST, str(self.port), str(study.directory))
        environment = os.environ | ({"TCP_NODELAY": "1"} if tuned else {})
        subprocess.run(words, capture_output=True, check=False, env=environment)
        return time.monotonic() - began

    def ours(self, accession: str, archive: int) -> float:
        """Seconds of the sending, beyond the retrieval."""
        configuration = settings(self.directory, archive, {"CDRECORD": self.receiver})
        peer = {"ae_title": AE_TITLE, "host": LOCALHOST, "port": self.port}
        installation = Installation(parse(configuration | {"destinations": {"relay": peer}}))
        order = Order((accession,), "bench")
        relay(installation, order, "relay", Cancellation())
        seconds = installation.ledger.job(order.job_id)["seconds"]["sending"]
        installation.ledger.close()
        return float(seconds)

    def emptied(self) -> int:
        """How many instances had arrived; none are there afterwards."""
        count = len(list(self.arrived.iterdir()))
        shutil.rmtree(self.arrived)
        self.arrived.mkdir()
        return count


def speed(bench: Bench, study: Study, archive: int) -> None:
    """Interleaved, so that the machine's other work hits all alike."""
    flows: dict[str, Callable[[], float]] = {
        "the notes' storescu": lambda: bench.bare(study, tuned=False),
        "tuned storescu": lambda: bench.bare(study, *TUNED, tuned=True),
        "mkiso": lambda: bench.ours(study.accession, archive),
    }
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(REPEAT):
        for flow, run in flows.items():
            os.sync()
            seconds[flow].append(run())
            bench.emptied()
    for flow, times in seconds.items():
        print(f"relay of 200 images, {flow}: {median(times):.3f} s ({min(times):.3f} to {max(times):.3f}, {REPEAT})")
    ratio = median(seconds["mkiso"]) / median(seconds["tuned storescu"])
    print(f"{'ok' if ratio <= TARGET else 'missed':<6}  relay: {ratio:.2f} times the tuned storescu (target {TARGET})")


def losses(bench: Bench, study: Study, archive: int) -> None:
    bench.bare(study, tuned=True)
    notes = bench.emptied()
    bench.bare(study, "-nh", tuned=True)
    going_on = bench.emptied()
    bench.ours(study.accession, archive)
    total, ours = len(study.files), bench.emptied()
    print(
        f"mixed study of {total}: the notes' storescu lost {total - notes}, with -nh {total - going_on},"
        f" mkiso {total - ours}"
    )


def main(_arguments: Sequence[str] = ()) -> int:
    pacs_port, archive_port, receiver, port = free_ports(4)
    with tempfile.TemporaryDirectory(prefix="mkiso-bench-", dir="/var/tmp") as name:
        directory = Path(name)
        bench = Bench(directory, receiver, port)
        destinations = {"CDRECORD": receiver}
        mixed = mixed_study(directory / "held")
        with (
            running_storescp(AE_TITLE, port, bench.arrived, directory / "destination.log"),
            running_testpacs(directory / "pacs", pacs_port, destinations, bench=True) as pacs,
            running_archive(archive_port, destinations, mixed.directory.parent),
        ):
            speed(bench, pacs.study("BENCH.200"), pacs_port)
            losses(bench, mixed, archive_port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
