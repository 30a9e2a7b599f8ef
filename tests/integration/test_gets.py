"""C-GET: whatever the archive does on the one association, the disc is the right one, or there is none, and why."""

import json
import logging
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from mkiso import errors
from mkiso.config import parse
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from mkiso.retrieve import moves
from mkiso.waiting import Cancellation
from tests.integration.test_limits import small_disk  # noqa: F401
from tests.integration.test_parallel_moves import left
from tests.support.archive import running_archive
from tests.support.busy import CALLED_AE_TITLE, GET, LOCAL_LIMIT, LOCAL_LIMIT_FOR_GOOD, Rejection, busy
from tests.support.datasets import Patient
from tests.support.ports import free_ports
from tests.support.service import MKISO, instances_of, instances_on, mkiso, read_disc, settings
from tests.support.studies import RICHARD, Study, ct_study, mixed_study, series_study
from tests.support.tools import environment, wait_until

SIX, SERIES, LARGE = "SIX.001", "SERIES.001", "LARGE.001"
NUMBER = 4
COUNT = 10 + 11 + 12 + 13
CHILD = "get.py"


@dataclass(frozen=True)
class Held:
    root: Path
    six: Study
    mixed: Study
    series: Study
    large: Study


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Held:
    root = tmp_path_factory.mktemp("held")
    ct_study(root, Patient("PAT900", "OTHER^TEST"), "ANOTHER.001", side=16)
    six = ct_study(root, RICHARD, SIX, count=6, side=32)
    series = series_study(root, RICHARD, SERIES, series=NUMBER, count=10)
    return Held(root, six, mixed_study(root), series, ct_study(root, RICHARD, LARGE, count=8, side=512))


@dataclass(frozen=True)
class Before:
    """An installation that gets from an archive of one behaviour, and what the log has of its jobs."""

    installation: Installation
    directory: Path
    records: list[logging.LogRecord] = field(default_factory=list)

    def disc(self, accession: str = SIX, cancellation: Cancellation | None = None, **order: Any) -> dict[str, bytes]:
        asked = Order((accession,), "test", "legacy", **order)
        disc = make_disc(self.installation, asked, cancellation or Cancellation())
        iso = b"".join(disc)
        disc.close()
        return instances_on(read_disc(iso, self.directory / "disc"))

    def refusal(self, kind: type[errors.MkisoError], accession: str = SIX) -> errors.MkisoError:
        with pytest.raises(kind) as caught:
            self.disc(accession)
        (job,) = self.installation.ledger.list_jobs(limit=1)
        assert (job["state"], job["error"]["code"]) == ("failed", kind.code)
        assert left(self.directory / "work") == []
        assert list((self.directory / "work").glob("receiver_*")) == []
        return caught.value

    def told(self, what: str) -> list[dict[str, Any]]:
        return [one.fields for one in self.records if one.message == what]  # type: ignore[attr-defined]

    @property
    def whole(self) -> list[str]:
        """How the C-GETs of the whole study ended."""
        return [one["ending"] for one in self.told("a C-GET ended") if one["series"] is None]

    @property
    def of_series(self) -> Counter[str]:
        """How often each series was asked for."""
        return Counter(one["series"] for one in self.told("a C-GET ended") if one["series"] is not None)


def getting(directory: Path, port: int, **sections: Any) -> dict[str, Any]:
    """A configuration, in which the receiver's port is one that nobody may listen on."""
    made = settings(directory, port, {"RECEIVER": 1}, **sections)
    made["pacs"] |= {"retrieve": "get"}
    return made


@contextmanager
def installed(directory: Path, port: int, records: list[logging.LogRecord], **sections: Any) -> Iterator[Before]:
    installation = Installation(parse(getting(directory, port, **sections)))
    try:
        yield Before(installation, directory, records)
    finally:
        installation.ledger.close()


Start = Callable[..., Any]


