"""The test PACS holds its studies whole and serves them; measured with DCMTK's own clients."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import JPEGLosslessSV1

from tests.support import testpacs, tools
from tests.support.ports import free_ports
from tests.support.studies import standard_studies
from tests.support.testpacs import RunningPacs


@pytest.fixture(scope="module")
def ports() -> list[int]:
    return free_ports(2)


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory, ports: list[int]) -> Iterator[RunningPacs]:
    with testpacs.running_testpacs(tmp_path_factory.mktemp("pacs"), ports[0], {"RECEIVER": ports[1]}) as running:
        yield running


def _move(pacs: RunningPacs, study_uid: str, directory: Path) -> list[Path]:
    received = directory / "received"
    receiver_port = pacs.ae_titles["RECEIVER"]
    with tools.running_storescp("RECEIVER", receiver_port, received, directory / "storescp.log"):
        done = tools.movescu(pacs.port, study_uid, "RECEIVER")
    assert tools.SUCCESS.search(done.stderr), done.stderr
    return sorted(received.iterdir())


@pytest.mark.parametrize("accession", ["CT.001", "JPG.001"])
def test_a_study_comes_whole(pacs: RunningPacs, accession: str, tmp_path: Path) -> None:
    study = pacs.study(accession)
    received = [dcmread(path) for path in _move(pacs, study.study_uid, tmp_path)]
    stored = {path.name.removesuffix(".dcm"): dcmread(path) for path in study.files}
    assert {dataset.SOPInstanceUID for dataset in received} == study.sop_instance_uids
    assert all(dataset.PixelData == stored[dataset.SOPInstanceUID].PixelData for dataset in received)


def test_compressed_instances_come_in_their_own_transfer_syntax(pacs: RunningPacs, tmp_path: Path) -> None:
    received = _move(pacs, pacs.study("JPG.001").study_uid, tmp_path)
    assert {dcmread(path).file_meta.TransferSyntaxUID for path in received} == {JPEGLosslessSV1}


@pytest.mark.parametrize(("accession", "studies"), [("TWO.001", 2), ("SHARED.001", 2), ("NONE.001", 0)])
def test_an_accession_number_finds_its_studies(pacs: RunningPacs, accession: str, studies: int) -> None:
    done = tools.findscu(pacs.port, "QueryRetrieveLevel=STUDY", f"AccessionNumber={accession}")
    assert done.stderr.count("(Pending)") == studies == len(pacs.of(accession))
    assert "Received Final Find Response (Success)" in done.stderr


def test_the_studies_are_the_same_in_every_run(pacs: RunningPacs, tmp_path: Path) -> None:
    again = standard_studies(tmp_path)
    assert [s.sop_instance_uids for s in again] == [s.sop_instance_uids for s in pacs.studies]


def test_a_port_that_is_taken_is_named(pacs: RunningPacs, tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=f"port {pacs.port} is taken"),
        testpacs.running_testpacs(tmp_path, pacs.port, {}),
    ):
        pass


def test_a_directory_with_other_peoples_studies_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "studies" / "kept.txt"
    other.parent.mkdir()
    other.touch()
    (port,) = free_ports(1)
    assert testpacs.main(["start", "--dir", str(tmp_path), "--port", str(port)]) == 1
    assert other.exists()


def test_a_pacs_is_started_once_and_stopped_twice(tmp_path: Path) -> None:
    options = ("--dir", tmp_path / "pacs", "--port", str(free_ports(1)[0]))
    commands = ("start", "status", "start", "stop", "status", "stop")
    done = [tools.run((tools.ROOT / "bin" / "testpacs", command, *options)) for command in commands]
    assert [one.returncode for one in done] == [0, 0, 1, 0, 1, 0]
    assert done[0].stdout.count(" ok ") == 4
