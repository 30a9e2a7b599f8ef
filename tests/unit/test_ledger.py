import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mkiso.errors import ConfigurationError, JobExists, JobNotFound
from mkiso.ledger import ledger as ledger_module
from mkiso.ledger.ledger import Ledger
from mkiso.retrieve.instances import Instance

# The contract's JOB.
JOB_FIELDS = {
    *("id", "kind", "state", "accessions", "patient_id", "patient_name", "studies", "layout", "destination"),
    *("expected", "received", "bytes", "files_sent", "files_failed", "error", "requester", "created_at"),
    *("finished_at", "seconds"),
}
STATES = ["queued", "querying", "retrieving", "verifying", "mastering", "sending", "done", "failed", "cancelled"]
RFC_3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
OPEN_AND_WRITE = """
import sys
from pathlib import Path
from mkiso.ledger.ledger import Ledger
print("ready", flush=True)
sys.stdin.readline()
for number in range(10):
    ledger = Ledger(f"sqlite:///{sys.argv[1]}/{number}.db", Path("/w"))
    ledger.open_job(sys.argv[2], "iso", ("A",), requester="x")
    ledger.close()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger" / "jobs.db"


@pytest.fixture
def ledger(file: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{file}", Path("/w"))
    yield opened
    opened.close()


def opened(ledger: Ledger, job_id: str, *accessions: str) -> str:
    ledger.open_job(job_id, "iso", accessions or ("A",), requester="his@10.0.0.1", layout="legacy")
    return job_id


def ids(jobs: list[dict[str, Any]]) -> list[str]:
    return [job["id"] for job in jobs]


def test_a_new_job_has_every_field_of_the_contract_and_no_other(ledger: Ledger) -> None:
    job = ledger.job(opened(ledger, "J", "B", "A"))
    created = job.pop("created_at")
    assert RFC_3339_UTC.fullmatch(created)
    assert job | {"created_at": created} == job | dict.fromkeys(JOB_FIELDS - set(job), created)
    assert set(job) == JOB_FIELDS - {"created_at"}
    assert job == {
        "id": "J",
        "kind": "iso",
        "state": "queued",
        "accessions": ["B", "A"],
        "patient_id": None,
        "patient_name": None,
        "studies": [],
        "layout": "legacy",
        "destination": None,
        "expected": None,
        "received": 0,
        "bytes": 0,
        "files_sent": 0,
        "files_failed": 0,
        "error": None,
        "requester": "his@10.0.0.1",
        "finished_at": None,
        "seconds": {},
    }


def test_the_states_are_the_contracts() -> None:
    assert list(ledger_module.STATES) == STATES


def test_a_job_keeps_what_is_written(ledger: Ledger) -> None:
    opened(ledger, "J")
    ledger.update("J", patient_name="MÜLLER 山田", bytes=5 * 2**40, seconds={"queued": 0.5})
    ledger.finish("J", "failed", {"code": "incomplete", "detail": "Two are missing."}, received=3)
    job = ledger.job("J")
    assert (job["patient_name"], job["bytes"], job["received"]) == ("MÜLLER 山田", 5 * 2**40, 3)
    assert (job["state"], job["seconds"]) == ("failed", {"queued": 0.5})
    assert job["error"] == {"code": "incomplete", "detail": "Two are missing."}
    assert RFC_3339_UTC.fullmatch(job["finished_at"])
    assert job["finished_at"] >= job["created_at"]


def test_an_id_is_taken_once(ledger: Ledger) -> None:
    opened(ledger, "J", "A")
    with pytest.raises(JobExists):
        opened(ledger, "J", "B")
    assert ledger.job("J")["accessions"] == ["A"]


def test_a_job_that_is_not_there_is_not_found(ledger: Ledger) -> None:
    with pytest.raises(JobNotFound):
        ledger.job("J")
    with pytest.raises(JobNotFound):
        ledger.request_cancel("J")


@pytest.fixture
def three(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    for day, (job_id, accessions) in enumerate([("J1", "A"), ("J2", "AB"), ("J3", "B")], start=1):
        monkeypatch.setattr(ledger_module, "now", lambda day=day: f"2026-01-0{day}T00:00:00.000000Z")
        opened(ledger, job_id, *accessions)
    ledger.finish("J2", "done", None)
    return ledger


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ["J3", "J2", "J1"]),
        ({"limit": 2}, ["J3", "J2"]),
        ({"accession": "A"}, ["J2", "J1"]),
        ({"accession": "A%"}, []),
        ({"state": "queued"}, ["J3", "J1"]),
        ({"since": "2026-01-02T00:00:00.000000Z"}, ["J3", "J2"]),
        ({"accession": "A", "state": "queued", "since": "2026-01-01T00:00:00.000000Z", "limit": 9}, ["J1"]),
    ],
)
def test_the_list_is_newest_first_and_meets_every_condition(
    wanted: dict[str, Any], found: list[str], three: Ledger
) -> None:
    assert ids(three.list_jobs(**wanted)) == found


def test_a_cancel_is_asked_for_where_the_job_still_runs(three: Ledger) -> None:
    assert three.request_cancel("J1")["state"] == "queued"
    assert three.request_cancel("J2")["state"] == "done"
    assert three.cancel_requested(["J1", "J2", "J3"]) == {"J1"}


def test_abandon_finishes_the_dead_jobs_of_its_own_work_dir_alone(three: Ledger, file: Path) -> None:
    other = Ledger(f"sqlite:///{file}", Path("/elsewhere"))
    opened(other, "O")
    assert sorted(three.abandon(["J3"])) == ["J1"]
    dead = three.job("J1")
    assert (dead["state"], dead["error"]["code"]) == ("failed", "internal")
    assert RFC_3339_UTC.fullmatch(dead["finished_at"])
    assert [three.job(one)["state"] for one in ("J2", "J3", "O")] == ["done", "queued", "queued"]
    assert three.abandon(["J3"]) == []
    other.close()


def test_the_instances_of_a_job_are_remembered(three: Ledger) -> None:
    uids = ("1.2", "1.2.840.10008.5.1.4.1.1.2", "1.3", "1.4", "1.2.840.10008.1.2")
    three.hand_out("J1", [Instance(Path("/w/f"), *uids, bytes=7, version=(7, 0)).row("on disc")])
    with three._engine.connect() as connection:
        assert connection.execute(ledger_module.instances.select()).all() == [("J1", *uids, 7, "on disc")]


def test_the_file_is_its_owners_alone(ledger: Ledger, file: Path) -> None:
    opened(ledger, "J")
    assert {one.stat().st_mode & 0o777 for one in file.parent.iterdir()} == {0o600}
    assert file.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "sqlite:////proc/none/jobs.db", "nosuchdatabase://h/db", "sqlite+nosuchdriver:////proc/none/f"],
)
def test_a_ledger_that_cannot_be_opened_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"storage\.ledger"):
        Ledger(url, Path("/w"))


def test_a_ledger_that_cannot_be_opened_shows_no_secret() -> None:
    with pytest.raises(ConfigurationError) as raised:
        Ledger("nosuchdatabase://mkiso:s3cr3t@h/db", Path("/w"))
    assert "s3cr3t" not in str(raised.value)


def test_two_processes_may_open_a_new_ledger_at_once(tmp_path: Path) -> None:
    argv = (sys.executable, "-c", OPEN_AND_WRITE, str(tmp_path))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [subprocess.Popen((*argv, job_id), **pipes) for job_id in ("J", "K")]
    assert [one.stdout.readline() for one in both] == [b"ready\n"] * 2
    for one in both:
        one.stdin.write(b"go\n")
        one.stdin.flush()
    assert [(one.communicate()[1], one.returncode) for one in both] == [(b"", 0)] * 2
    for number in range(10):
        ledger = Ledger(f"sqlite:///{tmp_path}/{number}.db", Path("/w"))
        assert sorted(ids(ledger.list_jobs())) == ["J", "K"]
        ledger.close()
