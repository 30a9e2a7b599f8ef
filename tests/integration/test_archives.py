"""Archives that misbehave: whatever they do, a disc is whole and holds what was asked for, or there is none."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydicom import dcmread

from mkiso import errors
from mkiso.dcmtk import findscu
from mkiso.dicom.instances import read_whole
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from mkiso.waiting import Cancellation
from tests.support.archive import running_archive
from tests.support.datasets import Patient
from tests.support.ports import free_ports
from tests.support.service import config, instances_of, instances_on, read_disc
from tests.support.slow_store import pause_at_a_buffers_end
from tests.support.studies import RICHARD, Study, ct_study, mixed_study
from tests.support.tools import wait_until

SIX = "SIX.001"


@dataclass(frozen=True)
class Held:
    root: Path
    six: Study
    mixed: Study


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Held:
    root = tmp_path_factory.mktemp("held")
    ct_study(root, Patient("PAT900", "OTHER^TEST"), "ANOTHER.001")
    one, another = (ct_study(root, RICHARD, "TWICE.001", number=number, count=1) for number in (1, 2))
    dataset = dcmread(another.files[0])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = one.files[0].stem
    dataset.save_as(another.files[0])
    return Held(root, ct_study(root, RICHARD, SIX, count=6), mixed_study(root))


@dataclass(frozen=True)
class Before:
    """An installation before an archive of one behaviour."""

    installation: Installation
    directory: Path
    archive_log: Path

    def disc(self, accession: str = SIX) -> dict[str, bytes]:
        """The instances on the disc that is made."""
        disc = make_disc(self.installation, Order((accession,), "test"), Cancellation())
        iso = b"".join(disc)
        disc.close()
        return instances_on(read_disc(iso, self.directory / "disc"))

    def refusal(self, kind: type[errors.MkisoError], accession: str = SIX) -> errors.MkisoError:
        with pytest.raises(kind) as caught:
            make_disc(self.installation, Order((accession,), "test"), Cancellation())
        (job,) = self.installation.ledger.list_jobs(limit=1)
        assert (job["state"], job["error"]["code"]) == ("failed", kind.code)
        return caught.value


Start = Callable[..., Any]


@pytest.fixture
def before(held: Held, tmp_path: Path) -> Start:
    @contextmanager
    def start(behaviour: str, retrieve: dict[str, Any] | None = None, **options: object) -> Iterator[Before]:
        port, receiver = free_ports(2)
        settings = config(tmp_path, port, {"RECEIVER": receiver}, retrieve=retrieve or {})
        with running_archive(port, {"RECEIVER": receiver}, held.root, behaviour, **options) as archive:
            installation = Installation(settings)
            yield Before(installation, tmp_path, archive.log)
            installation.ledger.close()

    return start


@pytest.mark.parametrize(
    "behaviour",
    [
        "normal",
        "early",
        "foreign",
        "duplicate",
        "two-associations",
        "hold-open",
        "any-accession",
        "refuses-whole-studies",
        "ignores-whole-studies",
        "cut-whole-studies",
        "cut-and-early",
        "resent",
        "pending-for-ever",
        "never-answers",
        "odd-warning",
        "odd-cancel",
        "fails-in-the-end",
    ],
)
def test_a_disc_is_whole_and_holds_that_study_alone(behaviour: str, before: Start, held: Held) -> None:
    with before(behaviour) as it:
        assert it.disc() == instances_of([held.six])


def test_an_archive_that_is_slow_to_ask_for_its_association_is_waited_for(before: Start, held: Held) -> None:
    with before("late-request", delay=5.5) as it:
        assert it.disc() == instances_of([held.six])


@pytest.mark.parametrize(
    ("behaviour", "expected", "received", "failed"),
    [("cut", 3, 6, 0), ("cut-and-never-answers", 3, 6, 0), ("cut-and-failed", 6, 3, 3), ("cut-and-kept", 6, 3, 0)],
)
def test_a_list_that_was_cut_fails_the_disc_and_is_explained(
    behaviour: str, expected: int, received: int, failed: int, before: Start
) -> None:
    with before(behaviour, n=3) as it:
        error = it.refusal(errors.Incomplete)
        assert error.fields == {"accession": SIX, "expected": expected, "received": received, "failed": failed}
        assert "list is cut" in error.detail


def test_what_an_archive_sends_and_does_not_list_is_left_out_where_that_is_set(
    before: Start, held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    with before("cut", n=4, retrieve={"unlisted": "leave_out"}) as it:
        found = it.disc()
        assert len(found) == 4
        assert found.items() <= instances_of([held.six]).items()
        assert [record.levelname for record in caplog.records if "does not list" in record.message] == ["WARNING"]


@pytest.mark.parametrize("behaviour", ["cut-and-failed", "cut-and-kept"])
def test_what_was_counted_and_did_not_come_is_never_left_out(behaviour: str, before: Start) -> None:
    with before(behaviour, n=3, retrieve={"unlisted": "leave_out"}) as it:
        it.refusal(errors.Incomplete)


def test_an_instance_that_came_into_the_archive_and_failed_fails_the_disc(before: Start) -> None:
    with before("new-one-fails") as it:
        error = it.refusal(errors.Incomplete)
        assert (error.fields["expected"], error.fields["received"], error.fields["failed"]) == (7, 6, 1)


def test_a_move_that_goes_on_though_all_is_there_is_not_waited_for(before: Start, held: Held) -> None:
    with before("never-answers", retrieve={"settle_timeout": 0.5, "move_timeout": 3600, "stall_timeout": 3600}) as it:
        assert it.disc() == instances_of([held.six])


def test_every_transfer_syntax_and_a_private_sop_class_come_unchanged(before: Start, held: Held) -> None:
    with before("normal") as it:
        assert it.disc("MIXED.001") == instances_of([held.mixed])


def test_an_instance_that_came_into_the_archive_meanwhile_is_on_the_disc_too(before: Start, held: Held) -> None:
    with before("extra") as it:
        found = it.disc()
        assert len(found) == 7
        assert instances_of([held.six]).items() <= found.items()


def test_an_instance_of_two_studies_at_once_fails_the_disc(before: Start) -> None:
    with before("normal") as it:
        error = it.refusal(errors.ConflictingInstances, "TWICE.001")
        assert error.fields["accession"] == "TWICE.001"


def test_an_instance_held_back_fails_the_disc_and_is_named(before: Start, held: Held) -> None:
    with before("withhold") as it:
        error = it.refusal(errors.Incomplete)
        assert (error.fields["expected"], error.fields["received"], error.fields["failed"]) == (6, 5, 0)
        assert sum(uid in error.detail for uid in held.six.sop_instance_uids) == 1


def test_an_instance_that_the_archive_itself_holds_cut_is_on_the_disc_as_it_came(before: Start, held: Held) -> None:
    with before("truncate") as it:
        found, expected = it.disc(), instances_of([held.six])
        (cut,) = (uid for uid, data in found.items() if data != expected[uid])
        assert expected[cut].startswith(found[cut])
        assert {**found, cut: expected[cut]} == expected
        (job,) = it.installation.ledger.list_jobs()
        assert job["malformed"] == 1


def test_an_instance_whose_receiver_is_killed_where_it_looks_whole_fails_the_disc(tmp_path: Path) -> None:
    port, receiver = free_ports(2)
    study = ct_study(tmp_path / "held", RICHARD, SIX, count=2)
    for file in study.files:
        pause_at_a_buffers_end(file)
    with running_archive(port, {"RECEIVER": receiver}, tmp_path / "held", "late-pixels", delay=60) as archive:
        installation = Installation(config(tmp_path, port, {"RECEIVER": receiver}, retrieve={"settle_timeout": 3}))
        it = Before(installation, tmp_path, archive.log)
        with ThreadPoolExecutor(1) as pool:
            refused = pool.submit(it.refusal, errors.Incomplete)
            wait_until(lambda: looks_whole(tmp_path, 2) or refused.done(), 20, str)
            for child in receivers_children():
                child.kill()
            error = refused.result(60)
        assert (error.fields["expected"], error.fields["received"]) == (2, 1)
        assert "1 were torn in transfer: its transfer did not end, or the receiver's process died" in error.detail
        assert sum(uid in error.detail for uid in study.sop_instance_uids) == 1
        installation.ledger.close()


def looks_whole(directory: Path, count: int) -> bool:
    files = list(directory.glob("work/dicomdir_*/received/*"))
    return len(files) == count and all(read_whole(file) for file in files)


def receivers_children() -> list[psutil.Process]:
    """The processes that serve an association of our own receiver, which runs in the job's directory."""
    ours = psutil.Process().children(recursive=True)
    return [one for one in ours if one.name() == "storescp" and one.ppid() in {other.pid for other in ours}]


