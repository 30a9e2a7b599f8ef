"""The behaviours of the misbehaving archive of which a job shows nothing are real: measured by DCMTK's programs.

The others are proven by what becomes of a job (test_archives.py).
"""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from pydicom import dcmread
from pydicom.uid import UID

from tests.support import tools
from tests.support.archive import running_archive
from tests.support.datasets import PRIVATE_SOP_CLASS, Patient
from tests.support.ports import free_ports
from tests.support.studies import RICHARD, Study, ct_study, mixed_study

KEYS = ("QueryRetrieveLevel=STUDY", "AccessionNumber=SIX.001", "StudyInstanceUID", "PatientName")


@dataclass
class Held:
    """What the archive under test holds."""

    root: Path
    six: Study
    mixed: Study


@dataclass
class Moved:
    """What a C-MOVE brought."""

    log: str
    received: dict[str, Path]
    storescp_log: str
    directory: Path
    port: int
    receiver_port: int
    archive_pid: int

    @property
    def uids(self) -> set[str]:
        return set(self.received)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Held:
    root = tmp_path_factory.mktemp("studies")
    ct_study(root, Patient("PAT900", "OTHER^TEST"), "ANOTHER.001")
    return Held(root, ct_study(root, RICHARD, "SIX.001", count=6), mixed_study(root))


def _received(directory: Path) -> dict[str, Path]:
    return {path.name.partition(".")[2]: path for path in directory.iterdir()}


@contextmanager
def _moving(held: Held, tmp_path: Path, behaviour: str, **options: object) -> Iterator[Moved]:
    port, receiver_port = free_ports(2)
    study = held.mixed if options.pop("mixed", False) else held.six
    directory, log = tmp_path / "received", tmp_path / "storescp.log"
    with (
        tools.running_storescp("RECEIVER", receiver_port, directory, log),
        running_archive(port, {"RECEIVER": receiver_port}, held.root, behaviour, **options) as archive,
    ):
        done = tools.movescu(port, study.study_uid, "RECEIVER", dimse_timeout=1)
        yield Moved(done.stderr, _received(directory), log.read_text(), directory, port, receiver_port, archive.pid)


def test_normal_sends_every_kind_of_instance_unchanged(held: Held, tmp_path: Path) -> None:
    with _moving(held, tmp_path, "normal", mixed=True) as moved:
        assert tools.SUCCESS.search(moved.log)
        assert moved.uids == held.mixed.sop_instance_uids
    kinds = {path: dcmread(path) for path in moved.received.values()}
    assert len({UID(dataset.file_meta.TransferSyntaxUID) for dataset in kinds.values()}) == 8
    assert PRIVATE_SOP_CLASS in {dataset.SOPClassUID for dataset in kinds.values()}
    assert all(_data_set(moved.received[uid]) == _data_set(_stored(held.mixed, uid)) for uid in moved.received)


def _stored(study: Study, uid: str) -> Path:
    return study.directory / f"{uid}.dcm"


def _data_set(path: Path) -> bytes:
    # The file meta information is the receiver's own; its length is the value of its first element.
    content = path.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def test_early_answers_before_it_sends(held: Held, tmp_path: Path) -> None:
    with _moving(held, tmp_path, "early") as moved:
        assert tools.SUCCESS.search(moved.log)
        assert len(moved.received) < 3
        tools.wait_until(lambda: len(_received(moved.directory)) == 6, 20, lambda: "not all arrived")


def test_foreign_sends_an_instance_of_another_study(held: Held, tmp_path: Path) -> None:
    with _moving(held, tmp_path, "foreign") as moved:
        assert len(moved.uids - held.six.sop_instance_uids) == 1
        assert moved.uids > held.six.sop_instance_uids


@pytest.mark.parametrize(("behaviour", "sent"), [("stall", 2), ("hang-move", 0)])
def test_a_hanging_move_never_ends(held: Held, tmp_path: Path, behaviour: str, sent: int) -> None:
    with _moving(held, tmp_path, behaviour, n=2) as moved:
        assert "DIMSE No data available" in moved.log
        assert len(moved.received) == sent


def test_abort_ends_the_association_after_n_instances(held: Held, tmp_path: Path) -> None:
    with _moving(held, tmp_path, "abort", n=2) as moved:
        assert "Peer aborted Association" in moved.log
        assert len(moved.received) == 2


def test_duplicate_sends_each_instance_twice(held: Held, tmp_path: Path) -> None:
    with _moving(held, tmp_path, "duplicate") as moved:
        assert moved.storescp_log.count("Received Store Request") == 12
        assert len(moved.received) == 6


def test_two_associations_send_half_each(held: Held, tmp_path: Path) -> None:
    with _moving(held, tmp_path, "two-associations") as moved:
        assert moved.storescp_log.count("Association Acknowledged") == 2
        assert moved.uids == held.six.sop_instance_uids


def test_hold_open_leaves_a_connection_to_the_receiver(held: Held, tmp_path: Path) -> None:
    with _moving(held, tmp_path, "hold-open") as moved:
        connections = psutil.Process(moved.archive_pid).net_connections("tcp")
        assert [c.status for c in connections if c.raddr and c.raddr.port == moved.receiver_port] == ["ESTABLISHED"]
        assert moved.uids == held.six.sop_instance_uids


def test_slow_waits_between_instances(held: Held, tmp_path: Path) -> None:
    started = time.monotonic()
    with _moving(held, tmp_path, "slow", delay=0.1) as moved:
        assert time.monotonic() - started > 0.6
        assert len(moved.received) == 6


def _find(held: Held, behaviour: str) -> str:
    (port,) = free_ports(1)
    with running_archive(port, {}, held.root, behaviour):
        return tools.findscu(port, *KEYS, dimse_timeout=1).stderr


@pytest.mark.parametrize(
    ("behaviour", "answers"),
    [("normal", 1), ("any-accession", 3)],
)
def test_a_find_is_answered_as_the_behaviour_says(held: Held, behaviour: str, answers: int) -> None:
    log = _find(held, behaviour)
    assert (log.count("(Pending)"), "Final Find Response (Success)" in log) == (answers, True), log


def test_an_archive_that_cannot_listen_says_so(held: Held) -> None:
    (port,) = free_ports(1)
    with (
        socket.create_server((tools.LOCALHOST, port)),
        pytest.raises(RuntimeError, match="cannot listen"),
        running_archive(port, {}, held.root),
    ):
        pass
