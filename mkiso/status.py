"""How the service is: the archive, the receivers, the queue and the disk, looked at beside whoever asks."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from mkiso.config import Config
from mkiso.dcmtk.association import Peer
from mkiso.dcmtk.echoscu import echo
from mkiso.ledger.ledger import Ledger
from mkiso.retrieve.slots import slot_is_taken
from mkiso.workspace import identity

RENEWED = 10.0
OLDEST = 30.0
PATIENCE = 5.0
log = logging.getLogger("mkiso.status")


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
    asked = replace(pacs, connect_timeout=min(PATIENCE, pacs.connect_timeout))
    return Status(
        pacs=echo(config.tools.dcmtk_dir, asked) is None,
        busy=sum(slot_is_taken(work_dir, receiver) for receiver in config.receivers),
        receivers=len(config.receivers),
        waiting=ledger.history.queue(ours),
        free=shutil.disk_usage(work_dir).free,
    )


class LastStatus:
    """The last state that a look found. Asking for it costs nothing: a thread looks, one at a time."""

    def __init__(self, look: Callable[[], Status]) -> None:
        self._look = look
        self._status: Status | None = None
        self._looked_at = float("-inf")
        self._looking = threading.Lock()

    def known(self) -> Status | None:
        """The state as it was at most OLDEST seconds ago; None where that is not known (yet)."""
        age = time.monotonic() - self._looked_at
        if age > RENEWED and self._looking.acquire(blocking=False):
            threading.Thread(target=self._renew, name="status", daemon=True).start()
        return self._status if age <= OLDEST else None

    def _renew(self) -> None:
        began = time.monotonic()
        try:
            self._status = self._look()
            self._looked_at = began
        except Exception as error:  # the boundary: what is not known is shown as such
            log.warning("the state of the service is not known", extra={"fields": {"error": type(error).__name__}})
        finally:
            self._looking.release()