@pytest.mark.parametrize(("status", "kind"), [("0000", errors.Incomplete), ("A702", errors.PacsRejected)])
def test_an_instance_that_does_not_tell_its_study_fails_the_disc_and_is_told_with_why(
    status: str, kind: type[errors.MkisoError], before: Start, held: Held
) -> None:
    with before("of-no-study", status=status) as it:
        detail = it.refusal(kind).detail
        (missing,) = re.findall(r"1 of 6 instances for SIX\.001 are missing: ([0-9.]+)\. ", detail)
        assert missing in held.six.sop_instance_uids
        assert f"1 came whole, and it cannot be told whose they are: {missing} (its Study Instance UID" in detail


def test_sub_operations_that_failed_are_asked_for_once_more(before: Start, held: Held) -> None:
    with before("breaks-once", retrieve={"settle_timeout": 30}) as it:
        assert it.disc() == instances_of([held.six])


def test_sub_operations_that_failed_are_counted(before: Start) -> None:
    with before("partial", n=2, retrieve={"settle_timeout": 30}) as it:
        error = it.refusal(errors.Incomplete)
        assert (error.fields["expected"], error.fields["received"], error.fields["failed"]) == (6, 4, 2)


def test_an_archive_that_sends_nothing_is_told_apart_and_what_is_missing_named(before: Start, held: Held) -> None:
    with before("none") as it:
        error = it.refusal(errors.NoDicomData)
        assert error.fields["accession"] == SIX
        assert all(uid in error.detail for uid in held.six.sop_instance_uids)


