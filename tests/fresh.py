"""`make test-fresh`: README's commands as a newcomer meets them, in a bare chroot; by hand, before a release.

A clone of what is committed here, on a Debian with git, make and python3: `make demo`, `make serve` and a disc of every
study of the test PACS, then all of `make test`. What each takes is printed.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.chroot import Chroot, in_namespaces, leave_the_network
from tests.support.newer import later_releases
from tests.support.tools import ROOT, wait_until

BARE = ("git", "make", "python3", "ca-certificates")
CLONE = "/srv/mkiso"
HEALTH = "http://127.0.0.1:8080/healthz"
TOOLS = ("pytest", "mypy", "playwright", "ruff")
# What this host's clients of package registries are told by their environment, and where its certificates are.
TOLD = re.compile(r"(PIP_|NPM_CONFIG_|SSL_CERT_|REQUESTS_CA|CURL_CA|NODE_EXTRA_CA|HTTPS?_PROXY|NO_PROXY)", re.I)
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n", re.S)
STUDIES = """\
import json, tempfile
from pathlib import Path
from tests.support.studies import standard_studies
with tempfile.TemporaryDirectory() as directory:
    print(json.dumps([(study.accession, study.patient_id) for study in standard_studies(Path(directory))]))"""


@contextmanager
def step(what: str) -> Iterator[None]:
    began = time.monotonic()
    print(f"\n== {what}", flush=True)
    yield
    print(f"ok  {time.monotonic() - began:4.0f} s  {what}", flush=True)


def trust_as_this_host_does(chroot: Chroot) -> None:
    bundle = Path("/etc/ssl/certs/ca-certificates.crt").read_text()
    for number, certificate in enumerate(CERTIFICATE.findall(bundle)):
        chroot.write(f"/usr/local/share/ca-certificates/host-{number}.crt", certificate)
    chroot.run("update-ca-certificates")


def configure_pip_as_here(chroot: Chroot) -> None:
    """The files that it reads, and what they and its environment name: constraints, indexes beside the registry."""
    debugged, listed = (_pip_config(word) for word in ("debug", "list"))
    read = re.findall(r"^  (/.+), exists: True$", debugged, re.M)
    named = re.findall(r"(?:file://|(?<=[' ]))(/[^' ]+)", listed)
    for path in {Path(one) for one in (*read, *named)}:
        place = path.parent if path.name == "simple" else path  # the files of an index lie beside it
        if place.exists() and not chroot.path(str(place)).exists():
            chroot.bind(place)


def _pip_config(word: str) -> str:
    argv = (sys.executable, "-m", "pip", "config", word)
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


class Clone:
    """The clone in a bare chroot, and what a person does in it."""

    def __init__(self, chroot: Chroot, later: Path | None) -> None:
        self._chroot = chroot
        self._environment = {name: value for name, value in os.environ.items() if TOLD.match(name)}
        if later:
            found = f"{self._environment.get('PIP_FIND_LINKS', '')} {later}".strip()
            self._environment["PIP_FIND_LINKS"] = found

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        """A command that says what it says where the person sees it."""
        return self._chroot.start(*self._there(argv), **self._environment)

    def do(self, *argv: str) -> None:
        with self.start(*argv) as running:
            if running.wait():
                raise RuntimeError(f"{' '.join(argv)} ended with {running.returncode}")

    def told(self, *argv: str) -> str:
        """What a command says that ends well; RuntimeError where it does not."""
        return self._chroot.run(*self._there(argv))

    def failure(self, *argv: str) -> str:
        """What a command says that fails; nothing where it does not."""
        return self._chroot.failure(*self._there(argv))

    def has(self, library: str) -> bool:
        return any(self._chroot.path(CLONE).glob(f".venv/lib/python3*/site-packages/{library}"))

    @staticmethod
    def _there(argv: Sequence[str]) -> tuple[str, ...]:
        return ("sh", "-c", f'cd {CLONE} && exec "$@"', "sh", *argv)


def healthy() -> bool:
    with suppress(OSError), urllib.request.urlopen(HEALTH, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def serve(clone: Clone) -> None:
    """The second command, and discs of what bin/testpacs holds, where nothing but loopback is reached."""
    leave_the_network()
    with step("make serve answers"):
        service = clone.start("make", "serve")
        wait_until(lambda: healthy() or service.poll() is not None, 300, lambda: "make serve does not answer")
        assert healthy(), service.returncode
    try:
        with step("a disc of every study, verified"):
            clone.told("bin/testpacs", "start")
            make_discs(clone)
            clone.told("bin/testpacs", "stop")
    finally:
        service.terminate()
        service.wait(60)


def make_discs(clone: Clone) -> None:
    patients: dict[str, set[str]] = {}
    for accession, patient in json.loads(clone.told(".venv/bin/python", "-c", STUDIES)):
        patients.setdefault(accession, set()).add(patient)
    for accession, of in patients.items():
        iso = ("bin/mkiso", "iso", accession, "-o", f"/tmp/{accession}.iso")
        if len(of) > 1:
            assert "different patients" in clone.failure(*iso)
        else:
            clone.told(*iso)
            clone.told("bin/mkiso", "verify", f"/tmp/{accession}.iso")


def live(directory: Path) -> None:
    options = parser().parse_args()
    chroot = Chroot(directory / "root")
    with step(f"a bare Debian with {', '.join(BARE)}"):
        chroot.bootstrap()
        chroot.run("apt-get", "update", "-qq")
        chroot.run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *BARE)
        trust_as_this_host_does(chroot)
        configure_pip_as_here(chroot)
        if options.later:
            later_releases(chroot.path("/srv/later"))
        chroot.bind(ROOT / ".git")
        chroot.run("git", "clone", "--quiet", str(ROOT / ".git"), CLONE)
    clone = Clone(chroot, Path("/srv/later") if options.later else None)
    with step("make demo"):
        clone.do("make", "demo")
    with ThreadPoolExecutor(1) as apart:
        apart.submit(serve, clone).result()
    assert [name for name in TOOLS if clone.has(name)] == [], "a host was given tools of developers"
    if not options.without_tests:
        with step("make test"):
            clone.do("make", "test")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make test-fresh")
    parser.add_argument("--later", action="store_true", help="pip finds a later release of every package")
    parser.add_argument("--without-tests", action="store_true", help="README's two commands and the discs alone")
    return parser


if __name__ == "__main__":
    sys.exit(in_namespaces("tests.fresh", live))
