"""Two hosts never send one relay at once: who has not reached a shared ledger for a while stops sending."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.integration.conftest import Site
from tests.relay_lab import programs_of
from tests.support.destination import running_destination
from tests.support.ports import free_ports
from tests.support.postgres import PostgreSQL, running_postgres
from tests.support.service import Service, running_service
from tests.support.testpacs import RunningPacs
from tests.support.tools import wait_until

# What takes a minute and more in earnest.
HASTY = """
from mkiso import relay
from mkiso.ledger import database, ledger, record
database.LIMIT = record.RETRY = 2
ledger.BEAT = record.BEAT = record.PAUSE = 0.3
record.FENCE, relay.LEASH = 5, 7
from mkiso.commands.cli import main
main()
"""


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    with running_postgres(free_ports(1)[0]) as running:
        yield running


@contextmanager
def sending(pacs: RunningPacs, directory: Path, database: PostgreSQL) -> Iterator[tuple[Service, str]]:
    """A service whose queued relay hangs at its destination, in the middle, and the relay's id.

    Its ledger has no other relay, which would be sent there, too.
    """
    port, http = free_ports(2)
    database.execute(f"CREATE DATABASE fence{http}")
    peers = {"relay": {"ae_title": "DESTINATION", "host": "127.0.0.1", "port": port, "timeout": 100}}
    configuration = Site(directory, pacs).settings(destinations=peers, server={"drain_timeout": 0.5})
    configuration["storage"]["ledger"] = database.url(f"fence{http}")
    with (
        running_destination(port, "silent"),
        running_service(directory, http, configuration, program=(sys.executable, "-c", HASTY)) as service,
    ):
        wait_until(lambda: service.get("/api/jobs").ok, 30, lambda: "the tables are not made")
        relay_id = service.get("/api/iso/relay?accession_numbers=MR.001&queue=1").json()["relay_id"]
        wait_until(lambda: "storescu" in programs_of(directory / "work"), 30, lambda: relay_of(service, relay_id))
        wait_until(lambda: '"files_sent":2' in relay_of(service, relay_id), 60, lambda: relay_of(service, relay_id))
        yield service, relay_id


def relay_of(service: Service, relay_id: str) -> str:
    return service.get(f"/api/relays/{relay_id}").text


def require_no_sender(directory: Path) -> None:
    wait_until(lambda: "storescu" not in programs_of(directory / "work"), 20, lambda: "it sends on")


def test_a_sender_ends_while_the_ledger_is_away(pacs: RunningPacs, tmp_path: Path, postgresql: PostgreSQL) -> None:
    with sending(pacs, tmp_path, postgresql) as (service, relay_id):
        with postgresql.frozen():
            require_no_sender(tmp_path)
        wait_until(lambda: '"attempts":2' in relay_of(service, relay_id), 60, lambda: relay_of(service, relay_id))


def test_a_sender_ends_while_its_service_is_suspended(
    pacs: RunningPacs, tmp_path: Path, postgresql: PostgreSQL
) -> None:
    with sending(pacs, tmp_path, postgresql) as (service, relay_id):
        suspended = [psutil.Process(service.process.pid), *service.workers()]
        for process in suspended:
            process.suspend()
        try:
            require_no_sender(tmp_path)
        finally:
            for process in suspended:
                with suppress(psutil.NoSuchProcess):
                    process.resume()
        wait_until(lambda: '"attempts":2' in relay_of(service, relay_id), 60, lambda: relay_of(service, relay_id))
