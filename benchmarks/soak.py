"""Half an hour of discs, relays, clients that leave, cancels and nonsense; what of it stays in the service's processes.

`python -m benchmarks.soak [--minutes N]`; it needs 3 GB under /var/tmp. Once a minute the clients pause, and what the
service has is measured when nothing is under way. The exit status says whether all answers were right, not whether
everything was flat.
"""

import argparse
import http.client
import random
import signal
import socket
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from benchmarks.clients import ACTS, DESTINATIONS, NOWHERE
from benchmarks.desk import Desk
from benchmarks.metrics import fill as fill_ledger
from benchmarks.samples import MB, Sample, Sampler
from mkiso.workspace import identity
from tests.support.ports import free_ports
from tests.support.service import PATIENT, running_service, settings
from tests.support.testpacs import running_testpacs
from tests.support.tools import LOCALHOST, running_storescp

CLIENTS, WORKERS, RECEIVERS, THREADS = 10, 2, 4, 16
ROUND, EVERY = 60.0, 10.0  # s of load between two rests, between two samples under load
REST = 180.0  # s until everything is to have ended
WARMING, LOCKED = 2, 2.0  # rounds; s, less than whoever waits for the ledger waits
OLDER = 5_000  # ended jobs in the ledger: its caches and the long answers are as they will be
PATIENCE = 10  # s, for who does not read
MORE = 1.0  # MB that the last third of the rests may have above the second, a process
SHOWN, LONGEST = 20, 1000


