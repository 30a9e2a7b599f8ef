"""Sending proven instances to another archive or a CD publisher, and counting what it acknowledged.

Exit statuses prove nothing here: an instance has arrived where the peer's C-STORE response says so, and, where the
destination's `confirm` has it asked, where it says that it has the instance.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from mkiso.config import Destination, Retrieve
from mkiso.confirm import Ask
from mkiso.dcmtk import sending
from mkiso.dcmtk.association import Failure, Peer, association_failure, attempts, busy_text, echo, error_text
from mkiso.dcmtk.converters import MEMORY_FOR_ALL
from mkiso.dcmtk.sending import Context, DcmsendProgress, Outcome, StoreProgress, StoreResult, StorescuProgress
from mkiso.dicom.instances import Instance
from mkiso.errors import Cancelled, DestinationUnreachable, MkisoError, NotConfirmed, RelayFailed
from mkiso.leash import holding
from mkiso.ledger.record import FENCE
from mkiso.process import Child, GrowingLog, Limits, read_log, spawned
from mkiso.waiting import Cancellation, Stopwatch
from mkiso.workspace import Workspace

POLL = 0.02
LEASH = FENCE + 5  # seconds: what is stopped by its job ends well
PROGRESS_INTERVAL = 0.1
NAMED = 10
LIMITS = Limits(MEMORY_FOR_ALL)  # storescu and dcmsend have all of a deflated instance in memory
AGAIN = "Sending again is safe: the instances keep their UIDs."
NONE: Mapping[str, int] = {}


def peer_of(destination: Destination, retrieve: Retrieve) -> Peer:
    """A destination as DCMTK's programs call it."""
    calling = destination.calling_ae_title or retrieve.calling_ae_title
    return Peer(destination.ae_title, destination.host, destination.port, calling, retrieve.connect_timeout)


Outcomes = dict[str, StoreResult]  # of each instance, by its SOP Instance UID


@dataclass(frozen=True)
class Round:
    """One run of a program over a directory of files that are named by SOP Instance UID, and how its log is read."""

    directory: Path
    argv: tuple[str, ...]
    progress: Callable[[Iterable[Path]], StoreProgress]


@dataclass(frozen=True)
class Delivery:
    """What became of every instance; `why` it ended before its time, where it did, and which `failure` that was.

    `confirmed` is how many instances the destination says that it has, where it was asked, and `unasked` why it gave no
    answer.
    """

    outcomes: Outcomes
    failure: Failure | None = None
    why: str = ""
    confirmed: int | None = None
    unasked: str = ""

    @property
    def sent(self) -> int:
        return sum(one.arrived for one in self.outcomes.values())

    @property
    def failed(self) -> int:
        return len(self.outcomes) - self.sent

    @property
    def warnings(self) -> list[str]:
        return [f"{uid}: {one.why}" for uid, one in self.outcomes.items() if one.outcome is Outcome.WARNED]


