"""The program that takes instances by C-GET, and a peer whose bytes are wrong: it ends, and keeps what is whole."""

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from mkiso.dcmtk.association import Peer
from mkiso.dcmtk.getting import events, get_argv, get_result, steps
from mkiso.dcmtk.movescu import Ending, MoveResult
from mkiso.dicom import get
from mkiso.errors import MkisoError, PacsRejected, PacsUnreachable
from tests.support.line import COMMAND, DATA, LAST, Line, ended, pdata, peer, store
from tests.support.ports import free_ports

CT, EXPLICIT = str(CTImageStorage), str(ExplicitVRLittleEndian)
UID = "1.2.3.4"
BODY = bytes(range(256)) * 40
Answer = Callable[[Line], object]


@dataclass(frozen=True)
class Got:
    """What a run of the program left, and told."""

    directory: Path
    told: list[dict[str, Any]]
    pacs: Peer
    errors: str

    @property
    def files(self) -> list[Path]:
        return sorted((self.directory / "received").iterdir())

    @property
    def result(self) -> MoveResult:
        return get_result(self.pacs, self.told)

    @property
    def lost(self) -> str:
        return next((one["lost"] for one in self.told if "lost" in one), "")


Run = Callable[..., Got]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run_before(answer: Answer, timeout: float = 10) -> Got:
        (port,), work = free_ports(1), tmp_path / "work"
        (work / "received").mkdir(parents=True)
        plan = {
            "calling": "MKISO",
            "called": "ABPACS",
            "host": "127.0.0.1",
            "port": port,
            "connect_timeout": timeout,
            "timeout": timeout,
            "directory": str(work / "received"),
            "unfinished": str(work / "c-get.part"),
            "study": "1.2",
            "series": None,
            "wanted": {"1.2.1": [UID]},
            "steps": steps([UID], {UID: CT}, []),
        }
        (work / "plan.json").write_text(json.dumps(plan))
        with peer(port, answer):
            argv = get_argv(work / "plan.json")
            done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=work)
        return Got(work, events(done.stdout), Peer("ABPACS", "127.0.0.1", port, "MKISO", timeout), done.stderr)

    return run_before


def stored(line: Line, uid: str = UID, body: bytes = BODY, **further: Any) -> get.Elements:
    """A C-STORE as it should be; its response."""
    context = line.context(CT, EXPLICIT)
    line.send(pdata(context, COMMAND | LAST, store(CT, uid, **further)))
    line.send(*(pdata(context, DATA, body[at : at + 4096]) for at in range(0, len(body), 4096)))
    line.send(pdata(context, LAST, b""))
    return line.answered(context)


def begun(behind: Answer) -> Answer:
    """What is done behind an association, a C-GET, and a first instance that comes as it should."""

    def answer(line: Line) -> None:
        line.take()
        line.asked()
        stored(line)
        behind(line)

    return answer


def finished(line: Line) -> None:
    line.send(pdata(1, COMMAND | LAST, ended(remaining=0, completed=1)))
    line.send(get.pdu(get.RELEASED, bytes(4)))


def test_what_comes_as_it_should_is_kept_and_answered(run: Run) -> None:
    answers: list[get.Elements] = []

    def answer(line: Line) -> None:
        line.take()
        line.asked()
        answers.append(stored(line))
        finished(line)

    got = run(answer)
    (file,), (response,) = got.files, answers
    assert file.read_bytes().endswith(BODY)
    assert got.result == MoveResult(Ending.SUCCESS, 1)
    assert [get.integer(response, number) for number in (0x0100, 0x0120, 0x0900)] == [get.STORED, 7, get.SUCCESS]
    assert [get.text(response, 0, number) for number in (0x0002, 0x1000)] == [CT, UID]
    assert got.errors == ""


def command(line: Line, uid: str = "1.2.3.5") -> None:
    line.send(pdata(line.context(CT, EXPLICIT), COMMAND | LAST, store(CT, uid)))


def cut(line: Line) -> None:
    """In the midst of a PDU."""
    command(line)
    line.send(pdata(line.context(CT, EXPLICIT), LAST, BODY)[:5000])


def between(line: Line) -> None:
    """At the end of a PDU that is not the last."""
    command(line)
    line.send(pdata(line.context(CT, EXPLICIT), DATA, BODY))


