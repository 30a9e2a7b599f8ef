"""A peer that has as many associations as it takes: asked again, then told as busy."""

import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from mkiso import checks, errors
from mkiso.commands.check import checks as all_checks
from mkiso.config import parse
from mkiso.dcmtk.sending import MOST_CONTEXTS
from mkiso.dicom.instances import Instance
from mkiso.installation import Installation
from mkiso.job import Order, Relayed, make_disc, relay
from mkiso.relay import Relay, peer_of
from mkiso.waiting import Cancellation
from mkiso.workspace import ensure_work_dir, job_directory
from tests.support import dcmqrscp, tools
from tests.support.archive import running_archive
from tests.support.busy import (
    ANYTHING,
    CALLED_AE_TITLE,
    CONGESTION,
    FOR_EVER,
    LOCAL_LIMIT,
    LOCAL_LIMIT_FOR_GOOD,
    MOVE,
    NO_REASON,
    STORE,
    Door,
    Rejection,
    busy,
)
from tests.support.destination import running_destination
from tests.support.ports import free_ports
from tests.support.service import instances_of, instances_on, read_disc, settings
from tests.support.studies import RICHARD, Study, ct_study

SIX = "SIX.001"


@dataclass
class House:
    """An installation whose archive and destination are behind a door each, which may be shut."""

    directory: Path
    archive: int
    receiver: int
    pacs: int = field(default_factory=lambda: free_ports(1)[0])
    destination: int = field(default_factory=lambda: free_ports(1)[0])

    def settings(self, connect_timeout: int = 20, **destination: Any) -> dict[str, Any]:
        made = settings(self.directory, self.pacs, {"RECEIVER": self.receiver})
        made["retrieve"]["connect_timeout"] = connect_timeout
        made["destinations"] = {"relay": {"ae_title": "DESTINATION", "host": "127.0.0.1", "port": self.destination}}
        made["destinations"]["relay"] |= destination
        return made

    def disc(self, cancellation: Cancellation | None = None, **options: Any) -> dict[str, bytes]:
        """The instances on the disc that is made."""
        installation = Installation(parse(self.settings(**options)))
        try:
            disc = make_disc(installation, Order((SIX,), "test"), cancellation or Cancellation())
            iso = b"".join(disc)
            disc.close()
            return instances_on(read_disc(iso, self.directory / "disc"))
        finally:
            installation.ledger.close()

    def refusal(self, kind: type[errors.MkisoError], **options: Any) -> errors.MkisoError:
        with pytest.raises(kind) as caught:
            self.disc(**options)
        return caught.value

    def send(self, cancellation: Cancellation | None = None, **options: Any) -> Relayed:
        installation = Installation(parse(self.settings(**options)))
        try:
            return relay(installation, Order((SIX,), "test"), "relay", cancellation or Cancellation())
        finally:
            self.job = installation.ledger.list_jobs(limit=1)[0]
            installation.ledger.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return ct_study(tmp_path_factory.mktemp("held"), RICHARD, SIX, count=6)


@pytest.fixture(scope="module")
def archive(study: Study) -> Iterator[tuple[int, int]]:
    port, receiver = free_ports(2)
    with running_archive(port, {"RECEIVER": receiver}, study.directory.parent):
        yield port, receiver


@pytest.fixture
def house(archive: tuple[int, int], tmp_path: Path) -> House:
    return House(tmp_path, *archive)


def require_told_as_busy(error: errors.MkisoError) -> None:
    assert "as many associations as it takes" in error.detail
    assert "Try again later" in error.detail
    assert "AE title" not in error.detail


@pytest.mark.parametrize(
    ("service", "after", "rejection"),
    [(ANYTHING, 0, LOCAL_LIMIT), (ANYTHING, 1, NO_REASON), (MOVE, 0, CONGESTION)],
    ids=["C-FIND of studies", "C-FIND of instances", "C-MOVE"],
)
def test_a_pacs_that_is_busy_for_a_while_hands_out_the_disc(
    service: bytes, after: int, rejection: Rejection, house: House, study: Study
) -> None:
    with busy(house.pacs, house.archive, service=service, after=after, times=2, rejection=rejection) as door:
        assert house.disc() == instances_of([study])
    assert door.rejected == 2


