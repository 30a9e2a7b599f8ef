"""Whoever reaches a receiver's port takes no processes, no time and no space from those who are served."""

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import create_connection
from typing import Any

import pytest

from mkiso import errors
from mkiso.config import parse
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from mkiso.waiting import Cancellation
from tests.support.archive import running_archive
from tests.support.certificates import Authority
from tests.support.ports import free_ports
from tests.support.service import instances_of, instances_on, read_disc, settings
from tests.support.strangers import (
    DEFLATED,
    Stranger,
    endless_objects,
    hung_up,
    idle_associations,
    of_many_steps,
)
from tests.support.studies import RICHARD, Study, ct_study
from tests.support.tools import LOCALHOST, listens, wait_until

SIX, MOST = "SIX.001", 32


class Site:
    """An installation with two receivers that anybody may reach, whose archive sends six instances slowly."""

    def __init__(self, directory: Path, configuration: dict[str, Any], study: Study) -> None:
        self.directory, self.study = directory, study
        self.installation = Installation(parse(configuration))
        self.ports = [one["port"] for one in configuration["receivers"]]
        self.cancellation = Cancellation()

    def disc(self, name: str = "disc") -> dict[str, bytes]:
        disc = make_disc(self.installation, Order((SIX,), "test"), self.cancellation)
        iso = b"".join(disc)
        disc.close()
        return instances_on(read_disc(iso, self.directory / name))

    def is_right(self, made: Any) -> bool:
        return bool(made.result(60) == instances_of([self.study]))

    def wait_for_receiver(self, number: int = 0) -> None:
        wait_until(lambda: any(listens(pid, self.ports[number]) for pid in receivers()), 20, str)


def receivers() -> list[int]:
    return [pid for pid in children(os.getpid()) if stat(pid).startswith("storescp)")]


def living_children() -> list[int]:
    """The processes of the receivers that serve connections."""
    return [child for one in receivers() for child in children(one) if stat(child).startswith("storescp) S")]


def children(pid: int) -> list[int]:
    """Of all threads of a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, task.read_text().split())
    return found


def stat(pid: int) -> str:
    """A process's name and state (proc_pid_stat(5)); empty where it is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().partition("(")[2]
    return ""


@contextmanager
def attacked(
    directory: Path, behaviour: str = "slow", delay: float = 0.2, tls: Any = None, **sections: Any
) -> Iterator[tuple[Site, ThreadPoolExecutor]]:
    port, *receiving = free_ports(3)
    destinations = dict(zip(("RECEIVER", "RECEIVER2"), receiving, strict=True))
    study = ct_study(directory / "held", RICHARD, SIX, count=6)
    configuration = settings(directory, port, destinations)
    configuration["receivers"][0]["tls"] = tls
    for name, section in sections.items():
        configuration[name] |= section
    with running_archive(port, destinations, directory / "held", behaviour, delay=delay):
        site = Site(directory, configuration, study)
        with ThreadPoolExecutor(4) as pool:
            try:
                yield site, pool
            finally:
                site.cancellation.cancel("The test is over.")
        site.installation.ledger.close()


def test_idle_associations_stay_few_and_keep_nobody_from_being_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mkiso.retrieve.receiver.YOUNG", 1, raising=False)
    with attacked(tmp_path, delay=0.7) as (site, pool):
        made = pool.submit(site.disc)
        site.wait_for_receiver()
        with idle_associations(site.ports[0], 200):
            wait_until(lambda: MOST <= len(living_children()) <= MOST + 1, 10, lambda: str(len(living_children())))
            assert not made.done()
            assert site.is_right(made)


def test_silent_connections_end_though_tls_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkiso.retrieve.receiver.UNASSOCIATED", 0.5, raising=False)
    authority = Authority(tmp_path / "ca")
    own = authority.pair("mkiso", host="mkiso.hospital.example")
    tls = {"key_file": str(own.key), "cert_file": str(own.certificate), "ca_file": str(authority.certificate)}
    with attacked(tmp_path, "hang-move", tls=tls, retrieve={"stall_timeout": 3600}) as (site, pool):
        pool.submit(site.disc)
        site.wait_for_receiver()
        silent = [create_connection((LOCALHOST, site.ports[0])) for _ in range(3)]
        wait_until(lambda: all(map(hung_up, silent)), 20, str)
        for one in silent:
            one.close()


def test_foreign_instances_of_endless_elements_hold_up_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkiso.dicom.instances.STRANGERS", 0.5, raising=False)
    with attacked(tmp_path) as (site, pool):
        made = pool.submit(site.disc)
        site.wait_for_receiver()
        # A job that is done has no receiver any more.
        with suppress(OSError), Stranger(site.ports[0], DEFLATED) as stranger:
            for number in range(8):
                stranger.store(of_many_steps(), f"1.2.3.{number}".encode())
        assert site.is_right(made)


def is_reading() -> bool:
    """Whether a job of this process has a file of its receiver's open."""
    with suppress(FileNotFoundError):
        return any("/received/" in os.readlink(one) for one in Path("/proc/self/fd").iterdir())
    return False


def test_a_job_that_reads_an_endless_instance_can_be_cancelled(tmp_path: Path) -> None:
    with attacked(tmp_path, delay=1) as (site, pool):
        made = pool.submit(site.disc)
        site.wait_for_receiver()
        with Stranger(site.ports[0], DEFLATED) as stranger:
            for file in site.study.files[:2]:
                stranger.store(of_many_steps(), file.stem.encode())  # as if it were the archive's own
        wait_until(is_reading, 10, str)
        site.cancellation.cancel("Somebody stopped it.")
        with pytest.raises(errors.Cancelled):
            made.result(5)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MB, which needs root."""
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(("mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", directory), check=True)
    yield directory
    subprocess.run(("umount", directory), check=True)


def test_a_strangers_endless_objects_fill_nobodys_disk(tmp_path: Path, small_disk: Path) -> None:
    storage = {"work_dir": str(small_disk / "work"), "min_free": "8MB"}
    with attacked(tmp_path, storage=storage) as (site, pool):
        made = [pool.submit(site.disc, f"disc{number}") for number in range(2)]
        for number in range(2):
            site.wait_for_receiver(number)
        with endless_objects(site.ports[0]):
            assert all(map(site.is_right, made))
