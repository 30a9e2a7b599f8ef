import socket
from collections.abc import Callable, Iterator

import pytest

from mkiso.errors import Busy, Internal, JobExists
from mkiso.web import live as live_module
from mkiso.web.live import LEFT, STOPPED, STOPPING, LiveJobs

Wait = Callable[[Callable[[], object]], None]


class Requests:
    """The ledger's part: which jobs somebody asked to stop; it may not answer for a while."""

    def __init__(self) -> None:
        self.requested: set[str] = set()
        self.failures = 0

    def cancel_requested(self, job_ids: object) -> set[str]:
        if self.failures > 0:
            self.failures -= 1
            raise Internal("The ledger does not answer.")
        return self.requested & set(job_ids)


@pytest.fixture
def requests() -> Requests:
    return Requests()


@pytest.fixture
def live(requests: Requests, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveJobs]:
    monkeypatch.setattr(live_module, "TICK", 0.005)
    jobs = LiveJobs(requests, most=4)
    yield jobs
    for job_id in ("J", "K"):
        jobs.stop(job_id)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The service's and the client's end of a connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_job_that_somebody_asked_to_stop_is_cancelled_alone(
    live: LiveJobs, requests: Requests, eventually: Wait
) -> None:
    job, other = live.start("J", None), live.start("K", None)
    requests.requested.add("J")
    eventually(lambda: job.reason == STOPPED)
    assert other.reason is None


def test_a_ledger_that_does_not_answer_for_a_while_does_not_end_the_watch(
    live: LiveJobs, requests: Requests, eventually: Wait
) -> None:
    requests.failures = 2
    job = live.start("J", None)
    requests.requested.add("J")
    eventually(lambda: job.reason == STOPPED)


def test_a_client_that_left_ends_its_job(
    live: LiveJobs, requests: Requests, ends: tuple[socket.socket, socket.socket], eventually: Wait
) -> None:
    ours, theirs = ends
    job, marker = live.start("J", ours), live.start("K", None)
    requests.requested.add("K")
    eventually(lambda: marker.reason)
    assert job.reason is None
    theirs.close()
    eventually(lambda: job.reason == LEFT)


def test_a_stopping_service_cancels_every_job(live: LiveJobs, eventually: Wait) -> None:
    job, other = live.start("J", None), live.start("K", None)
    live.must_stop = lambda: True
    eventually(lambda: job.reason == other.reason == STOPPING)


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
