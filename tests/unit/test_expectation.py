"""What a job reads of files that anybody may have sent: no further, and no longer, than it must."""

import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian

from mkiso.dcmtk.storescp import Transfers
from mkiso.dicom.instances import Expectation, Foreign, Instance, Unattributable, claimed_key, read_arrival
from mkiso.retrieve.inbox import Inbox
from tests.support.strangers import HEAD, STUDY, of_many_steps, uid
from tests.unit.test_inbox import Counted
from tests.unit.test_walker import ITEM_END, OPEN, PIXELS, SEQUENCE, SEQUENCE_END, item, long, short, tag

SOP = b"1.2.3.667"
FOREIGN = "1.2.3.666"
PLAIN, BIG, DEFLATED = ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian
MANY = 20_000


class Asked(Exception):
    """It was asked often enough."""


def sent(directory: Path, data: bytes, syntax: str = PLAIN, sop: bytes = SOP, meta: bytes = b"") -> Path:
    """A file as storescp writes it: its own file meta information, and what came."""
    group = uid(0x0002, 0x0002, b"1.2") + uid(0x0002, 0x0003, sop) + uid(0x0002, 0x0010, syntax.encode())
    file = directory / f"sent-{len(list(directory.iterdir()))}"
    length = short(0x00020000, b"UL", len(group).to_bytes(4, "little"))
    file.write_bytes(bytes(128) + b"DICM" + length + group + meta + data)
    return file


def arrived(file: Path, expectation: Expectation) -> Instance | None:
    return read_arrival(file, lambda _size: True, expectation)


