"""What Prometheus reads: the names, their rules, and what is left out where it cannot be read."""

import re
import shutil
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from mkiso import __version__
from mkiso.checks import Check
from mkiso.ledger.schema import now
from tests.unit.test_web import client, installation, ledger, service

__all__ = ("client", "installation", "service")  # fixtures
CHECKS = (Check("storescp", True, "v3"), Check("pacs", False, "10.1.2.3 refused"))
SAMPLES = {
    "mkiso_build_info",
    "mkiso_jobs_total",
    "mkiso_jobs_running",
    "mkiso_instances_total",
    "mkiso_handed_out_bytes_total",
    "mkiso_phase_seconds_total",
    "mkiso_relays",
    "mkiso_relays_oldest_seconds",
    "mkiso_relays_next_seconds",
    "mkiso_relay_queue_open",
    "mkiso_receivers",
    "mkiso_work_dir_free_bytes",
    "mkiso_check_ok",
}


@pytest.fixture
def watched(client: FlaskClient, tmp_path: Path) -> FlaskClient:
    """A host with a failed job, and one under way."""
    (tmp_path / "w").mkdir(mode=0o700)
    readiness = SimpleNamespace(known=lambda _oldest: CHECKS)
    client.application.extensions["mkiso"][0].readiness = readiness
    store, failed = ledger(client), str(uuid.uuid4())
    for job_id in (failed, str(uuid.uuid4())):
        store.open_job(job_id, "iso", ("A",), requester="x", patient_name="JOHN DOE")
    ended = {"state": "failed", "error": {"code": "busy", "detail": "x"}, "seconds": {"queued": 1.5}}
    store.update(failed, received=3, finished_at=now(), **ended)
    return client


def samples(client: FlaskClient) -> dict[tuple[str, ...], float]:
    """Name and labels' values of each sample, by the labels' names, to its value."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    found = [one for family in families for one in family.samples]
    return {(one.name, *(one.labels[label] for label in sorted(one.labels))): one.value for one in found}


def test_the_figures_are_those_of_ledger_and_host(watched: FlaskClient) -> None:
    found = {key: value for key, value in samples(watched).items() if not key[0].startswith("mkiso_relay")}
    assert found.pop(("mkiso_work_dir_free_bytes",)) > 0
    assert found == {
        ("mkiso_build_info", __version__): 1,
        ("mkiso_jobs_total", "busy", "iso", "failed"): 1,
        ("mkiso_jobs_running",): 1,
        ("mkiso_instances_total",): 3,
        ("mkiso_handed_out_bytes_total",): 0,
        ("mkiso_phase_seconds_total", "queued"): 1.5,
        ("mkiso_receivers", "busy"): 0,
        ("mkiso_receivers", "free"): 1,
        ("mkiso_check_ok", "storescp"): 1,
        ("mkiso_check_ok", "pacs"): 0,
    }


def test_queued_relays_are_told_by_their_destination(watched: FlaskClient) -> None:
    relays = ledger(watched).relays
    for _ in range(2):
        relays.add(str(uuid.uuid4()), "relay", ("A",), requester="x", give_up=60)
    found = samples(watched)
    assert found["mkiso_relays", "relay", "waiting"] == 2
    assert found["mkiso_relays", "cd_publisher", "waiting"] == found["mkiso_relays", "relay", "quarantined"] == 0
    assert 0 <= found["mkiso_relays_oldest_seconds", "relay"] < 3600
    assert found["mkiso_relays_next_seconds", "relay"] == 0
    assert ("mkiso_relays_oldest_seconds", "cd_publisher") not in found
    assert found["mkiso_relay_queue_open", "relay"] == 1
    relays.pause("relay", "anna@10.0.0.3")
    assert samples(watched)["mkiso_relay_queue_open", "relay"] == 0


def test_every_name_is_as_prometheus_wants_it(watched: FlaskClient) -> None:
    text = watched.get("/metrics").text
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert set(types) == set(re.findall(r"^# HELP (\S+) \S.*$", text, re.MULTILINE)) == SAMPLES
    assert {name for name, _ in types.items() if name.endswith("_total")} == {
        name for name, kind in types.items() if kind == "counter"
    }
    for name in types:
        assert re.fullmatch(r"[a-z][a-z_]*", name)
        assert not re.search(r"milli|_ms\b|kilo|mega|minutes|percent", name)
        assert not name.endswith(("_count", "_sum", "_bucket"))


def test_nothing_of_patients_or_of_the_host_is_told(watched: FlaskClient, tmp_path: Path) -> None:
    text = watched.get("/metrics").text
    assert not any(secret in text for secret in ("DOE", "10.1.2.3", str(tmp_path)))


def test_it_is_the_text_format_and_head_works(watched: FlaskClient) -> None:
    answer = watched.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert (watched.head("/metrics").status_code, watched.head("/metrics").data) == (200, b"")


@pytest.mark.parametrize(
    ("lost", "left"),
    [("jobs.db", {"mkiso_receivers", "mkiso_check_ok"}), ("w", {"mkiso_build_info", "mkiso_check_ok"})],
)
def test_what_cannot_be_read_is_left_out(lost: str, left: Any, watched: FlaskClient, tmp_path: Path) -> None:
    ledger(watched).close()
    for file in tmp_path.glob(f"{lost}*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    (tmp_path / lost).mkdir() if lost != "w" else None
    names = {name for name, *_ in samples(watched)}
    assert names >= left
    assert not names & {"mkiso_jobs_total", "mkiso_instances_total", "mkiso_jobs_running"}
    assert ("mkiso_receivers" in names) is (lost != "w")
