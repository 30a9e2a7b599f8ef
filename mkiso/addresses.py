"""Names and addresses of hosts as they are compared; whether a program of this user could listen at a TCP port.

Places of the configuration: whose they are, whether this user may use them, and what to do where not.
"""

from __future__ import annotations

import errno
import os
import pwd
import socket
import stat
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

LOWEST_OF_ALL_USERS = 1024
ADVICE = {
    errno.EADDRINUSE: "Another program listens there: stop it, or choose another port",
    errno.EADDRNOTAVAIL: "This host has no such address: give one that it has, or 0.0.0.0",
    errno.EACCES: f"A port below {LOWEST_OF_ALL_USERS} is root's, or needs CAP_NET_BIND_SERVICE"
    " (AmbientCapabilities= of the unit, which holds for the service alone): give it, or choose a higher port",
}


class Wrong(Exception):
    """What was found is not as it must be: the path, its owner, the cause and the remedy."""


def require_directory(path: Path) -> None:
    """Raise Wrong unless this user can write to a directory, or make it where it is not there yet."""
    if not (there := nearest(path)).is_dir():
        raise Wrong(f"{there} is no directory. Choose another place than {path}.")
    require_writable(path)


def require_writable(path: Path) -> None:
    """Raise Wrong unless this user can write to what is there, or to the directory in which it would be made."""
    there = nearest(path)
    if os.geteuid() == 0 and there.stat().st_uid != 0:
        raise Wrong(f"{whose(path)}: what root makes there {owner(there)} cannot use. Run as {owner(there)}.")
    if not os.access(there, os.W_OK | (os.X_OK if there.is_dir() else 0)):
        raise Wrong(f"{whose(path)}, who may not write there. {_remedy(path, there)}")


def nearest(path: Path) -> Path:
    """The path itself, or of the directories above it the first that is there."""
    return next(one for one in (path, *path.parents) if os.path.lexists(one))


def whose(path: Path) -> str:
    """Where a path is or would be, whose that is, and who asks."""
    there = nearest(path)
    absent = "" if there == path else f"{path} is not there, and "
    mode = f"{stat.S_IMODE(there.stat().st_mode):04o}"
    return f"{absent}{there} belongs to {owner(there)} (mode {mode}), and this is {user()}"


def owner(path: Path) -> str:
    uid = path.stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def user() -> str:
    """The name of the user that this process runs as, whatever its surroundings say."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"


def _remedy(path: Path, there: Path) -> str:
    if there == path:
        return f"Run as {owner(there)}, or as root: chown {user()} {path}."
    return f"As root: install -d -o {user()} -m 0700 {path}."


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
