"""A bare Debian in a directory, from the mirror that this host's apt is configured with."""

import ctypes
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.tools import ROOT

CLONE_NEWNET = 0x40000000
INSIDE = "MKISO_TEST_CHROOT"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OF_THIS_HOST = ("JAVA_TOOL_OPTIONS", "MALLOC_ARENA_MAX")  # where it bounds the addresses of a process
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", "HOME": "/root"} | {
    name: os.environ[name] for name in OF_THIS_HOST if name in os.environ
}
FIELDS = ("$(ORIGIN)", "$(CODENAME)", "$(COMPONENT)", "$(REPO_URI)")
# apt-get in the chroot downloads as this host does.
SETTINGS = ("Acquire::http", "Acquire::https", "Acquire::Check-Valid-Until", "Acquire::Check-Date", "Acquire::Retries")
ALLOWS_MKISO_ALONE = '#!/bin/sh\n[ "$1" = mkiso.service ] || exit 101\n'


class Chroot:
    """In memory, about 1 GB when bare; needs root, and mounts of its own: unshare --mount."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def bootstrap(self) -> None:
        """debootstrap's smallest variant, and what a program there must find."""
        codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
        sources = [source for source in _sources() if source[0] == "Debian" and source[1].startswith(codename)]
        main = next(uri for _, suite, component, uri in sources if (suite, component) == (codename, "main"))
        self.root.mkdir()
        _run(("mount", "-t", "tmpfs", "-o", "mode=755,size=8g", "tmpfs", self.root))
        _run(("debootstrap", "--variant=minbase", codename, self.root, main))
        lines = sorted({f"deb {uri} {suite} {component}" for _, suite, component, uri in sources})
        self.write("/etc/apt/sources.list", "\n".join(lines) + "\n")
        self.write("/etc/apt/apt.conf.d/90host", _run(("apt-config", "dump", *SETTINGS)))
        self.write("/etc/resolv.conf", Path("/etc/resolv.conf").read_text())
        self.write("/etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {platform.node()}\n")  # as Debian's installer does
        self.write("/usr/sbin/policy-rc.d", ALLOWS_MKISO_ALONE, 0o755)
        _run(("mount", "-t", "proc", "proc", self.root / "proc"))
        _run(("mount", "-t", "devpts", "-o", "newinstance,ptmxmode=666", "devpts", self.root / "dev/pts"))

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def bind(self, path: Path) -> None:
        """A file or directory of this host, to be read at the same place there."""
        place = self.path(str(path))
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        _run(("mount", "--bind", path, place))
        _run(("mount", "-o", "remount,bind,ro", place))

    def run(self, *argv: str, user: str | None = None) -> str:
        """A program in the chroot, which asks nobody; what it says. RuntimeError where it fails."""
        whose = ("runuser", "-u", user, "--") if user else ()
        return _run(("chroot", self.root, *whose, *argv), ENVIRONMENT)

    def failure(self, *argv: str, user: str | None = None) -> str:
        """What a program says that fails; nothing where it does not."""
        try:
            self.run(*argv, user=user)
        except RuntimeError as problem:
            return str(problem)
        return ""

    def start(self, *argv: str, **environment: str) -> subprocess.Popen[bytes]:
        """A program in the chroot that says what it says here."""
        words = ("chroot", self.root, *argv)
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, env={**ENVIRONMENT, **environment})

    def put_systemctl(self, unit: Path) -> None:
        """What starts and stops services, where systemd is not: for mkiso, as its unit says."""
        self.write("/usr/bin/systemctl", (ROOT / "tests/support/systemctl.py").read_text(), 0o755)
        self.write("/run/systemctl/syscalls", "\n".join(sorted(allowed_syscalls(unit))))
        self.path("/run/systemd/system").mkdir(parents=True)


def in_namespaces(module: str, live: Callable[[Path], None]) -> int:
    """Has `live` work in an empty directory, mounts and processes ending with it, whatever becomes of it.

    For the main of a module, which is run again there, as root, and ends there; gives the exit status here.
    """
    if inside := os.environ.pop(INSIDE, None):
        if child := os.fork():
            sys.exit(_first_process(child))
        live(Path(inside))
        sys.exit()
    if os.geteuid() != 0:
        print(f"{module} needs root: debootstrap and chroot do", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="mkiso-chroot-") as directory:
        Path(directory).chmod(0o755)
        namespaces = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        argv = (*namespaces, sys.executable, "-m", module, *sys.argv[1:])
        return subprocess.run(argv, env={**os.environ, INSIDE: directory}, check=False).returncode


def _first_process(child: int) -> int:
    """Wait for whoever's parent has died, which else counts as one of its user's processes; the child's exit status."""
    while True:
        ended, status = os.wait()
        if ended == child:
            return os.waitstatus_to_exitcode(status)


def leave_the_network() -> None:
    """From now on this thread, and what it starts, reach nothing but a loopback of their own, which keeps little of
    what is sent: a disc whose reader stops does not fit into the kernel's buffers (tcp(7))."""
    ctypes.CDLL(None).unshare(CLONE_NEWNET)
    _run(("ip", "link", "set", "lo", "up"))
    for direction in ("rmem", "wmem"):
        Path(f"/proc/sys/net/ipv4/tcp_{direction}").write_text("4096 65536 262144\n")


def allowed_syscalls(unit: Path) -> set[str]:
    """What the lines SystemCallFilter= of a unit leave, its first one being an allow list (systemd.exec(5))."""
    allowed = _expanded("@default")
    for line in unit.read_text().splitlines():
        name, _, value = line.partition("=")
        if name == "SystemCallFilter":
            calls = set().union(*map(_expanded, value.removeprefix("~").split()))
            allowed = allowed - calls if value.startswith("~") else allowed | calls
    return allowed


def _expanded(name: str) -> set[str]:
    if not name.startswith("@"):
        return {name}
    lines = _run(("systemd-analyze", "syscall-filter", name)).splitlines()[1:]
    return set().union(*(_expanded(line.strip()) for line in lines if line.strip() and "#" not in line))


def _sources() -> list[list[str]]:
    said = _run(("apt-get", "indextargets", "--format", "|".join(FIELDS), "Created-By: Packages"))
    return [line.split("|") for line in said.splitlines()]


def _run(argv: Sequence[str | Path], environment: dict[str, str] | None = None) -> str:
    words = [str(word) for word in argv]
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment or dict(os.environ),
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout
