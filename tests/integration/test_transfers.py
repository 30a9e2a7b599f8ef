"""What is torn on its way never counts, wherever it was torn, and however well it looks: with the real storescp.

These are the facts of docs/design.md, "What proves a transfer".
"""

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from pydicom import dcmread
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association

from mkiso.config import Receiver, Retrieve, Tools
from mkiso.dicom.instances import read_whole
from mkiso.retrieve.inbox import Inbox
from mkiso.retrieve.receiver import RunningReceiver, started_receiver
from mkiso.workspace import Workspace
from tests.support.holdings import Instance, read
from tests.support.moves import send_at_once
from tests.support.ports import free_ports
from tests.support.service import data_set
from tests.support.slow_store import (
    BUFFER,
    DATA,
    LAST,
    PIXEL_DATA,
    STORESCP_META,
    begin_store,
    end_at_a_buffers_end,
    hang_up,
    pause_at_a_buffers_end,
    send,
    write,
)
from tests.support.studies import RICHARD, ct_study
from tests.support.tools import LOCALHOST, wait_until


@dataclass(frozen=True)
class Receiving:
    """A receiver that listens, what is in its directory, and an instance that it may be sent."""

    receiver: RunningReceiver
    inbox: Inbox
    directory: Path
    instance: Instance

    @contextmanager
    def sender(self) -> Iterator[Association]:
        contexts = [build_context(self.instance.sop_class, self.instance.transfer_syntax)]
        handlers = [(evt.EVT_CONN_OPEN, send_at_once)]
        sender = AE("ABPACS").associate(LOCALHOST, self.receiver.receiver.port, contexts, evt_handlers=handlers)
        assert sender.is_established
        yield sender
        if sender.is_established:
            sender.abort()

    def children(self) -> list[psutil.Process]:
        """The processes of storescp that serve an association."""
        return psutil.Process(self.receiver._child.pid).children()

    def wait_for_their_end(self) -> None:
        wait_until(lambda: all(one.status() == psutil.STATUS_ZOMBIE for one in self.children()), 10, str)

    def log(self) -> str:
        return (self.directory.parent / "storescp.log").read_text()

    def found(self) -> set[str]:
        self.inbox.recheck()
        return {sop for _, sop in self.inbox.keys}


