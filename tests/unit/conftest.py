"""What the unit tests share."""

import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from flask import Flask
from jinja2 import FileSystemBytecodeCache
from pytest_subprocess import FakeProcess
from werkzeug.routing import Rule

from mkiso.dcmtk.association import Peer
from mkiso.process import Child

# How long an example takes says something of the machine alone.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
CAPTURED = Path(__file__).parents[1] / "fixtures" / "dcmtk"


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Templates and routes, not by each of a thousand applications."""
    compiled: dict[object, Any] = {}
    compile_builder = Rule._compile_builder

    def builder(rule: Rule, append_unknown: bool = True) -> Any:
        key = (rule.rule, repr(rule.defaults), append_unknown)
        if key not in compiled:
            compiled[key] = compile_builder(rule, append_unknown)
        return compiled[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rule, "_compile_builder", builder)
        kept = FileSystemBytecodeCache(str(tmp_path_factory.mktemp("templates")))
        patch.setattr(Flask, "jinja_options", {**Flask.jinja_options, "bytecode_cache": kept})
        yield


@pytest.fixture
def fake(fp: FakeProcess, monkeypatch: pytest.MonkeyPatch) -> FakeProcess:
    """Fake programs. Their pids are those of strangers: no signal may leave this process."""

    def refuse(pid: int, _signal: int) -> None:
        raise AssertionError(f"a signal to the fake process {pid}")

    monkeypatch.setattr(os, "killpg", refuse)
    monkeypatch.setattr(os, "kill", refuse)
    monkeypatch.setattr(Child, "ends_within", lambda *_of_strangers: True)
    monkeypatch.setattr(os, "setpriority", lambda *_of_strangers: None)
    monkeypatch.setattr(resource, "prlimit", lambda *_of_strangers: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return fp


@pytest.fixture
def captured() -> Callable[[str], str]:
    """The output of a real DCMTK program, by the name of its capture."""
    return lambda name: (CAPTURED / f"{name}.txt").read_text()


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Poll until a condition holds; a generous limit turns a hang into a failure."""

    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, "it never came to hold"
            time.sleep(0.01)

    return wait


@pytest.fixture
def pacs() -> Peer:
    return Peer(called="ABPACS", host="pacs.example", port=11112, calling="CDRECORD", connect_timeout=10)
