"""The retrieval and its proof: have each study sent, wait for the very instances that the archive holds of it.

An archive may answer before it has sent, or never; list too little, send too little, too much, or another study's
images. The set of whole instances on disk decides, and what the archive itself counts and sends beyond its own list
is evidence that the list was cut.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence, Set
from contextlib import suppress
from dataclasses import InitVar, dataclass, replace
from functools import partial
from typing import Any

from mkiso.config import Config
from mkiso.dcmtk.association import Peer
from mkiso.dcmtk.findscu import Finder
from mkiso.dcmtk.movescu import Ending, MoveResult, combined
from mkiso.dcmtk.storescp import file_number
from mkiso.dicom.instances import Instance, Key
from mkiso.errors import DiskFull, Incomplete, NoDicomData, PacsRejected, PacsTimeout
from mkiso.ledger.record import JobRecord
from mkiso.process import Child
from mkiso.retrieve.faults import cut, incomplete, late, silent
from mkiso.retrieve.inbox import (
    Evidence,
    evidence_against,
    is_of,
    require_agreement,
    require_patient,
    require_series,
)
from mkiso.retrieve.moves import LOOK, Alone, Move, NotBySeries, SideBySide, Trial, by_series
from mkiso.retrieve.receiver import Strangers
from mkiso.retrieve.scu import GetScu, MoveScu, Part, Scu, part_of
from mkiso.retrieve.studies import Study, keys_of, with_all_patients
from mkiso.waiting import Cancellation, Stopwatch
from mkiso.workspace import Workspace, require_space

POLL = 0.02
WATCH = 0.1
SHORTEST = 0.005
STOPS = 1.0  # seconds in which an archive has let go of the receiver, whose C-MOVE was ended
NAMED = 10
log = logging.getLogger("mkiso.retrieve.retrieval")
# A study as the archive lists it now; asked series by series, too, where that is true.
LookUp = Callable[[Finder, Study, bool], Study]


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
        self._scu = self._retrieve_scu()
        self._inbox.expect(self._wanted())

    def _retrieve_scu(self) -> Scu:
        shared = (self.config, self.pacs, self.workspace, self.record.job_id, self._tick)
        if self.config.pacs.retrieve == "get":
            return GetScu(*shared, self.finder, self._receiver.transfers)
        return MoveScu(*shared, self._receiver.receiver.ae_title)

    def receive(self) -> None:
        """Have every study sent, by C-MOVE or C-GET, until the expected instances are there and whole.

        Raises the error that the caller is told: PacsUnreachable, PacsRejected, PacsTimeout,
        NoDicomData, Incomplete, DiskFull, ReceiverUnavailable, Cancelled.
        """
        began: dict[str, Stopwatch] = {}
        try:
            for moves in self._by_study().values():
                for move in moves:
                    move.began = began.setdefault(move.study.accession_number or move.study.study_uid, Stopwatch())
                self._inbox.expectation.checkpoint = partial(self._check_reading, moves)
                self._receive_by_series(moves)
                for move in moves:
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

    def _by_study(self) -> dict[str, list[Move]]:
        """A study's only move, or those of its series that are wanted."""
        found: dict[str, list[Move]] = {}
        for move in self._moves:
            found.setdefault(move.study.study_uid, []).append(move)
        return found

    def _receive_by_series(self, moves: list[Move]) -> None:
        """C-MOVE the series side by side, where that helps; what has not come so is as if nothing had been tried."""
        parts, alone = self._series(moves)
        if not parts:
            return
        side = SideBySide(self._scu, self._inbox, self._tick, partial(self._require_progress, moves))
        with suppress(NotBySeries):
            self._move(side, parts, moves, self.config.pacs.parallel_moves, alone)
            if moves[0].study.series_uid is None:
                self._move_again_alone(side, parts, moves)
        for move in moves:
            if (not move.results or self._missing(move)) and not self._inbox.ran_out_of_space():
                self._warn("series did not come side by side, and are moved at once", {"study": move.study.study_uid})
                self._inbox.discard(move.study)
                move.results.clear()

    def _move(
        self, side: SideBySide, parts: Sequence[Part], moves: Sequence[Move], most: int, alone: Alone | None = None
    ) -> None:
        side.run(parts, most, alone)
        results = {part.series_uid: result for part, result in side.results.items()}
        for move in moves:
            own = move.study.series_uid
            move.results = results if own is None else {own: results[own]}
        keys = frozenset[Key]().union(*(part.keys for part in parts))
        self._wait_for(keys, combined(side.results[part] for part in parts), moves)

    def _move_again_alone(self, side: SideBySide, parts: Sequence[Part], moves: Sequence[Move]) -> None:
        """Once, and one after the other, those of which something has not come, as long as that helps."""
        for part in parts:
            if part.keys <= self._inbox.keys or self._inbox.ran_out_of_space():
                continue
            self._warn("a series did not come, and is moved once more", {"series": part.series_uid})
            self._inbox.discard(replace(moves[0].study, series_uid=part.series_uid))
            self._move(side, [part], moves, 1)
            if not part.keys <= self._inbox.keys:
                return

    def _series(self, moves: Sequence[Move]) -> tuple[list[Part], Alone | None]:
        """What is moved side by side of a study, and what one C-MOVE did alone, where that is known.

        Nothing where it is moved as a whole, or has been.
        """
        first, is_whole = moves[0], moves[0].study.series_uid is None
        parts = by_series(first.study) if is_whole else [part_of(move.study) for move in moves]
        if self.config.pacs.parallel_moves == 1 or len(parts) <= 1:
            return [], None
        if not is_whole:
            return parts, None
        alone = self._tried(first)
        return parts if alone else [], alone

    def _tried(self, move: Move) -> Alone | None:
        """What the whole study's C-MOVE did until it was ended, since that is far from done, and as many are to come as
        are listed.

        For of a series that it lists nowhere, C-MOVEs of the others would show nothing: it is asked for all of it, and
        says at its first response how many there are. It is that of the study where it is done soon, or says another
        number, or none.
        """
        trial = Trial(part_of(move.study), self._scu, self._inbox)
        self._scu.alone(trial.part, partial(self._watch, move=move, is_over=trial.is_over, least=LOOK))
        result = self._scu.result(trial.part)
        if trial.found is None:
            move.results[None] = result
            return None
        stopping = Stopwatch()
        while self._receiver.children() and stopping.seconds() < STOPS:
            time.sleep(self._tick())
        self._inbox.discard(move.study)
        return trial.found

    def _receive(self, move: Move) -> None:
        if not move.results:
            move.results[move.study.series_uid] = self._run_movescu(move)
        self._wait_for_all(move)
        self._move_again_if_it_broke_off(move)
        self._wait_for_the_unfinished(move)
        if self._list_again_if_doubtful(move):
            self._wait_for_all(move)
            self._wait_for_the_unfinished(move)
            self._require_no_evidence(move)

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
        said = [one for of_study in self._by_study()[move.study.study_uid] for one in of_study.said]
        return evidence_against(move.study, self._asked(), self._inbox.arrivals, said, self._inbox.foreign)

    def _require_no_evidence(self, move: Move) -> None:
        """Raise Incomplete where the archive's list still lacks what it sends or counts."""
        evidence = self._evidence(move)
        unlisted = evidence.unlisted if self.config.retrieve.unlisted == "fail" else frozenset()
        if unlisted or evidence.uncounted:
            raise cut(move.study, unlisted, evidence.uncounted, len(self._missing(move)), move.ended.failed)

    def _run_movescu(self, move: Move) -> MoveResult:
        """How the archive answers the C-MOVE, which is tried again while it takes no association."""
        part = part_of(move.study)
        self._scu.alone(part, partial(self._watch, move=move))
        return self._scu.result(part)

    def _watch(
        self, mover: Child, move: Move, is_over: Callable[[], bool] = lambda: False, least: float = WATCH
    ) -> None:
        """Until the C-MOVE ends, or goes on although everything is there and nothing further comes, or `is_over`."""
        retrieve, wanted, watching = self.config.retrieve, keys_of(move.study), Stopwatch()
        while not mover.ends_within(self._tick(least)):
            quiet = self._quiet(watching)
            if is_over():
                return
            if wanted <= self._inbox.keys:
                still = quiet > retrieve.settle_timeout and not self._unfinished()
                if still or move.began.seconds() > retrieve.move_timeout:
                    return
                continue
            self._require_time(move)
            if quiet > retrieve.stall_timeout:
                self._inbox.look()  # what came while others were read, which may take as long
                if self._quiet(watching) > retrieve.stall_timeout:
                    raise silent(self.pacs, self.config.retrieve)

    def _require_progress(self, moves: Sequence[Move], is_silent: bool) -> None:
        """Raise PacsTimeout where the time of these is over, or nothing further comes."""
        for move in moves:
            self._require_time(move)
        if is_silent:
            raise silent(self.pacs, self.config.retrieve)

    def _quiet(self, waiting: Stopwatch) -> float:
        """The seconds of this wait in which no instance of an expected study has come."""
        return min(waiting.seconds(), self._inbox.quiet.seconds())

    def _check_reading(self, moves: Sequence[Move]) -> None:
        """The checkpoint while files are read, which may take long."""
        self.cancellation.checkpoint()
        self.strangers.keep_in_bounds_sometimes()
        for move in moves:
            if move.began.seconds() > self.config.retrieve.move_timeout and self._missing(move):
                self._require_time(move)

    def _require_time(self, move: Move) -> None:
        limit = self.config.retrieve.move_timeout
        if move.began.seconds() > limit:
            raise late(self.pacs, f"the {self._scu.operation} did not end in {limit:g} s (retrieve.move_timeout)")

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
        move.results = {move.study.series_uid: self._run_movescu(move)}
        self._wait_for_all(move)

    def _wait_for_all(self, move: Move) -> None:
        self._wait_for(keys_of(move.study), move.ended, [move])

    def _wait_for(self, keys: Set[Key], ended: MoveResult, moves: Sequence[Move]) -> None:
        """An archive may send after it has answered: until nothing is missing, or nothing further comes."""
        waiting = Stopwatch()
        self._inbox.look()
        while missing := len(keys - self._inbox.keys):
            gave_up = self._gave_up(ended, missing)
            if gave_up or self._quiet(waiting) > self.config.retrieve.settle_timeout:
                self._inbox.recheck()
                break
            self._require_progress(moves, False)
            time.sleep(self._tick())

    def _gave_up(self, ended: MoveResult, missing: int) -> bool:
        """Whether what is missing will not come, as the archive itself says, or since nothing comes later."""
        if not self._scu.may_send_later:
            return True
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
            unlisted = self._evidence(move).unlisted
            raise incomplete(move.study, missing, unlisted, move.ended, self._inbox)
