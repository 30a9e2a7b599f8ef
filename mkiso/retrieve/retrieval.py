"""The retrieval and its proof: C-MOVE each study, wait for the very instances that the archive holds of it.

An archive may answer before it has sent, send too little, too much, or another study's images. Only
the set of whole instances on disk counts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence, Set
from dataclasses import dataclass
from typing import Any

from mkiso.cancellation import Cancellation
from mkiso.clock import Stopwatch
from mkiso.config import Config
from mkiso.dcmtk.association import Peer
from mkiso.dcmtk.movescu import Ending, Outcome, move_argv, outcome
from mkiso.errors import DiskFull, Incomplete, MkisoError, NoDicomData, PacsRejected, PacsTimeout
from mkiso.ledger.record import JobRecord
from mkiso.process import Child, said, spawned
from mkiso.retrieve.inbox import Inbox
from mkiso.retrieve.instances import Instance, Key
from mkiso.retrieve.proof import report_malformed, require_agreement, require_patient
from mkiso.retrieve.receiver import RunningReceiver
from mkiso.retrieve.studies import Study, keys_of
from mkiso.workspace import Workspace, require_space

POLL = 0.02
WATCH = 0.1
NAMED = 10
log = logging.getLogger("mkiso.retrieve.retrieval")


@dataclass
class Retrieval:
    """One job's retrieval into its workspace. `look_up_again` is a study as the archive holds it now."""

    config: Config
    pacs: Peer
    workspace: Workspace
    record: JobRecord
    cancellation: Cancellation
    studies: Sequence[Study]
    look_up_again: Callable[[Study], Study]

    def __post_init__(self) -> None:
        self._inbox = Inbox(self.workspace.received, {key for study in self.studies for key in keys_of(study)})
        self._moving: dict[str, Stopwatch] = {}

    def receive(self, receiver: RunningReceiver) -> None:
        """C-MOVE every study to the receiver, until the expected instances are there and whole.

        Raises the error that the caller is told: PacsUnreachable, PacsRejected, PacsTimeout,
        NoDicomData, Incomplete, DiskFull, ReceiverUnavailable, Cancelled.
        """
        self._inbox.transfers = receiver.transfers
        try:
            for study in self.studies:
                moving = self._moving.setdefault(study.accession_number, Stopwatch())
                ended = self._move(receiver, study, moving)
                self._settle(receiver, study, ended, moving)
                self._let_files_close(receiver, moving)
        except (PacsRejected, PacsTimeout, Incomplete, NoDicomData) as error:
            if self._inbox.ran_out_of_space():
                raise DiskFull("The disk of storage.work_dir was full while the instances came. Make room.") from error
            error.detail = f"{error.detail} {receiver.failed_handshakes()}".rstrip()
            raise

    def proven(self) -> list[Instance]:
        """The instances that are handed out: exactly those that the archive holds; the receiver has ended.

        Instances of the studies that came beside the expected ones are looked up again. Those of
        other studies are left where they are, and reported. Raises Incomplete, WrongPatient,
        ConflictingInstances.
        """
        self._inbox.forget_changed()
        arrivals = self._inbox.arrivals
        studies = [self._refreshed(study, arrivals) for study in self.studies]
        for study in studies:
            self._require_all(study, Outcome(Ending.SUCCESS))
        if self.config.retrieve.verify_patient and not self.config.patients.allow_mixed:
            require_patient(studies, arrivals)
        require_agreement(studies, arrivals, self.cancellation.check)
        wanted = {key for study in studies for key in keys_of(study)}
        self._report(arrivals.keys() - wanted)
        self.record.note(expected=len(wanted))
        self.record.progress(len(wanted), self._inbox.bytes)
        proven = [arrivals[key][0] for key in sorted(wanted)]
        report_malformed(self.record, proven)
        return proven

    def _report(self, foreign: Set[Key]) -> None:
        if foreign:
            named = sorted(sop for _, sop in foreign)[:NAMED]
            fields = {"job": self.record.job_id, "count": len(foreign), "instances": named}
            log.warning("the receiver got instances that were not asked for", extra={"fields": fields})

    def _refreshed(self, study: Study, arrived: Collection[Key]) -> Study:
        known = keys_of(study)
        news = any(key[0] == study.study_uid and key not in known for key in arrived)
        return self.look_up_again(study) if news else study

    def _move(self, receiver: RunningReceiver, study: Study, moving: Stopwatch) -> Outcome:
        retrieve = self.config.retrieve
        destination = receiver.receiver.ae_title
        study_uid, series_uid, limit = study.study_uid, study.series_uid, retrieve.move_timeout
        argv = move_argv(self.config.tools.dcmtk_dir, self.pacs, destination, study_uid, limit, series_uid)
        log_file = self.workspace.path / f"movescu-{study.study_uid}.log"
        self._inbox.quiet = Stopwatch()
        with spawned(argv, cwd=self.workspace.path, log=log_file) as mover:
            self._watch(receiver, mover, moving)
        return outcome(self.pacs, destination, said(log_file))

    def _watch(self, receiver: RunningReceiver, mover: Child, moving: Stopwatch) -> None:
        retrieve = self.config.retrieve
        while not mover.ends_within(max(WATCH, self._tick(receiver))):
            self._require_time(moving)
            if self._inbox.quiet.seconds() > retrieve.stall_timeout:
                raise self._late(f"no instance came for {retrieve.stall_timeout:g} s (retrieve.stall_timeout)")

    def _require_time(self, moving: Stopwatch) -> None:
        limit = self.config.retrieve.move_timeout
        if moving.seconds() > limit:
            raise self._late(f"the C-MOVE did not end in {limit:g} s (retrieve.move_timeout)")

    def _settle(self, receiver: RunningReceiver, study: Study, ended: Outcome, moving: Stopwatch) -> None:
        """Wait for what an archive sends after it has answered; raise where something does not come."""
        self._inbox.quiet = Stopwatch()
        self._inbox.look()
        while missing := self._missing(study):
            told_so = ended.ending is Ending.WARNING and ended.failed >= len(missing)
            if told_so or self._inbox.quiet.seconds() > self.config.retrieve.settle_timeout:
                self._inbox.recheck()
                break
            self._require_time(moving)
            time.sleep(self._tick(receiver))
        self._require_all(study, ended)

    def _let_files_close(self, receiver: RunningReceiver, moving: Stopwatch) -> None:
        """A file of which each element is whole may still grow while it is open; others hold nothing up."""
        self._inbox.quiet = Stopwatch()
        while unfinished := self._inbox.of_expected(receiver.files_being_written()):
            if self._inbox.quiet.seconds() > self.config.retrieve.settle_timeout:
                break
            self._require_time(moving)
            time.sleep(self._tick(receiver))
        self._inbox.recheck()
        self._inbox.forget(unfinished)

    def _tick(self, receiver: RunningReceiver) -> float:
        """Look at everything once; the seconds until it is worth to look again."""
        began = time.monotonic()
        self.cancellation.check()
        receiver.require_alive()
        require_space(self.config.storage.work_dir, self.config.storage.min_free)
        self._inbox.look()
        self.record.progress(self._inbox.received, self._inbox.bytes)
        return max(POLL, 2 * (time.monotonic() - began))

    def _missing(self, study: Study) -> list[str]:
        return sorted(sop for _, sop in keys_of(study) - self._inbox.keys)

    def _require_all(self, study: Study, ended: Outcome) -> None:
        missing = self._missing(study)
        if missing:
            raise self._incomplete(study, missing, ended)

    def _incomplete(self, study: Study, missing: list[str], ended: Outcome) -> MkisoError:
        expected, accession = len(study.instances), study.accession_number
        numbers: dict[str, Any] = {"accession": accession, "expected": expected, "received": expected - len(missing)}
        why = f" The PACS said: {ended.said}." if ended.said else ""
        if len(missing) == expected and not self._inbox.damaged:
            return NoDicomData(
                f"The PACS lists {expected} instances for {accession}, and sent none.{why} Check that it reaches"
                " this host's receivers, and try again.",
                **numbers,
            )
        named = ", ".join(missing[:NAMED]) + (f" and {len(missing) - NAMED} more" if len(missing) > NAMED else "")
        damage = f" {self._inbox.damage()}".rstrip()
        return Incomplete(
            f"{len(missing)} of {expected} instances for {accession} did not arrive whole: {named}.{damage}{why}"
            " Try again; if it stays so, check these instances in the PACS.",
            **numbers,
            failed=ended.failed,
        )

    def _late(self, what: str) -> PacsTimeout:
        return PacsTimeout(f"The PACS {self.pacs} was too slow: {what}. Try again, or raise the limit.")