class Load:
    """The clients: each acts, one act after the other, while a round lasts."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._round = 0
        self.done: Counter[str] = Counter()
        self.faults: list[str] = []

    def round(self, seconds: float) -> None:
        """So many seconds, and the time that the last acts take to their end."""
        self._round += 1
        until = time.monotonic() + seconds
        clients = [threading.Thread(target=self._act, args=(until, number), daemon=True) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()

    def _act(self, until: float, number: int) -> None:
        chance = random.Random(CLIENTS * self._round + number)
        while time.monotonic() < until:
            (act,) = chance.choices(list(ACTS), list(ACTS.values()))
            try:
                act(self._desk, chance)
            except Exception as fault:  # the boundary: the others go on
                self.faults.append(f"{act.__name__}: {type(fault).__name__}: {str(fault)[:LONGEST]}")
                say(self.faults[-1])
            self.done[act.__name__] += 1


class UnderLoad(threading.Thread):
    """Takes a sample now and then until it is stopped."""

    def __init__(self, sampler: Sampler) -> None:
        super().__init__(daemon=True)
        self._sampler, self._stopped = sampler, threading.Event()
        self.samples: list[Sample] = []

    def run(self) -> None:
        while not self._stopped.wait(EVERY):
            self.samples.append(self._sampler.sample())
            say(self.samples[-1].line())

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def fill(desk: Desk) -> None:
    """Have all threads of the workers, and all connections that their ledger keeps: both come with the need for them.

    Requests that are not sent to their end hold a thread each; when they are, each waits for the ledger, which another
    writer has for a moment. They cancel a job that has ended, which changes nothing.
    """
    job_id = desk.service.get("/api/jobs?state=done&limit=1").json()["jobs"][0]["id"]
    begun = [socket.create_connection((LOCALHOST, desk.port)) for _ in range(3 * WORKERS * THREADS)]
    for one in begun:
        one.sendall(f"POST /api/jobs/{job_id}/cancel HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".encode())
    time.sleep(LOCKED)
    with closing(sqlite3.connect(desk.ledger, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        for one in begun:
            one.sendall(b"\r\n")
        time.sleep(LOCKED)
        writer.execute("ROLLBACK")
    for one in begun:
        with one:
            answer = http.client.HTTPResponse(one)
            answer.begin()
            assert answer.status == http.client.OK, answer.read()


def soak(desk: Desk, sampler: Sampler, minutes: float) -> tuple[Load, list[Sample], list[Sample]]:
    """The load, with the samples at rest, the first of them after warming up, and those under load."""
    load, under_load = Load(desk), UnderLoad(sampler)
    under_load.start()
    for _ in range(WARMING):
        load.round(ROUND / 2)
        fill(desk)
    rests, until = [sampler.at_rest(REST)], time.monotonic() + 60 * minutes
    say(f"at rest, warm: {rests[-1].line()}")
    while time.monotonic() < until:
        load.round(ROUND)
        rests.append(sampler.at_rest(REST))
        say(f"at rest: {rests[-1].line()}")
    under_load.stop()
    return load, rests, under_load.samples


def verdicts(rests: Sequence[Sample], left: Sequence[str]) -> Iterator[tuple[bool, str]]:
    """Of what the processes have, and of what a job could leave behind."""
    first = rests[0]
    is_same = all(list(one.processes) == list(first.processes) for one in rests)
    yield is_same, "the same processes as after warming up"
    yield from _of_processes(rests) if is_same else ()
    text = "without a row that is not finished, a directory, a program, a connection"
    yield all(one.is_at_rest for one in rests), f"{sum(one.is_at_rest for one in rests)} of {len(rests)} rests {text}"
    yield not left, f"programs of jobs that still run: {', '.join(left) or 'none'}"


def _of_processes(rests: Sequence[Sample]) -> Iterator[tuple[bool, str]]:
    first, last = rests[0], rests[-1]
    for name in ("descriptors", "threads"):
        before, after = ([getattr(one, name) for one in sample.processes.values()] for sample in (first, last))
        met = all(now <= had for had, now in zip(before, after, strict=True))
        yield met, f"{name} of the master and the workers: {_list(after)} (after warming up {_list(before)})"
    for number, pid in enumerate(last.processes):
        second, third = thirds([one.processes[pid].memory / MB for one in rests])
        text = f"{_called(number)}: {third:.2f} MB in the last third, {second:.2f} MB in the second"
        yield third - second <= MORE, f"{text} (target {MORE:g} MB more)"


def _called(number: int) -> str:
    return f"worker {number}" if number else "the master"


def thirds(values: Sequence[float]) -> tuple[float, float]:
    """The medians of the second and the last third."""
    third = max(1, len(values) // 3)
    return statistics.median(values[-2 * third : -third] or values), statistics.median(values[-third:])


def slope(rests: Sequence[Sample], pid: int) -> float:
    """MB that a thousand jobs add to a process, by the line of least squares through the last two thirds."""
    behind = [one for one in rests[len(rests) // 3 :] if pid in one.processes]
    jobs, memory = [one.jobs / 1000 for one in behind], [one.processes[pid].memory / MB for one in behind]
    return statistics.linear_regression(jobs, memory).slope if len(set(jobs)) > 1 else 0.0


def _list(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def report(load: Load, rests: Sequence[Sample], under_load: Sequence[Sample], sampler: Sampler) -> None:
    first, last = rests[0], rests[-1]
    done = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in load.done.most_common())
    print(f"{load.done.total()} acts of {CLIENTS} clients: {done}")
    ended = sampler.ended()
    print(f"{ended.total()} jobs: " + ", ".join(f"{state} {count}" for state, count in ended.most_common()))
    for number, pid in enumerate(last.processes):
        busy = [one.processes[pid] for one in under_load if pid in one.processes]
        memory, descriptors = max(one.memory for one in busy) / MB, max(one.descriptors for one in busy)
        more = f"{slope(rests, pid):+.2f} MB per 1,000 jobs"
        print(f"{_called(number)}: {more}; under load at most {memory:.1f} MB, {descriptors} descriptors")
    print(f"under load at most {max(len(one.programs) for one in under_load)} programs")
    job = (last.ledger - first.ledger) / max(1, last.jobs - first.jobs)
    print(f"the ledger: {job / 1000:.2f} kB more a job; /dev/shm {first.shared}, {last.shared} bytes")
    for met, text in verdicts(rests, sampler.left_programs()):
        print(f"{'ok' if met else 'missed':<6}  {text}")
    print(
        f"{'missed' if load.faults else 'ok':<6}  {len(load.faults)} wrong answers and errors in the log",
        *load.faults[:SHOWN],
        sep="\n",
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _configuration(directory: Path, pacs: int, receivers: dict[str, int], to: int, nowhere: int) -> dict[str, Any]:
    ports = dict.fromkeys(DESTINATIONS, to) | {NOWHERE: nowhere}
    peers = {name: {"ae_title": "DESTINATION", "host": LOCALHOST, "port": port} for name, port in ports.items()}
    server = {"workers": WORKERS, "threads": THREADS, "send_timeout": PATIENCE}
    return settings(directory, pacs, receivers, destinations=peers, server=server, retrieve=PATIENT)


def _soak(directory: Path, minutes: float) -> int:
    pacs_port, http, to, nowhere, *ports = free_ports(4 + RECEIVERS)
    receivers = {f"CDRECORD{number}": port for number, port in enumerate(ports, start=1)}
    configuration = _configuration(directory, pacs_port, receivers, to, nowhere)
    with ExitStack() as running:
        pacs = running.enter_context(running_testpacs(directory / "pacs", pacs_port, receivers, bench=True))
        arrived, log = directory / "arrived", directory / "destination.log"
        running.enter_context(running_storescp("DESTINATION", to, arrived, log))
        (directory / "work").mkdir(mode=0o700)
        fill_ledger(configuration["storage"]["ledger"], identity(directory / "work"), OLDER)
        service = running.enter_context(running_service(directory, http, configuration))
        sampler, desk = Sampler(service, directory), Desk(service, pacs, directory)
        desk.discs.mkdir()
        load, rests, under_load = soak(desk, sampler, minutes)
        load.faults += [line for line in service.log.read_text().splitlines() if " ERROR " in line]
        report(load, rests, under_load, sampler)
    return 1 if load.faults else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the soak; 0 where all answers were right and no error was logged, else 1, 130 where it was interrupted."""
    parser = argparse.ArgumentParser(prog="soak", description="What of half an hour's work stays in the service.")
    parser.add_argument("--minutes", type=float, default=30.0, help="of load, beyond two to warm up (default: 30)")
    minutes = parser.parse_args(arguments).minutes
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="mkiso-bench-", dir="/var/tmp") as directory:
            return _soak(Path(directory), minutes)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