@dataclass
class Relay:
    """One job's sending to one destination; `name` is the destination's in the configuration.

    `on_outcomes` is given rows of the ledger, those of what has arrived while it sends; a later row of an instance
    stands for an earlier one. `ask` asks the destination what it has, where it is to confirm that.
    """

    name: str
    destination: Destination
    peer: Peer
    dcmtk_dir: Path
    workspace: Workspace
    cancellation: Cancellation
    on_progress: Callable[[int], None]
    on_outcomes: Callable[[list[Mapping[str, str | int]]], None]
    leash: Path | None = None  # of the senders, on a ledger that other hosts share
    ask: Ask | None = None
    _instances: dict[str, Instance] = field(default_factory=dict, init=False)
    _told: dict[str, Outcome] = field(default_factory=dict, init=False)
    _staged: dict[str, Path] = field(default_factory=dict, init=False)
    _stages: int = field(default=0, init=False)

    @property
    def address(self) -> str:
        return f"{self.destination.host}:{self.destination.port}"

    def require_reachable(self) -> None:
        """Ask by C-ECHO (PS3.4 A.4); raise DestinationUnreachable where nobody answers.

        What rejects the association or takes no Verification may take C-STORE all the same.
        """
        failure = echo(self.dcmtk_dir, self.peer, self.cancellation.checkpoint)
        if failure is not None and not failure.reached:
            raise self._unreachable(failure.why)

    def deliver(self, instances: Sequence[Instance], acknowledged: Mapping[str, int] = NONE) -> Delivery:
        """Send the instances, and have them confirmed.

        Not those that the destination has `acknowledged` before, as so many bytes, by their SOP Instance UIDs.
        Raises Cancelled where it is asked for what it has.
        """
        self._instances = {one.sop_instance_uid: one for one in instances}
        outcomes = {
            uid: StoreResult(Outcome.ARRIVED_BEFORE if acknowledged.get(uid) == one.bytes else Outcome.NOT_TRIED)
            for uid, one in self._instances.items()
        }
        try:
            waiting = [one for uid, one in self._instances.items() if not outcomes[uid].arrived]
            delivery = self._deliver(waiting, outcomes)
            if self.ask is None or delivery.failed:
                return delivery
            return self._confirmed(self.ask, instances, outcomes)
        finally:
            self._tell(outcomes)

    def _confirmed(self, ask: Ask, instances: Sequence[Instance], outcomes: Outcomes) -> Delivery:
        """What the destination says that it has; what it has not is sent once more, and asked for again."""
        answer = ask(instances)
        if answer.missing and not answer.why:
            self._not_confirmed(answer.missing, outcomes)
            again = [self._instances[uid] for uid in answer.missing]
            delivery = self._deliver(again, outcomes)
            if delivery.failed:
                return replace(delivery, confirmed=len(instances) - len(again))
            answer = ask(again)
        if not answer.why:
            self._not_confirmed(answer.missing, outcomes)
        confirmed = None if answer.why else len(instances) - len(answer.missing)
        return Delivery(outcomes, confirmed=confirmed, unasked=answer.why)

    @staticmethod
    def _not_confirmed(missing: Mapping[str, str], outcomes: Outcomes) -> None:
        outcomes.update({uid: StoreResult(Outcome.NOT_CONFIRMED, why) for uid, why in missing.items()})

    def _deliver(self, instances: Sequence[Instance], outcomes: Outcomes) -> Delivery:
        """Send each association after the other, up to one that fails, or to a cancel."""
        for going in self._rounds(instances, outcomes):
            delivery = self._send(going, outcomes)
            if delivery.why:
                return delivery
        return Delivery(outcomes)

    def _send(self, going: Round, outcomes: Outcomes) -> Delivery:
        """Send what a directory has; what the peer takes no association for at first is tried again."""
        with suppress(Cancelled):  # what has been sent until then is told all the same
            for _ in attempts(self.peer, self.cancellation.checkpoint):
                delivery = self._attempt(going, outcomes)
                if delivery.failure is not Failure.BUSY:
                    break
            return delivery
        return Delivery(outcomes, why="cancelled")

    def _attempt(self, going: Round, outcomes: Outcomes) -> Delivery:
        """Send what of a directory has not been sent; the delivery has a `why` where it ends with this."""
        files, log = self._unsent(going.directory, outcomes), going.directory.with_suffix(".log")
        log.unlink(missing_ok=True)
        before = sum(one.arrived for one in outcomes.values())
        argv = holding(self.leash, LEASH, going.argv) if self.leash else going.argv
        with spawned(argv, cwd=self.workspace.path, log=log, limits=LIMITS) as sender:
            progress, lines = going.progress(files), GrowingLog(log)
            ended = self._watch(sender, log, lambda: self._take(progress, lines, before))
        self._take(progress, lines, before)
        log_text = read_log(log)
        failure = association_failure(log_text)
        for file, result in progress.final_results().items():
            refused = failure is Failure.NO_CONTEXT and not result.arrived
            outcomes[file.name] = StoreResult(Outcome.NOT_NEGOTIATED) if refused else result
        if failure not in (None, Failure.NO_CONTEXT):
            why = error_text(log_text)
            return Delivery(outcomes, failure, busy_text(self.peer, why) if failure is Failure.BUSY else why)
        if self.cancellation.reason:
            return Delivery(outcomes, why="cancelled")
        if not ended:
            known = None if progress.associated else Failure.UNREACHABLE
            return Delivery(outcomes, known, f"no progress for {self.destination.timeout:g} s")
        return Delivery(outcomes)

    def require_all(self, delivery: Delivery) -> None:
        """Raise DestinationUnreachable, RelayFailed or NotConfirmed unless the peer has every instance."""
        if delivery.failed or delivery.unasked:
            raise self._error(delivery)

    def _rounds(self, instances: Sequence[Instance], outcomes: Outcomes) -> Iterator[Round]:
        """What is well-formed by the destination's tool; then what is not, and what the tool could not read."""
        well_formed = [one for one in instances if not one.malformed]
        if well_formed:
            rounds = self._dcmsend_rounds if self.destination.tool == "dcmsend" else self._storescu_rounds
            yield from rounds(well_formed, outcomes)
        unread = {uid for uid, one in outcomes.items() if one.outcome is Outcome.UNREADABLE}
        yield from self._rounds_as_it_is([one for one in instances if one.malformed or one.sop_instance_uid in unread])

    def _rounds_as_it_is(self, instances: Sequence[Instance]) -> Iterator[Round]:
        """Byte for byte, in as many associations as their contexts need."""
        own = {one: frozenset({(one.sop_class_uid, one.transfer_syntax)}) for one in instances}
        for number, (_, going) in enumerate(_associations(own)):
            directory = self._stage(f"as_it_is{number}", going)
            yield Round(directory, sending.as_it_is_argv(self.peer, directory, self._timeout), StorescuProgress)

    def _storescu_rounds(self, instances: Sequence[Instance], _outcomes: Outcomes) -> Iterator[Round]:
        """As many associations as the presentation contexts of these instances need."""
        contexts = {one: sending.contexts_for(one.sop_class_uid, one.transfer_syntax) for one in instances}
        for number, (proposed, going) in enumerate(_associations(contexts)):
            directory = self._stage(f"storescu{number}", going)
            profile = directory.with_suffix(".cfg")
            profile.write_text(sending.association_profile(proposed))
            argv = sending.storescu_argv(self.dcmtk_dir, self.peer, profile, directory, self._timeout)
            yield Round(directory, argv, StorescuProgress)

    def _dcmsend_rounds(self, instances: Sequence[Instance], outcomes: Outcomes) -> Iterator[Round]:
        """Everything as it is; then what the peer did not take so, decompressed."""
        yield self._dcmsend_round("-dn", instances)
        refused = [one for one in instances if outcomes[one.sop_instance_uid].outcome is Outcome.NOT_NEGOTIATED]
        if refused:
            yield self._dcmsend_round("+dly", refused)

    def _dcmsend_round(self, decompress: str, instances: Sequence[Instance]) -> Round:
        directory = self._stage(f"dcmsend{decompress}", instances)
        report = directory.with_suffix(".txt")
        argv = sending.dcmsend_argv(self.dcmtk_dir, self.peer, decompress, report, directory, self._timeout)
        return Round(directory, argv, partial(DcmsendProgress, report_file=report))

    def _stage(self, name: str, instances: Sequence[Instance]) -> Path:
        """A directory with the files of these instances, named by SOP Instance UID."""
        self._stages += 1
        directory = self.workspace.disc / f"round{self._stages}_{name}"
        directory.mkdir()
        for one in instances:
            uid = one.sop_instance_uid
            os.rename(self._staged.get(uid, one.path), directory / uid)
            self._staged[uid] = directory / uid
        return directory

    def _unsent(self, directory: Path, outcomes: Outcomes) -> list[Path]:
        """The directory's files that have not arrived; the others are put beside it, so that none is sent twice."""
        arrived = directory.with_suffix(".arrived")
        arrived.mkdir(exist_ok=True)
        for file in list(directory.iterdir()):
            if outcomes[file.name].arrived:
                self._staged[file.name] = file.rename(arrived / file.name)
        return list(directory.iterdir())

    def _take(self, progress: StoreProgress, lines: GrowingLog, before: int) -> None:
        """Tell what is new in the program's log."""
        for line in lines.new_lines():
            progress.take(line)
        if news := progress.news():
            self._tell({file.name: progress.results[file] for file in news})
            self.on_progress(before + progress.arrived)

    def _tell(self, outcomes: Outcomes) -> None:
        news = {uid: one.outcome for uid, one in outcomes.items() if self._told.get(uid) is not one.outcome}
        self._told |= news
        if news:
            self.on_outcomes([self._instances[uid].row(outcome.value) for uid, outcome in news.items()])

    @property
    def _timeout(self) -> float:
        """The program's own timeout lies behind ours: it would go on with the next instance."""
        return 2 * self.destination.timeout

    def _watch(self, sender: Child, log: Path, report: Callable[[], None]) -> bool:
        """Wait for the program's end while its log grows and nobody cancels; whether it came to its end."""
        size, quiet, reported = 0, Stopwatch(), time.monotonic()
        while not sender.ends_within(POLL):
            if (now := log.stat().st_size) != size:
                size, quiet = now, Stopwatch()
            if time.monotonic() - reported > PROGRESS_INTERVAL:
                reported = time.monotonic()
                report()
            if self.cancellation.reason or quiet.seconds() > self.destination.timeout:
                return False
        return True

    def _error(self, delivery: Delivery) -> MkisoError:
        if delivery.failure is Failure.UNREACHABLE and not delivery.sent:
            return self._unreachable(delivery.why)
        lacks = any(one.outcome is Outcome.NOT_CONFIRMED for one in delivery.outcomes.values())
        kind = NotConfirmed if delivery.unasked or lacks else RelayFailed
        why = self._why(delivery) if delivery.failed else ""
        return kind(
            f"{self.peer} acknowledged {self._how_many(delivery)}. {why}{AGAIN}",
            destination=self.address,
            files_sent=delivery.sent,
            files_failed=delivery.failed,
        )

    def _how_many(self, delivery: Delivery) -> str:
        of = len(delivery.outcomes)
        if delivery.unasked:
            keys = f"destinations.{self.name}.confirm, and query_ae_title, query_host and query_port beside it"
            return f"all {of} instances, and does not say whether it has them: {delivery.unasked} Check {keys}"
        if delivery.confirmed is not None:
            return f"all {of} instances, and has {delivery.confirmed} of them; the others were sent again"
        return f"{delivery.sent} of {of} instances"

    def _unreachable(self, why: str) -> DestinationUnreachable:
        return DestinationUnreachable(
            f"No association with {self.peer}: {why}. Check that it runs, and destinations.{self.name}. {AGAIN}",
            error="CD Publisher unreachable" if self.name == "cd_publisher" else None,
            destination=self.address,
        )

    def _why(self, delivery: Delivery) -> str:
        why = f"{delivery.why[:1].upper()}{delivery.why[1:]}. " if delivery.why else ""
        missed = {uid: one for uid, one in delivery.outcomes.items() if not one.arrived}
        counts = Counter(one.outcome.value for one in missed.values())
        why += ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) + ": "
        named = [f"{uid} ({one.why})" if one.why else uid for uid, one in list(missed.items())[:NAMED]]
        why += ", ".join(named) + (f" and {len(missed) - NAMED} more. " if len(missed) > NAMED else ". ")
        if Outcome.NOT_NEGOTIATED.value in counts and self.destination.tool == "storescu":
            why += f"A peer that takes only uncompressed data needs destinations.{self.name}.tool: dcmsend. "
        return why


def _associations(
    contexts: Mapping[Instance, frozenset[Context]],
) -> Iterator[tuple[set[Context], list[Instance]]]:
    """The presentation contexts that each association proposes, and the instances that go in it."""
    waiting = dict(contexts)
    for proposed in sending.batches(contexts.values()):
        going = [one for one, needed in waiting.items() if needed <= proposed]
        yield proposed, going
        for one in going:
            del waiting[one]
