"""The directory that a receiver writes to: what has arrived, and which of it is whole.

A file is there under its final name from its first byte (storescp +B), so presence proves nothing. Anybody who
reaches the receiver's port may send: only what is expected counts as progress, and is waited for.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Set
from pathlib import Path

from mkiso.clock import Stopwatch
from mkiso.retrieve.instances import Instance, Key, claimed_key, read_whole, version_of


class Inbox:
    """Each file of the directory is read once it is whole; `wanted` are the instances that are expected."""

    def __init__(self, directory: Path, wanted: Set[Key]) -> None:
        self._directory = directory
        self._wanted: set[Key] = set()
        self._uids: set[str] = set()  # of the expected instances, and of their studies
        self._files: dict[str, Instance] = {}
        self._torn: dict[str, tuple[int, int]] = {}
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
        """How many files are there that are not whole instances."""
        return len(self._torn)

    def look(self) -> None:
        """Read what has come since; a file that is still being written is read again when it has grown."""
        for name in os.listdir(self._directory):
            if name not in self._files:
                self._read(name)

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
        self._torn.clear()
        self.look()

    def _is_expected(self, name: str) -> bool:
        key = self._files[name].key if name in self._files else claimed_key(self._directory / name)
        return not self._uids.isdisjoint(key)

    def _read(self, name: str) -> None:
        path = self._directory / name
        version = version_of(path)
        if version is None or version == self._torn.get(name):
            return
        instance = read_whole(path)
        if instance is None:
            self._torn[name] = version
            return
        self._torn.pop(name, None)
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
