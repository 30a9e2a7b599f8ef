import socket
from collections.abc import Callable, Iterator

import pytest

from mkiso.errors import Busy, JobExists, Stopping
from mkiso.web import live as live_module
from mkiso.web.live import LEFT, STOPPING, LiveJobs

Wait = Callable[[Callable[[], object]], None]


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveJobs]:
    monkeypatch.setattr(live_module, "TICK", 0.005)
    jobs = LiveJobs(most=4)
    yield jobs
    for job_id in ("J", "K"):
        jobs.stop(job_id)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The service's and the client's end of a connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_client_that_left_ends_its_job_alone(
    live: LiveJobs, ends: tuple[socket.socket, socket.socket], eventually: Wait
) -> None:
    ours, theirs = ends
    others, _ = pair = socket.socketpair()
    job, other = live.start("J", ours), live.start("K", others)
    assert (job.reason, other.reason) == (None, None)
    theirs.close()
    eventually(lambda: job.reason == LEFT)
    assert other.reason is None
    for one in pair:
        one.close()


def test_a_look_that_fails_does_not_end_the_watch(live: LiveJobs, eventually: Wait) -> None:
    looks = iter([ValueError("unexpected")])

    def must_stop() -> bool:
        for error in looks:
            raise error
        return True

    live.must_stop = must_stop
    job = live.start("J", None)
    eventually(lambda: job.reason == STOPPING)


def test_a_stopping_service_cancels_every_job(live: LiveJobs, eventually: Wait) -> None:
    job, other = live.start("J", None), live.start("K", None)
    live.must_stop = lambda: True
    eventually(lambda: job.reason == other.reason == STOPPING)


def test_a_stopping_service_begins_no_job_and_lets_others_go_on(live: LiveJobs) -> None:
    job = live.start("J", None)
    live.is_stopping = lambda: True
    with pytest.raises(Stopping):
        live.start("K", None)
    assert job.reason is None


def test_a_job_that_has_ended_is_not_watched(live: LiveJobs) -> None:
    job = live.start("J", None)
    live.stop("J")
    live.cancel_all()
    assert job.reason is None


def test_no_more_jobs_than_may_run_and_wait_are_begun(live: LiveJobs) -> None:
    for job_id in "ABCD":
        live.start(job_id, None)
    with pytest.raises(JobExists):
        live.start("D", None)
    with pytest.raises(Busy):
        live.start("J", None)
    live.stop("A")
    live.start("J", None)
    for job_id in "BCD":
        live.stop(job_id)