def test_an_archive_that_aborts_in_the_middle_fails_the_disc(before: Start) -> None:
    with before("abort", n=3) as it:
        error = it.refusal(errors.Incomplete)
        assert error.fields["received"] == 3


@pytest.mark.parametrize(("behaviour", "setting"), [("hang-move", "stall_timeout"), ("stall", "stall_timeout")])
def test_an_archive_that_goes_silent_is_given_up(behaviour: str, setting: str, before: Start) -> None:
    with before(behaviour, retrieve={setting: 0.5}) as it:
        assert setting in it.refusal(errors.PacsTimeout).detail


def test_a_move_that_never_ends_is_given_up(before: Start) -> None:
    with before("slow", delay=0.2, retrieve={"move_timeout": 0.5}) as it:
        assert "move_timeout" in it.refusal(errors.PacsTimeout).detail


def test_a_query_that_is_not_answered_is_given_up(before: Start) -> None:
    with before("hang-find", retrieve={"query_timeout": 1}) as it:
        assert "query_timeout" in it.refusal(errors.PacsTimeout).detail


@pytest.mark.parametrize("behaviour", ["endless-studies", "endless-instances"])
def test_a_query_of_endless_answers_is_given_up(behaviour: str, before: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findscu, "MOST_ANSWERS", 300)
    with before(behaviour, retrieve={"query_timeout": 3600}) as it:
        assert "more than 300 answers" in it.refusal(errors.PacsRejected).detail


def test_a_pacs_that_accepts_the_connection_alone_is_unreachable(before: Start) -> None:
    with before("hang-associate", retrieve={"connect_timeout": 1}) as it:
        it.refusal(errors.PacsUnreachable)


def test_a_pacs_that_rejects_the_association_has_rejected(before: Start) -> None:
    with before("reject") as it:
        assert "Called AE Title Not Recognized" in it.refusal(errors.PacsRejected).detail


@pytest.mark.parametrize("status", ["A702", "A801", "A900", "C001"])
def test_a_failure_status_of_the_move_is_told_and_what_is_missing_named(status: str, before: Start, held: Held) -> None:
    with before("move-status", status=status) as it:
        error = it.refusal(errors.PacsRejected)
        assert all(words in error.detail for words in (status, *held.six.sop_instance_uids))


@pytest.mark.parametrize("status", ["A700", "C001", "0122"])
def test_a_failure_status_of_the_query_is_told(status: str, before: Start) -> None:
    with before("find-status", status=status) as it:
        it.refusal(errors.PacsRejected)


def test_a_pacs_that_does_not_run_is_unreachable(tmp_path: Path) -> None:
    port, receiver = free_ports(2)
    installation = Installation(config(tmp_path, port, {"RECEIVER": receiver}))
    it = Before(installation, tmp_path, tmp_path)
    assert "Connection refused" in it.refusal(errors.PacsUnreachable).detail
    installation.ledger.close()


def test_a_move_destination_that_the_pacs_does_not_know_is_named(held: Held, tmp_path: Path) -> None:
    port, receiver = free_ports(2)
    with running_archive(port, {}, held.root) as archive:
        installation = Installation(config(tmp_path, port, {"STRANGER": receiver}))
        error = Before(installation, tmp_path, archive.log).refusal(errors.PacsRejected)
        assert "STRANGER" in error.detail
        installation.ledger.close()


@pytest.mark.parametrize(
    "accession", ["A[0].B", "(0010,0010)".replace(",", ""), "$(id)'; --", "-k PatientID", "@file #1", "%41|&<>"]
)
def test_an_accession_number_of_strange_characters_is_taken_literally(accession: str, tmp_path: Path) -> None:
    port, receiver = free_ports(2)
    held = tmp_path / "held"
    ct_study(held, RICHARD, "OTHER.001")
    wanted = ct_study(held, RICHARD, accession, number=2)
    with running_archive(port, {"RECEIVER": receiver}, held) as archive:
        installation = Installation(config(tmp_path, port, {"RECEIVER": receiver}))
        assert Before(installation, tmp_path, archive.log).disc(accession) == instances_of([wanted])
        installation.ledger.close()


def test_an_instance_that_pauses_where_an_element_ends_is_waited_for(tmp_path: Path) -> None:
    port, receiver = free_ports(2)
    study = ct_study(tmp_path / "held", RICHARD, SIX, count=6)
    for file in study.files:
        pause_at_a_buffers_end(file)
    with running_archive(port, {"RECEIVER": receiver}, tmp_path / "held", "late-pixels", delay=2) as archive:
        installation = Installation(config(tmp_path, port, {"RECEIVER": receiver}, retrieve={"settle_timeout": 10}))
        assert Before(installation, tmp_path, archive.log).disc() == instances_of([study])
        installation.ledger.close()
