"""Hosts of a test's own: network namespaces on one switch, each of which can lose its cable, or its power."""

import os
import random
import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from tests.support.tools import wait_until

IP = "/usr/sbin/ip"
# Of the networks for trials of equipment (RFC 2544), which nobody routes.
NETWORK = "198.18.{}.{}"


@dataclass(frozen=True)
class Host:
    """A namespace with an address, and its port at the switch."""

    namespace: str
    address: str
    switch: str
    port: str

    @property
    def inside(self) -> tuple[str, ...]:
        """What a program's argv begins with that is to run there."""
        return IP, "netns", "exec", self.namespace

    def processes(self) -> list[int]:
        return [int(pid) for pid in _ip("netns", "pids", self.namespace).split()]

    def kill(self) -> None:
        """SIGKILL to every process there; their connections end as those of a killed process do."""
        wait_until(self._is_empty, 10, lambda: f"processes {self.processes()} do not end")

    def unplug(self) -> None:
        """From now on nothing that is sent arrives, in either direction, and nobody is told."""
        _ip("-n", self.switch, "link", "set", "dev", self.port, "down")

    def plug_in(self) -> None:
        _ip("-n", self.switch, "link", "set", "dev", self.port, "up")

    def lose_power(self) -> None:
        """Nobody is told that its processes are gone."""
        self.unplug()
        self.kill()

    def set_kernel(self, **values: int) -> None:
        """Parameters below net.ipv4 (sysctl), of this host alone."""
        for name, value in values.items():
            subprocess.run((*self.inside, "/bin/sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{name}"), check=True)

    def _is_empty(self) -> bool:
        left = self.processes()
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left


def why_not() -> str | None:
    """Why no hosts can be made here; None where they can."""
    if os.geteuid():
        return "network namespaces need root"
    name = f"mkiso-{secrets.token_hex(3)}"
    try:
        _ip("netns", "add", name)
        _ip("netns", "del", name)
    except (OSError, RuntimeError) as problem:
        return str(problem)
    return None


@contextmanager
def running_hosts(*names: str) -> Iterator[list[Host]]:
    """Hosts of these names, which reach each other and this one; gone at the end, with all that runs in them."""
    run, subnet = secrets.token_hex(3), _unused_subnet()
    switch, here = f"mkiso-{run}-switch", f"mk{run}"
    with ExitStack() as made:
        _namespace(made, switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        _ip("link", "add", here, "type", "veth", "peer", "name", "here", "netns", switch)
        made.callback(_ip, "link", "del", here)
        _into_the_switch(switch, "here")
        _ip("addr", "add", f"{NETWORK.format(subnet, 1)}/24", "dev", here)
        _ip("link", "set", here, "up")
        yield [_host(made, run, name, NETWORK.format(subnet, 10 + n), switch) for n, name in enumerate(names)]


def _host(made: ExitStack, run: str, name: str, address: str, switch: str) -> Host:
    namespace = f"mkiso-{run}-{name}"
    _namespace(made, namespace)
    _ip("-n", namespace, "link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", switch)
    _into_the_switch(switch, name)
    _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
    for device in ("lo", "eth0"):
        _ip("-n", namespace, "link", "set", "dev", device, "up")
    return Host(namespace, address, switch, name)


def _namespace(made: ExitStack, name: str) -> None:
    _ip("netns", "add", name)
    made.callback(_ip, "netns", "del", name)
    made.callback(partial(Host(name, "", "", "").kill))


def _into_the_switch(switch: str, port: str) -> None:
    _ip("-n", switch, "link", "set", "dev", port, "master", "bridge", "up")


def _unused_subnet() -> int:
    taken = _ip("-o", "-4", "addr", "show")
    return random.choice([number for number in range(256) if NETWORK.format(number, "") not in taken])


def _ip(*words: str) -> str:
    done = subprocess.run((IP, *words), capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