@pytest.mark.parametrize(
    ("service", "after"),
    [(ANYTHING, 0), (ANYTHING, 1), (MOVE, 0)],
    ids=["C-FIND of studies", "C-FIND of instances", "C-MOVE"],
)
def test_a_pacs_that_stays_busy_is_told_as_busy(service: bytes, after: int, house: House) -> None:
    with busy(house.pacs, house.archive, service=service, after=after) as door:
        error = house.refusal(errors.PacsRejected, connect_timeout=1)
    require_told_as_busy(error)
    assert "Local Limit Exceeded" in error.detail
    # One query or C-MOVE alone was tried: a study that was refused as a whole is not asked for series by series.
    assert 2 <= door.rejected <= 5
    assert door.asked == after + door.rejected


@pytest.mark.parametrize("service", [ANYTHING, MOVE], ids=["C-FIND", "C-MOVE"])
@pytest.mark.parametrize("rejection", [CALLED_AE_TITLE, LOCAL_LIMIT_FOR_GOOD], ids=["AE title", "limit"])
def test_a_pacs_that_rejects_for_good_is_asked_no_second_time(
    rejection: Rejection, service: bytes, house: House
) -> None:
    with busy(house.pacs, house.archive, service=service, rejection=rejection) as door:
        error = house.refusal(errors.PacsRejected)
    assert ("AE titles" in error.detail) == (rejection is CALLED_AE_TITLE)
    assert ("as many associations as it takes" in error.detail) == (rejection is LOCAL_LIMIT_FOR_GOOD)
    assert door.rejected == 1


@pytest.mark.parametrize("service", [ANYTHING, MOVE], ids=["C-FIND", "C-MOVE"])
def test_a_job_that_waits_for_a_busy_pacs_can_be_cancelled(service: bytes, house: House) -> None:
    cancellation = Cancellation()
    with busy(house.pacs, house.archive, service=service) as door, when_rejected(door, cancellation):
        house.refusal(errors.Cancelled, connect_timeout=300, cancellation=cancellation)


def when_rejected(door: Door, cancellation: Cancellation) -> ExitStack:
    """Cancels once the door has rejected three times, so that the pauses are not the shortest."""

    def cancel() -> None:
        tools.wait_until(lambda: door.rejected >= 3, 20, lambda: "nobody was rejected")
        cancellation.cancel("enough")

    thread = threading.Thread(target=cancel)
    thread.start()
    stack = ExitStack()
    stack.callback(thread.join)
    return stack


def test_dcmqrscp_with_a_single_association_hands_out_the_disc(study: Study, tmp_path: Path) -> None:
    port, receiver = free_ports(2)
    house = House(tmp_path, port, receiver, pacs=port)
    argv = dcmqrscp.configure(tmp_path, port, {"RECEIVER": receiver})
    configuration = tmp_path / "dcmqrscp.cfg"
    configuration.write_text(configuration.read_text().replace("MaxAssociations = 64", "MaxAssociations = 1"))
    dcmqrscp.index(tmp_path, study.files)
    log = tmp_path / "dcmqrscp.log"
    with tools.listening(argv, port, log):
        entity = AE()
        entity.add_requested_context(Verification)
        other = entity.associate("127.0.0.1", port, ae_title=dcmqrscp.AE_TITLE)
        assert other.is_established
        waiting = threading.Thread(target=lambda: (_until_rejected(log), other.release()))
        waiting.start()
        try:
            assert house.disc() == instances_of([study])
        finally:
            waiting.join()


