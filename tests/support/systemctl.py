#!/usr/bin/python3
"""Stands in for systemctl in a chroot without systemd: starts and stops mkiso as its unit says.

Of the unit it honours ExecStart, Type=notify, the user and groups, UMask, Environment, the directories,
ProtectSystem=strict, NoNewPrivileges, an empty CapabilityBoundingSet, the filters of system calls and address
families, MemoryDenyWriteExecute, and TimeoutStopSec. Needs nothing but Python and libseccomp.
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import shlex
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections import defaultdict
from pathlib import Path

UNIT = Path("/lib/systemd/system/mkiso.service")
WANTED = Path("/etc/systemd/system/multi-user.target.wants/mkiso.service")
STATE = Path("/run/systemctl")
CLONE_NEWNS, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, LAST_CAPABILITY = 0x20000, 24, 38, 40
ALLOW, EPERM, EQUAL, MASKED_EQUAL = 0x7FFF0000, 0x00050001, 4, 7
PLACES = {"RuntimeDirectory": "/run", "StateDirectory": "/var/lib", "CacheDirectory": "/var/cache"}
MODES = {"RuntimeDirectory": "0755", "StateDirectory": "0755", "CacheDirectory": "0755"}


def unit() -> dict[str, list[str]]:
    settings: dict[str, list[str]] = defaultdict(list)
    for line in UNIT.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            settings[name].append(value.replace("%t", "/run"))
    return settings


class Compared(ctypes.Structure):
    """libseccomp's scmp_arg_cmp."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def restrict(allowed: list[str], families: list[str]) -> None:
    """Only these system calls, sockets of these families alone, and no memory both written and executed."""
    lib = ctypes.CDLL("libseccomp.so.2")
    lib.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(lib.seccomp_init(EPERM))
    numbers = [int(getattr(socket, family)) for family in families]
    conditions = {
        "socket": [Compared(0, EQUAL, number, 0) for number in numbers],
        "mmap": [Compared(2, MASKED_EQUAL, 6, bits) for bits in (0, 2, 4)],
        "mprotect": [Compared(2, MASKED_EQUAL, 4, 0)],
        "pkey_mprotect": [Compared(2, MASKED_EQUAL, 4, 0)],
    }
    for name in allowed:
        number = lib.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            continue
        for condition in conditions.get(name, [None]):
            compared = ctypes.byref(condition) if condition else None
            if lib.seccomp_rule_add_array(context, ALLOW, number, 1 if condition else 0, compared):
                sys.exit(f"no rule for {name}")
    if lib.seccomp_load(context):
        sys.exit("the filter was not loaded")


def directories(settings: dict[str, list[str]], user: int, group: int) -> list[Path]:
    made = []
    for kind, place in PLACES.items():
        for name in settings.get(kind, []):
            path = Path(place) / name
            path.mkdir(exist_ok=True)
            path.chmod(int(settings.get(f"{kind}Mode", [MODES[kind]])[-1], 8))
            os.chown(path, user, group)
            made.append(path)
    return made


def mount(*arguments: str | Path) -> None:
    subprocess.run(("mount", *arguments), check=True)


def become(settings: dict[str, list[str]]) -> None:
    """What stands between fork and exec."""
    os.setsid()
    account = pwd.getpwnam(settings["User"][-1])
    group = grp.getgrnam(settings["Group"][-1]).gr_gid
    more = [grp.getgrnam(name).gr_gid for line in settings["SupplementaryGroups"] for name in line.split()]
    made = directories(settings, account.pw_uid, group)
    libc = ctypes.CDLL(None, use_errno=True)
    if settings["ProtectSystem"] == ["strict"]:
        libc.unshare(CLONE_NEWNS)
        for path in made:
            mount("--bind", path, path)
        mount("-o", "remount,bind,ro", "/")
    if settings["CapabilityBoundingSet"] == [""]:
        for capability in range(LAST_CAPABILITY + 1):
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups(more)
    os.setresgid(group, group, group)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    os.umask(int(settings["UMask"][-1], 8))
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    restrict((STATE / "syscalls").read_text().split(), settings["RestrictAddressFamilies"][-1].split())


def start() -> int:
    settings = unit()
    STATE.mkdir(exist_ok=True)
    STATE.chmod(0o755)
    notify = STATE / "notify"
    notify.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(notify))
        notify.chmod(0o777)
        ready.settimeout(0.1)
        environment = dict(line.split("=", 1) for line in settings["Environment"])
        environment |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NOTIFY_SOCKET": str(notify)}
        with (STATE / "log").open("ab") as log, Path("/dev/null").open() as null:
            if (pid := os.fork()) == 0:
                os.dup2(null.fileno(), 0)
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                try:
                    become(settings)
                    argv = shlex.split(settings["ExecStart"][-1])
                    os.execve(argv[0], argv, environment)
                finally:
                    traceback.print_exc()
                    sys.stderr.flush()
                    os._exit(1)
        (STATE / "pid").write_text(str(pid))
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and os.waitpid(pid, os.WNOHANG) == (0, 0):
            try:
                if b"READY=1" in ready.recv(4096):
                    return 0
            except TimeoutError:
                pass
    (STATE / "pid").unlink()
    print("mkiso.service did not become ready:", (STATE / "log").read_text()[-2000:], file=sys.stderr)
    return 1


def running() -> int | None:
    """The main process, unless it has ended; nobody has waited for it then."""
    try:
        pid = int((STATE / "pid").read_text())
        return pid if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z" else None
    except FileNotFoundError:
        return None


def stop() -> int:
    settings, pid = unit(), running()
    if pid is None:
        return 0
    with (STATE / "log").open("a") as log:
        log.write("stopping\n")
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + float(settings["TimeoutStopSec"][-1])
    while running() and time.monotonic() < deadline:
        time.sleep(0.1)
    if running():
        print("mkiso.service did not stop in time", file=sys.stderr)
        os.killpg(pid, signal.SIGKILL)
    for name in settings["RuntimeDirectory"]:
        subprocess.run(("rm", "-rf", f"/run/{name}"), check=True)
    (STATE / "pid").unlink()
    return 0


def preset() -> int:
    """As Debian has it: every service is enabled."""
    WANTED.parent.mkdir(parents=True, exist_ok=True)
    WANTED.symlink_to(UNIT)
    return 0


def is_enabled() -> int:
    print("enabled" if WANTED.is_symlink() else "disabled")
    return 0


COMMANDS = {
    "preset": preset,
    "is-enabled": is_enabled,
    "is-active": lambda: 0 if running() else 3,
    "start": lambda: 0 if running() else start(),
    "stop": stop,
    "restart": lambda: stop() or start(),
}


def main(arguments: list[str]) -> int:
    command, *units = [word for word in arguments if not word.startswith("-")]
    ours = [unit.removesuffix(".service") for unit in units] == [UNIT.stem]
    return COMMANDS[command]() if ours and command in COMMANDS else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
