"""The directory that a receiver writes to: what has arrived whole.

A file is there under its final name from its first byte (storescp +B), so presence proves nothing, nor does what is in
it: the receiver tells what it has received to its end. Anybody who reaches the receiver's port may
send: only what is expected counts as progress, and is waited for; the rest is removed, and counted.

What must hold of the instances that go out, beside that all of them are there: whose they are, and which.

Whoever reaches the receiver's port while a job runs can send an instance under an expected UID.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mkiso.clock import Stopwatch
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
from mkiso.errors import ConflictingInstances, WrongPatient
from mkiso.ledger.record import JobRecord
from mkiso.retrieve.studies import Study, keys_of, require_one_patient
from mkiso.workspace import is_full

NAMED = 5
UNENDED = "its transfer did not end, or the receiver's process died"
Arrivals = Mapping[Key, Sequence[Instance]]
LOGGED = 10
log = logging.getLogger("mkiso.retrieve.inbox")


class Inbox:
    """Each file of the directory is read once it has come whole, as `transfers` tell; none is expected at first."""

    def __init__(self, directory: Path, transfers: Transfers) -> None:
        self._directory, self._transfers = directory, transfers
        self._wanted: set[Key] = set()
        self.expectation = Expectation()
        self._files: dict[str, Instance] = {}
        self._unattributable: list[str] = []  # the first of them
        self._nobodys = 0
        self.torn: set[str] = set()  # not whole when it was looked last: torn, or still to grow
        self._heads: dict[str, tuple[int, bool | None]] = {}  # of torn ones: size, and what it told
        self.senders: set[int] = set()  # the receiver's processes that have received what is expected
        self.foreign = self.unread = 0  # whole instances of other studies; and those that nobody had time to read
        self.foreign_uids: set[str] = set()  # some of these
        self.keys: set[Key] = set()
        self.received = self.bytes = 0  # how many of the expected ones are there, and how much
        self.quiet = Stopwatch()  # since the last instance of an expected study

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
        return len(self.torn) + self._nobodys

    def damage(self) -> str:
        """Which these are, and why, as sentences; empty where there are none."""
        return " ".join([*self._torn_in_transfer(), *self._without_identity()])

    def ran_out_of_space(self) -> bool:
        """Whether the receiver's disk was too full for one: it says so, or has not written a file's end, or waits."""
        return (
            is_full(self._directory)
            or any(map(out_of_space, self._transfers.failed))
            or any(map(self._is_short, self.torn))
        )

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
        self._heads = {name: told for name, told in self._heads.items() if name in torn}

    def unended(self) -> set[str]:
        """The files that have not been found whole: torn, or still to grow."""
        return {name for name in os.listdir(self._directory) if name not in self._files}

    def is_expected(self, name: str) -> bool | None:
        """Whether a file holds an instance that is expected, or another of its study, or is on the way to.

        None as long as its beginning does not tell.
        """
        if name in self._files:
            return not self.expectation.uids.isdisjoint(self._files[name].key)
        size, told = self._heads.get(name, (-1, None))
        if told is None and size != (now := self.size(name)):
            self._heads[name] = now, self._told(name, now)
        return self._heads[name][1]

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

    def discard(self, study_uid: str) -> None:
        """What has come of a study is no longer there."""
        gone = [name for name, one in self._files.items() if one.study_uid == study_uid]
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

    def _told(self, name: str, size: int) -> bool | None:
        claimed = claimed_key(self._directory / name, self.expectation)
        if claimed is None:
            return False
        if not self.expectation.uids.isdisjoint(claimed):
            return True
        return False if claimed[0] or size >= HEAD else None

    def _is_short(self, name: str) -> bool:
        return self._transfers.may_be_whole(name)

    def _torn_in_transfer(self) -> Iterator[str]:
        whys = [why_cut(said) for said in self._transfers.failed]
        whys += [
            "it could not be written to its end" if self._is_short(name) else UNENDED for name in sorted(self.torn)
        ]
        if whys:
            told = "; ".join(f"{why} ({count})" for why, count in Counter(whys).items())
            yield f"{len(whys)} were torn in transfer: {told}."

    def _without_identity(self) -> Iterator[str]:
        if count := self._nobodys:
            further = f" and {count - NAMED} more" if count > NAMED else ""
            told = ", ".join(self._unattributable)
            yield f"{count} came whole, and it cannot be told whose they are: {told}{further}."

    def _is_read(self, name: str) -> bool:
        """Whether a file has come whole; one that is nobody's, or of another study, is then gone."""
        try:
            instance = read_arrival(self._directory / name, partial(self._transfers.is_whole, name), self.expectation)
        except Unattributable as nobodys:
            self._nobodys += 1
            self._unattributable += [f"{nobodys.sop_instance_uid or name} ({nobodys.why})"]
            del self._unattributable[NAMED:]
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
        if instance.key not in self.keys:
            self._count(instance)
        self.keys.add(instance.key)

    def _count_foreign(self, foreign: Foreign) -> None:
        self.foreign += foreign.is_read
        self.unread += not foreign.is_read
        if len(self.foreign_uids) < NAMED:
            self.foreign_uids.add(foreign.sop_instance_uid)

    def _count(self, instance: Instance) -> None:
        if instance.study_uid in self.expectation.uids:
            self.quiet = Stopwatch()
        if instance.key in self._wanted:
            self.received += 1
            self.bytes += instance.bytes


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


