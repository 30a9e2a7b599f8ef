"""A service that forgets what ended long ago, and one whose ledger is a newer version's."""

import json
import sys
from pathlib import Path

import requests

from mkiso.ledger.ledger import Ledger
from mkiso.workspace import identity
from tests.support.ledgers import execute
from tests.support.ports import free_ports
from tests.support.service import running_service, settings
from tests.support.tools import run, wait_until
from tests.unit.test_totals import moment

PROGRAM = (sys.executable, "-m", "mkiso.commands.cli")


def test_a_service_forgets_at_its_start_and_still_counts(tmp_path: Path) -> None:
    pacs, receiver, http = free_ports(3)
    configuration = settings(tmp_path, pacs, {"RECEIVER": receiver})
    configuration["storage"]["keep_history"] = 30
    (tmp_path / "work").mkdir(mode=0o700)
    ledger = Ledger(configuration["storage"]["ledger"], lambda: identity(tmp_path / "work"), set)
    ledger.open_job("J", "iso", ("A",), requester="x", state="done", finished_at=moment(1))
    with running_service(tmp_path, http, configuration) as service:
        wait_until(lambda: ledger.list_jobs() == [], 20, lambda: f"{ledger.list_jobs()}")
        told = requests.get(f"{service.url}/metrics", timeout=10).text
        assert 'mkiso_jobs_total{code="",kind="iso",state="done"} 1.0' in told
    ledger.close()


def test_no_command_and_no_service_touches_a_newer_versions_ledger(tmp_path: Path) -> None:
    pacs, receiver = free_ports(2)
    configuration, file = settings(tmp_path, pacs, {"RECEIVER": receiver}), tmp_path / "mkiso.yaml"
    file.write_text(json.dumps(configuration))
    ledger = Ledger(configuration["storage"]["ledger"], lambda: "W", set)
    ledger.prepare()
    ledger.close()
    execute(configuration["storage"]["ledger"], "UPDATE ledger_version SET version_num = '2.0'")
    for command in ("serve", "jobs"):
        done = run((*PROGRAM, command, "--config", file))
        assert (done.returncode, "has the schema 2.0 of a newer mkiso" in done.stderr) == (2, True), done.stderr
