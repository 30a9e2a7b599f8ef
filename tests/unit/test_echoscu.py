from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_subprocess import FakeProcess

from mkiso.dcmtk import association
from mkiso.dcmtk.association import Peer, echo, echo_argv
from mkiso.process import ToolTimeout

BIN = Path("/opt/dcmtk")
# As echoscu -v ends where the peer answers.
ANSWERED = "I: Sending Echo Request (MsgID 1)\nI: Received Echo Response (Success)\nI: Releasing Association\n"


def why(pacs: Peer) -> str:
    failure = echo(BIN, pacs)
    assert failure is not None
    return failure.why


def test_the_argv_of_echoscu(pacs: Peer) -> None:
    assert echo_argv(BIN, pacs) == (
        *("/opt/dcmtk/echoscu", "-v"),
        *("-aet", "CDRECORD", "-aec", "ABPACS", "-to", "10", "-ta", "10", "-td", "10"),
        *("pacs.example", "11112"),
    )


def test_a_peer_that_answers_is_well(fake: FakeProcess, pacs: Peer) -> None:
    fake.register(echo_argv(BIN, pacs), stderr=ANSWERED)
    assert echo(BIN, pacs) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [("echoscu-refused", "Connection refused"), ("echoscu-rejected", "Called AE Title Not Recognized")],
)
def test_a_peer_that_does_not_is_told_in_its_words(
    name: str, said: str, fake: FakeProcess, pacs: Peer, captured: Callable[[str], str]
) -> None:
    fake.register(echo_argv(BIN, pacs), stderr=captured(name), returncode=1)
    assert said in why(pacs)


def test_the_exit_status_alone_proves_nothing(fake: FakeProcess, pacs: Peer) -> None:
    fake.register(echo_argv(BIN, pacs), returncode=0)
    assert echo(BIN, pacs) is not None


def test_a_peer_that_is_too_late_is_not_well(pacs: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(argv: tuple[str, ...], *, timeout: float, **_: object) -> None:
        raise ToolTimeout(argv, timeout)

    monkeypatch.setattr(association, "run", late)
    assert "30 s" in why(pacs)
