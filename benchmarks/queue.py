"""Queued relays: beside a synchronous one, many on four receivers, and what a hundred that wait cost.

`make bench` runs it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.relay import TUNED
from tests.support.archive import running_archive
from tests.support.mariadb import running_mariadb
from tests.support.ports import free_ports
from tests.support.service import Service, running_service, settings
from tests.support.studies import JOHN, ct_study
from tests.support.testpacs import RunningPacs, running_testpacs
from tests.support.tools import LOCALHOST, running_storescp, wait_until

AE_TITLE = "DESTINATION"
REPEAT = 5
LATER = 1.0  # s
RELAYS, INSTANCES, RECEIVERS = 50, 20, 4
WAITING, WATCHED = 100, 60.0
SETTLED = 10.0  # by then the first of them has found the destination away
CORE, STATEMENTS = 2.0, 500.0  # per cent, a minute


def verdict(ok: bool, text: str) -> None:
    print(f"{'ok' if ok else 'missed':<6}  {text}")


def queued(service: Service, accession: str) -> str:
    url = f"/api/iso/relay?accession_numbers={accession}&queue=1&job={uuid.uuid4()}"
    relay_id: str = service.get(url).json()["relay_id"]
    return relay_id


def wait_for(service: Service, relay_ids: Sequence[str]) -> None:
    left = list(relay_ids)

    def has_ended() -> bool:
        while left and service.get(f"/api/relays/{left[0]}").json()["state"] == "done":
            left.pop(0)
        return not left

    wait_until(has_ended, 600, lambda: f"{len(left)} relays have not arrived")


def beside_a_synchronous_one(service: Service, accession: str) -> None:
    seconds: dict[str, list[float]] = {"synchronous": [], "queued": []}
    for _ in range(REPEAT):
        began = time.monotonic()
        assert service.get(f"/api/iso/relay?accession_numbers={accession}").ok
        seconds["synchronous"].append(time.monotonic() - began)
        began = time.monotonic()
        wait_for(service, [queued(service, accession)])
        seconds["queued"].append(time.monotonic() - began)
    for name, times in seconds.items():
        print(f"relay of 200 images, {name}: {median(times):.3f} s ({min(times):.3f} to {max(times):.3f}, {REPEAT})")
    later = median(seconds["queued"]) - median(seconds["synchronous"])
    verdict(later <= LATER, f"a queued relay ends {later:.2f} s later than a synchronous one (target {LATER:g})")


def many(service: Service, root: Path, port: int) -> None:
    """All studies at once, against one storescu that sends the files of all, which nobody has to retrieve."""
    began = time.monotonic()
    argv = ("/usr/bin/storescu", "-aec", AE_TITLE, *TUNED, "+sd", "+r", LOCALHOST, str(port), str(root))
    subprocess.run(argv, capture_output=True, check=True, env=os.environ | {"TCP_NODELAY": "1"})
    alone = time.monotonic() - began
    began = time.monotonic()
    wait_for(service, [queued(service, f"MANY.{number:03}") for number in range(RELAYS)])
    seconds, images = time.monotonic() - began, RELAYS * INSTANCES
    print(
        f"{RELAYS} relays of {INSTANCES} images on {RECEIVERS} receivers: {images / seconds:.0f} images/s, retrieved,"
        f" proven and sent; one storescu of the same files {images / alone:.0f} images/s"
    )


def waiting(directory: Path, pacs: RunningPacs, receivers: dict[str, int]) -> None:
    """A hundred relays to a destination that is away, on a server's ledger, for a minute."""
    nobody, http, database = free_ports(3)
    with running_mariadb(directory / "mariadb", database) as mariadb:
        mariadb.execute("CREATE DATABASE queue")
        configuration = configured(directory / "waiting", pacs.port, receivers, nobody)
        configuration["storage"]["ledger"] = mariadb.url("queue")
        with running_service(directory / "waiting", http, configuration) as service:
            wait_until(lambda: service.get("/api/jobs").ok, 60, lambda: "the tables are not made")
            for _ in range(WAITING):
                queued(service, "CT.001")
            time.sleep(SETTLED)
            processes = [psutil.Process(service.process.pid), *service.workers()]
            before = _spent(processes), _statements(mariadb)
            time.sleep(WATCHED)
            after = _spent(processes), _statements(mariadb)
    core = 100 * (after[0] - before[0]) / WATCHED
    statements = (after[1] - before[1]) * 60 / WATCHED
    verdict(core <= CORE, f"{WAITING} relays that wait take {core:.1f} % of a core (target {CORE:g})")
    verdict(statements <= STATEMENTS, f"and {statements:.0f} statements a minute (target {STATEMENTS:g})")


def _spent(processes: Sequence[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(one.user + one.system + one.children_user + one.children_system for one in times)


def _statements(mariadb: Any) -> int:
    ((_, count),) = mariadb.execute("SHOW GLOBAL STATUS LIKE 'Questions'")
    return int(count)


def configured(directory: Path, archive: int, receivers: dict[str, int], port: int) -> dict[str, Any]:
    peer = {"ae_title": AE_TITLE, "host": LOCALHOST, "port": port, "parallel": RECEIVERS}
    return settings(directory, archive, receivers, destinations={"relay": peer})


def main(_arguments: Sequence[str] = ()) -> int:
    pacs_port, archive, port, http, other, *ports = free_ports(5 + RECEIVERS)
    receivers = {f"RECEIVER{number}": one for number, one in enumerate(ports)}
    with tempfile.TemporaryDirectory(prefix="mkiso-bench-", dir="/var/tmp") as name:
        directory = Path(name)
        root = directory / "many"
        for number in range(RELAYS):
            ct_study(root, JOHN, f"MANY.{number:03}", count=INSTANCES, side=256)
        arrived = directory / "arrived"
        with (
            running_storescp(AE_TITLE, port, arrived, directory / "destination.log"),
            running_testpacs(directory / "pacs", pacs_port, receivers, bench=True) as pacs,
            running_archive(archive, receivers, root),
        ):
            one = configured(directory / "one", pacs_port, receivers, port)
            with running_service(directory / "one", http, one) as service:
                beside_a_synchronous_one(service, "BENCH.200")
            shutil.rmtree(arrived)
            arrived.mkdir()
            every = configured(directory / "every", archive, receivers, port)
            with running_service(directory / "every", other, every) as service:
                many(service, root, port)
            waiting(directory, pacs, receivers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
