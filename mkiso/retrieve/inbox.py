"""The directory that a receiver writes to: what has come whole, and whether that may go out.

A file is there under its final name from its first byte (storescp +B), so presence proves nothing, nor does what is in
it: the receiver's log tells what it has received to its end. And anybody who reaches the receiver's port may send, also
under an expected UID. So only what is expected counts as progress and is waited for, the rest is removed and counted,
and of what goes out it must hold that it is the right patient's, and that no instance came in two versions.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mkiso.dcmtk.movescu import MoveResult
from mkiso.dcmtk.storescp import Transfers, file_number, out_of_space, why_cut
from mkiso.dicom.instances import (
    HEAD,
    Expectation,
    Foreign,
    Instance,
    Key,
    Unattributable,
    claimed_key,
    read_arrival,
    same_data_set,
    version_of,
)
from mkiso.errors import ConflictingInstances, Incomplete, WrongPatient
from mkiso.retrieve.studies import Study, keys_of, require_one_patient
from mkiso.waiting import Checkpoint, Stopwatch
from mkiso.workspace import is_full

NAMED = 5
UNENDED = "its transfer did not end, or the receiver's process died"
UNWRITTEN = "it could not be written to its end"
Arrivals = Mapping[Key, Sequence[Instance]]


class Inbox:
    """Reads each file of a directory once it has come whole, as `transfers` tell; no instance is expected at first.

    `received` and `bytes` count the expected instances that are there, `foreign` the whole ones of other studies, and
    `unread` those that there was no time to read; `foreign_uids` are some of these. `senders` are the receiver's
    processes that have received what is expected; `quiet` runs since the last instance of an expected study.
    """

    def __init__(self, directory: Path, transfers: Transfers) -> None:
        self._directory, self._transfers = directory, transfers
        self._wanted: set[Key] = set()
        self.expectation = Expectation()
        self._files: dict[str, Instance] = {}
        self._unattributable: list[str] = []  # the first few of so many
        self._unattributable_count = 0
        self._heads: dict[str, tuple[int, bool | None]] = {}  # of torn files: the size, and whether it is expected
        self.torn: set[str] = set()  # not whole at the last look: torn, or still to grow
        self.senders: set[int] = set()
        self.keys: set[Key] = set()
        self.foreign = self.unread = self.received = self.bytes = 0
        self.foreign_uids: set[str] = set()
        self.quiet = Stopwatch()

    @property
    def arrivals(self) -> dict[Key, list[Instance]]:
        """The whole instances by Study and SOP Instance UID; each as often as it came."""
        arrived = defaultdict(list)
        for name in sorted(self._files):
            arrived[self._files[name].key].append(self._files[name])
        return dict(arrived)

    @property
    def damaged(self) -> int:
        """How many files are there that cannot be handed out."""
        return len(self.torn) + self._unattributable_count

    def damage(self) -> str:
        """Which these are, and why, as sentences; empty where there are none."""
        whys = [why_cut(failure) for failure in self._transfers.failed]
        whys += [UNWRITTEN if self._transfers.may_be_whole(name) else UNENDED for name in sorted(self.torn)]
        sentences = []
        if whys:
            counted = "; ".join(f"{why} ({count})" for why, count in Counter(whys).items())
            sentences.append(f"{len(whys)} were torn in transfer: {counted}.")
        if count := self._unattributable_count:
            further = f" and {count - NAMED} more" if count > NAMED else ""
            named = ", ".join(self._unattributable) + further
            sentences.append(f"{count} came whole, and it cannot be told whose they are: {named}.")
        return " ".join(sentences)

    def ran_out_of_space(self) -> bool:
        """Whether the receiver's disk was too full for one: it says so, or has not written a file's end, or waits."""
        is_cut = any(map(self._transfers.may_be_whole, self.torn))
        return is_full(self._directory) or is_cut or any(map(out_of_space, self._transfers.failed))

    def look(self) -> None:
        """Read what has come whole since."""
        torn = self.unended()
        self._transfers.read_on()
        for name in sorted(torn, key=file_number):
            if self._transfers.may_be_whole(name):
                self.expectation.checkpoint()
                if self._is_read(name):
                    torn.discard(name)
        self.torn = torn
        self._heads = {name: head for name, head in self._heads.items() if name in torn}

    def unended(self) -> set[str]:
        """The files that have not been found whole: torn, or still to grow."""
        return {name for name in os.listdir(self._directory) if name not in self._files}

    def is_expected(self, name: str) -> bool | None:
        """Whether a file holds an instance that is expected, or another of its study, or is on the way to.

        None as long as its beginning does not tell.
        """
        if name in self._files:
            return not self.expectation.uids.isdisjoint(self._files[name].key)
        size, is_expected = self._heads.get(name, (-1, None))
        if is_expected is None and size != (now := self.size(name)):
            is_expected = self._claims_to_be_expected(name, now)
            self._heads[name] = now, is_expected
        return is_expected

    def size(self, name: str) -> int:
        """In bytes; none where the file is gone."""
        return (version_of(self._directory / name) or (0, 0))[0]

    def expect(self, keys: Set[Key]) -> None:
        """These are expected, too, as it turned out."""
        self._wanted |= keys
        self.expectation.uids |= {uid for key in keys for uid in key}
        self._heads.clear()
        self.forget(())

    def remove(self, name: str) -> None:
        """What goes nowhere need not stay."""
        (self._directory / name).unlink(missing_ok=True)
        self.torn.discard(name)

    def discard(self, study: Study) -> None:
        """What has come of a study, or of the series of it that is wanted, is no longer there."""
        self.look()
        gone = [name for name, one in self._files.items() if is_of(study, one)]
        for name in gone:
            self.remove(name)
            self._transfers.forget(name)
        self.forget(gone)

    def forget(self, names: Collection[str]) -> None:
        """Count these files no longer, whatever they hold."""
        self._files = {name: one for name, one in self._files.items() if name not in names}
        self.keys = {one.key for one in self._files.values()}
        arrived = {one.key: one.bytes for one in self._files.values() if one.key in self._wanted}
        self.received, self.bytes = len(arrived), sum(arrived.values())

    def forget_changed(self) -> None:
        """Forget what was written to, or went, since it was found whole."""
        self.forget([name for name, one in self._files.items() if version_of(one.path) != one.version])

    def recheck(self) -> None:
        """Read again what was written to after it had been read, and see what is gone."""
        self.forget_changed()
        self.look()

    def _claims_to_be_expected(self, name: str, size: int) -> bool | None:
        claimed = claimed_key(self._directory / name, self.expectation)
        if claimed is None:
            return False
        if not self.expectation.uids.isdisjoint(claimed):
            return True
        return False if claimed[0] or size >= HEAD else None

    def _is_read(self, name: str) -> bool:
        """Whether a file has come whole; one of another study, or of which that cannot be told, is then gone."""
        try:
            instance = read_arrival(self._directory / name, partial(self._transfers.is_whole, name), self.expectation)
        except Unattributable as error:
            self._unattributable_count += 1
            if len(self._unattributable) < NAMED:
                self._unattributable.append(f"{error.sop_instance_uid or name} ({error.why})")
        except Foreign as foreign:
            self._count_foreign(foreign)
        else:
            if instance is not None:
                self._take(name, instance)
            return instance is not None
        self.remove(name)
        self._transfers.forget(name)
        return True

    def _take(self, name: str, instance: Instance) -> None:
        self._files[name] = instance
        self.senders.add(file_number(name)[0])
        if instance.key in self.keys:
            return
        self.keys.add(instance.key)
        if instance.study_uid in self.expectation.uids:
            self.quiet = Stopwatch()
        if instance.key in self._wanted:
            self.received += 1
            self.bytes += instance.bytes

    def _count_foreign(self, foreign: Foreign) -> None:
        self.foreign += foreign.is_read
        self.unread += not foreign.is_read
        if len(self.foreign_uids) < NAMED:
            self.foreign_uids.add(foreign.sop_instance_uid)


@dataclass(frozen=True)
class Evidence:
    """What tells that the archive holds more of a study than it lists: false where nothing does.

    `unlisted` are whole instances that came and are not listed; `uncounted` is how many more sub-operations the
    archive counts, or names as failed, than its list and what came explain.
    """

    unlisted: frozenset[str] = frozenset()
    uncounted: int = 0

    def __bool__(self) -> bool:
        return bool(self.unlisted or self.uncounted)


def is_of(study: Study, instance: Instance) -> bool:
    """Whether an instance is of the study, and of the series of it that is wanted, where that is one."""
    return instance.study_uid == study.study_uid and study.series_uid in (None, instance.series_uid)


@dataclass(frozen=True)
class Said:
    """What the archive said of a C-MOVE of a study: of one series, or None for all, and what it lists of that."""

    series_uid: str | None
    listed: Set[str]
    result: MoveResult


def evidence_against(
    study: Study, job_studies: Set[str], arrivals: Arrivals, said: Sequence[Said], foreign: int = 0
) -> Evidence:
    """What the C-MOVEs of a study say of its list (PS3.4 C.4.2.1.6); `job_studies` are the UIDs of all of the job.

    A further copy explains a sub-operation, and so does an instance of the study that is of none of these series. An
    instance of a study that nobody asked for explains one that was completed, and none that failed: a stranger may
    have sent it. So many `foreign` ones came beside the arrivals. What came and was not counted explains nothing.
    """
    came = {sop: copies for (study_uid, sop), copies in arrivals.items() if study_uid == study.study_uid}
    unlisted = {sop for sop, (first, *_) in came.items() if sop not in study.instances and is_of(study, first)}
    of_series: set[str] = set()
    counted = sent = 0
    for one in said:
        own = one.listed | {sop for sop, (first, *_) in came.items() if one.series_uid in (None, first.series_uid)}
        of_series |= own
        counted += max(0, one.result.counted - len(own))
        sent += max(0, one.result.completed + one.result.warning - len(own))
    explained = sum(len(copies) - 1 for copies in came.values()) + len(came.keys() - of_series)
    foreign += sum(len(copies) for (study_uid, _), copies in arrivals.items() if study_uid not in job_studies)
    explained += min(foreign, max(0, sent - explained))
    failed = {uid for one in said for uid in one.result.failed_uids} - came.keys() - of_series - study.instances.keys()
    return Evidence(frozenset(unlisted), max(0, counted - explained, len(failed)))


def require_patient(
    studies: Sequence[Study], arrivals: Arrivals, verify: bool, with_all_patients: Callable[[Study], Study]
) -> None:
    """Raise WrongPatient unless each arrival has the Patient ID of the PACS's answer (PS3.3 C.7.1.1).

    Where the PACS gives none, all such studies' instances must have the same; one that cannot be read is another. Not
    where `verify` is false. Either way the first other Patient ID is a reason to ask whom the PACS names for these very
    studies under any accession number: raises SeveralPatients where these are several.
    """
    found = _of_another_patient(studies, arrivals)
    if found is not None:
        require_one_patient([with_all_patients(study) for study in studies])
        if verify:
            raise _wrong_patient(*found)


def _of_another_patient(studies: Sequence[Study], arrivals: Arrivals) -> tuple[Study, Instance] | None:
    unnamed: str | None = None
    for study in studies:
        for key in sorted(keys_of(study)):
            for one in arrivals[key]:
                expected = study.patient_id or unnamed
                if expected is None:
                    expected = unnamed = one.patient_id
                if not one.patient_known or one.patient_id != expected:
                    return study, one
    return None


def require_series(studies: Sequence[Study], arrivals: Arrivals) -> None:
    """Raise Incomplete where an instance says itself that it is of another series than the one it is listed in."""
    for study in (one for one in studies if one.series_uid is not None):
        if others := [
            key[1] for key in sorted(keys_of(study)) if arrivals[key][0].series_uid not in ("", study.series_uid)
        ]:
            raise Incomplete(
                f"The PACS lists {len(others)} instances in {study.title} that are of another series by their own"
                f" Series Instance UID, such as {others[0]}. Have the PACS correct it, or take the whole study.",
                accession=study.accession_number,
                expected=len(study.instances),
                received=len(study.instances) - len(others),
                failed=0,
            )


def require_agreement(studies: Sequence[Study], arrivals: Arrivals, checkpoint: Checkpoint) -> None:
    """Raise ConflictingInstances where an instance came more than once, and not the same, or is of two studies.

    `checkpoint` is called before each comparison, which reads both files.
    """
    studies_of: dict[str, str] = {}
    for study in studies:
        for key in sorted(keys_of(study)):
            first, *others = arrivals[key]
            if studies_of.setdefault(first.sop_instance_uid, study.study_uid) != study.study_uid:
                raise _conflict(study, first)
            for other in others:
                checkpoint()
                if not same_data_set(first, other):
                    raise _conflict(study, first)


def _wrong_patient(study: Study, instance: Instance) -> WrongPatient:
    if not instance.patient_known:
        return WrongPatient(
            f"The instance {instance.sop_instance_uid}, received for {study.title}, is malformed, and its"
            " Patient ID cannot be read. Have the PACS correct it; where you know that it is this patient's, set"
            " retrieve.verify_patient to false.",
            accession=study.accession_number,
        )
    return WrongPatient(
        f"The instance {instance.sop_instance_uid}, received for {study.title}, has another Patient ID than"
        " the PACS's answer. Have the PACS correct it, and see who may send to this host's receivers. If its files"
        " keep an older Patient ID on purpose, set retrieve.verify_patient to false.",
        accession=study.accession_number,
    )


def _conflict(study: Study, instance: Instance) -> ConflictingInstances:
    return ConflictingInstances(
        f"The instance {instance.sop_instance_uid} of {study.title} arrived twice, with different contents."
        " Try again; if it stays so, see who may send to this host's receivers.",
        accession=study.accession_number,
    )
