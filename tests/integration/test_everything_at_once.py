"""Whatever strangers do to one receiver, all at once, who asks for a disc gets it, right and in time."""

import subprocess
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from mkiso.verify.verify import verify
from tests.support.crowd import crowd
from tests.support.orthanc import AE_TITLE, running_orthanc
from tests.support.ports import free_ports
from tests.support.service import Service, instances_of, instances_on, read_disc, running_service, settings
from tests.support.studies import RICHARD, Study, ct_study, mixed_study
from tests.support.tools import wait_until
from tests.support.valve import Valve, valve

ROOM = "200m"  # the work_dir's, which strangers fill
ENOUGH = 1 << 19  # bytes, by which the large study is on its way
SLOWER = 3


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own, which needs root."""
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(("mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=0700", "tmpfs", directory), check=True)
    yield directory
    subprocess.run(("umount", directory), check=True)


@dataclass(frozen=True)
class Site:
    """A service of two receivers before Orthanc, which reaches the first one through a valve."""

    directory: Path
    service: Service
    valve: Valve
    strangers: int
    large: Study
    small: tuple[Study, ...]

    def ask(self, study: Study) -> requests.Response:
        return self.service.get(f"/mkiso.php?accession_number={study.accession}&layout=pdi")

    def discs(self) -> tuple[list[requests.Response], float]:
        """The small ones, each twice, two at a time, and the seconds that they took."""
        began = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(self.ask, self.small * 2)), time.monotonic() - began

    def require_right(self, studies: Iterable[Study], answers: Iterable[requests.Response]) -> None:
        for number, (study, answer) in enumerate(zip(studies, answers, strict=True)):
            assert answer.status_code == 200, answer.text
            iso = self.directory / f"{study.accession}-{number}.iso"
            iso.write_bytes(answer.content)
            assert [check for check in verify(iso) if not check.ok] == []
            assert instances_on(read_disc(iso, iso.with_suffix(".disc"))) == instances_of([study])


@contextmanager
def site(directory: Path, work_dir: Path) -> Iterator[Site]:
    archive, http, first, second = free_ports(4)
    held = directory / "held"
    large = ct_study(held, RICHARD, "LARGE.001", count=60)
    small = [ct_study(held, RICHARD, f"SMALL.{n:03}", count=8, side=256) for n in range(7)]
    studies = (mixed_study(held), *small)
    with ExitStack() as running:
        way = running.enter_context(valve(first, ENOUGH))
        destinations = {"FIRST": way.port, "SECOND": second}
        patient = {"DicomScuTimeout": 120}  # as long as the valve may be shut
        orthanc = running.enter_context(running_orthanc(directory / "pacs", (archive, http), destinations, **patient))
        orthanc.put(file for study in (large, *studies) for file in study.files)
        limits = {"calling_ae_title": "FIRST", "stall_timeout": 60}
        configuration = settings(directory, archive, {"FIRST": first, "SECOND": second}, retrieve=limits)
        configuration["pacs"]["ae_title"] = AE_TITLE
        configuration["storage"]["work_dir"] = str(work_dir)
        service = running.enter_context(running_service(directory, free_ports(1)[0], configuration))
        wait_until(lambda: len(service.workers()) == 2, 10, str)
        yield Site(directory, service, way, first, large, studies)


def is_on_its_way(work_dir: Path) -> bool:
    return sum(file.stat().st_size for file in work_dir.glob("dicomdir_*/received/*")) > ENOUGH // 2


def test_every_disc_is_right_and_in_time_whatever_strangers_do(disk: Path, tmp_path: Path) -> None:
    work_dir = disk / "work"
    with site(tmp_path, work_dir) as it, ThreadPoolExecutor(1) as pool:
        workers = it.service.workers()
        large = pool.submit(it.ask, it.large)
        wait_until(lambda: is_on_its_way(work_dir), 20, str)
        undisturbed, seconds = it.discs()
        with crowd(it.strangers, tmp_path / "hostile"):
            disturbed, longer = it.discs()
            it.valve.open()
            large_one = large.result()
        it.require_right(it.small * 2, undisturbed)
        it.require_right(it.small * 2, disturbed)
        it.require_right([it.large], [large_one])
        assert longer < SLOWER * seconds, f"{seconds:.1f} s undisturbed, {longer:.1f} s beside strangers"
        assert it.service.workers() == workers
        assert it.service.stop() == 0
    assert list(work_dir.glob("dicomdir_*")) == []
