from collections.abc import Callable
from pathlib import Path

import pytest

from mkiso.dcmtk.storescp import complaint, ran_out_of_space, receive_argv


@pytest.mark.parametrize(("stall", "idle"), [(60, "600"), (299.5, "600"), (900, "1800")])
def test_the_argv_of_storescp(stall: float, idle: str) -> None:
    assert receive_argv(Path("/opt/dcmtk"), "CDRECORD", 10104, Path("/w/received"), stall) == (
        *("/opt/dcmtk/storescp", "-v", "--fork", "-aet", "CDRECORD", "+xa", "-pm", "+B"),
        *("-pdu", "131072", "+uf", "-ta", "5", "-ts", idle, "-od", "/w/received", "10104"),
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("storescp-port-in-use", "Address already in use"),
        ("storescp-no-directory", "specified output directory does not exist"),
    ],
)
def test_a_receiver_that_does_not_start_says_why(name: str, said: str, captured: Callable[[str], str]) -> None:
    assert said in complaint(captured(name))


@pytest.mark.parametrize(("name", "full"), [("storescp-disk-full", True), ("storescp-store", False)])
def test_a_full_disk_is_seen_in_the_log(name: str, full: bool, captured: Callable[[str], str]) -> None:
    assert ran_out_of_space(captured(name)) is full
