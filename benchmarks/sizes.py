"""What a service and its jobs take of memory, and a ledger's rows of disk: the figures of docs/hosts.md.

Memory is the proportional set size (PSS, proc(5)), so that what processes share counts once. Each disc is of 200 CT
images of 525 kB, 105 MB.
"""

import sqlite3
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Barrier, Event

import psutil
import requests

from tests.support.ports import free_ports
from tests.support.service import Service, running_service, settings
from tests.support.testpacs import running_testpacs

MOST, IMAGES = 8, 200
COPIES = 5_000


def memory(service: Service) -> Counter[str]:
    """MB of each kind of program of the service, with how many of them there are in its name."""
    found: dict[str, list[int]] = {}
    master = psutil.Process(service.process.pid)
    for process in (master, *master.children(recursive=True)):
        with suppress(psutil.Error):
            found.setdefault(process.name(), []).append(process.memory_full_info().pss)
    return Counter({f"{len(sizes)} {name}": round(sum(sizes) / 1e6) for name, sizes in found.items()})


def told(what: str, found: Counter[str]) -> None:
    parts = ", ".join(f"{name} {size}" for name, size in sorted(found.items()))
    print(f"{what}: {sum(found.values())} MB ({parts})", flush=True)


def greatest(service: Service, until: Event) -> Counter[str]:
    """The sample of the most memory among those of each tenth of a second."""
    samples = [memory(service)]
    while not until.wait(0.1):
        samples.append(memory(service))
    return max(samples, key=lambda one: sum(one.values()))


def fetch(service: Service, at_first_byte: Barrier, go_on: Event) -> None:
    with requests.get(f"{service.url}/mkiso.php?accession_number=BENCH.200", stream=True, timeout=600) as answer:
        if not answer.ok:
            at_first_byte.abort()
        answer.raise_for_status()
        chunks = answer.iter_content(1 << 20)
        next(chunks)
        at_first_byte.wait()
        go_on.wait()
        for _ in chunks:
            pass


def measure(service: Service, discs: int) -> None:
    """So many discs at once: while they are retrieved and made, then while all of them are sent."""
    streaming, retrieved, go_on = Barrier(discs + 1), Event(), Event()
    with ThreadPoolExecutor(discs + 1) as pool:
        jobs = [pool.submit(fetch, service, streaming, go_on) for _ in range(discs)]
        sampled = pool.submit(greatest, service, retrieved)
        try:
            streaming.wait(600)
        finally:
            retrieved.set()
        told(f"{discs} at once, at most until each disc's first byte", sampled.result())
        told(f"{discs} at once, while the discs are sent", memory(service))
        go_on.set()
        for job in jobs:
            job.result()


def ledger(file: Path) -> None:
    """What a job and an instance add to the ledger's file, by copies of a real disc's rows."""
    with closing(sqlite3.connect(file)) as rows, closing(sqlite3.connect(":memory:")) as copy:
        rows.backup(copy)
        (job,) = copy.execute("SELECT id FROM jobs WHERE state = 'done' LIMIT 1").fetchone()
        for table, key, copies in (("jobs", "id", COPIES), ("instances", "job_id", COPIES // IMAGES)):
            with _grown(copy) as bytes_grown:
                added = [_copied(copy, table, key, job) for _ in range(copies)]
            print(f"a row of {table}: {bytes_grown() / sum(added):.0f} bytes", flush=True)


def _copied(base: sqlite3.Connection, table: str, key: str, job: str) -> int:
    columns = [row[1] for row in base.execute(f"PRAGMA table_info({table})")]
    values = ", ".join("?" if column == key else column for column in columns)
    new = str(uuid.uuid4())
    done = base.execute(f"INSERT INTO {table} SELECT {values} FROM {table} WHERE {key} = ?", (new, job))
    if table == "jobs":
        _copied_numbers(base, job, new)
    return done.rowcount


def _copied_numbers(base: sqlite3.Connection, job: str, new: str) -> None:
    query = "INSERT INTO job_accessions SELECT ?, accession_number FROM job_accessions WHERE job_id = ?"
    base.execute(query, (new, job))


@contextmanager
def _grown(base: sqlite3.Connection) -> Iterator[object]:
    before = _size(base)
    yield lambda: _size(base) - before


def _size(base: sqlite3.Connection) -> int:
    pages, size = (base.execute(f"PRAGMA {one}").fetchone()[0] for one in ("page_count", "page_size"))
    return int(pages * size)


def main() -> int:
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="mkiso-sizes-") as name:
        directory = Path(name)
        port, http, *receivers = free_ports(2 + MOST)
        titles = {f"RECEIVER{number}": receiver for number, receiver in enumerate(receivers)}
        patience = {"query_timeout": 300, "stall_timeout": 300, "connect_timeout": 60}
        configuration = settings(directory, port, titles, destinations={}, media={"layout": "pdi"}, retrieve=patience)
        with (
            running_testpacs(directory / "pacs", port, titles, bench=True),
            running_service(directory, http, configuration) as service,
        ):
            time.sleep(2)
            told("no job", memory(service))
            for discs in (1, MOST):
                measure(service, discs)
            told("no job, afterwards", memory(service))
        ledger(directory / "ledger.db")
    return 0


if __name__ == "__main__":
    sys.exit(main())