@pytest.fixture
def before(held: Held, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Start:
    caplog.set_level(logging.INFO, "mkiso.retrieve")

    @contextmanager
    def start(behaviour: str, retrieve: dict[str, Any] | None = None, **options: object) -> Iterator[Before]:
        (port,) = free_ports(1)
        limits = {"settle_timeout": 0.5, **(retrieve or {})}
        with (
            running_archive(port, {}, held.root, behaviour, **options),
            installed(tmp_path, port, caplog.records, retrieve=limits) as it,
        ):
            yield it

    return start


@pytest.mark.parametrize(
    "behaviour",
    [
        "normal",
        "foreign",
        "duplicate",
        "breaks-once",
        "refuses-whole-studies",
        "pending-for-ever",
        "never-answers",
        "odd-warning",
        "fails-in-the-end",
    ],
)
def test_a_disc_is_whole_and_holds_that_study_alone(behaviour: str, before: Start, held: Held) -> None:
    with before(behaviour) as it:
        assert it.disc() == instances_of([held.six])
        assert list((it.directory / "work").glob("receiver_*")) == []


@pytest.mark.parametrize("behaviour", ["normal", "tells-no-class"])
def test_every_kind_of_instance_comes_as_it_is(behaviour: str, before: Start, held: Held) -> None:
    """Where the archive does not tell the SOP classes all are offered but the private one, which it then names."""
    with before(behaviour) as it:
        if behaviour == "normal":
            assert it.disc("MIXED.001") == instances_of([held.mixed])
        else:
            private = held.mixed.files[-1].stem
            error = it.refusal(errors.Incomplete, "MIXED.001")
            assert f"1 of 11 instances for MIXED.001 are missing: {private}." in error.detail
            assert (error.fields["received"], error.fields["failed"]) == (10, 1)


def test_what_another_study_brings_along_is_left_out_and_told(before: Start, held: Held) -> None:
    with before("foreign") as it:
        assert it.disc() == instances_of([held.six])
        (told,) = it.told("the receiver got instances that were not asked for")
        assert told["count"] == 1


@pytest.mark.parametrize(("behaviour", "options", "received"), [("abort", {"n": 3}, 3), ("withhold", {}, 5)])
def test_an_archive_that_ends_too_soon_fails_the_disc(
    behaviour: str, options: dict[str, int], received: int, before: Start
) -> None:
    with before(behaviour, **options) as it:
        error = it.refusal(errors.Incomplete)
        assert (error.fields["expected"], error.fields["received"]) == (6, received)


def test_sub_operations_that_failed_are_counted(before: Start) -> None:
    with before("partial", n=2) as it:
        error = it.refusal(errors.Incomplete)
        assert (error.fields["expected"], error.fields["received"], error.fields["failed"]) == (6, 4, 2)


def test_an_archive_that_hangs_up_within_an_instance_leaves_no_part_of_it(before: Start) -> None:
    with before("hangs-up-in-an-instance") as it:
        error = it.refusal(errors.Incomplete)
        assert error.fields["received"] == 5
        assert re.search(r"The PACS said: (it hung up|Connection reset by peer)\.", error.detail), error.detail


@pytest.mark.parametrize("behaviour", ["hang-move", "stall", "hangs-in-an-instance"])
def test_an_archive_that_goes_silent_is_given_up(behaviour: str, before: Start) -> None:
    with before(behaviour, retrieve={"stall_timeout": 0.5}) as it:
        assert "stall_timeout" in it.refusal(errors.PacsTimeout).detail


def test_a_get_that_never_ends_is_given_up(before: Start) -> None:
    with before("slow", delay=0.2, retrieve={"move_timeout": 0.5}) as it:
        assert "the C-GET did not end in 0.5 s (retrieve.move_timeout)" in it.refusal(errors.PacsTimeout).detail


def test_an_archive_that_sends_nothing_is_told_apart(before: Start, held: Held) -> None:
    with before("none") as it:
        detail = it.refusal(errors.NoDicomData).detail
        assert all(uid in detail for uid in held.six.sop_instance_uids)


def test_an_archive_that_takes_no_c_get_is_told_as_such(before: Start) -> None:
    with before("takes-no-get") as it:
        assert "takes no C-GET. Have it allowed there" in it.refusal(errors.PacsRejected).detail


@pytest.mark.parametrize("status", ["A702", "C001"])
def test_a_failure_status_is_told_and_what_is_missing_named(status: str, before: Start, held: Held) -> None:
    with before("move-status", status=status) as it:
        detail = it.refusal(errors.PacsRejected).detail
        assert all(words in detail for words in (f"the C-GET with status {status}", *held.six.sop_instance_uids))


def test_an_instance_that_came_into_the_archive_meanwhile_is_on_the_disc_too(before: Start) -> None:
    with before("extra") as it:
        assert len(it.disc()) == 7


@pytest.mark.parametrize(
    ("behaviour", "options", "words"),
    [("cut", {"n": 3}, "3 more that it does not list"), ("cut-and-kept", {"n": 3}, "counted 6")],
)
def test_an_archive_that_sends_or_counts_more_than_it_lists_has_a_cut_list(
    behaviour: str, options: dict[str, int], words: str, before: Start
) -> None:
    with before(behaviour, **options) as it:
        error = it.refusal(errors.Incomplete)
        assert ("list is cut" in error.detail, words in error.detail) == (True, True), error.detail


def test_an_instance_that_comes_twice_and_differs_is_a_conflict(before: Start, held: Held) -> None:
    with before("differing") as it:
        detail = it.refusal(errors.ConflictingInstances).detail
        assert any(uid in detail for uid in held.six.sop_instance_uids)


def test_an_instance_of_another_patient_is_told(before: Start) -> None:
    with before("older-patient-id") as it:
        it.refusal(errors.WrongPatient)


def test_an_archive_that_takes_no_association_for_now_is_asked_again(shared: int, held: Held, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with (
        busy(port, shared, service=GET, times=2) as door,
        installed(tmp_path, port, [], retrieve={"connect_timeout": 20}) as it,
    ):
        assert it.disc() == instances_of([held.six])
        assert door.rejected == 2


@pytest.mark.parametrize(
    ("rejection", "words", "is_asked_again"),
    [
        (LOCAL_LIMIT, "is busy: it has as many associations as it takes, and took no other in 1 s", True),
        (LOCAL_LIMIT_FOR_GOOD, "as many associations as it takes. Try again later", False),
        (CALLED_AE_TITLE, "it does not know the called AE title. Check the AE titles", False),
    ],
)
def test_an_archive_that_takes_none_at_all_says_why(
    rejection: Rejection, words: str, is_asked_again: bool, shared: int, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    with (
        busy(port, shared, service=GET, rejection=rejection) as door,
        installed(tmp_path, port, [], retrieve={"connect_timeout": 1}) as it,
    ):
        assert words in it.refusal(errors.PacsRejected).detail
        assert (door.rejected > 1) == is_asked_again


@pytest.fixture(scope="module")
def shared(held: Held) -> Iterator[int]:
    """The port of an archive that does what is right."""
    (port,) = free_ports(1)
    with running_archive(port, {}, held.root, pace=0.01):
        yield port


def children(work_dir: Path) -> int:
    return sum(name.startswith("python") for name in left(work_dir))


@pytest.fixture
def by_series(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few and small as the images are, it is worth while to ask for them by series."""
    limits = {"WORTH": 0, "SHORTEST": 0.01, "EARLY": 0.9, "FEWEST": 40, "FAST": 1_000_000, "LOOK": 0.005}
    for limit, value in limits.items():
        monkeypatch.setattr(moves, limit, value)


@pytest.mark.usefixtures("by_series")
@pytest.mark.parametrize("behaviour", ["one-aborts", "one-hangs", "one-is-refused", "one-sends-another", "two-at-most"])
def test_the_series_come_side_by_side_and_one_that_fails_once_more(behaviour: str, before: Start, held: Held) -> None:
    with before(behaviour, {"stall_timeout": 2 if "hangs" in behaviour else 15}, pace=0.01) as it:
        assert it.disc(SERIES) == instances_of([held.series])
        assert sorted(it.of_series.values()) == [1] * (NUMBER - 1) + [2 if "one" in behaviour else 1]
        assert it.whole == ["lost"]  # ended


@pytest.mark.usefixtures("by_series")
@pytest.mark.parametrize("behaviour", ["refuses-series", "one-sends-another-always"])
def test_where_series_do_not_come_the_study_comes_as_a_whole(behaviour: str, before: Start, held: Held) -> None:
    with before(behaviour, pace=0.01) as it:
        assert it.disc(SERIES) == instances_of([held.series])
        assert it.whole == ["lost", "success"]


@pytest.mark.usefixtures("by_series")
@pytest.mark.parametrize(
    ("behaviour", "words"), [("hides-a-series", "list is cut"), ("one-counts-two-more", f"counted {COUNT + 2}")]
)
def test_more_than_the_list_has_is_missed_by_series_too(behaviour: str, words: str, before: Start) -> None:
    with before(behaviour, pace=0.01) as it:
        assert words in it.refusal(errors.Incomplete, SERIES).detail


def test_chosen_series_come_alone(before: Start, held: Held) -> None:
    with before("normal") as it:
        series = {
            file.stem: str(dcmread(file, stop_before_pixels=True).SeriesInstanceUID) for file in held.series.files
        }
        chosen = series[held.series.files[0].stem]
        found = it.disc(SERIES, series_uids=(chosen,))
        assert found == {uid: data for uid, data in instances_of([held.series]).items() if series[uid] == chosen}
        assert (it.whole, it.of_series) == ([], {chosen: 1})


@pytest.mark.usefixtures("by_series")
@pytest.mark.parametrize("most", [1, 4])
def test_a_cancel_in_the_middle_leaves_nothing(most: int, shared: int, tmp_path: Path) -> None:
    cancellation, made = Cancellation(), getting(tmp_path, shared)
    made["pacs"]["parallel_moves"] = most
    installation = Installation(parse(made))
    it, work = Before(installation, tmp_path), tmp_path / "work"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(it.disc, SERIES, cancellation)
        wait_until(
            lambda: children(work) >= min(most, 2) and any(work.glob("*/received/*")), 20, lambda: f"{left(work)}"
        )
        cancellation.cancel("enough")
        with pytest.raises(errors.Cancelled):
            asked.result(20)
        assert left(work) == []
    installation.ledger.close()


def test_a_worker_that_is_killed_in_the_middle_leaves_nothing_past_a_sweep(held: Held, tmp_path: Path) -> None:
    file, work, (port,) = tmp_path / "mkiso.yaml", tmp_path / "work", free_ports(1)
    file.write_text(json.dumps(getting(tmp_path, port)))  # JSON is YAML
    argv = (MKISO, "iso", SIX, "-o", tmp_path / "x.iso", "--config", file)
    with running_archive(port, {}, held.root, "stall"):
        process = subprocess.Popen(argv, stderr=subprocess.DEVNULL, env=environment())
        try:
            wait_until(lambda: children(work) == 1 and any(work.glob("*/received/*")), 20, lambda: f"{left(work)}")
        finally:
            process.kill()
            process.wait()
        assert b"cleared away after job" in mkiso("sweep", "--config", file).stdout
        assert left(work) == []


@pytest.mark.parametrize("min_free", ["1MB", 0])
def test_a_disk_that_fills_while_the_instances_come_is_told(
    min_free: Any,
    small_disk: Path,  # noqa: F811
    shared: int,
    tmp_path: Path,
) -> None:
    made = getting(tmp_path, shared)
    made["storage"] |= {"work_dir": str(small_disk / "work"), "min_free": min_free}
    installation = Installation(parse(made))
    with pytest.raises(errors.DiskFull):
        make_disc(installation, Order((LARGE,), "test"), Cancellation())
    installation.ledger.close()
    assert left(small_disk / "work") == []


@pytest.mark.parametrize("free", [0, 16, 600])
def test_a_disk_with_next_to_nothing_left_is_full(
    free: int,
    small_disk: Path,  # noqa: F811
    shared: int,
    tmp_path: Path,
) -> None:
    """The program's own word may have no room, too."""
    made = getting(tmp_path, shared)
    made["storage"] |= {"work_dir": str(small_disk / "work"), "min_free": 0}
    installation = Installation(parse(made))
    installation.sweep()
    filled = os.statvfs(small_disk)
    (small_disk / "filled").write_bytes(bytes(filled.f_bavail * filled.f_frsize - free * 1024))
    with pytest.raises(errors.DiskFull):
        make_disc(installation, Order((LARGE,), "test"), Cancellation())
    installation.ledger.close()
    assert left(small_disk / "work") == []
