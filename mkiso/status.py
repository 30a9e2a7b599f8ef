"""How the service is: the archive, the receivers, the queue and the disk, looked at beside whoever asks."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from mkiso.checks import pacs_answers
from mkiso.config import Config
from mkiso.dcmtk.association import Peer
from mkiso.ledger.ledger import Ledger
from mkiso.retrieve.slots import taken
from mkiso.workspace import identity


@dataclass(frozen=True)
class Status:
    """`waiting` are jobs of this host, `free` is in bytes."""

    pacs: bool
    busy: int
    receivers: int
    waiting: int
    free: int


def look(config: Config, pacs: Peer, ledger: Ledger) -> Status:
    """The state now; takes the archive's time. Raises LedgerUnavailable, DiskFull, OSError."""
    work_dir, ours = config.storage.work_dir, identity(config.storage.work_dir)
    return Status(
        pacs=pacs_answers(config, pacs).ok,
        busy=taken(work_dir, config.receivers),
        receivers=len(config.receivers),
        waiting=ledger.history.queue(ours),
        free=shutil.disk_usage(work_dir).free,
    )
