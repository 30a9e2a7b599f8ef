"""The directory that a receiver writes to: what has arrived, and which of it is whole.

A file is there under its final name from its first byte (storescp +B), so presence proves nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path

from mkiso.retrieve.instances import Instance, Key, read_whole, version_of


class Inbox:
    """The directory that a receiver writes to: each file is read once it is whole."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, Instance] = {}
        self._torn: dict[str, tuple[int, int]] = {}
        self.keys: set[Key] = set()
        self.last_arrival = time.monotonic()

    @property
    def instances(self) -> dict[Key, Instance]:
        """The whole instances by Study and SOP Instance UID."""
        return {one.key: one for one in self._files.values()}

    @property
    def damaged(self) -> int:
        """How many files are there that are not whole instances."""
        return len(self._torn)

    def look(self) -> None:
        """Read what has come since; a file that is still being written is read again when it has grown."""
        for name in os.listdir(self._directory):
            if name not in self._files:
                self._read(name)

    def forget(self, names: Collection[str]) -> None:
        """Count these files no longer, whatever they hold."""
        self._files = {name: one for name, one in self._files.items() if name not in names}
        self.keys = set(self.instances)

    def forget_changed(self) -> None:
        """Forget what was written to, or went, since it was found whole."""
        self.forget([name for name, one in self._files.items() if version_of(one.path) != one.version])

    def recheck(self) -> None:
        """Read again what was written to after it had been read, and see what is gone."""
        self.forget_changed()
        self._torn.clear()
        self.look()

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
        self.keys.add(instance.key)
        self.last_arrival = time.monotonic()
