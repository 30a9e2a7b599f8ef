import errno
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from mkiso.errors import Cancelled, Incomplete
from mkiso.ledger import record as record_module
from mkiso.ledger.ledger import Ledger
from mkiso.ledger.record import JobRecord, as_mkiso_error


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path}/jobs.db", Path("/w"))
    opened.open_job("J", "iso", ("MR.001",), requester="x")
    yield opened
    opened.close()


def test_a_job_that_was_completed_is_done(ledger: Ledger) -> None:
    with JobRecord(ledger, "J") as record:
        record.enter("querying", patient_name="JOHN DOE")
        assert ledger.job("J")["state"] == "querying"
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
        (GeneratorExit(), "cancelled", "cancelled"),
        (OSError(errno.ENOSPC, "full", "/w/received"), "failed", "disk_full"),
        (OSError(errno.EACCES, "denied", "/w/received"), "failed", "internal"),
        (ValueError("/w/received"), "failed", "internal"),
    ],
)
def test_whatever_ends_a_job_ends_its_row(raised: BaseException, state: str, code: str, ledger: Ledger) -> None:
    with pytest.raises(type(raised)), JobRecord(ledger, "J"):
        raise raised
    job = ledger.job("J")
    assert (job["state"], job["error"]["code"]) == (state, code)
    assert "/w" not in job["error"]["detail"]


def test_a_job_that_was_not_completed_is_not_done(ledger: Ledger) -> None:
    with JobRecord(ledger, "J"):
        pass
    assert ledger.job("J")["state"] == "cancelled"


def test_an_internal_error_names_the_job() -> None:
    assert "J-17" in as_mkiso_error(ValueError("x"), "J-17").detail


def test_received_never_goes_down(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_module, "PROGRESS_INTERVAL", 0)
    seen = []
    with JobRecord(ledger, "J") as record:
        for count in (0, 3, 2, 5, 4):
            record.progress(count)
            seen.append(ledger.job("J")["received"])
    assert [*seen, ledger.job("J")["received"]] == [0, 3, 3, 5, 5, 5]


def test_the_log_tells_the_end_without_the_patients_name(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with JobRecord(ledger, "J") as record:
        record.enter("querying", patient_name="JOHN DOE", patient_id="PAT008")
        record.complete()
    (ended,) = caplog.records
    assert (ended.getMessage(), ended.fields["job"], ended.fields["state"]) == ("job ended", "J", "done")
    assert "DOE" not in str(vars(ended))
    assert "PAT008" not in str(vars(ended))
