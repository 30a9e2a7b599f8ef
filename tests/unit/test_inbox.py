"""What has arrived in a receiver's directory, whole or not."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian

from mkiso.retrieve.inbox import Inbox
from tests.unit.test_instances import IDENTITY, data_set, encoded


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., None]:
    def written(name: str, sop_instance_uid: str, end: int | None = None, study: str = IDENTITY[3]) -> None:
        made = data_set(ExplicitVRLittleEndian, sop_instance_uid)
        made.StudyInstanceUID = study
        content = encoded(made, ExplicitVRLittleEndian)
        (tmp_path / name).write_bytes(content[:end])

    return written


def inbox_of(directory: Path, *wanted: str) -> Inbox:
    """One that expects these instances."""
    return Inbox(directory, {(IDENTITY[3], sop) for sop in wanted})


def test_a_file_that_grows_is_read_again_until_it_is_whole(tmp_path: Path, write: Callable) -> None:
    inbox = inbox_of(tmp_path, "1.1")
    began = inbox.quiet
    for end in (0, 200, -1):
        write("CT.1", "1.1", end)
        inbox.look()
        assert (inbox.keys, inbox.damaged, inbox.quiet) == (set(), 1, began)
    write("CT.1", "1.1")
    inbox.look()
    assert (inbox.keys, inbox.damaged, inbox.received) == ({(IDENTITY[3], "1.1")}, 0, 1)
    assert inbox.quiet is not began


def test_only_what_is_expected_and_new_is_progress(tmp_path: Path, write: Callable) -> None:
    inbox = inbox_of(tmp_path, "1.1")
    write("CT.1", "1.1")
    inbox.look()
    began = inbox.quiet
    write("CT.again", "1.1")
    write("CT.foreign", "1.9", study="1.999")
    inbox.look()
    assert (inbox.quiet, inbox.received) == (began, 1)


def test_an_instance_that_the_study_has_beyond_its_list_is_waited_for_and_not_counted(
    tmp_path: Path, write: Callable
) -> None:
    inbox = inbox_of(tmp_path, "1.1")
    began = inbox.quiet
    write("CT.unlisted", "1.9")
    inbox.look()
    assert inbox.quiet is not began
    assert inbox.received == 0


def test_what_is_expected_later_counts_though_it_came_before(tmp_path: Path, write: Callable) -> None:
    inbox = inbox_of(tmp_path, "1.1")
    for number in (1, 2):
        write(f"CT.{number}", f"1.{number}")
    inbox.look()
    assert inbox.received == 1
    inbox.expect({(IDENTITY[3], "1.2")})
    assert inbox.received == 2


def test_what_came_is_known_by_study_and_instance_as_often_as_it_came(tmp_path: Path, write: Callable) -> None:
    write("CT.1", "1.1")
    write("CT.2", "1.2")
    write("CT.3", "1.1")
    inbox = inbox_of(tmp_path)
    inbox.look()
    names = {key: [one.path.name for one in arrived] for key, arrived in inbox.arrivals.items()}
    assert names == {(IDENTITY[3], "1.1"): ["CT.1", "CT.3"], (IDENTITY[3], "1.2"): ["CT.2"]}
    assert inbox.keys == set(names)


def test_files_of_expected_instances_are_known_whole_or_torn(tmp_path: Path, write: Callable) -> None:
    write("CT.1", "1.1")
    write("CT.torn", "1.2", -1)
    write("CT.foreign", "1.9", study="1.999")
    write("CT.foreign.torn", "1.9", -1, study="1.999")
    write("CT.unlisted", "1.9", -1)
    write("CT.begun", "1.2", 100)
    inbox = inbox_of(tmp_path, "1.1", "1.2")
    inbox.look()
    assert inbox.of_expected([file.name for file in tmp_path.iterdir()]) == {"CT.1", "CT.torn", "CT.unlisted"}


def rewritten_torn(_tmp_path: Path, write: Callable) -> None:
    write("CT.1", "1.1", -1)


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
    change: Callable, left: set[str], damaged: int, tmp_path: Path, write: Callable
) -> None:
    write("CT.1", "1.1")
    write("CT.2", "1.2")
    inbox = inbox_of(tmp_path)
    inbox.look()
    change(tmp_path, write)
    inbox.recheck()
    assert {sop for _, sop in inbox.keys} == left
    assert {sop for _, sop in inbox.arrivals} == left
    assert inbox.damaged == damaged


def test_a_file_that_was_torn_and_is_gone_is_forgotten(tmp_path: Path, write: Callable) -> None:
    write("CT.1", "1.1", 200)
    inbox = inbox_of(tmp_path)
    inbox.look()
    (tmp_path / "CT.1").unlink()
    inbox.recheck()
    assert inbox.damaged == 0
