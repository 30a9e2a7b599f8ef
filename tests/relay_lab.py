"""Queued relays while everything is killed: two services on one ledger, two moody destinations, an archive.

None is lost, none is sent twice at once, no destination has more than its `parallel`, every instance arrives, and
nothing is left behind. `python -m tests.relay_lab --ledger postgresql --relays 60 --kills 20` is the whole of it; the
tests run a shorter one.
"""

import argparse
import random
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import requests

from mkiso.process import OWNER
from tests.support.archive import running_archive
from tests.support.mariadb import running_mariadb
from tests.support.moody import running_moody
from tests.support.ports import free_ports
from tests.support.postgres import running_postgres
from tests.support.service import Service, running_service, settings
from tests.support.studies import JOHN, Study, ct_study

PARALLEL = 2
INSTANCES = 6
ENDED = ("done", "quarantined", "cancelled")
DESTINATIONS = ("one", "other")


@dataclass
class Host:
    """A service, which may be killed and begun anew."""

    directory: Path
    port: int
    configuration: dict[str, Any]
    running: ExitStack = field(default_factory=ExitStack)
    service: Service | None = None

    def start(self) -> None:
        self.service = self.running.enter_context(running_service(self.directory, self.port, self.configuration))

    def processes(self) -> list[psutil.Process]:
        """The master, and its workers."""
        assert self.service is not None
        with suppress(psutil.NoSuchProcess):
            return [psutil.Process(self.service.process.pid), *self.service.workers()]
        return []

    def kill_worker(self, chance: random.Random) -> None:
        if workers := self.processes()[1:]:
            chance.choice(workers).kill()

    def kill(self) -> None:
        """Master and workers at once, and begin anew."""
        assert self.service is not None
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.service.process.wait()
        self.start()

    def suspend(self, seconds: float) -> None:
        suspended = self.processes()
        for process in suspended:
            with suppress(psutil.NoSuchProcess):  # a worker that was killed just before
                process.suspend()
        time.sleep(seconds)
        for process in suspended:
            with suppress(psutil.NoSuchProcess):
                process.resume()


class Destination:
    """A moody one, which may be switched off for a while."""

    def __init__(self, port: int, log: Path, seed: int) -> None:
        self.port, self.log, self._seed = port, log, seed
        self._running = ExitStack()

    def start(self, mood: float = 1.0) -> None:
        self._seed += 1
        self._running.enter_context(running_moody(self.port, self.log, self._seed, mood))

    def stop(self) -> None:
        self._running.close()


