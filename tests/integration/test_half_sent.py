"""A relay that ended on the way is half done: another attempt sends what the destination has not acknowledged."""

import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from mkiso.dcmtk.sending import Outcome
from mkiso.job import Order, running_job
from mkiso.waiting import Cancellation
from tests.support import preloaded
from tests.support.archive import running_archive
from tests.support.keeper import running_keeper
from tests.support.ports import free_ports
from tests.support.route import Route
from tests.support.studies import RICHARD, Study, ct_study
from tests.support.tools import environment, wait_until

THIRTY, HANGS_AT = "THIRTY.001", 20


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Study]:
    return {THIRTY: ct_study(tmp_path_factory.mktemp("held"), RICHARD, THIRTY, count=30)}


@pytest.fixture(scope="module")
def archive(studies: dict[str, Study]) -> Iterator[tuple[int, int]]:
    port, receiver = free_ports(2)
    with running_archive(port, {"RECEIVER": receiver}, studies[THIRTY].directory.parent):
        yield port, receiver


@pytest.fixture
def route(archive: tuple[int, int], studies: dict[str, Study], tmp_path: Path) -> Route:
    return Route(tmp_path, *archive, studies)


def acknowledged(route: Route) -> dict[str, int]:
    """What the ledger knows that the destination has, and its bytes."""
    try:
        rows = route.read("SELECT sop_instance_uid, bytes, outcome FROM instances")
    except OperationalError:  # the job opens the ledger that is read here
        return {}
    return {uid: size for uid, size, outcome in rows if Outcome(outcome).arrived}


def send_the_rest(route: Route, before: Mapping[str, int], **destination: str) -> None:
    order, cancellation = Order((THIRTY,), "test"), Cancellation()
    with route.installation(**destination) as installation:
        record = installation.record_of(order.job_id, cancellation)
        with running_job(installation, order, cancellation, record, kind="relay") as job:
            studies = job.look_up()
            sender = job.relay_to("relay")
            job.send(job.retrieve(studies), sender, before)
            record.complete()


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_what_a_killed_relay_had_acknowledged_is_not_sent_again(tool: str, route: Route, tmp_path: Path) -> None:
    peer = {"ae_title": "DESTINATION", "host": "127.0.0.1", "port": route.port, "tool": tool}
    config = tmp_path / "mkiso.yaml"
    config.write_text(json.dumps(route.settings | {"destinations": {"relay": peer}}))
    with running_keeper(route.port, at=HANGS_AT) as keeper:
        command = preloaded.start(
            (preloaded.MKISO, "relay", THIRTY, "--to", "relay", "--config", config), env=environment()
        )
        try:
            wait_until(lambda: len(acknowledged(route)) == HANGS_AT - 1, 20, lambda: str(keeper.stored))
        finally:
            command.send_signal(signal.SIGKILL)
            command.wait()
        send_the_rest(route, acknowledged(route), tool=tool)
        assert len(keeper.kept) == len(keeper.stored) == 30
        assert set(keeper.stored.values()) == {1}
    assert (route.job["state"], route.job["files_sent"], route.job["files_failed"]) == ("done", 30, 0)
    assert route.outcomes() == ["acknowledged"] * 11 + ["arrived before"] * 19


def test_an_instance_that_is_another_now_is_sent(route: Route) -> None:
    with running_keeper(route.port) as keeper:
        route.send(THIRTY)
        changed, *others = acknowledged(route).items()
        send_the_rest(route, dict([(changed[0], changed[1] + 1), *others]))
        assert keeper.stored[changed[0]] == 2
        assert keeper.stored.total() == 31


def test_what_arrived_before_is_confirmed_too_and_sent_where_it_is_not_there(route: Route) -> None:
    with running_keeper(route.port, loses=1) as keeper:
        route.send(THIRTY)
        send_the_rest(route, acknowledged(route), confirm="find")
        assert sorted(keeper.stored.values()) == [1] * 29 + [2]
    assert route.job["confirmed"] == 30
    assert route.outcomes() == ["acknowledged"] + ["arrived before"] * 29