@contextmanager
def receiving(directory: Path, instance: Instance) -> Iterator[Receiving]:
    workspace = Workspace(directory / "dicomdir_test")
    workspace.received.mkdir(parents=True)
    (port,) = free_ports(1)
    with started_receiver(Tools(), Receiver(ae_title="RECEIVER", port=port), Retrieve(), workspace) as receiver:
        receiver.wait_until_it_listens()
        inbox = Inbox(workspace.received, receiver.transfers)
        inbox.expect({(instance.study_uid, instance.sop_instance_uid)})
        yield Receiving(receiver, inbox, workspace.received, instance)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An instance in an archive."""
    (made,) = ct_study(tmp_path / "held", RICHARD, "ONE.001", count=1, side=64).files
    return made


def abort(sender: Association) -> None:
    write(sender, b"\x07\0\0\0\0\x04\0\0\0\0")


def release(sender: Association) -> None:
    write(sender, b"\x05\0\0\0\0\x04\0\0\0\0")


def ends_of_elements(data: bytes) -> list[int]:
    return [data.index(b"\x10\x00\x10\x00PN"), data.index(b"\x20\x00\x0d\x00UI"), data.rindex(PIXEL_DATA), len(data)]


@pytest.mark.parametrize("leave", [abort, release, hang_up])
def test_a_peer_that_leaves_before_the_last_fragment_has_sent_nothing(
    leave: Callable[[Association], None], file: Path, tmp_path: Path
) -> None:
    data = data_set(file)
    cuts = sorted({place + beside for place in ends_of_elements(data) for beside in (-2, 0, 2)} - {len(data) + 2})
    with receiving(tmp_path, read(file)) as it:
        for cut in cuts:
            with it.sender() as sender:
                begin_store(sender, it.instance)
                send(sender, it.instance, data[:cut], DATA)
                leave(sender)
        it.wait_for_their_end()
        assert it.found() == set()
        assert f"{len(cuts)} were torn in transfer" in it.inbox.damage()
        assert not it.inbox.ran_out_of_space()


def test_a_connection_that_is_cut_within_the_last_fragment_has_sent_nothing(file: Path, tmp_path: Path) -> None:
    data = data_set(file)
    with receiving(tmp_path, read(file)) as it:
        for cut in (0, 1, data.rindex(PIXEL_DATA), len(data) - 1):
            with it.sender() as sender:
                begin_store(sender, it.instance)
                send(sender, it.instance, data, LAST, cut)
                hang_up(sender)
        it.wait_for_their_end()
        assert it.found() == set()
        assert it.inbox.damaged == 0  # storescp has removed what it had
        with it.sender() as sender:
            begin_store(sender, it.instance)
            send(sender, it.instance, data, LAST)
            wait_until(it.found, 10, str)


def kill_the_child(it: Receiving) -> None:
    for child in it.children():
        child.send_signal(signal.SIGKILL)
    it.wait_for_their_end()


@pytest.mark.parametrize("whole", [False, True], ids=["of an element", "of the data set"])
def test_a_file_whose_receiver_was_killed_at_the_end(whole: bool, file: Path, tmp_path: Path) -> None:
    (end_at_a_buffers_end if whole else pause_at_a_buffers_end)(file)
    data = data_set(file)
    cut = len(data) if whole else data.rindex(PIXEL_DATA) + 2
    with receiving(tmp_path, read(file)) as it, it.sender() as sender:
        begin_store(sender, it.instance)
        send(sender, it.instance, data[:cut], DATA)
        size = (STORESCP_META + cut) // BUFFER * BUFFER
        wait_until(lambda: [one.stat().st_size for one in it.directory.iterdir()] == [size], 10, str)
        (received,) = it.directory.iterdir()
        assert read_whole(received)  # as far as the walk can tell
        assert it.found() == set()
        kill_the_child(it)
        assert it.found() == set()
        assert it.inbox.damaged == 1
        assert "torn in transfer: its transfer did not end" in it.inbox.damage()


def test_a_file_that_came_whole_counts_though_its_receiver_was_killed_then(file: Path, tmp_path: Path) -> None:
    with receiving(tmp_path, read(file)) as it, it.sender() as sender:
        begin_store(sender, it.instance)
        send(sender, it.instance, data_set(file), LAST)
        wait_until(it.found, 10, str)
        begin_store(sender, it.instance)
        send(sender, it.instance, data_set(file)[:-2], DATA)
        wait_until(lambda: len(list(it.directory.iterdir())) > 1, 10, str)
        kill_the_child(it)
        assert it.found() == {it.instance.sop_instance_uid}
        assert it.inbox.damaged == 1


def test_a_log_that_begins_anew_in_the_middle_of_a_transfer_loses_no_count(file: Path, tmp_path: Path) -> None:
    data = data_set(file)
    with receiving(tmp_path, read(file)) as it, it.sender() as sender:
        begin_store(sender, it.instance)
        send(sender, it.instance, data[: len(data) // 4 * 2], DATA)
        wait_until(lambda: "(last: NO)" in it.log(), 10, it.log)
        it.receiver.shorten_log()
        assert it.log() == ""
        send(sender, it.instance, data[len(data) // 4 * 2 :], LAST)
        wait_until(it.found, 10, str)
        assert it.log() != ""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A file system of so many bytes, which needs root."""
    directory = tmp_path / "small"
    directory.mkdir()

    def mounted(size: int) -> Path:
        subprocess.run(("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory), check=True)
        return directory

    yield mounted
    subprocess.run(("umount", directory), check=False)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_disk_that_is_full_at_the_last_pages_of_a_file_is_told(
    missing: int, file: Path, small_disk: Callable[[int], Path], tmp_path: Path
) -> None:
    """storescp does not see that closing a file fails, and answers Success; before that, it waits for more to come."""
    dataset = dcmread(file)
    dataset.ImageComments = "x" * 5000
    dataset.save_as(file)
    data = data_set(file)
    pages = -(-(STORESCP_META + len(data)) // BUFFER)
    with receiving(tmp_path, read(file)) as it, it.sender() as sender:
        it.directory.rmdir()
        it.directory.symlink_to(small_disk((pages - missing) * BUFFER))
        begin_store(sender, it.instance)
        send(sender, it.instance, data, LAST)
        left = min(STORESCP_META + len(data), (pages - missing) * BUFFER)
        wait_until(lambda: [one.stat().st_size for one in it.directory.iterdir()] == [left], 10, str)
        if missing < 2:
            wait_until(lambda: "(last: YES)" in it.log(), 10, it.log)
        assert bool(it.found()) == (not missing)
        assert it.inbox.ran_out_of_space()
        assert it.inbox.damaged == bool(missing)
