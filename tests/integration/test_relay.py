"""Relays: everything arrives, unchanged, or the caller is told what did not."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from sqlalchemy.exc import OperationalError

from mkiso import errors
from mkiso.job import Job
from mkiso.waiting import Cancellation
from tests.support import tools
from tests.support.archive import running_archive
from tests.support.destination import running_destination
from tests.support.ports import free_ports
from tests.support.route import Route
from tests.support.service import data_set, elements, instances_of
from tests.support.studies import RICHARD, Study, ct_study, mixed_study
from tests.support.tools import wait_until

SIX, MIXED = "SIX.001", "MIXED.001"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Study]:
    root = tmp_path_factory.mktemp("held")
    return {SIX: ct_study(root, RICHARD, SIX, count=6), MIXED: mixed_study(root)}


@pytest.fixture(scope="module")
def archive(studies: dict[str, Study]) -> Iterator[tuple[int, int]]:
    port, receiver = free_ports(2)
    with running_archive(port, {"RECEIVER": receiver}, studies[SIX].directory.parent):
        yield port, receiver


@pytest.fixture
def route(archive: tuple[int, int], studies: dict[str, Study], tmp_path: Path) -> Route:
    return Route(tmp_path, *archive, studies)


def received(directory: Path) -> dict[str, bytes]:
    return {path.name.partition(".")[2]: data_set(path) for path in directory.iterdir()}


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_every_kind_of_instance_arrives_whole(tool: str, route: Route, tmp_path: Path) -> None:
    directory = tmp_path / "received"
    with tools.running_storescp("DESTINATION", route.port, directory, tmp_path / "storescp.log"):
        done = route.send(MIXED, tool=tool)
    assert (done.delivery.sent, done.delivery.failed) == (11, 0)
    assert done.destination == f"127.0.0.1:{route.port}"
    assert elements(directory.iterdir()) == elements(route.studies[MIXED].files)
    assert (route.job["state"], route.job["files_sent"], route.job["files_failed"]) == ("done", 11, 0)
    assert (route.job["format"], route.job["medium"]) == (None, None)
    assert route.outcomes() == ["acknowledged"] * 11


def test_a_peer_that_takes_only_uncompressed_data_is_told_apart(route: Route, tmp_path: Path) -> None:
    with running_uncompressed(route.port, tmp_path):
        error = route.refusal(errors.RelayFailed, MIXED)
    files = [dcmread(file, stop_before_pixels=True) for file in route.studies[MIXED].files]
    compressed = [one.SOPInstanceUID for one in files if one.file_meta.TransferSyntaxUID not in PLAIN]
    assert (error.fields["files_sent"], error.fields["files_failed"]) == (11 - len(compressed), len(compressed))
    assert all(uid in error.detail for uid in compressed)
    assert "dcmsend" in error.detail
    assert route.outcomes().count("not negotiated") == len(compressed)


def test_dcmsend_delivers_to_that_peer_all_but_jpeg_2000_and_says_so(route: Route, tmp_path: Path) -> None:
    with running_uncompressed(route.port, tmp_path):
        error = route.refusal(errors.RelayFailed, MIXED, tool="dcmsend")
    files = [dcmread(file, stop_before_pixels=True) for file in route.studies[MIXED].files]
    (lost,) = [one.SOPInstanceUID for one in files if one.file_meta.TransferSyntaxUID == JPEG_2000]
    assert (error.fields["files_sent"], error.fields["files_failed"]) == (10, 1)
    assert lost in error.detail


def running_uncompressed(port: int, directory: Path) -> Any:
    """A storescp that takes private SOP classes, and no compressed syntax."""
    directory = directory / "plain"
    directory.mkdir()
    return tools.listening(
        ("/usr/bin/storescp", "-v", "-aet", "DESTINATION", "-pm", "-od", directory, str(port)),
        port,
        directory.with_suffix(".log"),
    )


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
@pytest.mark.parametrize("status", [0xA700, 0xA900, 0xC000, 0x0110, 0x0124])
def test_an_instance_that_is_refused_fails_the_relay(status: int, tool: str, route: Route) -> None:
    with running_destination(route.port, "status", status) as destination:
        error = route.refusal(errors.RelayFailed, SIX, tool=tool)
        assert (error.fields["files_sent"], error.fields["files_failed"]) == (5, 1)
        assert len(destination.received()) == 5
    assert route.outcomes() == ["acknowledged"] * 5 + ["refused"]
    assert "Sending again is safe" in error.detail


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_a_warning_counts_as_sent_and_is_reported(tool: str, route: Route) -> None:
    with running_destination(route.port, "status", 0xB000):
        done = route.send(SIX, tool=tool)
    assert (done.delivery.sent, len(done.delivery.warnings)) == (6, 1)
    assert "CoercionOfDataElements" in done.delivery.warnings[0]
    assert route.outcomes() == ["acknowledged"] * 5 + ["warned"]


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_an_instance_that_is_there_already_has_arrived(tool: str, route: Route) -> None:
    with running_destination(route.port, "status", 0x0111):
        assert route.send(SIX, tool=tool).delivery.sent == 6
    assert route.outcomes() == ["acknowledged"] * 5 + ["already there"]


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
@pytest.mark.parametrize("behaviour", ["abort", "silent"])
def test_a_peer_that_is_lost_in_the_middle_fails_the_relay(behaviour: str, tool: str, route: Route) -> None:
    with running_destination(route.port, behaviour):
        error = route.refusal(errors.RelayFailed, SIX, tool=tool, timeout=1)
    assert (error.fields["files_sent"], error.fields["files_failed"]) == (2, 4)
    assert (route.job["files_sent"], route.job["files_failed"]) == (2, 4)
    assert route.outcomes().count("acknowledged") == 2


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_the_ledger_tells_how_many_have_been_sent_while_others_are(tool: str, route: Route) -> None:
    cancellation, told = Cancellation(), []

    def watch() -> None:
        wait_until(lambda: _tells_of_sent(route, told), 20, lambda: "no progress was told")
        cancellation.cancel("enough")

    watching = threading.Thread(target=watch)
    watching.start()
    with running_destination(route.port, "silent"), pytest.raises(errors.Cancelled):
        route.send(SIX, cancellation=cancellation, tool=tool, timeout=60)
    watching.join()
    assert told == [("sending", 2)]


def _tells_of_sent(route: Route, told: list[tuple[str, int]]) -> bool:
    with suppress(OperationalError):  # the job opens the ledger that is read here
        told += route.read("SELECT state, files_sent FROM jobs WHERE files_sent > 0")
    return bool(told)


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_a_peer_that_rejects_the_association_fails_the_relay(tool: str, route: Route) -> None:
    with running_destination(route.port, "reject"):
        error = route.refusal(errors.RelayFailed, SIX, tool=tool)
    assert (error.fields["files_sent"], error.fields["files_failed"]) == (0, 6)
    assert "Rejected" in error.detail


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_a_peer_that_accepts_no_context_fails_the_relay(tool: str, route: Route) -> None:
    with running_destination(route.port, "no-context"):
        error = route.refusal(errors.RelayFailed, SIX, tool=tool)
    assert (error.fields["files_sent"], error.fields["files_failed"]) == (0, 6)
    assert route.outcomes() == ["not negotiated"] * 6


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
@pytest.mark.parametrize("behaviour", ["hang", "deaf", None])
def test_a_destination_that_does_not_answer_is_unreachable_before_anything_moves(
    behaviour: str | None, tool: str, route: Route
) -> None:
    with running_destination(route.port, behaviour) if behaviour else nullcontext():
        error = route.refusal(errors.DestinationUnreachable, SIX, tool=tool, timeout=1)
    assert error.error == "destination unreachable"
    assert "retrieving" not in route.job["seconds"]


def test_a_peer_that_takes_no_verification_is_sent_to(route: Route) -> None:
    with running_destination(route.port, "no-verification") as destination:
        assert route.send(SIX).delivery.sent == len(destination.received()) == 6


def test_a_peer_that_is_lost_while_the_studies_come_is_unreachable(route: Route, monkeypatch: Any) -> None:
    retrieve = Job.retrieve
    with ExitStack() as running:
        running.enter_context(running_destination(route.port))

        def retrieve_and_lose(job: Job, studies: Any) -> Any:
            instances = retrieve(job, studies)
            running.close()
            return instances

        monkeypatch.setattr(Job, "retrieve", retrieve_and_lose)
        error = route.refusal(errors.DestinationUnreachable, SIX)
    assert "retrieving" in route.job["seconds"]
    assert "Connection refused" in error.detail


def test_an_unknown_host_is_unreachable_and_the_publisher_is_called_so(route: Route) -> None:
    with pytest.raises(errors.DestinationUnreachable) as caught:
        route.send(SIX, name="cd_publisher", host="nowhere.invalid")
    assert caught.value.error == "CD Publisher unreachable"


def test_nothing_is_sent_where_the_retrieval_is_not_whole(studies: dict[str, Study], tmp_path: Path) -> None:
    port, receiver = free_ports(2)
    with running_archive(port, {"RECEIVER": receiver}, studies[SIX].directory.parent, "withhold"):
        route = Route(tmp_path, port, receiver, studies)
        with running_destination(route.port) as destination, pytest.raises(errors.Incomplete):
            route.send(SIX)
        assert not Path(destination.directory).exists() or destination.received() == set()
    assert route.outcomes() == []


def test_what_arrived_is_what_the_archive_holds(route: Route, tmp_path: Path) -> None:
    directory = tmp_path / "received"
    with tools.running_storescp("DESTINATION", route.port, directory, tmp_path / "storescp.log"):
        route.send(SIX)
    assert received(directory) == instances_of([route.studies[SIX]])
