"""Places of the configuration: whose they are, whether this user may use them, and what to do where not."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path


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
