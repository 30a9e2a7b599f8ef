"""A disc of 525 MB from genisoimage's pipe to a socket, copied by the worker or not: the processor time of each way.

Of genisoimage, of who passes it on, and of who reads it: what one saves may be another's.
"""

import fcntl
import os
import resource
import socket
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from mkiso.disc.product import CHUNK, PIPE
from mkiso.process import Child, spawned
from mkiso.web.live import Client

FILES, SIZE, RUNS = 1_000, 525_000, 7
BUFFER = 16_384  # of the reader, as curl has it
Way = Callable[[Child, Client], None]


def ends(kind: str) -> tuple[socket.socket, socket.socket]:
    if kind == "unix":
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        return listener.accept()[0], theirs


def copied(child: Child, client: Client) -> None:
    while chunk := child.read(CHUNK, lambda: None):
        client.sendall(chunk)


def taken(child: Child, client: Client) -> None:
    child.pour(client.take, 1 << 62, lambda: None)


def processor(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def seconds(files: Path, kind: str, way: Way) -> tuple[float, float]:
    """Of the process that passes the disc on, and of all three."""
    ours, theirs = ends(kind)
    reader = os.fork()
    if not reader:
        ours.close()
        while theirs.recv(BUFFER):
            pass
        os._exit(0)
    theirs.close()
    own, others = processor(resource.RUSAGE_SELF), processor(resource.RUSAGE_CHILDREN)
    argv = ("/usr/bin/genisoimage", "-quiet", "-r", "-J", "-f", str(files))
    log = files.parent / "log"
    with Client(fileno=ours.detach()) as client, spawned(argv, cwd=files.parent, log=log, piped=True) as child:
        fcntl.fcntl(child.stdout, fcntl.F_SETPIPE_SZ, PIPE)
        way(child, client)
    own = processor(resource.RUSAGE_SELF) - own
    os.waitpid(reader, 0)
    return own, own + processor(resource.RUSAGE_CHILDREN) - others


def main(_arguments: Sequence[str] = ()) -> int:
    with tempfile.TemporaryDirectory(prefix="mkiso-bench-", dir="/var/tmp") as name:
        files = Path(name, "files")
        files.mkdir()
        for number in range(FILES):
            (files / f"{number}").write_bytes(os.urandom(SIZE))
        ways = [(kind, way) for kind in ("unix", "TCP") for way in (copied, taken)]
        measured = [[seconds(files, *way) for way in ways] for _ in range(RUNS)]
    for number, (kind, way) in enumerate(ways):
        own, everybody = (statistics.median(each) for each in zip(*(run[number] for run in measured), strict=True))
        print(f"{kind:5}{way.__name__:7} {own:.3f} s of who passes it on, {everybody:.3f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
