"""`/metrics` at 100,000 jobs, as a service of one worker answers it: `make bench` runs it."""

import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
import sqlalchemy as sa

from mkiso.ledger.ledger import Ledger
from mkiso.ledger.schema import jobs, ledger_time
from mkiso.ledger.totals import count as count_jobs
from mkiso.workspace import identity
from tests.support.ports import free_ports
from tests.support.service import running_service, settings

JOBS, BATCH, REPEAT = 100_000, 10_000, 20
TARGET = 0.1
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
PHASES = ("queued", "querying", "retrieving", "verifying", "mastering", "sending")
ENDS = (("done", None),) * 95 + (("failed", "busy"), ("failed", "pacs_timeout"), ("cancelled", "cancelled"))


def fill(url: str, work_dir: str, count: int = JOBS) -> None:
    """A ledger of so many ended jobs of this work_dir's identity."""
    ledger = Ledger(url, lambda: work_dir, set)
    ledger.check()
    ledger.close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for start in range(0, count, BATCH):
            rows = list(_rows(range(start, min(count, start + BATCH)), work_dir))
            connection.execute(jobs.insert(), rows)
            count_jobs(connection, before=(), after=rows)
    engine.dispose()


def _rows(numbers: range, work_dir: str) -> Iterator[dict[str, Any]]:
    chance = random.Random(numbers.start)
    for number in numbers:
        state, code = chance.choice(ENDS)
        moment = ledger_time(FIRST + timedelta(minutes=number))
        yield {
            "id": str(uuid.UUID(int=number)),
            "kind": chance.choice(("iso", "relay")),
            "state": state,
            "accessions": [f"RAD.{number}"],
            "requester": "desk@10.0.0.1",
            "received": 200,
            "bytes": 105_000_000,
            "error": {"code": code, "detail": "x"} if code else None,
            "seconds": {phase: round(chance.random(), 3) for phase in PHASES},
            "created_at": moment,
            "finished_at": moment,
            "work_dir": work_dir,
        }


def _once(url: str) -> float:
    began = time.perf_counter()
    answer = requests.get(url, timeout=60)
    taken = time.perf_counter() - began
    assert 'mkiso_jobs_total{code="",kind="iso",state="done"}' in answer.text, answer.text
    return taken


def main(_arguments: Sequence[str] = ()) -> int:
    with tempfile.TemporaryDirectory(prefix="mkiso-bench-", dir="/var/tmp") as name:
        directory = Path(name)
        pacs, receiver, http = free_ports(3)
        configuration = settings(directory, pacs, {"RECEIVER": receiver}, server={"workers": 1})
        (directory / "work").mkdir(mode=0o700)
        fill(configuration["storage"]["ledger"], identity(directory / "work"))
        with running_service(directory, http, configuration) as service:
            first, *others = (_once(f"{service.url}/metrics") for _ in range(REPEAT))
    middle, slowest = statistics.median(others), max(others)
    print(f"{'ok' if slowest <= TARGET else 'missed':<6}  {middle:.3f} s, at most {slowest:.3f} s (target {TARGET})")
    print(f"{'':<6}  {first:.3f} s: the first answer of a worker that has just started")
    return 0


if __name__ == "__main__":
    sys.exit(main())
