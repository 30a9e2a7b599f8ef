from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mkiso.config import Receiver, Tls
from mkiso.dcmtk.association import error_text
from mkiso.dcmtk.storescp import (
    LOGGING,
    Transfers,
    failed_handshakes,
    file_number,
    out_of_space,
    receive_argv,
    without_speakers,
)

TLS = Tls(key_file=Path("/tls/key"), cert_file=Path("/tls/cert"), ca_file=Path("/tls/ca"))


@pytest.mark.parametrize(("stall", "idle"), [(60, "600"), (299.5, "600"), (900, "1800")])
def test_the_argv_of_storescp(stall: float, idle: str) -> None:
    assert receive_argv(Receiver(), Path("/opt/dcmtk"), Path("/w/received"), stall) == (
        *("/opt/dcmtk/storescp", "-lc", str(LOGGING), "--fork", "-aet", "CDRECORD", "+xa", "-pm", "+B"),
        *("-pdu", "131072", "+uf", "-ta", "30", "-ts", idle, "-od", "/w/received", "10104"),
    )


def test_the_argv_of_a_storescp_that_takes_tls_alone() -> None:
    receiver = Receiver(ae_title="CDRECORD", port=2762, tls=TLS)
    assert receive_argv(receiver, Path("/opt/dcmtk"), Path("/w/received"), 60) == (
        *(
            "/opt/dcmtk/storescp",
            "-lc",
            str(LOGGING),
            "--fork",
            "+tls",
            "/tls/key",
            "/tls/cert",
            "-pw",
            "+cf",
            "/tls/ca",
            "-rc",
            "+py",
        ),
        *("-aet", "CDRECORD", "+xa", "-pm", "+B", "-pdu", "131072", "+uf", "-ta", "30", "-ts", "600"),
        *("-od", "/w/received", "2762"),
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("storescp-port-in-use", "Address already in use"),
        ("storescp-no-directory", "specified output directory does not exist"),
    ],
)
def test_a_receiver_that_does_not_start_says_why(name: str, said: str, captured: Callable[[str], str]) -> None:
    assert said in error_text(captured(name))


NAME = "CT.X.1.2.276.0.7230010.3.1.4.8323328.{}.1795963379.{}"


def said(child: int, *lines: str) -> str:
    return "".join(f"{line} [{child}]\n" for line in lines)


def request(number: int = 1) -> str:
    return f"I: Received Store Request (MsgID {number}, CT)"


def fragment(size: int, last: str = "NO") -> str:
    return f"T: DIMSE receiveDataSetInFile: {size} bytes read (last: {last})"


@pytest.fixture
def transfers(tmp_path: Path) -> Callable[[str], Transfers]:
    """What is told by a log that grows."""
    log = tmp_path / "storescp.log"
    log.touch()
    made = Transfers(log)

    def after(text: str) -> Transfers:
        with log.open("a") as file:
            file.write(text)
        made.read_on()
        return made

    return after


def test_a_file_is_whole_where_it_holds_all_that_was_counted_to_the_last_fragment(
    transfers: Callable[[str], Transfers],
) -> None:
    name = NAME.format(7, 1)
    assert not transfers(said(7, request(), fragment(100), fragment(100))).is_whole(name, 200)
    told = transfers(said(7, fragment(50, "YES")))
    assert [told.is_whole(name, size) for size in (200, 248, 252, 250, 250)] == [False, False, False, True, True]
    assert not told.is_whole(name, 248)


def test_each_child_and_each_file_is_counted_by_itself(transfers: Callable[[str], Transfers]) -> None:
    text = said(7, request()) + said(8, request()) + said(7, fragment(10)) + said(8, fragment(20, "YES"))
    told = transfers(text + said(7, fragment(10, "YES"), request(2), fragment(20)))
    assert told.is_whole(NAME.format(7, 1), 20)
    assert not told.may_be_whole(NAME.format(7, 2))
    assert not told.is_whole(NAME.format(7, 2), 20)
    assert told.is_whole(NAME.format(8, 1), 20)


@pytest.mark.parametrize("end", range(1, 60))
def test_a_line_counts_once_it_is_there_to_its_end(end: int, transfers: Callable[[str], Transfers]) -> None:
    line = said(71, fragment(250, "YES"))
    told = transfers(said(71, request()) + line[:-end])
    assert not told.is_whole(NAME.format(71, 1), 250)
    assert transfers(line[-end:]).is_whole(NAME.format(71, 1), 250)


def test_a_transfer_that_failed_is_told_and_begins_anew(captured: Callable[[str], str], transfers: Any) -> None:
    told = transfers(said(7, *captured("storescp-disk-full").splitlines(), fragment(10), request(3)))
    assert list(map(out_of_space, told.failed)) == [True]
    told = transfers(said(7, fragment(10, "YES"), "E: Store SCP Failed: 0006:0317 Peer aborted Association"))
    assert told.is_whole(NAME.format(7, 3), 10)
    assert told.failed[1:] == ["Peer aborted Association"]


@pytest.mark.parametrize("name", ["CT.1", "x", "", "a.b.c.d", "CT.X.-1.2.3", "1.2.\u00b2"])
def test_a_file_that_storescp_did_not_name_has_no_number(name: str) -> None:
    assert file_number(name) == (0, 0, 0)


def test_what_a_child_says_reads_as_ever() -> None:
    assert without_speakers(said(7, "I: one") + said(8, "E: two [3]")) == "I: one\nE: two [3]\n"


@pytest.mark.parametrize(
    "told",
    [
        "the peer does not speak TLS (wrong version number, 1 of them)",
        "the peer has no certificate (peer did not return a certificate, 1 of them)",
        "receivers[].tls.ca_file (certificate verify failed, 2 of them)",
        "the peer does not trust the CA of receivers[].tls.cert_file (tlsv1 alert unknown ca, 1 of them)",
        "the peer does not speak DICOM (http request, 1 of them)",
        "the peer knows only TLS that is too old (unsupported protocol, 1 of them)",
        "the peer knows no cipher suite that is safe (no shared cipher, 1 of them)",
    ],
)
def test_failed_handshakes_are_counted_by_what_they_mean(told: str, captured: Callable[[str], str]) -> None:
    assert told in failed_handshakes(captured("storescp-tls-handshakes"))


def test_where_no_handshake_failed_there_is_nothing_to_tell(captured: Callable[[str], str]) -> None:
    assert failed_handshakes(captured("storescp-store")) == ""
