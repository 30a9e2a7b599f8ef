"""Instances that were made to cost whoever reads them gigabytes: a disc of them all, and what it costs the worker."""

from collections.abc import Iterator

import pytest

from tests.support import hostile
from tests.support.archive import running_archive
from tests.support.memory import forget_peak, peak
from tests.support.ports import free_ports
from tests.support.service import Service, running_service, settings
from tests.support.studies import RICHARD, ct_study

MOST = 50_000_000  # bytes above what the worker has at rest
HONEST = "CT.001"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("hostile")
    archive, receiver, port = free_ports(3)
    hostile.instances(directory / "held")
    ct_study(directory / "held" / "honest", RICHARD, HONEST)
    told = settings(directory, archive, {"RECEIVER": receiver}, media={"layout": "pdi"}, server={"workers": 1})
    with (
        running_archive(archive, {"RECEIVER": receiver}, directory / "held"),
        running_service(directory, port, told) as running,
    ):
        yield running


def test_no_hostile_instance_costs_the_worker_memory_or_the_disc(served: Service) -> None:
    assert served.get(f"/api/iso/download?accession_number={HONEST}").ok
    (worker,) = served.workers()
    forget_peak(worker)
    rest = peak(worker)
    answer = served.get(f"/api/iso/download?accession_number={hostile.ACCESSION}", timeout=300)
    assert answer.ok, answer.text
    assert peak(worker) - rest < MOST
    assert served.workers() == [worker]