class Lab:
    def __init__(self, directory: Path, kind: str, relays: int, seed: int) -> None:
        self.directory, self.kind = directory, kind
        self.chance = random.Random(seed)
        self.studies = [_study(directory / "studies", number) for number in range(relays)]
        self.running = ExitStack()
        self.database: Any = None
        self.hosts: list[Host] = []
        self.destinations: dict[str, Destination] = {}
        self.relays: dict[str, Study] = {}

    def __enter__(self) -> "Lab":
        with ExitStack() as running:
            titles = {f"HOST{host}R{number}": port for host in "AB" for number, port in enumerate(free_ports(2))}
            archive, *ports = free_ports(1 + len(DESTINATIONS))
            running.enter_context(running_archive(archive, titles, self.directory / "studies"))
            url = self._begin_ledger(running)
            for name, port in zip(DESTINATIONS, ports, strict=True):
                self.destinations[name] = Destination(port, self.directory / f"{name}.log", self.chance.randrange(1000))
                self.destinations[name].start()
                running.callback(self.destinations[name].stop)
            for letter in "AB":
                own = {title: port for title, port in titles.items() if title.startswith(f"HOST{letter}")}
                self._begin_host(running, letter, archive, own, url)
            self.running = running.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self.running.close()

    def _begin_ledger(self, running: ExitStack) -> str:
        if self.kind == "sqlite":
            return f"sqlite:///{self.directory}/ledger.db"
        (port,) = free_ports(1)
        server: AbstractContextManager[Any] = (
            running_postgres(port) if self.kind == "postgresql" else running_mariadb(self.directory / "mariadb", port)
        )
        self.database = running.enter_context(server)
        self.database.execute("CREATE DATABASE lab")
        url: str = self.database.url("lab")
        return url

    def _begin_host(self, running: ExitStack, letter: str, archive: int, titles: dict[str, int], url: str) -> None:
        directory = self.directory / f"host{letter}"
        directory.mkdir()
        peers = {
            name: {"ae_title": "ANY-SCP", "host": "127.0.0.1", "port": one.port, "parallel": PARALLEL, "timeout": 10}
            for name, one in self.destinations.items()
        }
        configuration = settings(directory, archive, titles, destinations=peers)
        configuration["storage"]["ledger"] = url
        host = Host(directory, free_ports(1)[0], configuration)
        host.start()
        running.push(host.running)
        self.hosts.append(host)

    def queue(self) -> None:
        """A relay of each study, to one destination and the other by turns."""
        for number, study in enumerate(self.studies):
            relay_id, host = str(uuid.uuid4()), self.hosts[number % 2]
            parameters = {
                "accession_numbers": study.accession,
                "destination": DESTINATIONS[number % 2],
                "queue": "1",
                "job": relay_id,
            }
            assert host.service is not None
            answer = requests.get(f"{host.service.url}/api/iso/relay", params=parameters, timeout=60)
            assert answer.status_code == 202, answer.text
            self.relays[relay_id] = study

    def states(self) -> dict[str, dict[str, Any]]:
        """The relays, as whichever host answers tells them."""
        for host in self.hosts:
            with suppress(requests.RequestException, AssertionError):
                assert host.service is not None
                found = {one: host.service.get(f"/api/relays/{one}", timeout=10) for one in self.relays}
                assert all(answer.ok for answer in found.values())
                return {relay_id: answer.json() for relay_id, answer in found.items()}
        return {}

    def disturb(self, kills: int, suspended: float) -> None:
        """So many mishaps, one after the other: each kind in its turn, whichever host or destination it is."""
        for number in range(kills):
            time.sleep(self.chance.uniform(0.2, 1.0))
            host, name = self.chance.choice(self.hosts), self.chance.choice(DESTINATIONS)
            match number % 4:
                case 0 | 2:
                    host.kill_worker(self.chance)
                case 1:
                    host.kill()
                case _:
                    self.destinations[name].stop()
                    time.sleep(1)
                    self.destinations[name].start()
            if number == kills // 2 and suspended:
                host.suspend(suspended)
                if self.database is not None:
                    self.database.kill()
                    self.database.start()

    def wait(self, seconds: float) -> list[str]:
        """What has not arrived after so many seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.states()
            if found and all(relay["state"] in ENDED for relay in found.values()):
                break
            time.sleep(0.5)
        return [
            f"{one['id']}: {one['state']}, {one['error']}" for one in self.states().values() if one["state"] != "done"
        ]

    def faults(self) -> Iterator[str]:
        """What is wrong at the destinations, in the ledger and on the hosts, in words."""
        of_relay = {uid: study for study in self.studies for uid in study.sop_instance_uids}
        for name, destination in self.destinations.items():
            spans = associations(destination.log)
            yield from (f"{name}: {count} at once" for count in _most_at_once(spans) if count > PARALLEL)
            yield from (f"{name}: {one}" for one in _overlapping(spans, of_relay))
        arrived = {uid for one in self.destinations.values() for span in associations(one.log) for uid in span.uids}
        if missing := set(of_relay) - arrived:
            yield f"{len(missing)} instances never arrived"
        for host in self.hosts:
            yield from (f"left: {path}" for path in (host.directory / "work").glob("dicomdir_*"))
            yield from (f"left: {one}" for one in programs_of(host.directory / "work"))

    def sent_twice(self) -> int:
        """How many acknowledged instances were sent once more."""
        sent = [uid for one in self.destinations.values() for span in associations(one.log) for uid in span.uids]
        return len(sent) - len(set(sent))


def _study(root: Path, number: int) -> Study:
    return ct_study(root, JOHN, f"LAB.{number:03}", count=INSTANCES, side=64)


@dataclass
class Span:
    """An association in which instances came: its time, and what was acknowledged."""

    began: float
    ended: float = float("inf")
    uids: list[str] = field(default_factory=list)


def associations(log: Path) -> list[Span]:
    """Those in which anything came; one that was cut by its destination's end has ended when another was begun."""
    spans: dict[str, Span] = {}
    for line in log.read_text().splitlines():
        moment, association, what = line.split(" ")
        if what == "open":
            process = association.partition(".")[0]
            for key, span in spans.items():
                if key.partition(".")[0] != process:
                    span.ended = min(span.ended, float(moment))
            spans[f"{association}.{moment}"] = spans[association] = Span(float(moment))
        elif association in spans:
            if what == "close":
                spans[association].ended = min(spans[association].ended, float(moment))
            else:
                spans[association].uids.append(what)
    return [span for span in {id(one): one for one in spans.values()}.values() if span.uids]


def _most_at_once(spans: Sequence[Span]) -> Iterator[int]:
    for span in spans:
        yield sum(other.began <= span.began < other.ended for other in spans)


def _overlapping(spans: Sequence[Span], of_relay: dict[str, Study]) -> Iterator[str]:
    by_study: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        by_study[of_relay[span.uids[0]].accession].append(span)
    for number, those in by_study.items():
        those.sort(key=lambda span: span.began)
        for one, following in pairwise(those):
            if following.began < one.ended:
                yield f"{number} was sent twice at once, {one.ended - following.began:.2f} s"


def programs_of(work: Path) -> list[str]:
    """The names of what runs for the jobs of a work_dir."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(work) in process.environ().get(OWNER, ""):
                found.append(process.name())
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ledger", choices=("sqlite", "postgresql", "mariadb"), default="sqlite")
    parser.add_argument("--relays", type=int, default=60)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--suspended", type=float, default=15.0, help="seconds of a SIGSTOP of one service")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600.0, help="until all has to have arrived")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="relay-lab-") as name:
        with Lab(Path(name), options.ledger, options.relays, options.seed) as lab:
            began = time.monotonic()
            lab.queue()
            lab.disturb(options.kills, options.suspended)
            late = lab.wait(options.seconds)
            took = time.monotonic() - began
            attempts = sum(relay["attempts"] for relay in lab.states().values())
            faults = [*late, *lab.faults()]
        print(f"{options.relays} relays in {took:.0f} s, {attempts} attempts, {lab.sent_twice()} instances sent twice")
        print("\n".join(faults) or "nothing lost, nothing twice at once, limits kept, nothing left")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
