"""mkiso on two hosts that share a ledger, nginx on the first in front of both, an archive and a destination."""

import re
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import yaml

from mkiso.process import OWNER
from tests.support.archive import running_archive
from tests.support.hosts import Host, running_hosts
from tests.support.nginx import running_nginx
from tests.support.pages import block
from tests.support.postgres import PostgreSQL, running_postgres
from tests.support.service import MKISO, PATIENT, settings
from tests.support.studies import Study
from tests.support.tools import environment, running_storescp, wait_until

HTTP, ARCHIVE, DESTINATION, DATABASE = 8080, 11112, 11113, 5432
FIRST_RECEIVER = 10104
THREADS = 24  # so that one worker has room for the 20 discs that nginx admits from one address
# How long the kernel lets a connection be silent before it asks, and how often it asks then: as operators are told.
TOLD = re.findall(r"net\.ipv4\.(\w+) = (\d+)", block("hosts", "ini keepalive"))
KEEPALIVE = {name: int(value) for name, value in TOLD}


@dataclass
class Machine:
    """A host with mkiso on it, which can be started again."""

    host: Host
    directory: Path
    configuration: dict[str, Any]
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def work_dir(self) -> Path:
        return Path(self.configuration["storage"]["work_dir"])

    @property
    def identity(self) -> str:
        """By which the ledger knows whose job it is."""
        return (self.work_dir / "identity").read_text()

    @property
    def address(self) -> str:
        return f"{self.host.address}:{HTTP}"

    @property
    def log(self) -> Path:
        return self.directory / "service.log"

    def start(self) -> None:
        """`mkiso serve`; returns when it takes connections."""
        file = self.directory / "mkiso.yaml"
        file.write_text(yaml.safe_dump(self.configuration))
        argv = (*self.host.inside, MKISO, "serve", "--config", file)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, env=environment(), start_new_session=True)
        wait_until(self._takes_connections, 30, self.log.read_text)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=60)

    def kill(self) -> None:
        """The service, its workers, their programs."""
        self.host.kill()
        self.bury()

    def bury(self) -> None:
        assert self.process is not None
        self.process.wait(timeout=10)

    def directories(self) -> list[Path]:
        """What jobs have left there."""
        return list(self.work_dir.glob("dicomdir_*"))

    def programs(self) -> list[str]:
        """What jobs have started and left running there."""
        return [name for pid in self.host.processes() if (name := _of_a_job(pid))]

    def _takes_connections(self) -> bool:
        bind = self.configuration["server"]["bind"]
        path = bind.removeprefix("unix:")
        family, to = (socket.AF_INET, (self.host.address, HTTP)) if path == bind else (socket.AF_UNIX, path)
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket(family) as client:
            client.settimeout(1)
            return client.connect_ex(to) == 0


@dataclass(frozen=True)
class Hospital:
    """All of it, running: `url` is nginx's in front of both hosts, `url_of_one` of the first alone."""

    url: str
    url_of_one: str
    machines: tuple[Machine, Machine]
    database: PostgreSQL
    studies: tuple[Study, ...]
    access_log: Path
    destination_log: Path

    def rows(self) -> dict[str, dict[str, Any]]:
        """The ledger: job id to what its row has."""
        names = ("id", "kind", "state", "finished_at", "work_dir", "accessions", "error", "files_sent")
        found = self.database.execute(f"SELECT {', '.join(names)} FROM jobs", database="mkiso")
        return {str(row[0]): dict(zip(names, row, strict=True)) for row in found}

    def unfinished(self) -> list[dict[str, Any]]:
        return [row for row in self.rows().values() if not row["finished_at"]]

    def stored(self) -> int:
        """How many instances the destination was sent so far."""
        return self.destination_log.read_text(errors="replace").count("Received Store Request")

    def asked(self) -> dict[str, list[str]]:
        """X-Request-Id to whom nginx asked: `unix:…` is the first host."""
        lines = [line.split("|") for line in self.access_log.read_text().splitlines()]
        return {tag: upstream.split(", ") for tag, upstream, *_ in lines}


def _of_a_job(pid: int) -> str:
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return process.name() if OWNER in process.environ() else ""
    return ""


@contextmanager
def running_hospital(
    directory: Path,
    studies: Sequence[Study],
    receivers: int = 2,
    delay: float = 0,
    keepalive: Mapping[str, int] = KEEPALIVE,
) -> Iterator[Hospital]:
    """Two hosts with so many receivers each; the archive waits `delay` seconds before it sends an instance.

    `keepalive` is for the kernel of nginx's host.
    """
    with ExitStack() as running:
        a, b, rest = running.enter_context(running_hosts("a", "b", "rest"))
        titles = {host.namespace: [f"CD{host.port.upper()}{n}" for n in range(receivers)] for host in (a, b)}
        database = running.enter_context(running_postgres(DATABASE, rest.address, rest.inside))
        database.execute("CREATE DATABASE mkiso")
        _archive(running, rest, (a, b), titles, studies, delay)
        log = directory / "destination.log"
        running.enter_context(running_storescp("ANY-SCP", DESTINATION, directory / "arrived", log, rest.inside))
        short = Path(running.enter_context(TemporaryDirectory(prefix="mkiso-")))  # for a socket's path (unix(7))
        machines = tuple(
            _machine(running, directory, host, titles[host.namespace], (rest, database), bind, (a.address, b.address))
            for host, bind in ((a, f"unix:{short}/s"), (b, f"{b.address}:{HTTP}"))
        )
        a.set_kernel(**keepalive)
        front, alone = directory / "nginx", directory / "nginx-alone"
        url = running.enter_context(running_nginx(front, 80, short / "s", machines[1].address, a.address, a.inside))
        one = running.enter_context(running_nginx(alone, 81, short / "s", None, a.address, a.inside))
        yield Hospital(url, one, machines, database, tuple(studies), front / "access.log", log)


def _archive(
    running: ExitStack,
    where: Host,
    hosts: Sequence[Host],
    titles: dict[str, list[str]],
    studies: Sequence[Study],
    delay: float,
) -> None:
    """It serves each association by itself, as a PACS does: dcmqrscp lets all wait for a move that is stuck."""
    receivers = {
        title: f"{host.address}:{FIRST_RECEIVER + n}"
        for host in hosts
        for n, title in enumerate(titles[host.namespace])
    }
    root, kind = studies[0].directory.parent, {"delay": delay} if delay else {}
    archive = running_archive(
        ARCHIVE, receivers, root, "slow" if delay else "normal", where.inside, address=where.address, **kind
    )
    running.enter_context(archive)


def _machine(
    running: ExitStack,
    directory: Path,
    host: Host,
    titles: list[str],
    others: tuple[Host, PostgreSQL],
    bind: str,
    asked_at: Sequence[str],
) -> Machine:
    rest, database = others
    own = directory / host.port
    own.mkdir()
    to = {"ae_title": "ANY-SCP", "host": rest.address, "port": DESTINATION}
    receivers = {title: FIRST_RECEIVER + n for n, title in enumerate(titles)}
    given = {
        "pacs": {"host": rest.address, "port": ARCHIVE},
        "storage": {"work_dir": str(own / "work"), "ledger": database.url("mkiso"), "min_free": "1MB"},
        "destinations": {"relay": to, "cd_publisher": to},
        "server": {"bind": bind, "threads": THREADS, "hosts": [*asked_at]},
        "retrieve": PATIENT,
    }
    machine = Machine(host, own, settings(own, ARCHIVE, receivers, **given))
    running.callback(machine.stop)
    machine.start()
    return machine
