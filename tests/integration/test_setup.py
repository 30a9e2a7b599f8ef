"""What `make` installs: what the lock files name, whatever has been released since, and no more than a target needs."""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distributions, packages_distributions
from pathlib import Path
from typing import Any

import pytest

from tests.support.newer import locked, normal
from tests.support.programs import packages
from tests.support.tools import ROOT

OF_HOST = ("requirements-build.lock", "requirements.lock")
OF_DEVELOPERS = (*OF_HOST, "requirements-dev.lock")
RUNNING = ("setup", "demo", "serve", "deb")
DEVELOPING = ("lint", "test", "coverage", "smoke-test", "test-package", "bench", "screenshots")


def versions(**where: Any) -> dict[str, str]:
    return {normal(one.name): one.version for one in distributions(**where)}


def test_the_tests_run_with_what_the_lock_names() -> None:
    """In CI, where pip finds later releases of everything."""
    assert versions().items() >= locked("requirements-dev.lock").items()
    for lock in OF_HOST:
        assert locked("requirements-dev.lock").items() >= locked(lock).items()


def test_pip_is_asked_to_resolve_nothing() -> None:
    """Every way in: the checkout's, the package's, CI's."""
    texts = [(ROOT / file).read_text() for file in ("Makefile", "packaging/build", ".ci/run", "bin/install-locked")]
    lines = re.sub(r"\\\n\s*", "", "\n".join(texts)).splitlines()
    installs = [line for line in lines if re.search(r"\bpip\b.*\b(install|wheel)\b", line, re.I) and line[0] != "#"]
    assert len(installs) >= 4
    assert [line for line in installs if "--no-deps" not in line and "build/lock" not in line] == []


@pytest.mark.parametrize("program", ["tests.demo", "tests.support.testpacs"])
def test_the_demo_and_its_pacs_run_with_what_a_host_has(program: str) -> None:
    host = {*locked("requirements.lock"), "mkiso"}
    missing = [name for name, of in packages_distributions().items() if host.isdisjoint(map(normal, of))]
    assert {"pytest", "requests"} <= {*missing}
    without = f"import sys; sys.modules.update(dict.fromkeys({missing})); import {program}"
    done = subprocess.run((sys.executable, "-c", without), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_of_every_package_that_tests_need_it_is_known_how_it_starts() -> None:
    assert {"chromium", "dcmtk", "libatomic1"} <= {*packages()}


def made(root: Path, target: str) -> list[str]:
    """The lock files that `make TARGET` would install in this checkout."""
    told = subprocess.run(("make", "--dry-run", target), cwd=root, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^bin/install-locked \S+ (\S+)$", told, re.M)
    return list(dict.fromkeys(found))  # a make within, which makes nothing either, tells it once more


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for file in ("Makefile", "setup.cfg", "pyproject.toml", *OF_DEVELOPERS):
        shutil.copy(ROOT / file, tmp_path)
    return tmp_path


@pytest.mark.parametrize("target", RUNNING)
def test_a_host_is_given_no_tools_of_developers(checkout: Path, target: str) -> None:
    assert made(checkout, target) == [*OF_HOST]


@pytest.mark.parametrize("target", DEVELOPING)
def test_developers_are_given_their_tools_beside_it(checkout: Path, target: str) -> None:
    assert made(checkout, target) == [*OF_DEVELOPERS]


def test_what_is_installed_is_installed_once(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv/installed").touch()
    assert (made(checkout, "serve"), made(checkout, "test")) == ([], ["requirements-dev.lock"])
    (checkout / ".venv/developed").touch()
    assert [made(checkout, target) for target in (*RUNNING, *DEVELOPING)] == [[]] * (len(RUNNING) + len(DEVELOPING))


@pytest.mark.parametrize("lock", OF_DEVELOPERS)
def test_after_a_change_of_a_lock_nothing_is_left_that_it_no_longer_names(checkout: Path, lock: str) -> None:
    (checkout / ".venv").mkdir()
    for stamp in ("installed", "developed"):
        (checkout / ".venv" / stamp).touch()
    os.utime(checkout / lock, (4e9, 4e9))
    assert made(checkout, "serve") == [*OF_HOST]
    assert made(checkout, "test") == [*OF_DEVELOPERS]
