"""TCP ports that a test may take."""

import random
import socket

# Below the range that Linux gives to outgoing connections, so that none of those takes one meanwhile.
_RANGE = range(20000, 32000)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(n: int) -> list[int]:
    """`n` different ports on which nothing listens now; RuntimeError where there are not so many."""
    found: list[int] = []
    for port in random.sample(_RANGE, len(_RANGE)):
        if len(found) == n:
            break
        if _is_free(port):
            found.append(port)
    if len(found) < n:
        raise RuntimeError(f"only {len(found)} of {n} ports are free in {_RANGE}: end programs that listen there")
    return found