def of_length(length: int) -> Answer:
    def answer(line: Line) -> None:
        command(line)
        line.send(pdata(line.context(CT, EXPLICIT), LAST, BODY, length))

    return answer


def elsewhere(line: Line) -> None:
    command(line)
    line.send(pdata(line.context(CT, EXPLICIT), DATA, BODY), pdata(line.context(CT, get.IMPLICIT), LAST, BODY))


def a_command_again(line: Line) -> None:
    command(line)
    command(line)


def as_(kind: int) -> Answer:
    return lambda line: line.send(get.pdu(kind, bytes(4)))


def on(context: int) -> Answer:
    return lambda line: line.send(pdata(context, COMMAND | LAST, store(CT, "1.2.3.5")), pdata(context, LAST, BODY))


def endless(line: Line) -> None:
    line.send(*(pdata(1, COMMAND, bytes(1 << 16)) for _ in range(258)))


def no_tags(line: Line) -> None:
    line.send(pdata(1, COMMAND | LAST, bytes(3)))


def of_no_kind(line: Line) -> None:
    line.send(pdata(1, COMMAND | LAST, get.message({0x0100: 0x0140, 0x0800: get.NO_DATA})))


NONE = "a fragment that is none"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (cut, "it hung up|Connection reset"),
        (between, "it hung up|Connection reset"),
        (of_length(len(BODY) + 3), NONE),
        (of_length(1), NONE),
        (of_length(0), NONE),
        (of_length(0xFFFFFFFF), NONE),
        (of_length(len(BODY) - 100), "it sent more than a data set"),
        (elsewhere, "on two presentation contexts"),
        (a_command_again, NONE),
        (as_(get.ABORT), "it aborted the association"),
        (as_(get.RELEASE), "it ended the association"),
        (as_(get.REQUEST), "it ended the association"),
        (as_(0x42), "it ended the association"),
        (on(251), "a command that none was waiting for"),
        (on(2), "a command that none was waiting for"),
        (on(1), "a command that none was waiting for"),
        (endless, "too long"),
        (no_tags, "is cut"),
        (of_no_kind, r"a command that none was waiting for \(0140\)"),
        (lambda line: line.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "it ended the association"),
    ],
)
def test_what_is_wrong_on_the_line_ends_it_and_what_was_whole_stays(wrong: Answer, why: str, run: Run) -> None:
    got = run(begun(wrong))
    assert re.search(why, got.lost), (got.told, got.errors)
    assert [file.read_bytes().endswith(BODY) for file in got.files] == [True]
    assert (got.result.ending, got.result.explanation) == (Ending.LOST, got.lost)
    assert {one.name for one in got.directory.iterdir()} <= {"received", "plan.json", "c-get.part"}
    assert got.errors == ""


def test_a_peer_that_falls_silent_is_waited_for_as_long_as_is_told(run: Run) -> None:
    got = run(begun(lambda line: line.connection.recv(1)), timeout=0.5)
    assert (got.lost, len(got.files)) == ("timed out", 1)


@pytest.mark.parametrize("size", [1, 7, 4095])
def test_fragments_of_any_size_are_put_together(size: int, run: Run) -> None:
    """Several of them in one PDU, and a command in more than one."""
    body = BODY[:4096]

    def answer(line: Line) -> None:
        line.take()
        line.asked()
        context, request = line.context(CT, EXPLICIT), store(CT, UID)
        line.send(*_fragments(context, COMMAND, request, size))
        values = [part[6:] for part in _fragments(context, DATA, body, size)]
        line.send(*(get.pdu(get.DATA, b"".join(values[at : at + 50])) for at in range(0, len(values), 50)))
        line.pdu()
        finished(line)

    got = run(answer)
    assert ([file.read_bytes()[-len(body) :] for file in got.files], got.result.ending) == ([body], Ending.SUCCESS)


def _fragments(context: int, kind: int, data: bytes, size: int) -> list[bytes]:
    starts = range(0, len(data), size)
    return [pdata(context, kind | (LAST if at == starts[-1] else 0), data[at : at + size]) for at in starts]


