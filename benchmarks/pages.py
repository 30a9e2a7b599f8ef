"""100 open progress pages, and what they cost a service of two workers: `make bench` runs it."""

import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import psutil
import requests

from mkiso.ledger.ledger import Ledger
from tests.support.ports import free_ports
from tests.support.service import Service, running_service, settings

PAGES, JOBS, SECONDS, WARMING = 100, 24, 20.0, 5.0  # as many jobs as two workers run
TARGET = 0.10
LATE = 1.0


class Page(threading.Thread):
    """A page that follows a job as job.js does while there is news: it asks, waits a second, and asks again."""

    def __init__(self, url: str, until: float) -> None:
        super().__init__()
        self._url, self._until = url, until
        self.slowest, self.asked = 0.0, 0

    def run(self) -> None:
        with requests.Session() as browser:
            browser.headers["Accept"] = "application/json"
            while time.monotonic() < self._until:
                began = time.monotonic()
                assert browser.get(self._url, timeout=30).ok
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.asked += 1
                time.sleep(1)


def seconds_used(service: Service) -> float:
    """What the service's processes have had of the processors."""
    processes = [psutil.Process(service.process.pid), *service.workers()]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def record(url: str) -> list[str]:
    """Jobs under way, as if on another host."""
    ledger, ids = Ledger(url, lambda: "W", set), [str(uuid.uuid4()) for _ in range(JOBS)]
    for job_id in ids:
        fields = {"patient_name": "BUDI SANTOSO", "state": "retrieving", "expected": 200}
        ledger.open_job(job_id, "iso", ("RAD.101",), requester="desk@10.0.0.1", **fields)
    ledger.close()
    return ids


def main(_arguments: Sequence[str] = ()) -> int:
    with tempfile.TemporaryDirectory(prefix="mkiso-bench-", dir="/var/tmp") as name:
        pacs, receiver, http = free_ports(3)
        configuration = settings(Path(name), pacs, {"RECEIVER": receiver}, server={"workers": 2})
        ids = record(configuration["storage"]["ledger"])
        with running_service(Path(name), http, configuration) as service:
            until = time.monotonic() + WARMING + SECONDS
            pages = [Page(f"{service.url}/jobs/{ids[number % JOBS]}", until) for number in range(PAGES)]
            for page in pages:
                page.start()
                time.sleep(1 / PAGES)
            time.sleep(WARMING)
            before, began = seconds_used(service), time.monotonic()
            time.sleep(SECONDS - 1)
            share = (seconds_used(service) - before) / (time.monotonic() - began)
            for page in pages:
                page.join()
    asked, slowest = sum(page.asked for page in pages), max(page.slowest for page in pages)
    print(f"{'ok' if share < TARGET else 'missed':<6}  {PAGES} open pages: {share:.1%} of a core (target {TARGET:.0%})")
    print(f"{'ok' if slowest < LATE else 'missed':<6}  {asked} answers, the slowest after {slowest:.3f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