def evidence_against(
    study: Study, asked: Set[str], arrivals: Arrivals, ended: MoveResult, foreign: int = 0
) -> Evidence:
    """What the C-MOVE of a study says of its list (PS3.4 C.4.2.1.6); `asked` are the UIDs of all studies of the job.

    A further copy explains a sub-operation. An instance of a study that nobody asked for explains one that was
    completed, and none that failed: a stranger may have sent it. So many `foreign` ones came beside the arrivals.
    """
    came = {sop: copies for (study_uid, sop), copies in arrivals.items() if study_uid == study.study_uid}
    unlisted = {
        sop
        for sop, (first, *_) in came.items()
        if sop not in study.instances and study.series_uid in (None, first.series_uid)
    }
    known = came.keys() | study.instances.keys()
    explained = len(known) + sum(len(copies) - 1 for copies in came.values())
    foreign += sum(len(copies) for (study_uid, _), copies in arrivals.items() if study_uid not in asked)
    sent = ended.completed + ended.warning
    explained += min(foreign, max(0, sent - explained))
    return Evidence(frozenset(unlisted), max(0, ended.counted - explained, len(ended.failed_uids - known)))


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


def require_agreement(studies: Sequence[Study], arrivals: Arrivals, checkpoint: Callable[[], None]) -> None:
    """Raise ConflictingInstances where an instance came more than once, and not the same, or is of two studies.

    `checkpoint` is asked before each comparison, which reads both files.
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


def report_malformed(record: JobRecord, instances: Sequence[Instance]) -> None:
    """Tell the ledger how many came whole and are not well-formed, and the log which."""
    malformed = [one.sop_instance_uid for one in instances if one.malformed]
    record.note(malformed=len(malformed))
    if malformed:
        fields = {"job": record.job_id, "count": len(malformed), "instances": malformed[:LOGGED]}
        log.warning("instances came whole and are not well-formed", extra={"fields": fields})


def _wrong_patient(study: Study, instance: Instance) -> WrongPatient:
    if not instance.patient_known:
        return WrongPatient(
            f"The instance {instance.sop_instance_uid}, received for {study.accession_number}, is malformed, and its"
            " Patient ID cannot be read. Have the PACS correct it; where you know that it is this patient's, set"
            " retrieve.verify_patient to false.",
            accession=study.accession_number,
        )
    return WrongPatient(
        f"The instance {instance.sop_instance_uid}, received for {study.accession_number}, has another Patient ID than"
        " the PACS's answer. Have the PACS correct it, and see who may send to this host's receivers. If its files"
        " keep an older Patient ID on purpose, set retrieve.verify_patient to false.",
        accession=study.accession_number,
    )


def _conflict(study: Study, instance: Instance) -> ConflictingInstances:
    return ConflictingInstances(
        f"The instance {instance.sop_instance_uid} of {study.accession_number} arrived twice, with different contents."
        " Try again; if it stays so, see who may send to this host's receivers.",
        accession=study.accession_number,
    )
