"""A bare Debian in a directory, from the mirror that this host's apt is configured with."""

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.tools import ROOT

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", "HOME": "/root"}
FIELDS = ("$(ORIGIN)", "$(CODENAME)", "$(COMPONENT)", "$(REPO_URI)")
# apt-get in the chroot downloads as this host does.
SETTINGS = ("Acquire::http", "Acquire::https", "Acquire::Check-Valid-Until", "Acquire::Check-Date", "Acquire::Retries")
ALLOWS_MKISO_ALONE = '#!/bin/sh\n[ "$1" = mkiso.service ] || exit 101\n'


class Chroot:
    """In memory, about 1 GB; needs root, and mounts of its own: unshare --mount."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def bootstrap(self) -> None:
        """debootstrap's smallest variant, and what a program there must find."""
        codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
        sources = [source for source in _sources() if source[0] == "Debian" and source[1].startswith(codename)]
        main = next(uri for _, suite, component, uri in sources if (suite, component) == (codename, "main"))
        self.root.mkdir()
        _run(("mount", "-t", "tmpfs", "-o", "mode=755,size=3g", "tmpfs", self.root))
        _run(("debootstrap", "--variant=minbase", codename, self.root, main))
        lines = sorted({f"deb {uri} {suite} {component}" for _, suite, component, uri in sources})
        self.write("/etc/apt/sources.list", "\n".join(lines) + "\n")
        self.write("/etc/apt/apt.conf.d/90host", _run(("apt-config", "dump", *SETTINGS)))
        self.write("/etc/resolv.conf", Path("/etc/resolv.conf").read_text())
        self.write("/usr/sbin/policy-rc.d", ALLOWS_MKISO_ALONE, 0o755)
        _run(("mount", "-t", "proc", "proc", self.root / "proc"))

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def run(self, *argv: str, user: str | None = None) -> str:
        """A program in the chroot, which asks nobody; what it says. RuntimeError where it fails."""
        whose = ("runuser", "-u", user, "--") if user else ()
        return _run(("chroot", self.root, *whose, *argv), ENVIRONMENT)

    def put_systemctl(self, unit: Path) -> None:
        """What starts and stops services, where systemd is not: for mkiso, as its unit says."""
        self.write("/usr/bin/systemctl", (ROOT / "tests/support/systemctl.py").read_text(), 0o755)
        self.write("/run/systemctl/syscalls", "\n".join(sorted(allowed_syscalls(unit))))
        self.path("/run/systemd/system").mkdir(parents=True)


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
