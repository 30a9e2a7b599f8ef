"""Queued relays in a worker: one thread looks for what is due, once a second or when it is told, and others send it.

Their share of the worker, `relay.threads`, lies beside the threads that answer and make discs. A stopping worker claims
nothing more; what it runs has the time that all jobs have then, and waits for its turn again where that is over.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress

from mkiso.dcmtk.association import echo
from mkiso.errors import MkisoError, Stopping
from mkiso.installation import Installation
from mkiso.job import Order, relay
from mkiso.relay import peer_of
from mkiso.waiting import start
from mkiso.web.live import STOPPING, LiveJobs
from mkiso.workspace import claimed

TICK = 1.0
log = logging.getLogger("mkiso.web")


class Pickup:
    """Threads, which begin with `start` (and so after a worker's fork)."""

    def __init__(self, installation: Installation, live: LiveJobs) -> None:
        self._installation, self._live = installation, live
        self._room = threading.Semaphore(installation.config.relay.threads)
        self._asks = threading.Semaphore()
        self._news = threading.Event()

    def start(self) -> None:
        """Raises Busy."""
        start(threading.Thread(target=self._run, name="relays", daemon=True))

    def wake(self) -> None:
        """Look now: a relay was queued, or is to be tried."""
        self._news.set()

    def _run(self) -> None:
        while not self._live.is_stopping():
            self._news.wait(TICK)
            self._news.clear()
            try:
                self._look()
            except MkisoError:  # the ledger is away, and has told it
                continue
            except Exception:  # the boundary: the look goes on
                log.exception("the look for queued relays failed")

    def _look(self) -> None:
        relays, parallel = self._installation.ledger.relays, self._installation.parallel
        due = relays.due(parallel)
        if due.has_hopeless:
            relays.give_up(parallel)
        for destination in due.away:
            self._begin(self._asks, self._ask, destination)
        while due.destinations and self._begin(self._room, self._send_all):
            pass

    def _begin(self, room: threading.Semaphore, work: Callable[..., None], *words: str) -> bool:
        """Do the work in a thread of its own, where there is room; it is no daemon: a stopping worker waits for it."""
        if self._live.is_stopping() or not room.acquire(blocking=False):
            return False

        def run() -> None:
            try:
                work(*words)
            except MkisoError as error:
                log.info("queued relays rest", extra={"fields": {"detail": error.detail}})
            except Exception:  # the boundary
                log.exception("a queued relay failed before it began")
            finally:
                room.release()

        try:
            start(threading.Thread(target=run, name="relay", daemon=False))
        except BaseException:
            room.release()
            raise
        return True

    def _ask(self, destination: str) -> None:
        """One C-ECHO for all relays to a destination that was away."""
        config, relays = self._installation.config, self._installation.ledger.relays
        if relays.begin_to_ask(destination):
            peer = peer_of(config.destination(destination), config.retrieve)
            failure = echo(config.tools.dcmtk_dir, peer, self._require_running)
            if failure is None or failure.reached:
                relays.is_back(destination)
                self.wake()

    def _require_running(self) -> None:
        if self._live.is_stopping():
            raise Stopping(STOPPING)

    def _send_all(self) -> None:
        while not self._live.is_stopping() and self._send_next():
            pass

    def _send_next(self) -> bool:
        """Claim a relay, and send it; whether there was one. The ledger knows what became of it."""
        service, job_id = self._installation, str(uuid.uuid4())
        service.sweep()  # before the claim: without a work_dir none is begun
        with self._live.watching(job_id, is_queued=True) as cancellation:
            with claimed(service.config.storage.work_dir, job_id):  # as its row has to have a process from the first
                claim = service.claim_relay(job_id)
                if claim is None:
                    return False
                order = Order(
                    claim.accessions,
                    claim.requester,
                    job_id=job_id,
                    study_uids=claim.study_uids,
                    series_uids=claim.series_uids,
                    relay_id=claim.relay_id,
                )
                with suppress(Exception):  # the boundary: the ledger has what failed, and decides what becomes of it
                    relay(service, order, claim.destination, cancellation)
            self.wake()
        return True
