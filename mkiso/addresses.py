"""TCP ports of this host: whether a program of this user could listen there, and what to do where not."""

from __future__ import annotations

import errno
import socket

LOWEST_OF_ALL_USERS = 1024
ADVICE = {
    errno.EADDRINUSE: "Another program listens there: stop it, or choose another port",
    errno.EADDRNOTAVAIL: "This host has no such address: give one that it has, or 0.0.0.0",
    errno.EACCES: f"A port below {LOWEST_OF_ALL_USERS} is root's, or needs CAP_NET_BIND_SERVICE"
    " (AmbientCapabilities= of the unit, which holds for the service alone): give it, or choose a higher port",
}


def bind_error(host: str, port: int) -> OSError | None:
    """Why nothing could listen there now; None where a program could."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None


def advice(error: OSError) -> str:
    """The cause in the system's words, and what to do."""
    return f"{error.strerror}. {ADVICE.get(error.errno or 0, 'Choose another address')}."
