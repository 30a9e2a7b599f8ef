"""A service that forgets what ended long ago, and one whose ledger is another version's."""

import json
import sys
from pathlib import Path

import pytest
import requests

from mkiso.ledger.ledger import Ledger
from mkiso.workspace import identity
from tests.support.ledgers import execute, layout
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
    ledger.open_job("J", "iso", ("A",), requester="x")
    ledger.update("J", state="done", finished_at=moment(1))
    with running_service(tmp_path, http, configuration) as service:
        wait_until(lambda: ledger.list_jobs() == [], 20, lambda: f"{ledger.list_jobs()}")
        told = requests.get(f"{service.url}/metrics", timeout=10).text
        assert 'mkiso_jobs_total{code="",kind="iso",state="done"} 1.0' in told
    ledger.close()


@pytest.mark.parametrize(("version", "whose"), [("2.0", "a newer"), ("1.7", "an older")])
def test_no_command_and_no_service_touches_another_versions_ledger(version: str, whose: str, tmp_path: Path) -> None:
    pacs, receiver = free_ports(2)
    configuration, file = settings(tmp_path, pacs, {"RECEIVER": receiver}), tmp_path / "mkiso.yaml"
    file.write_text(json.dumps(configuration))
    url = configuration["storage"]["ledger"]
    ledger = Ledger(url, lambda: "W", set)
    ledger.prepare()
    ledger.close()
    execute(url, f"UPDATE ledger_version SET version_num = '{version}'")
    before = layout(url)
    for command in ("serve", "jobs"):
        done = run((*PROGRAM, command, "--config", file))
        refused = f"has the schema {version} of {whose} mkiso" in done.stderr
        assert (done.returncode, refused) == (2, True), done.stderr
    assert layout(url) == before
