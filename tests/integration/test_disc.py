"""Discs over HTTP from the test PACS, as the hospital's pages and programs fetch them."""

import re
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.support.service import Service, file_name, instances_of, instances_on, read_disc
from tests.support.testpacs import RunningPacs
from tests.support.tools import wait_until

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
SINGLE = ("CT.001", "US.001", "SR.001", "PDF.001", "JPG.001", "LATIN.001", "UTF8.001", "GB.001", "IR87.001", "TWO.001")


@pytest.mark.parametrize("accession", SINGLE)
def test_a_disc_holds_exactly_the_instances_of_its_accession_number(
    accession: str, service: Service, pacs: RunningPacs, tmp_path: Path
) -> None:
    answer = service.get(f"/mkiso.php?accession_number={accession}")
    assert answer.status_code == 200
    assert file_name(answer) == f"{accession}.iso"
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Cache-Control"] == "no-store"
    disc = read_disc(answer.content, tmp_path / "disc")
    assert instances_on(disc) == instances_of(pacs.of(accession))


def test_the_viewer_lies_at_the_root_of_the_disc(service: Service, tmp_path: Path) -> None:
    disc = read_disc(service.get("/api/iso/download?accession_number=SR.001").content, tmp_path / "disc")
    assert disc["viewer.exe"].read_bytes() == b"MZ\x00viewer"
    assert disc["docs/a=b é.txt"].read_text() == "how to"


def test_a_disc_has_joliet_names_and_its_volume_id(service: Service, pacs: RunningPacs, tmp_path: Path) -> None:
    iso = tmp_path / "disc.iso"
    iso.write_bytes(service.get("/mkiso.php?accession_number=CT.001").content)
    listed = _isoinfo(iso, "-J", "-f")
    names = {f"/DICOMDIR/{uid}" for study in pacs.of("CT.001") for uid in study.sop_instance_uids}
    assert names <= set(listed.splitlines())
    assert "Volume id: STUDIES" in _isoinfo(iso, "-d")


def _isoinfo(iso: Path, *options: str) -> str:
    argv = ("/usr/bin/isoinfo", *options, "-i", iso)
    return subprocess.run(argv, capture_output=True, encoding="latin-1", check=True).stdout


@pytest.mark.parametrize(
    "url",
    [
        "/mkiso_multiple.php?accession_number=CT.001,%20MR.001,CT.001",
        "/api/iso/download-multiple?accession_numbers=CT.001,MR.001",
    ],
)
def test_several_studies_of_one_patient_go_on_one_disc_named_after_both(
    url: str, service: Service, pacs: RunningPacs, tmp_path: Path
) -> None:
    answer = service.get(url)
    assert file_name(answer) == "DOEJOHN-CT001MR001.iso"
    disc = read_disc(answer.content, tmp_path / "disc")
    assert instances_on(disc) == instances_of([*pacs.of("CT.001"), *pacs.of("MR.001")])


@pytest.mark.parametrize(
    ("path", "status", "code", "error"),
    [
        ("/mkiso.php", 400, "missing_accession", "missing accession_number"),
        ("/mkiso.php?accession_number=%20", 400, "missing_accession", "missing accession_number"),
        ("/mkiso_multiple.php", 400, "missing_accession", "missing accession_number"),
        ("/api/iso/download-multiple", 400, "missing_accession", "missing accession_numbers"),
        ("/mkiso_multiple.php?accession_number=A,,B", 400, "empty_accession", "empty accession_number in list"),
        ("/mkiso.php?accession_number=A,B", 400, "invalid_accession", "invalid accession_number"),
        ("/mkiso.php?accession_number=CT.*", 400, "invalid_accession", "invalid accession_number"),
        ("/mkiso.php?accession_number=CT.001&layout=zip", 400, "bad_request", "bad request"),
        ("/mkiso.php?accession_number=CT.001&job=mine", 400, "bad_request", "bad request"),
        ("/mkiso.php?accession_number=CT.001&accession_number=MR.001", 400, "bad_request", "bad request"),
        ("/mkiso.php?accession_number=NONE.001", 404, "accession_not_found", "accession_number not found"),
        ("/mkiso.php?accession_number=ct.001", 404, "accession_not_found", "accession_number not found"),
        (
            "/mkiso.php?accession_number=SHARED.001",
            409,
            "several_patients",
            "accession_numbers belong to different patients",
        ),
        (
            "/mkiso_multiple.php?accession_number=CT.001,US.001",
            409,
            "several_patients",
            "accession_numbers belong to different patients",
        ),
        ("/api/jobs?state=lost", 400, "bad_request", "bad request"),
        ("/api/jobs?limit=0", 400, "bad_request", "bad request"),
        ("/api/jobs?since=yesterday", 400, "bad_request", "bad request"),
        (f"/api/jobs/{uuid.UUID(int=1)}", 404, "job_not_found", "job not found"),
        ("/api/studies?accession_numbers=NONE.001", 404, "accession_not_found", "accession_number not found"),
    ],
)
def test_what_cannot_be_done_is_told_by_status_and_code(
    path: str, status: int, code: str, error: str, service: Service
) -> None:
    answer = service.get(path)
    told = answer.json()
    assert (answer.status_code, told["code"], told["error"]) == (status, code, error)
    assert told["detail"]
    assert told["job_id"] == answer.headers.get("X-Job-Id")


