"""A parent that has imported what the tests start, so that a service or an archive starts in milliseconds.

What it forks is what `python -m MODULE` or `python -c CODE` starts, but for the imports that are done already: its
arguments, environment, directory and streams are its own, and its parent is the process of the tests.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mkiso

ROOT = Path(__file__).resolve().parents[2]
MKISO = ROOT / "bin" / "mkiso"
BESIDE_MKISO = (
    "gunicorn.workers.gthread",
    "psycopg",
    "pymysql",
    "sqlalchemy.dialects.mysql.pymysql",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "tests.support.archive",
    "tests.support.destination",
    "tests.support.strange",
)
LONGEST_REQUEST = 1 << 17
PYTHON = ctypes.PyDLL(None)  # and libc
CLONE, CLONE_PARENT = {"x86_64": 56, "aarch64": 220}, 0x8000  # clone(2): its number, and the flag

_requests: list[socket.socket] = []  # to the parent, where there is one
_one_at_a_time = threading.Lock()


def start(argv: Sequence[object], **options: Any) -> "subprocess.Popen[Any]":
    """Start a program; `bin/mkiso` and this Python from the parent, where there is one. Options are Popen's."""
    words = [str(word) for word in argv]
    if words[0] == str(MKISO):
        words[:1] = [sys.executable, "-m", "mkiso.commands.cli"]
    forked = _requests and words[0] == sys.executable and words[1] in ("-m", "-c")
    return (Forked if forked else subprocess.Popen)(words, **options)


class Forked(subprocess.Popen[Any]):
    """A `python -m` or `python -c`, run by a process that was forked from the parent, and all that a Popen does.

    Where a Python calls its private method with other words than 3.11's does, no program starts.
    """

    def _execute_child(self, args: Sequence[str], *words: Any) -> None:
        _executable, _preexec, _close, _pass, cwd, env, _info, _flags, _shell, *others = words
        ends, (*_rest, in_new_session, _group) = others[:6], others[6:]
        request = {
            "arguments": args[1:],
            "environment": dict(os.environ if env is None else env),
            "directory": os.fspath(cwd or Path.cwd()),
            "in_new_session": in_new_session,
        }
        try:
            self.pid = _forked(request, [own if end == -1 else end for own, end in enumerate(ends[0::3] + ends[5:])])
        finally:
            self._close_pipe_fds(*ends)  # type: ignore[attr-defined]
        self._child_created = True


def _forked(request: Mapping[str, object], streams: Sequence[int]) -> int:
    (parent,) = _requests
    with _one_at_a_time:
        socket.send_fds(parent, [json.dumps(request).encode()], streams)
        return int(parent.recv(100))


@contextmanager
def parent() -> Iterator[None]:
    """While the block runs, programs are forked."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    code = f"from tests.support import preloaded; preloaded.serve({its.fileno()})"
    # glibc reads it as a program starts: bin/mkiso has it so.
    environment = {"MALLOC_ARENA_MAX": "2", **os.environ, "PYTHONPATH": str(ROOT)}
    streams = dict.fromkeys(("stdin", "stdout"), subprocess.DEVNULL)
    with (
        ours,
        subprocess.Popen((sys.executable, "-c", code), pass_fds=[its.fileno()], env=environment, **streams) as process,
    ):
        its.close()
        assert ours.recv(100) == b"ready", f"the parent ended with {process.wait()}"
        _requests.append(ours)
        try:
            yield
        finally:
            _requests.remove(ours)
            ours.close()


def serve(descriptor: int) -> None:
    """Fork a process for each request, until there is nobody to ask; it goes on from here as the module."""
    requests = socket.socket(fileno=descriptor)
    for name in (*_modules_of_mkiso(), *BESIDE_MKISO):
        importlib.import_module(name)
    assert threading.active_count() == 1, "a thread is not forked with the others"
    gc.collect()
    gc.freeze()
    requests.send(b"ready")
    while True:
        message, streams, _flags, _address = socket.recv_fds(requests, LONGEST_REQUEST, 3)
        if not message:
            return
        child = _fork()
        if child == 0:
            break
        for stream in streams:
            os.close(stream)
        requests.send(str(child).encode())
    requests.close()
    _become(json.loads(message), streams)


def _modules_of_mkiso() -> list[str]:
    found = pkgutil.walk_packages(mkiso.__path__, "mkiso.")
    return [one.name for one in found if "migrations" not in one.name and not one.name.endswith("as_it_is")]


def _fork() -> int:
    """As os.fork, but the new process is a child of this one's parent."""
    PYTHON.PyOS_BeforeFork()
    child = int(PYTHON.syscall(CLONE[os.uname().machine], CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0))
    if child == 0:
        PYTHON.PyOS_AfterFork_Child()
    else:
        PYTHON.PyOS_AfterFork_Parent()
    return child


def _become(request: Mapping[str, Any], streams: Sequence[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    if request["in_new_session"]:
        os.setsid()
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    option, program, *words = request["arguments"]
    sys.argv[:] = [option, *words]
    try:
        _run(option, program)
    except SystemExit as problem:
        _end(problem.code)
        raise
    _end(0)


def _run(option: str, program: str) -> None:
    if option == "-c":
        exec(program, {"__name__": "__main__"})
        return
    sys.modules.pop(program, None)  # or runpy warns that it was imported already
    runpy.run_module(program, run_name="__main__", alter_sys=True)


def _end(status: object) -> None:
    """End as Python does, but take nothing apart: whatever is touched would be copied from the parent's memory first.

    Threads are waited for, and what was left for the exit is done. Returns where Python has something to say.
    """
    if status is not None and not isinstance(status, int):
        return
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except (OSError, ValueError):
        return
    os._exit((status or 0) & 0xFF)
