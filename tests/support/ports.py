"""TCP ports that a test may take."""

import itertools
import os
import random
import socket
from collections.abc import Iterator
from functools import cache

# Below the range that Linux gives to outgoing connections, so that none of those takes one meanwhile.
_RANGE = range(20000, 32000)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@cache
def _ours() -> tuple[Iterator[int], int]:
    """The ports of this process of tests, one after another, and how many there are.

    Each of the processes of a run has its own, and gives each once before it gives one again: between a look and a
    listener there is time for another.
    """
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = list(_RANGE[process :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))])
    random.SystemRandom().shuffle(ports)
    return itertools.cycle(ports), len(ports)


def free_ports(n: int) -> list[int]:
    """`n` different ports on which nothing listens now; RuntimeError where there are not so many."""
    ports, count = _ours()
    found = list(itertools.islice(filter(_is_free, itertools.islice(ports, count)), n))
    if len(found) < n:
        raise RuntimeError(f"only {len(found)} of {n} ports are free in {_RANGE}: end programs that listen there")
    return found
