"""Sending proven instances to another archive or a CD publisher, and counting what it acknowledged.

Exit statuses prove nothing here: an instance has arrived where the peer's C-STORE response says so.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mkiso.cancellation import Cancellation
from mkiso.config import Destination, Retrieve
from mkiso.dcmtk import dcmsend, storescu
from mkiso.dcmtk.association import Failure, Peer, association_failure, words
from mkiso.dcmtk.sent import Outcome, Sent, arrived
from mkiso.errors import DestinationUnreachable, MkisoError, RelayFailed
from mkiso.instances import Instance
from mkiso.process import Child, spawned
from mkiso.record import PROGRESS_INTERVAL
from mkiso.workspace import Workspace

POLL = 0.02
NAMED = 10
ACCEPTED = "I: Association Accepted"
AGAIN = "Sending again is safe: the instances keep their UIDs."


def peer_of(destination: Destination, retrieve: Retrieve) -> Peer:
    """A destination as DCMTK's programs call it."""
    calling = destination.calling_ae_title or retrieve.calling_ae_title
    return Peer(destination.ae_title, destination.host, destination.port, calling, retrieve.connect_timeout)


@dataclass(frozen=True)
class Delivery:
    """What became of every instance, by its SOP Instance UID, and why an association failed, where one did."""

    outcomes: dict[str, Sent]
    failure: Failure | None = None
    said: str = ""

    @property
    def sent(self) -> int:
        return sum(one.arrived for one in self.outcomes.values())

    @property
    def failed(self) -> int:
        return len(self.outcomes) - self.sent

    @property
    def warnings(self) -> list[str]:
        return [f"{uid}: {one.said}" for uid, one in self.outcomes.items() if one.outcome is Outcome.WARNED]


@dataclass
class Relay:
    """One job's sending to one destination; `name` is the destination's in the configuration."""

    name: str
    destination: Destination
    peer: Peer
    dcmtk_dir: Path
    workspace: Workspace
    cancellation: Cancellation
    on_progress: Callable[[int], None]

    @property
    def address(self) -> str:
        return f"{self.destination.host}:{self.destination.port}"

    def deliver(self, instances: Sequence[Instance]) -> Delivery:
        """Send the instances, each association after the other, up to one that fails, or to a cancel."""
        outcomes = {one.sop_instance_uid: Sent(Outcome.NOT_TRIED) for one in instances}
        for directory in self._staged(instances):
            log = directory.with_suffix(".log")
            before = sum(one.arrived for one in outcomes.values())
            with spawned(self._argv(directory), cwd=self.workspace.path, log=log) as sender:
                ended = self._watch(sender, log, before)
            said = log.read_text(errors="replace")
            outcomes |= self._report(directory, said)
            failure = association_failure(said)
            if failure not in (None, Failure.NO_CONTEXT):
                return Delivery(outcomes, failure, words(said))
            if self.cancellation.reason:
                return Delivery(outcomes, said="cancelled")
            if not ended:
                known = None if ACCEPTED in said else Failure.UNREACHABLE
                return Delivery(outcomes, known, f"no progress for {self.destination.timeout:g} s")
        return Delivery(outcomes)

    def require_all(self, delivery: Delivery) -> None:
        """Raise DestinationUnreachable or RelayFailed unless the peer acknowledged every instance."""
        if delivery.failed:
            raise self._error(delivery)

    def _staged(self, instances: Sequence[Instance]) -> Iterator[Path]:
        """Directories of instances that one association can hold, named by SOP Instance UID."""
        contexts = {one.path: storescu.contexts_for(one.sop_class_uid, one.transfer_syntax) for one in instances}
        for number, batch in enumerate(storescu.batches(contexts.values())):
            directory = self.workspace.disc / f"association{number}"
            directory.mkdir()
            directory.with_suffix(".cfg").write_text(storescu.association_profile(batch))
            for one in instances:
                if contexts[one.path] <= batch and one.path.exists():
                    one.path.rename(directory / one.sop_instance_uid)
            yield directory

    def _argv(self, directory: Path) -> tuple[str, ...]:
        if self.destination.tool == "dcmsend":
            return dcmsend.send_argv(
                self.dcmtk_dir, self.peer, directory.with_suffix(".txt"), directory, self._patience
            )
        return storescu.store_argv(self.dcmtk_dir, self.peer, directory.with_suffix(".cfg"), directory, self._patience)

    @property
    def _patience(self) -> float:
        """The program's own timeout lies behind ours: it would go on with the next instance."""
        return 2 * self.destination.timeout

    def _watch(self, sender: Child, log: Path, before: int) -> bool:
        """Wait for the program's end while its log grows and nobody cancels; whether it came to its end."""
        size, grew, told = 0, time.monotonic(), time.monotonic()
        while sender.rc is None:
            moment = time.monotonic()
            if (now := log.stat().st_size) != size:
                size, grew = now, moment
            if moment - told > PROGRESS_INTERVAL:
                told = moment
                self.on_progress(before + arrived(log.read_text(errors="replace")))
            if self.cancellation.reason or moment - grew > self.destination.timeout:
                return False
            time.sleep(POLL)
        return True

    def _report(self, directory: Path, said: str) -> dict[str, Sent]:
        files = list(directory.iterdir())
        if association_failure(said) is Failure.NO_CONTEXT:
            return {file.name: Sent(Outcome.NOT_NEGOTIATED) for file in files}
        if self.destination.tool == "storescu":
            report = storescu.report(said, files)
        else:
            told = directory.with_suffix(".txt")
            report = dcmsend.report(told.read_text(errors="replace") if told.exists() else "", said, files)
        return {file.name: sent for file, sent in report.items()}

    def _error(self, delivery: Delivery) -> MkisoError:
        if delivery.failure is Failure.UNREACHABLE and not delivery.sent:
            return DestinationUnreachable(
                f"No association with {self.peer}: {delivery.said}. Check that it runs, and destinations.{self.name}."
                f" {AGAIN}",
                error="CD Publisher unreachable" if self.name == "cd_publisher" else None,
                destination=self.address,
            )
        return RelayFailed(
            f"{self.peer} acknowledged {delivery.sent} of {len(delivery.outcomes)} instances."
            f" {self._why(delivery)}{AGAIN}",
            destination=self.address,
            files_sent=delivery.sent,
            files_failed=delivery.failed,
        )

    def _why(self, delivery: Delivery) -> str:
        why = f"{delivery.said[:1].upper()}{delivery.said[1:]}. " if delivery.said else ""
        missed = {uid: one for uid, one in delivery.outcomes.items() if not one.arrived}
        counts = Counter(one.outcome.value for one in missed.values())
        why += ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) + ": "
        named = [f"{uid} ({one.said})" if one.said else uid for uid, one in list(missed.items())[:NAMED]]
        why += ", ".join(named) + (f" and {len(missed) - NAMED} more. " if len(missed) > NAMED else ". ")
        if Outcome.NOT_NEGOTIATED.value in counts and self.destination.tool == "storescu":
            why += f"A peer that takes only uncompressed data needs destinations.{self.name}.tool: dcmsend. "
        return why
