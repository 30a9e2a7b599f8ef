import errno
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mkiso.dicom.instances import Instance
from mkiso.errors import Cancelled, Incomplete, Internal, JobExists, LedgerUnavailable
from mkiso.ledger import ledger as ledger_module
from mkiso.ledger import record as record_module
from mkiso.ledger import schema
from mkiso.ledger.ledger import Ledger
from mkiso.ledger.record import JobRecord, Writer, as_mkiso_error
from mkiso.log import log_once
from mkiso.waiting import Cancellation

Wait = Callable[[Callable[[], object]], None]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path}/jobs.db", lambda: "W", lambda: {"J"})
    yield opened
    opened.close()


@contextmanager
def recorded(ledger: Ledger, cancellation: Cancellation | None = None) -> Iterator[JobRecord]:
    with JobRecord(Writer(ledger), "J", cancellation or Cancellation()) as record:
        record.open("iso", ("MR.001",), requester="x")
        yield record


def stands_at(ledger: Ledger, state: str) -> bool:
    return bool(ledger.job("J")["state"] == state)


def remembered(ledger: Ledger) -> list[str]:
    """The instances that left the house."""
    query = sa.select(schema.instances.c.sop_instance_uid)
    return sorted(ledger._database.do(lambda connection: connection.execute(query).scalars().all()))


def test_a_job_that_was_completed_is_done(ledger: Ledger, eventually: Wait) -> None:
    with recorded(ledger) as record:
        record.enter("querying", patient_name="JOHN DOE")
        eventually(partial(stands_at, ledger, "querying"))
        record.complete()
    job = ledger.job("J")
    assert (job["state"], job["error"], job["patient_name"]) == ("done", None, "JOHN DOE")
    assert set(job["seconds"]) == {"queued", "querying"}
    assert job["finished_at"]


@pytest.mark.parametrize(
    ("raised", "state", "code"),
    [
        (Incomplete("Two are missing."), "failed", "incomplete"),
        (Cancelled("On request."), "cancelled", "cancelled"),
        (KeyboardInterrupt(), "cancelled", "cancelled"),
        (OSError(errno.ENOSPC, "full", "/w/received"), "failed", "disk_full"),
        (OSError(errno.EACCES, "denied", "/w/received"), "failed", "internal"),
        (OSError(errno.EMFILE, "Too many open files", "/w/received"), "failed", "busy"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "failed", "busy"),
        (MemoryError(), "failed", "busy"),
        (RuntimeError("can't start new thread"), "failed", "busy"),
        (RuntimeError("anything else"), "failed", "internal"),
        (ValueError("/w/received"), "failed", "internal"),
    ],
)
def test_whatever_ends_a_job_ends_its_row(raised: BaseException, state: str, code: str, ledger: Ledger) -> None:
    with pytest.raises(type(raised)), recorded(ledger):
        raise raised
    job = ledger.job("J")
    assert (job["state"], job["error"]["code"]) == (state, code)
    assert "/w" not in job["error"]["detail"]


def test_a_job_that_was_not_completed_is_not_done(ledger: Ledger) -> None:
    with recorded(ledger):
        pass
    assert ledger.job("J")["state"] == "cancelled"


def test_an_internal_error_names_the_job() -> None:
    assert "J-17" in as_mkiso_error(ValueError("x"), "J-17").detail


