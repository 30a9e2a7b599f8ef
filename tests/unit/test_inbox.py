"""What has arrived in a receiver's directory, whole or not."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian

from mkiso.dcmtk.storescp import Transfers
from mkiso.retrieve.inbox import Inbox
from tests.unit.test_instances import IDENTITY, data_set, data_set_at, encoded


class Counted(Transfers):
    """A receiver that has counted these data sets to their ends: their bytes by file."""

    def __init__(self) -> None:
        super().__init__(Path("/dev/null"))
        self.counted: dict[str, int] = {}

    def may_be_whole(self, name: str) -> bool:
        return name in self.counted

    def is_whole(self, name: str, data_set: int) -> bool:
        return self.counted.get(name) == data_set


@pytest.fixture
def transfers() -> Counted:
    return Counted()


Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, transfers: Counted) -> Write:
    """Write a file, or its beginning; counted to its end unless it is torn."""

    def written(
        name: str, sop_instance_uid: str, end: int | None = None, torn: bool = False, study: str = IDENTITY[3]
    ) -> None:
        made = data_set(ExplicitVRLittleEndian, sop_instance_uid)
        made.StudyInstanceUID = study
        content = encoded(made, ExplicitVRLittleEndian)
        (tmp_path / name).write_bytes(content[:end])
        transfers.counted[name] = len(content[:end]) - data_set_at(content)
        if torn:
            del transfers.counted[name]

    return written


@pytest.fixture
def inbox_of(tmp_path: Path, transfers: Counted) -> Callable[..., Inbox]:
    """One that expects these instances."""

    def made(*wanted: str) -> Inbox:
        inbox = Inbox(tmp_path, transfers)
        inbox.expect({(IDENTITY[3], sop) for sop in wanted})
        return inbox

    return made


Expecting = Callable[..., Inbox]


def test_a_file_counts_once_its_transfer_has_ended(inbox_of: Expecting, write: Write) -> None:
    inbox = inbox_of("1.1")
    began = inbox.quiet
    for end in (0, 200, -1, None):
        write("CT.1", "1.1", end, torn=True)
        inbox.look()
        assert (inbox.keys, inbox.damaged, inbox.quiet) == (set(), 1, began)
    write("CT.1", "1.1")
    inbox.look()
    assert (inbox.keys, inbox.damaged, inbox.received) == ({(IDENTITY[3], "1.1")}, 0, 1)
    assert inbox.quiet is not began


def test_what_came_whole_and_is_malformed_counts(inbox_of: Expecting, write: Write) -> None:
    write("CT.1", "1.1", -2)
    inbox = inbox_of("1.1")
    inbox.look()
    ((one,),) = inbox.arrivals.values()
    assert (one.malformed, inbox.received, inbox.damage()) == (True, 1, "")


def test_damage_is_told_with_its_reasons(inbox_of: Expecting, write: Write, transfers: Counted) -> None:
    inbox = inbox_of("1.1")
    assert inbox.damage() == ""
    for name in ("CT.1", "CT.2"):
        write(name, "1.1", 900, torn=True)
    write("CT.short", "1.1", -200)
    transfers.counted["CT.short"] += 100
    write("CT.nobody", "1.5", 420)
    transfers.failed += ["DIMSE receiveDataSetInFile: Cannot write to file", "Peer aborted Association"]
    inbox.look()
    assert inbox.damage() == (
        "5 were torn in transfer: the disk was full (1); the connection was cut (Peer aborted Association) (1);"
        " its transfer did not end, or the receiver's process died (2); it could not be written to its end (1)."
        " 1 came whole, and it cannot be told whose they are: 1.5 (its Study Instance UID cannot be read)."
    )
    assert inbox.damaged == 4


def test_only_what_is_expected_and_new_is_progress(inbox_of: Expecting, write: Write) -> None:
    inbox = inbox_of("1.1")
    write("CT.1", "1.1")
    inbox.look()
    began = inbox.quiet
    write("CT.again", "1.1")
    write("CT.foreign", "1.9", study="1.999")
    inbox.look()
    assert (inbox.quiet, inbox.received) == (began, 1)


def test_an_instance_that_the_study_has_beyond_its_list_is_waited_for_and_not_counted(
    inbox_of: Expecting, write: Write
) -> None:
    inbox = inbox_of("1.1")
    began = inbox.quiet
    write("CT.unlisted", "1.9")
    inbox.look()
    assert inbox.quiet is not began
    assert inbox.received == 0


def test_what_is_expected_later_counts_though_it_came_before(inbox_of: Expecting, write: Write) -> None:
    inbox = inbox_of("1.1")
    for number in (1, 2):
        write(f"CT.{number}", f"1.{number}")
    inbox.look()
    assert inbox.received == 1
    inbox.expect({(IDENTITY[3], "1.2")})
    assert inbox.received == 2


def test_what_came_is_known_by_study_and_instance_as_often_as_it_came(inbox_of: Expecting, write: Write) -> None:
    write("CT.1", "1.1")
    write("CT.2", "1.2")
    write("CT.3", "1.1")
    inbox = inbox_of("1.7")
    inbox.look()
    names = {key: [one.path.name for one in arrived] for key, arrived in inbox.arrivals.items()}
    assert names == {(IDENTITY[3], "1.1"): ["CT.1", "CT.3"], (IDENTITY[3], "1.2"): ["CT.2"]}
    assert inbox.keys == set(names)


def test_files_of_expected_instances_are_known_whole_or_torn(inbox_of: Expecting, tmp_path: Path, write: Write) -> None:
    write("CT.1", "1.1")
    write("CT.torn", "1.2", -1, torn=True)
    write("CT.foreign", "1.9", study="1.999")
    write("CT.foreign.torn", "1.9", -1, torn=True, study="1.999")
    write("CT.unlisted", "1.9", -1, torn=True)
    write("CT.begun", "1.2", 100, torn=True)
    inbox = inbox_of("1.1", "1.2")
    inbox.look()
    assert {file.name: inbox.is_expected(file.name) for file in tmp_path.iterdir()} == {
        "CT.1": True,
        "CT.torn": True,
        "CT.unlisted": True,
        "CT.foreign.torn": False,
        "CT.begun": None,
    }


def rewritten_torn(_tmp_path: Path, write: Callable) -> None:
    write("CT.1", "1.1", -1, torn=True)


def rewritten_at_the_same_size(tmp_path: Path, write: Callable) -> None:
    write("CT.1", "1.9")
    os.utime(tmp_path / "CT.1", ns=(1, 1))


def removed(tmp_path: Path, _write: Callable) -> None:
    (tmp_path / "CT.1").unlink()


@pytest.mark.parametrize(
    ("change", "left", "damaged"),
    [(rewritten_torn, {"1.2"}, 1), (rewritten_at_the_same_size, {"1.2", "1.9"}, 0), (removed, {"1.2"}, 0)],
)
def test_a_recheck_sees_what_became_of_a_file(
    change: Callable, left: set[str], damaged: int, inbox_of: Expecting, tmp_path: Path, write: Write
) -> None:
    write("CT.1", "1.1")
    write("CT.2", "1.2")
    inbox = inbox_of("1.7")
    inbox.look()
    change(tmp_path, write)
    inbox.recheck()
    assert {sop for _, sop in inbox.keys} == left
    assert {sop for _, sop in inbox.arrivals} == left
    assert inbox.damaged == damaged


def test_a_file_that_was_torn_and_is_gone_is_forgotten(inbox_of: Expecting, tmp_path: Path, write: Write) -> None:
    write("CT.1", "1.1", 200, torn=True)
    inbox = inbox_of("1.7")
    inbox.look()
    (tmp_path / "CT.1").unlink()
    inbox.recheck()
    assert inbox.damaged == 0
