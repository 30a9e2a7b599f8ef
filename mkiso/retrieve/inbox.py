"""The directory that a receiver writes to: what has arrived whole.

A file is there under its final name from its first byte (storescp +B), so presence proves nothing, nor does what is in
it: the receiver tells what it has received to its end. Anybody who reaches the receiver's port may
send: only what is expected counts as progress, and is waited for.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Set
from functools import partial
from pathlib import Path

from mkiso.clock import Stopwatch
from mkiso.dcmtk.storescp import Transfers, file_number, out_of_space, why_cut
from mkiso.retrieve.instances import Instance, Key, Unattributable, claimed_key, read_arrival, version_of

NAMED = 5
UNENDED = "its transfer did not end, or the receiver's process died"


class Inbox:
    """Each file of the directory is read once it has come whole; `wanted` are the instances that are expected.

    Nothing has until `transfers` is the receiver's.
    """

    transfers: Transfers | None = None

    def __init__(self, directory: Path, wanted: Set[Key]) -> None:
        self._directory = directory
        self._wanted: set[Key] = set()
        self._uids: set[str] = set()  # of the expected instances, and of their studies
        self._files: dict[str, Instance] = {}
        self._unattributable: dict[str, Unattributable] = {}
        self._torn: set[str] = set()
        self.keys: set[Key] = set()
        self.received = self.bytes = 0  # how many of the expected ones are there, and how much
        self.quiet = Stopwatch()  # since the last instance of an expected study
        self.expect(wanted)

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
        return len(self._torn) + len(self._unattributable)

    def damage(self) -> str:
        """Which these are, and why, as sentences; empty where there are none."""
        return " ".join([*self._torn_in_transfer(), *self._without_identity()])

    def ran_out_of_space(self) -> bool:
        """Whether the receiver's disk was too full for one: it says so, or has not written a file's end, or waits."""
        has_room = bool(shutil.disk_usage(self._directory).free)
        return not has_room or any(map(out_of_space, self._failed)) or any(map(self._is_short, self._torn))

    def look(self) -> None:
        """Read what has come whole since."""
        if self.transfers is None:
            return
        names = [name for name in os.listdir(self._directory) if name not in self._files]
        self.transfers.read_on()
        for name in sorted(names, key=file_number):
            if name not in self._unattributable and self.transfers.may_be_whole(name):
                self._read(name, self.transfers)
        self._torn = {name for name in names if name not in self._files and name not in self._unattributable}

    def of_expected(self, names: Collection[str]) -> set[str]:
        """Which of these files hold an instance that is expected, or another of its study, or are on the way to."""
        return {name for name in names if self._is_expected(name)}

    def expect(self, keys: Set[Key]) -> None:
        """These are expected, too, as it turned out."""
        self._wanted |= keys
        self._uids |= {uid for key in keys for uid in key}
        self.forget(())

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

    def _is_expected(self, name: str) -> bool:
        key = self._files[name].key if name in self._files else claimed_key(self._directory / name)
        return not self._uids.isdisjoint(key)

    @property
    def _failed(self) -> list[str]:
        return self.transfers.failed if self.transfers else []

    def _is_short(self, name: str) -> bool:
        return self.transfers is not None and self.transfers.may_be_whole(name)

    def _torn_in_transfer(self) -> Iterator[str]:
        whys = [why_cut(said) for said in self._failed]
        whys += [
            "it could not be written to its end" if self._is_short(name) else UNENDED for name in sorted(self._torn)
        ]
        if whys:
            told = "; ".join(f"{why} ({count})" for why, count in Counter(whys).items())
            yield f"{len(whys)} were torn in transfer: {told}."

    def _without_identity(self) -> Iterator[str]:
        told = [f"{one.sop_instance_uid or name} ({one.why})" for name, one in sorted(self._unattributable.items())]
        if told:
            further = f" and {len(told) - NAMED} more" if len(told) > NAMED else ""
            yield f"{len(told)} came whole, and it cannot be told whose they are: {', '.join(told[:NAMED])}{further}."

    def _read(self, name: str, transfers: Transfers) -> None:
        try:
            instance = read_arrival(self._directory / name, partial(transfers.is_whole, name))
        except Unattributable as nobodys:
            self._unattributable[name] = nobodys
            return
        if instance is None:
            return
        self._files[name] = instance
        if instance.key not in self.keys:
            self._count(instance)
        self.keys.add(instance.key)

    def _count(self, instance: Instance) -> None:
        if instance.study_uid in self._uids:
            self.quiet = Stopwatch()
        if instance.key in self._wanted:
            self.received += 1
            self.bytes += instance.bytes