def _until_rejected(log: Path) -> None:
    tools.wait_until(lambda: "TooManyAssociations" in log.read_text(), 20, log.read_text)


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_a_destination_that_is_busy_for_a_while_gets_everything(tool: str, house: House) -> None:
    (behind,) = free_ports(1)
    with (
        busy(house.pacs, house.archive, times=0),
        running_destination(behind) as destination,
        busy(house.destination, behind, times=3) as door,  # the C-ECHO, which proves that it is there, and two more
    ):
        done = house.send(tool=tool)
        assert len(destination.received()) == 6
    assert (done.delivery.sent, done.delivery.failed, door.rejected) == (6, 0, 3)


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_a_destination_that_stays_busy_fails_the_relay_as_busy(tool: str, house: House) -> None:
    (behind,) = free_ports(1)
    with (
        busy(house.pacs, house.archive, times=0),
        running_destination(behind),
        busy(house.destination, behind) as door,
        pytest.raises(errors.RelayFailed) as caught,
    ):
        house.send(tool=tool, connect_timeout=1)
    require_told_as_busy(caught.value)
    assert (caught.value.fields["files_sent"], caught.value.fields["files_failed"]) == (0, 6)
    assert door.rejected > 2


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_a_destination_that_rejects_for_good_is_asked_no_second_time(tool: str, house: House) -> None:
    (behind,) = free_ports(1)
    with (
        busy(house.pacs, house.archive, times=0),
        running_destination(behind),
        busy(house.destination, behind, service=STORE, rejection=CALLED_AE_TITLE) as door,
        pytest.raises(errors.RelayFailed, match="Called AE Title Not Recognized") as caught,
    ):
        house.send(tool=tool)
    assert "as many associations" not in caught.value.detail
    assert door.rejected == 1


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_a_relay_that_waits_for_a_busy_destination_can_be_cancelled(tool: str, house: House) -> None:
    cancellation, (behind,) = Cancellation(), free_ports(1)
    with (
        busy(house.pacs, house.archive, times=0),
        running_destination(behind),
        busy(house.destination, behind, service=STORE) as door,
        when_rejected(door, cancellation),
        pytest.raises(errors.Cancelled),
    ):
        house.send(cancellation, tool=tool, connect_timeout=300)
    assert (house.job["state"], house.job["files_sent"]) == ("cancelled", 0)


@pytest.mark.parametrize(("times", "ok"), [(2, True), (FOR_EVER, False)])
def test_mkiso_check_asks_a_busy_peer_again_and_then_says_so(times: float, ok: bool, house: House) -> None:
    config = parse(house.settings(connect_timeout=1))
    with busy(house.pacs, house.archive, times=times) as door:
        (found,) = [one for one in all_checks(config) if one.name == "pacs"]
    assert (found.ok, door.rejected >= 2) == (ok, True)
    assert ok or "as many associations as it takes" in found.found


def test_a_busy_pacs_does_not_take_the_service_out_of_use(house: House) -> None:
    config = parse(house.settings())
    with busy(house.pacs) as door:
        found = checks.pacs_answers(config, Installation(config).pacs)
    assert found.ok
    assert "busy" in found.found
    assert door.rejected == 1


@pytest.mark.parametrize(("tool", "asked", "left"), [("storescu", 5, MOST_CONTEXTS + 2), ("dcmsend", 4, 2)])
def test_what_arrived_before_an_association_was_rejected_is_not_sent_again(
    tool: str, asked: int, left: int, tmp_path: Path
) -> None:
    port, behind = free_ports(2)
    house = House(tmp_path, *free_ports(2), destination=port)
    config = parse(house.settings(tool=tool))
    kinds = MOST_CONTEXTS + 2  # which need two associations, and by storescu three
    ensure_work_dir(config.storage.work_dir)
    with (
        job_directory(config.storage.work_dir, str(uuid.uuid4())) as workspace,
        running_destination(behind) as destination,
        busy(port, behind, service=b"1.2.3.", after=1, times=2) as door,
    ):
        instances = [_instance(workspace.received, number) for number in range(kinds)]
        destination_of = config.destinations["relay"]
        peer = peer_of(destination_of, config.retrieve)
        programs, told = config.tools.dcmtk_dir, []
        sending = Relay("relay", destination_of, peer, programs, workspace, Cancellation(), told.append, told.append)
        assert sending.deliver(instances).sent == kinds
        assert destination.received() == {one.sop_instance_uid for one in instances}
        staged = {file.name for file in workspace.disc.glob("round*/*") if file.parent.suffix != ".arrived"}
    assert (door.asked, door.rejected, len(staged)) == (asked, 2, left)


def _instance(directory: Path, number: int) -> Instance:
    """An instance of a SOP class that no other one has."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = f"1.2.3.{number}", f"1.2.4.{number}"
    dataset.PatientID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "P", "1.2.5", "1.2.6"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = directory / dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    uids = {"sop_instance_uid": path.name, "sop_class_uid": dataset.SOPClassUID, "study_uid": dataset.StudyInstanceUID}
    own = {"series_uid": dataset.SeriesInstanceUID, "transfer_syntax": ExplicitVRLittleEndian, "version": (0, 0)}
    return Instance(path=path, bytes=path.stat().st_size, **uids, **own)