EMPTY = SEQUENCE + SEQUENCE_END
EMPTY_OF_BIG = long(0x00081140, b"SQ", b"", 0xFFFFFFFF, ">") + tag(0xFFFEE0DD, ">") + bytes(4)
HOSTILE: dict[str, Callable[[], tuple[bytes, str]]] = {
    "empty sequences": lambda: (EMPTY * MANY, PLAIN),
    "elements without a value": lambda: (short(0x00091001, b"LO", b"") * 100 * MANY, PLAIN),
    "items without a length": lambda: (SEQUENCE + (OPEN + ITEM_END) * MANY + SEQUENCE_END, PLAIN),
    "items of no length": lambda: (SEQUENCE + item() * 100 * MANY + SEQUENCE_END, PLAIN),
    "fragments that do not end": lambda: (PIXELS + b"ab" * 60 * MANY, PLAIN),
    "big endian": lambda: (EMPTY_OF_BIG * MANY, BIG),
    "lengths that do not fit": lambda: (long(0x00091001, b"SQ", b"", 8) + item(length=8) * MANY, PLAIN),
    "deflated": lambda: (of_many_steps(), DEFLATED),
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_whatever_is_walked_asks_as_it_goes(hostile: str, tmp_path: Path) -> None:
    asked = iter(range(2))

    def checkpoint() -> None:
        if next(asked, None) is None:
            raise Asked

    file = sent(tmp_path, *HOSTILE[hostile]())
    with pytest.raises(Asked):
        arrived(file, Expectation({SOP.decode()}, checkpoint))


def test_the_file_meta_information_is_walked_so_too(tmp_path: Path) -> None:
    def checkpoint() -> None:
        raise Asked

    file = sent(tmp_path, HEAD + STUDY, meta=short(0x00020102, b"ZZ", b"") * 1000)
    with pytest.raises(Asked):
        arrived(file, Expectation({SOP.decode()}, checkpoint))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_all_that_is_not_expected_has_so_many_seconds(hostile: str, tmp_path: Path) -> None:
    data, syntax = HOSTILE[hostile]()
    expectation = Expectation({"1.9"}, seconds=0.0001)
    for _ in range(2):
        with pytest.raises((Foreign, Unattributable)):
            arrived(sent(tmp_path, data, syntax), expectation)
    assert expectation.seconds < 0
    with pytest.raises(Foreign) as caught:
        arrived(sent(tmp_path, HEAD + STUDY), expectation)
    assert (caught.value.sop_instance_uid, caught.value.is_read) == (SOP.decode(), False)
    one = arrived(sent(tmp_path, HEAD + STUDY, sop=b"1.9"), expectation)
    assert one is not None
    assert one.study_uid == FOREIGN


def test_a_foreign_instance_is_read_to_its_study_and_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    pread = os.pread

    def noting(descriptor: int, size: int, position: int) -> bytes:
        read.append(position + size)
        return pread(descriptor, size, position)

    monkeypatch.setattr(os, "pread", noting)
    with pytest.raises(Foreign) as caught:
        arrived(sent(tmp_path, HEAD + STUDY + EMPTY * MANY), Expectation({"1.9"}))
    assert caught.value.is_read
    assert max(read) <= 4096


def test_what_is_of_a_study_that_is_asked_for_is_read_whatever_it_was_sent_as(tmp_path: Path) -> None:
    expectation = Expectation({FOREIGN}, seconds=1)
    for data in (HEAD + STUDY, STUDY + HEAD, HEAD + b"\x09\x00\x01\x10  \x04\x00abcd" + STUDY):
        one = arrived(sent(tmp_path, data), expectation)
        assert one is not None
        assert one.key == (FOREIGN, SOP.decode())
    assert expectation.seconds == 1  # that is no stranger's time


def test_a_file_that_grows_is_read_as_far_as_need_be(tmp_path: Path) -> None:
    file = sent(tmp_path, HEAD + STUDY)
    assert claimed_key(file, Expectation({"1.9"})) == (FOREIGN, SOP.decode())
    assert claimed_key(file, Expectation({SOP.decode()})) == ("", SOP.decode())
    assert claimed_key(file, Expectation({"1.9"}, seconds=0)) is None
    far = sent(tmp_path, HEAD + EMPTY * MANY + STUDY)
    assert claimed_key(far, Expectation({"1.9"})) is None


@pytest.fixture
def inbox(tmp_path: Path) -> Callable[..., Inbox]:
    """One that expects the instance 1.9.1 of the study 1.9, of files that came whole."""

    def made(*files: Path) -> Inbox:
        transfers = Counted()
        transfers.counted = {file.name: file.stat().st_size - len(bytes(132)) - _meta(file) for file in files}
        inbox = Inbox(tmp_path, transfers)
        inbox.expect({("1.9", "1.9.1")})
        inbox.look()
        return inbox

    return made


def _meta(file: Path) -> int:
    return 12 + int.from_bytes(file.read_bytes()[140:144], "little")


def test_what_is_foreign_or_nobodys_is_counted_and_gone(inbox: Callable[..., Inbox], tmp_path: Path) -> None:
    own = sent(tmp_path, HEAD + uid(0x0020, 0x000D, b"1.9"), sop=b"1.9.1")
    foreign = [sent(tmp_path, HEAD + STUDY, sop=b"1.3.%d" % number) for number in range(9)]
    it = inbox(own, *foreign, sent(tmp_path, HEAD))
    assert list(tmp_path.iterdir()) == [own]
    assert (it.foreign, it.unread, it.damaged, len(it.foreign_uids)) == (9, 0, 1, 5)
    assert [one.path for copies in it.arrivals.values() for one in copies] == [own]
    it.recheck()
    assert (it.foreign, it.damaged) == (9, 1)


def test_what_there_was_no_time_for_explains_nothing_and_is_counted(
    inbox: Callable[..., Inbox], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mkiso.dicom.instances.STRANGERS", 0)
    it = inbox(sent(tmp_path, HEAD + STUDY))
    assert (it.foreign, it.unread, list(tmp_path.iterdir())) == (0, 1, [])


def test_a_file_that_does_not_tell_what_it_is_is_expected_by_nobody(
    inbox: Callable[..., Inbox], tmp_path: Path
) -> None:
    it = inbox()
    begun, long_headed = sent(tmp_path, HEAD), sent(tmp_path, HEAD + EMPTY * MANY)
    assert it.is_expected(begun.name) is None
    assert it.is_expected(long_headed.name) is False
    with begun.open("ab") as file:
        file.write(uid(0x0020, 0x000D, b"1.9"))
    assert it.is_expected(begun.name) is True


def test_a_process_that_has_an_association_says_so(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "I: Association Received in child process (pid: 7) [7]\n"
        "I: Association Received in child process (pid: 8) [8]\n"
        "I: Association Acknowledged (Max Send PDV: 16370) [8]\n"
    )
    transfers = Transfers(log)
    transfers.read_on()
    assert transfers.associated == {8}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_the_beginning_of_what_grows_is_no_walk_of_seconds(hostile: str, tmp_path: Path) -> None:
    """It is asked about where room has to be made: it tells, or is taken for a stranger's, soon."""
    asked = Counter[str]()
    expectation = Expectation(checkpoint=partial(asked.update, ["check"]))
    claimed = claimed_key(sent(tmp_path, *HOSTILE[hostile]()), expectation)
    assert claimed in (None, ("", SOP.decode()))
    assert asked["check"] <= 200
