from collections.abc import Callable
from pathlib import Path

import pytest

from mkiso.config import Receiver, Tls
from mkiso.dcmtk.association import words
from mkiso.dcmtk.storescp import failed_handshakes, ran_out_of_space, receive_argv

TLS = Tls(key_file=Path("/tls/key"), cert_file=Path("/tls/cert"), ca_file=Path("/tls/ca"))


@pytest.mark.parametrize(("stall", "idle"), [(60, "600"), (299.5, "600"), (900, "1800")])
def test_the_argv_of_storescp(stall: float, idle: str) -> None:
    assert receive_argv(Receiver(), Path("/opt/dcmtk"), Path("/w/received"), stall) == (
        *("/opt/dcmtk/storescp", "-v", "--fork", "-aet", "CDRECORD", "+xa", "-pm", "+B"),
        *("-pdu", "131072", "+uf", "-ta", "5", "-ts", idle, "-od", "/w/received", "10104"),
    )


def test_the_argv_of_a_storescp_that_takes_tls_alone() -> None:
    receiver = Receiver(ae_title="CDRECORD", port=2762, tls=TLS)
    assert receive_argv(receiver, Path("/opt/dcmtk"), Path("/w/received"), 60) == (
        *(
            "/opt/dcmtk/storescp",
            "-v",
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
        *("-aet", "CDRECORD", "+xa", "-pm", "+B", "-pdu", "131072", "+uf", "-ta", "5", "-ts", "600"),
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
    assert said in words(captured(name))


@pytest.mark.parametrize(("name", "full"), [("storescp-disk-full", True), ("storescp-store", False)])
def test_a_full_disk_is_seen_in_the_log(name: str, full: bool, captured: Callable[[str], str]) -> None:
    assert ran_out_of_space(captured(name)) is full


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