def test_too_many_accession_numbers_are_refused(service: Service) -> None:
    numbers = ",".join(f"CT.{number}" for number in range(21))
    answer = service.get(f"/mkiso_multiple.php?accession_number={numbers}")
    assert (answer.status_code, answer.json()["code"]) == (400, "too_many_accessions")


def test_a_browser_is_told_an_error_as_a_page(service: Service) -> None:
    answer = service.get("/mkiso.php?accession_number=NONE.001", headers=BROWSER)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "Accession number not found" in answer.text


def test_the_answer_for_an_unknown_number_names_it(service: Service) -> None:
    told = service.get("/mkiso_multiple.php?accession_number=CT.001,NONE.001").json()
    assert told["accession"] == "NONE.001"


def test_head_moves_nothing_and_has_no_body(service: Service) -> None:
    before = service.get("/api/jobs").json()
    for path in (
        "/mkiso.php?accession_number=CT.001",
        "/mkiso_multiple.php?accession_number=CT.001",
        "/api/iso/download?accession_number=CT.001",
        "/api/iso/download-multiple?accession_numbers=CT.001",
        "/api/studies?accession_numbers=CT.001",
        "/healthz",
        "/api/jobs",
    ):
        answer = requests.head(service.url + path, timeout=10)
        assert (answer.status_code, answer.content) == (200, b""), path
    assert requests.head(service.url + "/mkiso.php", timeout=10).status_code == 400
    assert service.get("/api/jobs").json() == before


def test_the_ledger_remembers_who_was_given_what(service: Service, pacs: RunningPacs) -> None:
    job_id = str(uuid.uuid4())
    headers = {"X-Forwarded-For": "10.9.8.7, 192.0.2.4", "X-Forwarded-User": "reception"}
    answer = service.get(f"/mkiso_multiple.php?accession_number=CT.001&job={job_id}", headers=headers)
    assert answer.headers["X-Job-Id"] == job_id
    job = service.get(f"/api/jobs/{job_id}").json()
    (study,) = pacs.of("CT.001")
    assert job["state"] == "done"
    assert job["kind"] == "iso"
    assert job["accessions"] == ["CT.001"]
    assert job["patient_id"] == "PAT001"
    assert job["patient_name"] == "JOHN DOE"
    assert job["studies"] == [study.study_uid]
    assert (job["expected"], job["received"], job["bytes"]) == (12, 12, len(answer.content))
    assert job["requester"] == "reception@192.0.2.4"
    assert job["error"] is None
    assert job["created_at"] < job["finished_at"]
    assert {"querying", "retrieving", "verifying", "mastering"} <= set(job["seconds"])
    assert service.get("/api/jobs?accession_number=CT.001&limit=1").json()["jobs"] == [job]
    assert service.get(f"/mkiso.php?accession_number=CT.001&job={job_id}").json()["code"] == "job_exists"


def test_a_failed_job_is_in_the_ledger_with_its_error(service: Service) -> None:
    job_id = service.get("/mkiso.php?accession_number=NONE.002").headers["X-Job-Id"]
    job = service.get(f"/api/jobs/{job_id}").json()
    assert job["state"] == "failed"
    assert job["error"]["code"] == "accession_not_found"
    assert "NONE.002" in job["error"]["detail"]


def test_studies_tells_what_the_pacs_holds_and_moves_nothing(service: Service, pacs: RunningPacs) -> None:
    before = service.get("/api/jobs").json()
    told = service.get("/api/studies?accession_numbers=CT.001,SHARED.001").json()
    assert told["patients"] == 3
    assert len(told["studies"]) == 3
    (study,) = pacs.of("CT.001")
    assert told["studies"][0] == {
        "accession_number": "CT.001",
        "study_instance_uid": study.study_uid,
        "patient_id": "PAT001",
        "patient_name": "JOHN DOE",
        "study_date": told["studies"][0]["study_date"],
        "study_description": told["studies"][0]["study_description"],
        "modalities": ["CT"],
        "series": 2,
        "instances": 12,
    }
    assert service.get("/api/jobs").json() == before


def test_a_cancel_of_a_job_that_has_ended_changes_nothing(service: Service) -> None:
    job_id = service.get("/mkiso.php?accession_number=SR.001").headers["X-Job-Id"]
    answer = requests.post(f"{service.url}/api/jobs/{job_id}/cancel", timeout=10)
    assert answer.json()["state"] == "done"
    unknown = requests.post(f"{service.url}/api/jobs/{uuid.UUID(int=1)}/cancel", timeout=10)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "job_not_found")


def test_no_log_line_holds_a_patients_name(service: Service) -> None:
    service.get("/mkiso_multiple.php?accession_number=CT.001")
    service.get("/mkiso.php?accession_number=SHARED.001")
    wait_until(lambda: "several_patients" in service.log.read_text(), 5, str)
    log = service.log.read_text().upper()
    assert "DOE" not in log
    assert "JOHN" not in log


def heaps(pid: int) -> int:
    """How many of glibc's heaps a process has beside its first one: each begins at a multiple of 64 MiB."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return sum(int(start, 16) % (1 << 26) == 0 for start in re.findall(r"^(\w+)-\w+ rw-p 0+ 00:00 0 *$", maps, re.M))


def test_many_threads_do_not_keep_a_heap_each(service: Service) -> None:
    with ThreadPoolExecutor(32) as clients:
        assert all(answer.ok for answer in clients.map(service.get, ["/history"] * 64))
    assert all(heaps(worker.pid) <= 2 for worker in service.workers())  # and not 16
