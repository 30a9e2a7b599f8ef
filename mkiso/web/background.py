"""A relay that nobody's request waits for: the page of its job tells how it goes."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from mkiso.exhaustion import start
from mkiso.installation import Installation
from mkiso.job import Order, relay
from mkiso.web.live import LiveJobs


def start_relay(installation: Installation, live: LiveJobs, order: Order, destination: str) -> None:
    """Begin the relay in a thread; returns when the job is in the ledger, or raises what failed before.

    The thread is no daemon: a stopping worker waits for it, as long as its jobs may take then.
    """
    begun: Future[None] = Future()
    cancellation = live.start(order.job_id, client=None)

    def run() -> None:
        try:
            relay(installation, order, destination, cancellation, lambda: begun.set_result(None))
        except BaseException as error:  # the boundary: whoever watches the job reads it in the ledger
            if not begun.done():
                begun.set_exception(error)
        finally:
            live.stop(order.job_id)

    try:
        start(threading.Thread(target=run, name="relay"), cancellation.check)
    except BaseException:
        live.stop(order.job_id)
        raise
    begun.result()
