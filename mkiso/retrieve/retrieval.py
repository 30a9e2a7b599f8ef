"""The retrieval and its proof: C-MOVE each study, wait for the very instances that the archive holds of it.

An archive may answer before it has sent, or never; list too little, send too little, too much, or another study's
images. The set of whole instances on disk decides, and what the archive itself counts and sends beyond its own list
is evidence that the list was cut.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence, Set
from dataclasses import InitVar, dataclass, field
from functools import partial
from typing import Any

from mkiso.config import Config
from mkiso.dcmtk.association import SMALL_DICTIONARY, Peer, attempts
from mkiso.dcmtk.findscu import Finder
from mkiso.dcmtk.movescu import Ending, MoveResult, is_rejected_for_now, move_argv, move_result
from mkiso.dcmtk.storescp import file_number
from mkiso.dicom.instances import Instance, Key
from mkiso.errors import DiskFull, Incomplete, MkisoError, NoDicomData, PacsRejected, PacsTimeout
from mkiso.ledger.record import JobRecord
from mkiso.process import Child, read_log, spawned
from mkiso.retrieve.inbox import Evidence, evidence_against, is_of, require_agreement, require_patient, require_series
from mkiso.retrieve.receiver import Strangers
from mkiso.retrieve.studies import Study, keys_of, with_all_patients
from mkiso.waiting import Cancellation, Stopwatch
from mkiso.workspace import Workspace, require_space

POLL = 0.02
WATCH = 0.1
SHORTEST = 0.005
NOT_ENDED = MoveResult(Ending.LOST)
NAMED = 10
log = logging.getLogger("mkiso.retrieve.retrieval")
# A study as the archive lists it now; asked series by series, too, where that is true.
LookUp = Callable[[Finder, Study, bool], Study]


@dataclass
class Move:
    """A study, or a series of it, as the archive has been found to list it, and how its C-MOVE goes.

    `began` is when the first study of its accession number did. `examined` is the evidence for a cut list that a new
    look at the list left. So many instances of other series of the study came with it, `beside`.
    """

    study: Study
    began: Stopwatch = field(default_factory=Stopwatch)
    ended: MoveResult = NOT_ENDED
    examined: Evidence | None = None
    beside: int = 0


@dataclass
class Retrieval:
    """One job's retrieval of these studies into its workspace."""

    config: Config
    pacs: Peer
    workspace: Workspace
    record: JobRecord
    cancellation: Cancellation
    strangers: Strangers
    finder: Finder
    look_up: LookUp
    studies: InitVar[Sequence[Study]]

    def __post_init__(self, studies: Sequence[Study]) -> None:
        self._receiver, self._inbox = self.strangers.receiver, self.strangers.inbox
        self._moves = [Move(study) for study in studies]
        self._inbox.expect(self._wanted())

    def receive(self) -> None:
        """C-MOVE every study to the receiver, until the expected instances are there and whole.

        Raises the error that the caller is told: PacsUnreachable, PacsRejected, PacsTimeout,
        NoDicomData, Incomplete, DiskFull, ReceiverUnavailable, Cancelled.
        """
        began: dict[str, Stopwatch] = {}
        try:
            for move in self._moves:
                move.began = began.setdefault(move.study.accession_number or move.study.study_uid, Stopwatch())
                self._inbox.expectation.checkpoint = partial(self._check_reading, move)
                self._receive(move)
        except (PacsRejected, PacsTimeout, Incomplete, NoDicomData) as error:
            if self._inbox.ran_out_of_space():
                raise DiskFull("The disk of storage.work_dir was full while the instances came. Make room.") from error
            if why := self._receiver.failed_handshakes():
                raise error.with_detail(f"{error.detail} {why}") from error
            raise
        finally:
            if self.strangers.ended:
                fields = {"count": self.strangers.ended, "bytes": self.strangers.removed}
                self._warn("connections to the receiver were ended that had sent nothing expected", fields)

    def proven(self) -> list[Instance]:
        """The instances that are handed out: exactly those that the archive holds; the receiver has ended.

        Those of other studies are gone, and reported. Reported, too, and left where they are, are those that the
        archive sends and does not list, where `retrieve.unlisted` says so. Raises Incomplete, WrongPatient,
        SeveralPatients, ConflictingInstances.
        """
        self._inbox.forget_changed()
        for move in self._moves:
            self._list_again_if_doubtful(move)
        for move in self._moves:
            self._require_all(move)
            self._require_no_evidence(move)
        arrivals, studies = self._inbox.arrivals, [move.study for move in self._moves]
        if not self.config.patients.allow_mixed:
            with_all = partial(with_all_patients, self.finder)
            require_patient(studies, arrivals, self.config.retrieve.verify_patient, with_all)
        require_series(studies, arrivals)
        require_agreement(studies, arrivals, self.cancellation.checkpoint)
        wanted = self._wanted()
        self._report([arrivals[key][0] for key in arrivals.keys() - wanted])
        self.record.note(expected=len(wanted))
        self.record.progress(len(wanted), self._inbox.bytes)
        proven = [arrivals[key][0] for key in sorted(wanted)]
        malformed = [one.sop_instance_uid for one in proven if one.malformed]
        self.record.note(malformed=len(malformed))
        self._tell("instances came whole and are not well-formed", len(malformed), malformed)
        return proven

    def _wanted(self) -> set[Key]:
        return {key for move in self._moves for key in keys_of(move.study)}

    def _asked(self) -> set[str]:
        return {move.study.study_uid for move in self._moves}

    def _receive(self, move: Move) -> None:
        before = self._of_other_series(move)
        move.ended = self._run_movescu(move)
        self._wait_for_all(move)
        self._move_again_if_it_broke_off(move)
        self._wait_for_the_unfinished(move)
        move.beside = self._of_other_series(move) - before
        if self._list_again_if_doubtful(move):
            self._wait_for_all(move)
            self._wait_for_the_unfinished(move)
            self._require_no_evidence(move)

    def _of_other_series(self, move: Move) -> int:
        """How many instances have come of the study, and not of the series that is wanted of it."""
        if move.study.series_uid is None:
            return 0
        of_study = (
            one for key, copies in self._inbox.arrivals.items() if key[0] == move.study.study_uid for one in copies
        )
        return sum(not is_of(move.study, one) for one in of_study)

    def _report(self, left_out: Collection[Instance]) -> None:
        unlisted = {one.sop_instance_uid for one in left_out if any(is_of(move.study, one) for move in self._moves)}
        others = {one.sop_instance_uid for one in left_out} - unlisted
        foreign = len(others) + self._inbox.foreign + self._inbox.unread
        self._tell("instances that the PACS sends and does not list are left out", len(unlisted), unlisted)
        self._tell("the receiver got instances that were not asked for", foreign, others | self._inbox.foreign_uids)

    def _tell(self, what: str, count: int, instances: Collection[str]) -> None:
        if count:
            self._warn(what, {"count": count, "instances": sorted(instances)[:NAMED]})

    def _warn(self, what: str, fields: dict[str, Any]) -> None:
        log.warning(what, extra={"fields": {"job": self.record.job_id, **fields}})

    def _list_again_if_doubtful(self, move: Move) -> bool:
        """Whether the study's list was asked for again: where more seems to be sent, or to be still to come."""
        evidence = self._evidence(move)
        if not (evidence or move.ended.broke_off) or evidence == move.examined:
            return False
        move.study = self.look_up(self.finder, move.study, True)
        self._inbox.expect(keys_of(move.study))
        move.examined = self._evidence(move)
        self.record.note(expected=sum(len(one.study.instances) for one in self._moves))
        return True

    def _evidence(self, move: Move) -> Evidence:
        elsewhere = self._of_other_series(move) - move.beside
        return evidence_against(
            move.study, self._asked(), self._inbox.arrivals, move.ended, self._inbox.foreign, elsewhere
        )

    def _require_no_evidence(self, move: Move) -> None:
        """Raise Incomplete where the archive's list still lacks what it sends or counts."""
        evidence = self._evidence(move)
        unlisted = evidence.unlisted if self.config.retrieve.unlisted == "fail" else frozenset()
        if unlisted or evidence.uncounted:
            raise self._cut(move, unlisted, evidence.uncounted)

    def _cut(self, move: Move, unlisted: Set[str], uncounted: int) -> Incomplete:
        listed, accession, title = len(move.study.instances), move.study.accession_number, move.study.title
        if unlisted:
            what = f"and sent {len(unlisted)} more that it does not list: {_named(unlisted)}"
            hides = " Where it hides rejected images on purpose, retrieve.unlisted: leave_out leaves them out."
        else:
            what, hides = f"and counted {listed + uncounted} when it sent them", ""
        return Incomplete(
            f"The PACS lists {listed} instances for {title}, {what}. Its list is cut: have the limit on the answers"
            " to one C-FIND raised or taken away in the PACS; mkiso check --accession looks at its lists. If new images"
            f" come in now, try again.{hides}",
            accession=accession,
            expected=listed + (0 if unlisted else uncounted),
            received=listed - len(self._missing(move)) + len(unlisted),
            failed=move.ended.failed,
        )

    def _run_movescu(self, move: Move) -> MoveResult:
        """How the archive answers the C-MOVE, which is tried again while it takes no association."""
        retrieve = self.config.retrieve
        destination = self._receiver.receiver.ae_title
        study_uid, series_uid, limit = move.study.study_uid, move.study.series_uid, retrieve.move_timeout
        argv = move_argv(self.config.tools.dcmtk_dir, self.pacs, destination, study_uid, limit, series_uid)
        log_file = self.workspace.path / f"movescu-{study_uid}.log"
        for _ in attempts(self.pacs, self._tick):
            log_file.unlink(missing_ok=True)
            with spawned(argv, cwd=self.workspace.path, log=log_file, environment=SMALL_DICTIONARY) as mover:
                self._watch(mover, move)
            log_text = read_log(log_file)
            if not is_rejected_for_now(log_text):
                break
        return move_result(self.pacs, destination, log_text)

    def _watch(self, mover: Child, move: Move) -> None:
        """Until the C-MOVE ends, or goes on although everything is there and nothing further comes."""
        retrieve, wanted, watching = self.config.retrieve, keys_of(move.study), Stopwatch()
        while not mover.ends_within(self._tick(WATCH)):
            quiet = self._quiet(watching)
            if wanted <= self._inbox.keys:
                still = quiet > retrieve.settle_timeout and not self._unfinished()
                if still or move.began.seconds() > retrieve.move_timeout:
                    return
                continue
            self._require_time(move)
            if quiet > retrieve.stall_timeout:
                self._inbox.look()  # what came while others were read, which may take as long
                if self._quiet(watching) > retrieve.stall_timeout:
                    raise self._late(f"no instance came for {retrieve.stall_timeout:g} s (retrieve.stall_timeout)")

    def _quiet(self, waiting: Stopwatch) -> float:
        """The seconds of this wait in which no instance of an expected study has come."""
        return min(waiting.seconds(), self._inbox.quiet.seconds())

    def _check_reading(self, move: Move) -> None:
        """The checkpoint while files are read, which may take long."""
        self.cancellation.checkpoint()
        self.strangers.keep_in_bounds_sometimes()
        if move.began.seconds() > self.config.retrieve.move_timeout and self._missing(move):
            self._require_time(move)

    def _require_time(self, move: Move) -> None:
        limit = self.config.retrieve.move_timeout
        if move.began.seconds() > limit:
            raise self._late(f"the C-MOVE did not end in {limit:g} s (retrieve.move_timeout)")

    def _move_again_if_it_broke_off(self, move: Move) -> None:
        """C-MOVE the study once more, where something came of it and the archive says that sub-operations failed.

        Where its association with the receiver broke, all failed that were to come on it: a busy archive may lose the
        answer to a C-STORE, and give up after half a minute. What had come is removed first: its copies would explain
        sub-operations that the archive counts beyond its list.
        """
        missing = self._missing(move)
        failed = move.ended.ending is Ending.WARNING and move.ended.failed
        if not failed or not 0 < len(missing) < len(move.study.instances) or self._inbox.ran_out_of_space():
            return
        self._warn("sub-operations failed, and the study is moved once more", {"count": len(missing)})
        self._inbox.discard(move.study)
        move.ended = self._run_movescu(move)
        self._wait_for_all(move)

    def _wait_for_all(self, move: Move) -> None:
        """An archive may send after it has answered: until nothing is missing, or nothing further comes."""
        waiting = Stopwatch()
        self._inbox.look()
        while missing := self._missing(move):
            gave_up = self._gave_up(move.ended, len(missing))
            if gave_up or self._quiet(waiting) > self.config.retrieve.settle_timeout:
                self._inbox.recheck()
                break
            self._require_time(move)
            time.sleep(self._tick())

    def _gave_up(self, ended: MoveResult, missing: int) -> bool:
        """Whether the archive itself says that what is missing will not come."""
        if ended.ending is Ending.FAILURE:
            return not self._unfinished()
        return ended.ending is Ending.WARNING and ended.failed >= missing

    def _wait_for_the_unfinished(self, move: Move) -> None:
        """Raise where something has not come, and let what is on its way be written to its end.

        What is expected may come a second time, or be more than is listed; others hold nothing up.
        """
        self._require_all(move)
        waiting = Stopwatch()
        while unfinished := self._unfinished():
            if self._quiet(waiting) > self.config.retrieve.settle_timeout:
                break
            self._require_time(move)
            time.sleep(self._tick())
        self._inbox.recheck()
        self._inbox.forget(unfinished)

    def _unfinished(self) -> set[str]:
        """The files of which a process of the receiver that lives has not the end, and which are expected."""
        self._receiver.require_alive()
        children = set(self._receiver.children())
        growing = {name for name in self._inbox.unended() if file_number(name)[0] in children}
        return {name for name in growing if self._inbox.is_expected(name)}

    def _tick(self, least: float = POLL) -> float:
        """Look at everything once; the seconds until it is worth to look again."""
        began, storage = time.monotonic(), self.config.storage
        self.cancellation.checkpoint()
        self._receiver.require_alive()
        self._inbox.look()
        self.strangers.keep_in_bounds(self._inbox.torn)
        require_space(storage.work_dir, storage.min_free, self.strangers.keep_in_bounds_sometimes)
        self.record.progress(self._inbox.received, self._inbox.bytes)
        pause = max(least, 2 * (time.monotonic() - began))
        return max(SHORTEST, min(pause, self.strangers.next_look()))

    def _missing(self, move: Move) -> list[str]:
        return sorted(sop for _, sop in keys_of(move.study) - self._inbox.keys)

    def _require_all(self, move: Move) -> None:
        """Raise PacsRejected, NoDicomData or Incomplete where an instance of the list is missing."""
        if missing := self._missing(move):
            raise self._incomplete(move, missing)

    def _incomplete(self, move: Move, missing: list[str]) -> MkisoError:
        expected, accession, ended = len(move.study.instances), move.study.accession_number, move.ended
        title = move.study.title
        what = f"{len(missing)} of {expected} instances for {title} are missing: {_named(missing)}."
        what = f"{what} {self._inbox.damage()}".rstrip()
        if ended.ending is Ending.FAILURE:
            alone = " Where it moves whole studies alone, take the whole study." if move.study.series_uid else ""
            return PacsRejected(f"{ended.explanation}{alone} {what}")
        numbers: dict[str, Any] = {"accession": accession, "expected": expected, "received": expected - len(missing)}
        why = f" The PACS said: {ended.explanation}." if ended.explanation else ""
        unlisted = self._evidence(move).unlisted
        if len(missing) == expected and not self._inbox.damaged and not unlisted:
            return NoDicomData(
                f"The PACS lists {expected} instances for {title}, and sent none: {_named(missing)}.{why}"
                " Check that it reaches this host's receivers, and try again.",
                **numbers,
            )
        others = f" It sent {len(unlisted)} that it does not list: {_named(unlisted)}." if unlisted else ""
        return Incomplete(
            f"{what}{others}{why} Try again; if it stays so, check these instances in the PACS.",
            **numbers,
            failed=ended.failed,
        )

    def _late(self, what: str) -> PacsTimeout:
        return PacsTimeout(f"The PACS {self.pacs} was too slow: {what}. Try again, or raise the limit.")


def _named(uids: Collection[str]) -> str:
    """The first few of these UIDs, and how many more there are."""
    more = f" and {len(uids) - NAMED} more" if len(uids) > NAMED else ""
    return ", ".join(sorted(uids)[:NAMED]) + more