def test_an_internal_error_leaves_the_job_as_one_that_names_it(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    raised = Internal("genisoimage ended.")
    with pytest.raises(Internal) as caught, recorded(ledger):
        raise raised
    assert (raised.detail, caught.value.detail) == ("genisoimage ended.", "genisoimage ended. This was job J.")
    assert ledger.job("J")["error"]["detail"] == caught.value.detail
    log_once(logging.getLogger("mkiso"), "the request failed", caught.value)
    assert [one.getMessage() for one in caplog.records if one.exc_info] == ["job ended"]


def test_received_never_goes_down(ledger: Ledger, eventually: Wait) -> None:
    with recorded(ledger) as record:
        states = ("querying", "retrieving", "verifying", "mastering", "sending")
        for state, count, known in zip(states, (0, 3, 2, 5, 4), (0, 3, 3, 5, 5), strict=True):
            record.progress(count)
            record.enter(state)
            eventually(partial(stands_at, ledger, state))
            assert ledger.job("J")["received"] == known
        record.progress(6)
        eventually(lambda: ledger.job("J")["received"] == 6)


def test_a_job_of_an_id_that_exists_leaves_the_others_row_alone(ledger: Ledger, eventually: Wait) -> None:
    with recorded(ledger) as record:
        with pytest.raises(JobExists), recorded(ledger):
            pass
        record.enter("querying")
        eventually(partial(stands_at, ledger, "querying"))
        record.complete()
    assert ledger.job("J")["state"] == "done"


def test_a_cancel_that_somebody_asked_for_reaches_the_job(ledger: Ledger, eventually: Wait) -> None:
    cancellation = Cancellation()
    with recorded(ledger, cancellation):
        ledger.request_cancel("J", "x@10.0.0.9")
        eventually(lambda: cancellation.reason == "Cancelled by x@10.0.0.9.")


def test_more_instances_than_one_transaction_takes_are_all_remembered(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_module, "CHUNK", 2)
    rows = [Instance(Path("/w/f"), f"1.{n}", "2", "3", "4", "5", 7, (7, 0)).row("on disc") for n in range(5)]
    with recorded(ledger) as record:
        record.hand_out(rows)
        record.complete()
    assert remembered(ledger) == [row["sop_instance_uid"] for row in rows]


def test_a_row_that_lives_is_touched_and_comes_back_where_it_was_taken_for_dead(
    ledger: Ledger, eventually: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_module, "BEAT", 0.05)
    other = Ledger(str(ledger._database._engine.url), lambda: "ELSEWHERE", set)
    with recorded(ledger) as record:
        record.enter("retrieving")
        others_view = {"state": "failed", "finished_at": ledger_module.now(), "error": ledger_module.DIED}
        other.update("J", **others_view)
        other._database.do(lambda connection: connection.execute(schema.jobs.update().values(alive_at=0)))
        eventually(lambda: ledger.job("J")["state"] == "retrieving")
        assert (ledger.job("J")["error"], ledger.job("J")["finished_at"]) == (None, None)
        assert other.abandon() == []
        other.update("J", **others_view)
        record.complete()
    assert (ledger.job("J")["state"], ledger.job("J")["error"]) == ("done", None)
    other.close()


def test_nothing_but_the_end_waits_for_the_ledger(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorded(ledger) as record, monkeypatch.context() as patched:
        patched.setattr(Writer, "_wait", lambda *_: pytest.fail("it waits"))
        record.enter("retrieving")
        record.progress(1)
        record.note(expected=2)
        record.hand_out([], is_all=True)


def test_a_state_and_all_that_left_the_house_are_written_at_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, eventually: Wait
) -> None:
    monkeypatch.setattr(record_module, "TICK", 600)
    with recorded(ledger) as record:
        record.enter("mastering")
        eventually(partial(stands_at, ledger, "mastering"))
        record.hand_out([Instance(Path("/w/f"), "1.5", "2", "3", "4", "5", 7, (7, 0)).row("on disc")], is_all=True)
        eventually(lambda: remembered(ledger) == ["1.5"])
        record.complete()


def test_a_state_is_written_though_the_ledger_was_away_when_it_changed(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, eventually: Wait
) -> None:
    monkeypatch.setattr(record_module, "PAUSE", 0.01)
    monkeypatch.setattr(record_module, "RETRY", 0.01)
    away = threading.Event()
    away.set()
    update = ledger.update

    def unavailable(*words: Any, **fields: Any) -> None:
        if away.is_set():
            raise LedgerUnavailable("It is away.")
        update(*words, **fields)

    monkeypatch.setattr(ledger, "update", unavailable)
    with recorded(ledger) as record:
        record.enter("querying", patient_name="JOHN DOE")
        record.enter("retrieving")
        record.complete()
    assert ledger.job("J")["state"] == "queued"
    away.clear()
    eventually(lambda: ledger.job("J")["state"] == "done")
    assert ledger.job("J")["patient_name"] == "JOHN DOE"


def ends(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """The events of this job's end; writers of other tests' ledgers may have something to say, too."""
    return [one for one in caplog.records if one.getMessage() == "job ended" and vars(one)["fields"]["job"] == "J"]


def test_the_log_tells_the_end_without_the_patients_name(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with JobRecord(Writer(ledger), "J", Cancellation()) as record:
        record.open("iso", ("MR.001", "CT.001"), requester="anna@10.0.0.1")
        record.enter("querying", patient_name="JOHN DOE", patient_id="PAT008")
        record.note(expected=5)
        record.progress(3, 4096)
    (ended,) = ends(caplog)
    known = dict(ended.fields)
    phases, seconds = known.pop("phases"), known.pop("seconds")
    assert ended.getMessage() == "job ended"
    assert known == {
        "job": "J",
        "kind": "iso",
        "accession": ("MR.001", "CT.001"),
        "requester": "anna@10.0.0.1",
        "state": "cancelled",
        "code": "cancelled",
        "received": 3,
        "expected": 5,
        "bytes": 4096,
    }
    assert phases == ledger.job("J")["seconds"]
    assert seconds >= sum(phases.values()) - 0.01
    assert "DOE" not in str(vars(ended))
    assert "PAT008" not in str(vars(ended))


def test_the_log_tells_why_a_job_ended_that_failed_inside(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="boom"), recorded(ledger):
        raise ValueError("boom")
    (ended,) = ends(caplog)
    assert (ended.getMessage(), ended.levelno, ended.fields["code"]) == ("job ended", logging.ERROR, "internal")
    assert ended.fields["accession"] == ("MR.001",)
    assert ended.exc_info
