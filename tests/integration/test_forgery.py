"""Whoever reaches a receiver's port while a job runs may send: nothing of it gets onto a disc, or holds one up."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import SecondaryCaptureImageStorage
from pynetdicom import AE, build_context

from mkiso import errors
from mkiso.config import parse
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from mkiso.waiting import Cancellation
from tests.support import tools
from tests.support.archive import running_archive
from tests.support.datasets import Patient
from tests.support.holdings import read
from tests.support.ports import free_ports
from tests.support.service import instances_of, instances_on, read_disc, settings
from tests.support.slow_store import store_with_pause
from tests.support.studies import RICHARD, Study, ct_study
from tests.support.tools import LOCALHOST, wait_until

SIX = "SIX.001"
FOREIGN = Patient("PAT666", "FORGED^NAME")


@dataclass(frozen=True)
class Attacked:
    """An installation whose archive sends six instances, and whose receiver anybody may reach."""

    installation: Installation
    study: Study
    port: int
    directory: Path

    def disc(self, cancellation: Cancellation | None = None) -> dict[str, bytes]:
        """The instances on the disc that is made."""
        disc = make_disc(self.installation, Order((SIX,), "test"), cancellation or Cancellation())
        iso = b"".join(disc)
        disc.close()
        return instances_on(read_disc(iso, self.directory / "disc"))

    @contextmanager
    def making(self) -> Iterator["Future[dict[str, bytes]]"]:
        """A disc that is being made, of which the receiver listens; cancelled at the end, if need be."""
        cancellation = Cancellation()
        with ThreadPoolExecutor(1) as pool:
            made = pool.submit(self.disc, cancellation)
            try:
                wait_until(lambda: self._send_echo() or made.done(), 20, str)
                yield made
            finally:
                cancellation.cancel("The test is over.")

    def send(self, *files: Path) -> bool:
        """storescu, as any host has it."""
        argv = ("/usr/bin/storescu", "-aec", "RECEIVER", LOCALHOST, str(self.port), *files)
        return tools.run(argv).returncode == 0

    def _send_echo(self) -> bool:
        return tools.run(("/usr/bin/echoscu", LOCALHOST, str(self.port))).returncode == 0

    def forged(self, **values: Any) -> Path:
        """The archive's first instance with other values."""
        dataset: Dataset = dcmread(sorted(self.study.files)[0])
        for name, value in values.items():
            setattr(dataset, name, value)
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        file = self.directory / "forged.dcm"
        dataset.save_as(file)
        return file


Start = Callable[..., Any]


@pytest.fixture
def attacked(tmp_path: Path) -> Start:
    @contextmanager
    def start(behaviour: str = "slow", delay: float = 0.2, n: int = 3, **sections: Any) -> Iterator[Attacked]:
        port, receiver = free_ports(2)
        study = ct_study(tmp_path / "held", RICHARD, SIX, count=6)
        made = parse(settings(tmp_path, port, {"RECEIVER": receiver}, **sections))
        with running_archive(port, {"RECEIVER": receiver}, tmp_path / "held", behaviour, delay=delay, n=n):
            installation = Installation(made)
            yield Attacked(installation, study, receiver, tmp_path)
            installation.ledger.close()

    return start


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"PatientID": "PAT666"}, errors.WrongPatient),
        ({"PatientID": ""}, errors.WrongPatient),
        ({"PatientID": "PAT666", "SOPClassUID": SecondaryCaptureImageStorage}, errors.WrongPatient),
        ({"PixelData": bytes(2 * 128 * 128)}, errors.ConflictingInstances),
    ],
    ids=["of another patient", "of nobody", "of another patient and class", "of the same patient"],
)
def test_a_forged_instance_fails_the_disc_and_is_named(
    values: dict[str, Any], error: type[errors.MkisoError], attacked: Start
) -> None:
    with attacked() as it, it.making() as made:
        forged = it.forged(**values)
        assert it.send(forged)
        with pytest.raises(error) as caught:
            made.result(60)
        assert str(dcmread(forged).SOPInstanceUID) in caught.value.detail
        assert caught.value.fields == {"accession": SIX}


def test_an_instance_that_comes_again_counts_once(attacked: Start) -> None:
    with attacked() as it, it.making() as made:
        assert it.send(*it.study.files[:2])
        assert made.result(60) == instances_of([it.study])


@pytest.mark.parametrize("behaviour", ["older-patient-id", "no-patient-id"])
@pytest.mark.parametrize(
    ("section", "setting"),
    [("retrieve", {"verify_patient": False}), ("patients", {"allow_mixed": True})],
)
def test_the_patient_of_the_files_may_be_left_unverified(
    behaviour: str, section: str, setting: dict[str, bool], attacked: Start
) -> None:
    with attacked(behaviour, **{section: setting}) as it:
        assert it.disc() == instances_of([it.study])


def test_files_with_an_older_patient_id_than_the_answer_fail_the_disc(attacked: Start) -> None:
    with attacked("older-patient-id") as it, pytest.raises(errors.WrongPatient, match=r"retrieve\.verify_patient"):
        it.disc()


def test_where_the_answer_has_no_patient_id_the_files_must_agree(attacked: Start) -> None:
    with attacked("no-patient-id") as it:
        assert it.disc() == instances_of([it.study])
    with attacked("no-patient-id", delay=0.2) as it, it.making() as made:
        assert it.send(it.forged(PatientID="PAT666"))
        with pytest.raises(errors.WrongPatient):
            made.result(60)


def test_a_foreign_instance_on_its_way_does_not_hold_a_finished_job(attacked: Start, tmp_path: Path) -> None:
    foreign = ct_study(tmp_path / "foreign", FOREIGN, "FOREIGN.001", count=1, side=2048)
    with (
        attacked(retrieve={"settle_timeout": 3600, "stall_timeout": 3600}) as it,
        it.making() as made,
        endless_store(it.port, foreign.files[0]),
    ):
        assert made.result(60) == instances_of([it.study])


def test_foreign_instances_are_no_progress(attacked: Start, tmp_path: Path) -> None:
    foreign = ct_study(tmp_path / "foreign", FOREIGN, "FOREIGN.001", count=1)
    with attacked("stall", retrieve={"stall_timeout": 1.5}) as it, it.making() as made:
        for _ in range(100):
            if not made.done():
                it.send(*foreign.files)
        with pytest.raises(errors.PacsTimeout, match="stall_timeout"):
            made.result(0)


class Ended(Exception):
    """The test is over."""


@contextmanager
def endless_store(port: int, file: Path) -> Iterator[None]:
    """A C-STORE that stops in the middle of its data set and stays there."""
    ended, began = threading.Event(), threading.Event()

    def pause() -> None:
        began.set()
        ended.wait()
        raise Ended

    def send() -> None:
        instance = read(file)
        contexts = [build_context(instance.sop_class, instance.transfer_syntax)]
        association = AE().associate(LOCALHOST, port, contexts)
        with suppress(Ended):
            store_with_pause(association, instance, pause)
        association.abort()

    sender = threading.Thread(target=send)
    sender.start()
    assert began.wait(20)
    try:
        yield
    finally:
        ended.set()
        sender.join()