@pytest.mark.parametrize("uid", ["../../1.2", "/etc/passwd", "1.2\\1.3", "x\n{}", "ÿ\x01\"'", ""])
def test_what_a_uid_says_is_the_name_of_no_file(uid: str, run: Run) -> None:
    got = run(begun(lambda line: (stored(line, uid), finished(line))))
    assert len(got.files) == 2
    assert all(re.fullmatch(r"GET\.\d+\.\d+\.\d+", file.name) for file in got.files)
    assert {one.name for one in got.directory.iterdir()} == {"received", "plan.json"}
    assert (got.result.ending, got.errors) == (Ending.SUCCESS, "")


def test_a_command_set_of_a_hundred_thousand_bytes_is_read(run: Run) -> None:
    got = run(begun(lambda line: (stored(line, "1.2.3.5", further={0x1030: bytes(100_000)}), finished(line))))
    assert (len(got.files), got.result.ending) == (2, Ending.SUCCESS)


@pytest.mark.parametrize("length", [33, 50_000])
def test_an_instance_of_which_the_uid_is_too_long_is_refused(length: int, run: Run) -> None:
    answers = []

    def answer(line: Line) -> None:
        answers.append(get.integer(stored(line, "1." * length), 0x0900))
        finished(line)

    got = run(begun(answer))
    assert (answers, len(got.files), got.result.ending) == ([get.NOT_UNDERSTOOD], 1, Ending.SUCCESS)


def test_a_store_without_a_data_set_is_refused(run: Run) -> None:
    answers = []

    def answer(line: Line) -> None:
        context = line.context(CT, EXPLICIT)
        line.send(pdata(context, COMMAND | LAST, store(CT, "1.2.3.5", {0x0800: get.NO_DATA})))
        answers.append(get.integer(line.answered(context), 0x0900))
        finished(line)

    got = run(begun(answer))
    assert (answers, len(got.files), got.result.ending) == ([get.NOT_UNDERSTOOD], 1, Ending.SUCCESS)


def accepting_nothing(line: Line) -> None:
    line.take(lambda _sop: False)


def accepting_storage_alone(line: Line) -> None:
    line.take(lambda sop: sop != get.GET)


def says(data: bytes) -> Answer:
    return lambda line: (line.pdu(), line.send(data))


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (lambda _line: None, PacsUnreachable, "hung up|Connection reset"),
        (Line.pdu, PacsUnreachable, "hung up"),
        (says(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"), PacsUnreachable, "hung up|answered no association"),
        (says(get.pdu(get.ABORT, bytes(4))), PacsUnreachable, "answered no association"),
        (says(get.pdu(get.REJECT, b"")), PacsUnreachable, "answered no association"),
        (says(get.pdu(get.REJECT, bytes([0, 1, 3, 2]))), PacsRejected, "as many associations as it takes"),
        (says(get.pdu(get.REJECT, bytes([0, 1, 9, 9]))), PacsRejected, "gives no reason"),
        (says(get.pdu(get.ACCEPT, b"")), PacsRejected, "takes no C-GET"),
        (says(get.pdu(get.ACCEPT, bytes(68) + get.item(get.ANSWER))), PacsRejected, "takes no C-GET"),
        (says(get.pdu(get.ACCEPT, bytes(68) + b"\x21\0\xff\xff\1")), PacsRejected, "takes no C-GET"),
        (says(get.pdu(get.ACCEPT, bytes(70))[:40]), PacsUnreachable, "hung up"),
        (says(bytes([get.ACCEPT, 0, 255, 255, 255, 255, 0])), PacsUnreachable, "hung up"),
        (accepting_nothing, PacsRejected, "takes no C-GET"),
        (accepting_storage_alone, PacsRejected, "takes no C-GET"),
    ],
)
def test_without_an_association_the_error_is_the_contracts(
    answer: Answer, kind: type[MkisoError], words: str, run: Run
) -> None:
    got = run(answer)
    assert (got.files, got.errors) == ([], "")
    with pytest.raises(kind, match=words):
        assert got.result


def test_what_an_archive_may_not_store_it_says_itself(run: Run) -> None:
    """It took C-GET, and none of the SOP classes."""

    def answer(line: Line) -> None:
        line.take(lambda sop: sop == get.GET)
        line.asked()
        line.send(pdata(1, COMMAND | LAST, ended(0xA702, failed=1)))
        line.send(get.pdu(get.RELEASED, bytes(4)))

    got = run(answer)
    assert (got.result.ending, got.result.failed, got.files) == (Ending.FAILURE, 1, [])
    assert "ended the C-GET with status A702" in got.result.explanation
