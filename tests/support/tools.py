"""Starts, waits for and ends the programs that the tests talk to, and runs DCMTK's clients against them."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.support import preloaded
from tests.support.preloaded import ROOT

LOCALHOST = "127.0.0.1"
LISTEN = "0A"
_CLIENT = ("-S", "-to", "5", "-ta", "2")

# movescu says "(Success)" with -v, and the status in full with -d.
SUCCESS = re.compile(r"Final Move Response(?: \(Success\)|(?:\nD:.*)*DIMSE Status +: 0x0000)")

Listener = subprocess.Popen[bytes]
Finished = subprocess.CompletedProcess[str]


def wait_until(condition: Callable[[], bool], seconds: float, otherwise: Callable[[], str]) -> None:
    """Returns soon after the condition holds; TimeoutError, with the text of `otherwise`, after `seconds`.

    Many a condition costs the service an answer: the longer it was waited for, the less often it is asked.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited > seconds:
            raise TimeoutError(otherwise())
        time.sleep(min(max(0.005, waited / 20), 0.05))


def environment() -> dict[str, str]:
    """This process's, with Nagle's algorithm off: DCMTK otherwise loses 40 ms an instance."""
    return {**os.environ, "TCP_NODELAY": "1", "PYTHONPATH": str(ROOT)}


def listens(pid: int, port: int) -> bool:
    """Whether this very process listens on the port, in its own network namespace.

    While it has no socket, the host's are not looked at: the kernel goes through a large table for that.
    """
    with suppress(OSError):
        found = {os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
        mine = {one for one in found if one.startswith("socket:")}
        lines = (line.split() for name in ("tcp", "tcp6") if mine for line in _sockets(pid, name))
        return any(
            line[3] == LISTEN and line[1].endswith(f":{port:04X}") and f"socket:[{line[9]}]" in mine for line in lines
        )
    return False


def _sockets(pid: int, protocol: str) -> list[str]:
    """Of /proc/PID/net/tcp: local address, state and inode are the words 1, 3 and 9 (proc_net_tcp)."""
    return Path(f"/proc/{pid}/net/{protocol}").read_text().splitlines()[1:]


def start_listener(argv: Sequence[str | Path], port: int, log: Path, seconds: float = 15) -> Listener:
    """Starts a program in its own session, returns once it listens; RuntimeError, with its log, if never."""
    with log.open("wb") as output:
        process = preloaded.start(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(),
            start_new_session=True,
        )
    try:
        wait_until(lambda: _is_ready(process, port, log), seconds, lambda: _not_ready(process, port, log))
    except BaseException:
        end(process)
        raise
    return process


def _is_ready(process: Listener, port: int, log: Path) -> bool:
    if process.poll() is not None:
        raise RuntimeError(_not_ready(process, port, log))
    return listens(process.pid, port)


def _not_ready(process: Listener, port: int, log: Path) -> str:
    ended = "" if process.returncode is None else f" and ended with {process.returncode}"
    text = log.read_text(errors="replace")[-2000:]
    return f"{process.args[0]} did not listen on port {port}{ended}; its log {log} says:\n{text}"


def end(process: Listener, seconds: float = 5) -> None:
    """Ends the program and all that it forked: TERM, then KILL, to its process group."""
    end_group(process.pid, lambda: process.poll() is not None, seconds)


def end_group(leader: int, has_ended: Callable[[], bool], seconds: float = 5) -> None:
    """Sends TERM to the leader's process group, and KILL where that was not enough."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGTERM)
        with suppress(TimeoutError):
            wait_until(has_ended, seconds, str)
        os.killpg(leader, signal.SIGKILL)
    wait_until(has_ended, seconds, lambda: f"process {leader} does not end: look at it with ps -p {leader}")


@contextmanager
def listening(argv: Sequence[str | Path], port: int, log: Path) -> Iterator[Listener]:
    """A program that listens, ended with all that it forked."""
    process = start_listener(argv, port, log)
    try:
        yield process
    finally:
        end(process)


@contextmanager
def running_storescp(
    ae_title: str, port: int, directory: Path, log: Path, inside: Sequence[str] = ()
) -> Iterator[Listener]:
    """A storescp that keeps every instance as it came, in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    options = ("-v", "-aet", ae_title, "+xa", "-pm", "+B", "-pdu", "131072", "--fork", "-od", directory)
    with listening((*inside, "/usr/bin/storescp", *options, str(port)), port, log) as process:
        yield process


def run(argv: Sequence[str | Path], seconds: float = 60) -> Finished:
    """Runs a client to its end, with its log in `stderr`."""
    return subprocess.run(
        [str(word) for word in argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env=environment(),
        timeout=seconds,
        check=False,
    )


def _client(program: str, level: str, called: str, keys: Sequence[str], dimse_timeout: int) -> list[str]:
    options = [word for key in keys for word in ("-k", key)]
    return [f"/usr/bin/{program}", level, *_CLIENT, "-td", str(dimse_timeout), "-aec", called, *options]


def movescu(port: int, study_uid: str, destination: str, called: str = "ABPACS", dimse_timeout: int = 30) -> Finished:
    """A C-MOVE of one study, with every response in `stderr`."""
    keys = ("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study_uid}")
    client = _client("movescu", "-d", called, keys, dimse_timeout)
    return run((*client, "-aet", destination, "-aem", destination, LOCALHOST, str(port)))


def findscu(port: int, *keys: str, called: str = "ABPACS", dimse_timeout: int = 30) -> Finished:
    """A C-FIND with these keys, with every answer in `stderr`."""
    return run((*_client("findscu", "-v", called, keys, dimse_timeout), LOCALHOST, str(port)))


@contextmanager
def frozen(process: Listener) -> Iterator[None]:
    """A server that hangs: its kernel takes connections and what is sent, and nobody reads it.

    One thread is told that all are to stop: until it has the processor, the others go on.
    """
    leader = psutil.Process(process.pid)
    stopped = [leader, *leader.children(recursive=True)]
    _each(stopped, psutil.Process.suspend)
    try:
        wait_until(lambda: all(map(_is_stopped, stopped)), 10, lambda: f"{stopped}")
        yield
    finally:
        _each(stopped, psutil.Process.resume)


def _is_stopped(process: psutil.Process) -> bool:
    try:
        stats = [stat.read_bytes() for stat in Path(f"/proc/{process.pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):
        return False  # a thread has ended meanwhile
    return all(stat.rpartition(b") ")[2][:1] in b"TZ" for stat in stats)


def _each(processes: Sequence[psutil.Process], act: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            act(process)


HANGING = "#!/bin/sh\nexec sleep 600\n"
BROKEN = "#!/bin/sh\nexit 1\n"
DCMTK = ("findscu", "movescu", "storescp", "echoscu", "dcmmkdir", "dcmj2pnm", "dsr2html", "dcm2pdf")


def dcmtk_with(directory: Path, program: str, script: str) -> dict[str, str]:
    """DCMTK with another program in the place of one of its own, as the section `tools` of a configuration."""
    directory.mkdir()
    for name in DCMTK:
        (directory / name).symlink_to(f"/usr/bin/{name}")
    (directory / program).unlink()
    (directory / program).write_text(script)
    (directory / program).chmod(0o755)
    return {"dcmtk_dir": str(directory)}
