"""Names and addresses of hosts as they are compared; whether a program of this user could listen at a TCP port."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from ipaddress import ip_address

LOWEST_OF_ALL_USERS = 1024
ADVICE = {
    errno.EADDRINUSE: "Another program listens there: stop it, or choose another port",
    errno.EADDRNOTAVAIL: "This host has no such address: give one that it has, or 0.0.0.0",
    errno.EACCES: f"A port below {LOWEST_OF_ALL_USERS} is root's, or needs CAP_NET_BIND_SERVICE"
    " (AmbientCapabilities= of the unit, which holds for the service alone): give it, or choose a higher port",
}


def host_name(text: str) -> str:
    """A host as it is compared: in lower case, without a last full stop or brackets.

    An IPv4 address in one of IPv6, as a socket for both families has it, is itself (RFC 4291 2.5.5.2).
    """
    name = text.lower().removesuffix(".").removeprefix("[").removesuffix("]")
    try:
        address = ip_address(name)
    except ValueError:
        return name
    return str(getattr(address, "ipv4_mapped", None) or address)


def is_address(name: str) -> bool:
    with suppress(ValueError):
        return bool(ip_address(name))
    return False


def is_loopback(name: str) -> bool:
    """Whether a name, as `host_name` gives it, is this host's own, whoever asks."""
    return name == "localhost" or (is_address(name) and ip_address(name).is_loopback)


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
