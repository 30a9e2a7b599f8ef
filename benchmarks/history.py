"""The history of 300,000 jobs on SQLite, as the service answers it, filter by filter: `make bench` runs it."""

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
import sqlalchemy as sa

from mkiso.ledger.history import search_key
from mkiso.ledger.ledger import Ledger
from mkiso.ledger.schema import instances, job_accessions, jobs, ledger_time
from tests.support.ports import free_ports
from tests.support.service import running_service, settings

JOBS, BATCH, REPEAT = 300_000, 10_000, 7
TARGET = 0.2
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
GIVEN = ("BUDI", "DEWI", "SITI", "AGUS", "RINA", "JOKO", "SRI", "ANI", "HADI", "YUNI", "TONO", "WATI")
FAMILY = (
    "SANTOSO",
    "LESTARI",
    "WIJAYA",
    "SUSANTO",
    "PUTRI",
    "HIDAYAT",
    "NUGROHO",
    "SARI",
    "GUNAWAN",
    "UTAMI",
    "MÜLLER",
)
SCRIPTS = ("", "", "", "=山田^太郎")
STATES = ("done",) * 94 + ("failed",) * 4 + ("cancelled",) * 2
QUERIES = {
    "everything": "",
    "one accession number": "accession_number=RAD.150000",
    "a name that many have": "patient=budi+santoso",
    "a name that nobody has": "patient=nobody",
    "an ID that one has": "patient=P0077777",
    "one who asked seldom": "requester=night@10.0.0.99",
    "a name as it is typed without accents": "patient=muller",
    "a name in another script": "patient=山田",
    "nobody who asked": "requester=10.9.9.9",
    "failed": "state=failed",
    "a day": "from=2024-06-01&to=2024-06-01",
    "all at once": "patient=lestari&requester=desk&state=failed&from=2024-03-01&to=2024-12-31",
    "nothing at all": "patient=nobody&requester=nobody&state=done&from=2024-01-01",
    "far down": "before=2024-02-01T00:00:00.000000Z,00000000-0000-4000-8000-000000000000",
}


def fill(url: str) -> None:
    """A ledger of two years, with an instance of each job."""
    ledger = Ledger(url, lambda: "W", set)
    ledger.check()
    ledger.close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for start in range(0, JOBS, BATCH):
            rows = list(_rows(range(start, start + BATCH)))
            connection.execute(jobs.insert(), rows)
            connection.execute(
                job_accessions.insert(),
                [{"job_id": row["id"], "accession_number": number} for row in rows for number in row["accessions"]],
            )
            connection.execute(instances.insert(), [_instance(row["id"], number) for number, row in enumerate(rows)])
    engine.dispose()


def _rows(numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    chance = random.Random(numbers[0])
    for number in numbers:
        began = FIRST + timedelta(minutes=3.5 * number)
        state, patient = chance.choice(STATES), chance.randrange(120_000)
        name = f"{chance.choice(GIVEN)} {FAMILY[patient % len(FAMILY)]}"
        seldom = number % 50_000 == 0
        yield {
            "id": f"{number:08x}-0000-4000-8000-{chance.randrange(16**12):012x}",
            "kind": "iso" if number % 3 else "relay",
            "state": state,
            "accessions": [f"RAD.{number:06}"] + ([f"MRI.{number:06}"] if number % 4 == 0 else []),
            "patient_id": f"P{patient:07}",
            "patient_name": name,
            "folded": search_key(f"P{patient:07}", name + SCRIPTS[patient % len(SCRIPTS)]),
            "studies": [f"1.2.826.0.1.3680043.8.498.{number}"],
            "layout": "pdi",
            "format": "iso",
            "medium": "CD",
            "expected": 200,
            "received": 200,
            "bytes": 105_000_000,
            "error": {"code": "pacs_timeout", "detail": "The PACS was too slow."} if state == "failed" else None,
            "requester": "night@10.0.0.99" if seldom else f"desk@10.0.0.{number % 20}",
            "created_at": ledger_time(began),
            "finished_at": ledger_time(began + timedelta(seconds=8)),
            "seconds": {"querying": 0.1, "retrieving": 6.2, "verifying": 0.2, "mastering": 1.4},
            "work_dir": "W",
        }


def _instance(job_id: str, number: int) -> dict[str, Any]:
    uids = dict.fromkeys(("sop_class_uid", "series_uid", "study_uid", "transfer_syntax"), f"1.2.826.0.{number}")
    return {"job_id": job_id, "sop_instance_uid": "1.2.826.0.1", "bytes": 525_000, "outcome": "on disc"} | uids


def seconds(url: str) -> float:
    """How long a page takes, the middle of several."""
    return statistics.median(_once(url) for _ in range(REPEAT))


def _once(url: str) -> float:
    began = time.perf_counter()
    answer = requests.get(url, headers={"Accept": "text/html"}, timeout=60)
    assert answer.ok, answer.text
    return time.perf_counter() - began


def main(_arguments: Sequence[str] = ()) -> int:
    with tempfile.TemporaryDirectory(prefix="mkiso-bench-", dir="/var/tmp") as name:
        directory = Path(name)
        pacs, receiver, http = free_ports(3)
        configuration = settings(directory, pacs, {"RECEIVER": receiver})
        fill(configuration["storage"]["ledger"])
        with running_service(directory, http, configuration) as service:
            for what, query in QUERIES.items():
                taken = seconds(f"{service.url}/history?{query}")
                print(f"{'ok' if taken <= TARGET else 'missed':<6}  {taken:.3f} s (target {TARGET}): {what}")
            began = time.perf_counter()
            size = len(requests.get(f"{service.url}/history?format=csv", timeout=300).content)
            print(f"{'':<6}  {time.perf_counter() - began:.1f} s: all of it as CSV, {size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
