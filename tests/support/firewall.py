"""Who gets through a ruleset of nftables: a program for a network namespace of its own, which needs root.

    unshare --net python -m tests.support.firewall RULES PORT…

This host is 10.1.2.5 and fd00::5; the others are addresses at the far end of a cable. It prints the pairs of
address and port that were connected, as JSON.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.tools import wait_until

OWN = {socket.AF_INET: "10.1.2.5", socket.AF_INET6: "fd00::5"}
OTHERS = ("10.1.2.3", "10.1.2.99", "fd00::3")
LIMIT = 1.0  # s, after which a connection was dropped
CONNECT = """
import socket, sys
socket.create_connection((sys.argv[2], int(sys.argv[3])), timeout=float(sys.argv[4]), source_address=(sys.argv[1], 0))
"""


def _ip(*words: str, inside: Sequence[str] = ()) -> None:
    subprocess.run((*inside, "ip", *words), check=True)


def _address(address: str, device: str, inside: Sequence[str] = ()) -> None:
    words = (f"{address}/64", "dev", device, "nodad") if ":" in address else (f"{address}/24", "dev", device)
    _ip("address", "add", *words, inside=inside)


@contextmanager
def _far_end() -> Iterator[tuple[str, ...]]:
    """A host at the other end of a cable; how to run a program there."""
    with subprocess.Popen(("unshare", "--net", "sleep", "infinity")) as host:
        try:
            own, theirs = Path("/proc/self/ns/net"), Path(f"/proc/{host.pid}/ns/net")
            wait_until(lambda: theirs.readlink() != own.readlink(), 10, str)
            inside = ("nsenter", f"--net={theirs}")
            _ip("link", "add", "near", "type", "veth", "peer", "name", "far", "netns", str(host.pid))
            for address in OWN.values():
                _address(address, "near")
            for address in OTHERS:
                _address(address, "far", inside)
            for device, where in (("lo", ()), ("near", ()), ("far", inside)):
                _ip("link", "set", device, "up", inside=where)
            yield inside
        finally:
            host.kill()


def _connects(source: str, port: str, inside: Sequence[str]) -> bool:
    own = OWN[socket.AF_INET6 if ":" in source else socket.AF_INET]
    argv = (*inside, sys.executable, "-c", CONNECT, source, own, port, str(LIMIT))
    return subprocess.run(argv, check=False, stderr=subprocess.DEVNULL).returncode == 0


def main(rules: str, *ports: str) -> None:
    with ExitStack() as held:
        inside = held.enter_context(_far_end())
        for port in ports:
            for family, address in OWN.items():
                held.enter_context(socket.create_server((address, int(port)), family=family))
        wait_until(lambda: all(_connects(other, ports[0], inside) for other in OTHERS), 30, lambda: "no way")
        subprocess.run(("/usr/sbin/nft", "-f", rules), check=True)
        callers = [("127.0.0.1", ()), *((other, inside) for other in OTHERS)]
        got = [(who, port) for who, where in callers for port in ports if _connects(who, port, where)]
    print(json.dumps(got))


if __name__ == "__main__":
    main(*sys.argv[1:])
