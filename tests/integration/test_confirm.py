"""Destinations that are asked what they have of what they acknowledged: by C-FIND, or by Storage Commitment."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mkiso import confirm, errors
from mkiso.commands.check import checks
from mkiso.config import parse
from mkiso.workspace import held
from tests.support import dcmqrscp, tools
from tests.support.archive import running_archive
from tests.support.destination import running_destination
from tests.support.keeper import Keeper, running_keeper
from tests.support.orthanc import AE_TITLE, running_orthanc
from tests.support.ports import free_ports
from tests.support.route import Route
from tests.support.studies import RICHARD, Study, ct_study

SIX = "SIX.001"
WAYS = ("find", "here", "elsewhere")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Study]:
    return {SIX: ct_study(tmp_path_factory.mktemp("held"), RICHARD, SIX, count=6)}


@pytest.fixture(scope="module")
def archive(studies: dict[str, Study]) -> Iterator[tuple[int, int]]:
    port, receiver = free_ports(2)
    with running_archive(port, {"RECEIVER": receiver}, studies[SIX].directory.parent):
        yield port, receiver


@pytest.fixture
def route(archive: tuple[int, int], studies: dict[str, Study], tmp_path: Path) -> Route:
    return Route(tmp_path, *archive, studies)


@contextmanager
def asked(route: Route, way: str, **behaviour: Any) -> Iterator[tuple[Keeper, dict[str, Any]]]:
    """A destination, and its configuration, that confirms in this way."""
    (port,) = free_ports(1)
    words = {"confirm": "find"} if way == "find" else {"confirm": "commit"}
    if way == "elsewhere":
        words |= {"commit_port": port}
    with running_keeper(route.port, reports=way, commit_port=port, **behaviour) as keeper:
        yield keeper, words


def test_dcmqrscp_confirms_what_it_has(route: Route, tmp_path: Path) -> None:
    argv = dcmqrscp.configure(tmp_path / "other", route.port, {})
    with tools.listening(argv, route.port, tmp_path / "dcmqrscp.log"):
        done = route.send(SIX, ae_title=dcmqrscp.AE_TITLE, confirm="find")
    assert done.delivery.confirmed == route.job["confirmed"] == 6
    assert route.outcomes() == ["acknowledged"] * 6


def test_orthanc_commits_itself_on_an_association_of_its_own(route: Route, tmp_path: Path) -> None:
    http, commit_port = free_ports(2)
    ports, words = (route.port, http), {"confirm": "commit", "commit_port": commit_port}
    with running_orthanc(tmp_path / "orthanc", ports, {"CDRECORD": commit_port}):
        done = route.send(SIX, ae_title=AE_TITLE, **words)
        assert done.delivery.confirmed == route.job["confirmed"] == 6


@pytest.mark.parametrize("way", WAYS)
def test_what_a_destination_acknowledges_and_throws_away_is_sent_once_more(way: str, route: Route) -> None:
    with asked(route, way, loses=1) as (keeper, words):
        assert route.send(SIX, **words).delivery.confirmed == route.job["confirmed"] == 6
    assert sorted(keeper.stored.values()) == [1, 1, 1, 1, 1, 2]
    assert len(keeper.kept) == 6


@pytest.mark.parametrize("way", WAYS)
def test_a_destination_that_throws_it_away_again_fails_the_relay(way: str, route: Route) -> None:
    with asked(route, way, loses=99) as (keeper, words):
        error = route.refusal(errors.NotConfirmed, SIX, **words)
    ((lost, times),) = keeper.stored.most_common(1)
    assert times == 2
    assert f"{lost} ({'it does not list it' if way == 'find' else 'no such instance'})" in error.detail
    assert "has 5 of them" in error.detail
    assert (error.fields["files_sent"], error.fields["files_failed"]) == (5, 1)
    assert (route.job["confirmed"], route.job["files_sent"], route.job["files_failed"]) == (5, 5, 1)
    assert route.outcomes() == ["acknowledged"] * 5 + ["not confirmed"]


@pytest.mark.parametrize("most", [0, 4])
def test_a_destination_that_lists_a_study_series_by_series_or_cuts_its_list_is_asked_so(
    most: int, route: Route
) -> None:
    with asked(route, "find", most=most) as (keeper, words):
        assert route.send(SIX, **words).delivery.confirmed == 6
    assert set(keeper.stored.values()) == {1}


def test_a_destination_that_files_late_is_asked_again(route: Route) -> None:
    with asked(route, "find", hides=4) as (keeper, words):
        assert route.send(SIX, **words).delivery.confirmed == 6
    assert set(keeper.stored.values()) == {1}


def test_another_entity_may_be_the_one_that_is_asked(route: Route, archive: tuple[int, int], tmp_path: Path) -> None:
    with tools.running_storescp("DESTINATION", route.port, tmp_path / "received", tmp_path / "storescp.log"):
        words = {"query_ae_title": "ABPACS", "query_host": "localhost", "query_port": archive[0]}
        assert route.send(SIX, confirm="find", **words).delivery.confirmed == 6


@pytest.mark.parametrize("way", ["find", "commit"])
def test_a_destination_that_cannot_be_asked_is_told_apart_and_nothing_is_sent_twice(way: str, route: Route) -> None:
    with running_destination(route.port) as destination:
        error = route.refusal(errors.NotConfirmed, SIX, confirm=way)
        assert len(destination.received()) == 6
    assert "does not say whether it has them" in error.detail
    assert "PACS" not in error.detail
    assert route.job["confirmed"] is None
    assert route.outcomes() == ["acknowledged"] * 6


@pytest.mark.parametrize("port", [True, False])
def test_a_commitment_that_is_never_reported_gives_no_answer(port: bool, route: Route) -> None:
    with asked(route, "never") as (keeper, words):
        more = {"commit_port": keeper.commit_port} if port else {}
        error = route.refusal(errors.NotConfirmed, SIX, **words, **more)
    assert "no report in time" in error.detail
    assert set(keeper.stored.values()) == {1}
    assert route.outcomes() == ["acknowledged"] * 6


def test_reports_of_strangers_and_of_what_nobody_asked_are_refused(route: Route) -> None:
    with asked(route, "elsewhere", forges=True) as (keeper, words):
        assert route.send(SIX, **words).delivery.confirmed == 6
    assert keeper.refused == ["stranger", 0x0115]


def test_two_relays_do_not_listen_at_one_port_at_once(route: Route) -> None:
    with asked(route, "elsewhere") as (keeper, words):
        route.send(SIX, **words)
        (lock,) = Path(route.settings["storage"]["work_dir"]).glob("commit_*.lock")
        with held(lock):
            error = route.refusal(errors.NotConfirmed, SIX, **words)
        assert f"other relays listen at commit_port {keeper.commit_port}" in error.detail
        assert route.send(SIX, **words).delivery.confirmed == 6


def test_a_port_that_another_program_has_is_told(route: Route) -> None:
    with asked(route, "elsewhere") as (keeper, words), running_keeper(keeper.commit_port):
        error = route.refusal(errors.NotConfirmed, SIX, **words)
    assert f"the port {keeper.commit_port} of this host cannot be listened at" in error.detail


def test_without_the_library_nothing_is_begun_and_the_check_says_so(route: Route, monkeypatch: Any) -> None:
    monkeypatch.setattr(confirm, "find_spec", lambda name: None if name == "pynetdicom" else find_spec(name))
    with running_destination(route.port):
        with pytest.raises(errors.NotConfigured, match="mkiso\\[commit\\]"):
            route.send(SIX, confirm="commit")
        told = {one.name: one for one in checks(parse(route.settings))}
    assert "retrieving" not in route.job["seconds"]
    assert not told["destination relay confirm"].ok
    assert "mkiso[commit]" in told["destination relay confirm"].found
    assert told["destination relay"].ok
