"""Who listens where: one service at an address, and no socket of another's is touched."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
import yaml

from tests.integration.conftest import Site
from tests.support import preloaded
from tests.support.ports import free_ports
from tests.support.service import MKISO, mkiso
from tests.support.tools import LOCALHOST, environment, wait_until

REQUEST = b"GET /healthz HTTP/1.0\r\n\r\n"


@pytest.fixture(params=["port", "path"])
def bind(request: pytest.FixtureRequest) -> Iterator[str]:
    """An address for a service: the path of a socket is to be short (unix(7))."""
    if request.param == "port":
        yield f"{LOCALHOST}:{free_ports(1)[0]}"
        return
    with TemporaryDirectory(prefix="mkiso-") as directory:
        yield f"unix:{directory}/mkiso.sock"


def connected(bind: str) -> socket.socket:
    family, address = _address(bind)
    connection = socket.socket(family)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


def _address(bind: str) -> tuple[int, Any]:
    if bind.startswith("unix:"):
        return socket.AF_UNIX, bind.removeprefix("unix:")
    return socket.AF_INET, (LOCALHOST, int(bind.rpartition(":")[2]))


def answers(bind: str) -> bool:
    try:
        with connected(bind) as connection:
            connection.sendall(REQUEST)
            return b" 200 OK" in connection.recv(100)
    except OSError:
        return False


@pytest.fixture
def configured(site: Site, bind: str) -> Path:
    file = site.directory / "mkiso.yaml"
    file.write_text(yaml.safe_dump(site.settings(server={"bind": bind, "workers": 1, "threads": 8})))
    return file


@pytest.fixture
def start(configured: Path, bind: str) -> Callable[[], Any]:
    """Run a service, answering, for a while."""

    @contextmanager
    def running() -> Iterator[subprocess.Popen[bytes]]:
        log = configured.with_suffix(".log")
        with log.open("ab") as output:
            command = (MKISO, "serve", "--config", configured)
            process = preloaded.start(command, stdout=output, stderr=output, env=environment())
        try:
            wait_until(lambda: answers(bind), 20, log.read_text)
            yield process
        finally:
            process.terminate()
            process.wait(60)

    return running


def test_a_second_service_at_an_address_ends_at_once_and_leaves_the_first_alone(
    start: Callable[[], Any], configured: Path, bind: str
) -> None:
    with start() as first:
        second = mkiso("serve", "--config", configured)
        assert (second.returncode, b"mkiso: already running: " in second.stderr) == (2, True), second.stderr
        assert answers(bind)
        assert first.poll() is None


def test_a_service_that_answers_nobody_just_now_is_known_all_the_same(
    start: Callable[[], Any], configured: Path
) -> None:
    with start() as first:
        processes = [psutil.Process(first.pid), *psutil.Process(first.pid).children()]
        for one in processes:
            one.suspend()
        try:
            second = mkiso("serve", "--config", configured)
        finally:
            for one in processes:
                one.resume()
        assert (second.returncode, b"mkiso: already running: " in second.stderr) == (2, True), second.stderr


def test_of_several_that_start_at_once_one_serves(configured: Path, bind: str) -> None:
    command = (MKISO, "serve", "--config", configured)
    started = [preloaded.start(command, stderr=subprocess.DEVNULL, env=environment()) for _ in range(4)]
    try:
        wait_until(lambda: sorted(one.poll() or 0 for one in started) == [0, 2, 2, 2], 30, lambda: f"{started}")
        wait_until(lambda: answers(bind), 20, lambda: f"{started}")
    finally:
        for one in started:
            one.terminate()
            one.wait(60)


def test_a_program_that_is_no_mkiso_keeps_its_address(configured: Path, bind: str) -> None:
    family, address = _address(bind)
    with socket.socket(family) as other:
        other.bind(address)
        other.listen()
        ended = mkiso("serve", "--config", configured)
        assert (ended.returncode, b"is taken" in ended.stderr) == (2, True), ended.stderr
        assert b"already running" not in ended.stderr
        connected(bind).close()


def test_an_address_that_cannot_be_had_is_told(configured: Path, bind: str) -> None:
    nowhere = "unix:/nowhere/mkiso.sock" if bind.startswith("unix:") else "192.0.2.1:8080"
    configured.write_text(configured.read_text().replace(bind, nowhere))
    ended = mkiso("serve", "--config", configured)
    assert (ended.returncode, b"server.bind" in ended.stderr) == (2, True), ended.stderr


def test_a_service_that_was_killed_is_followed_by_the_next(
    start: Callable[[], Any], configured: Path, bind: str
) -> None:
    log = configured.with_suffix(".log")
    with start() as killed:
        killed.kill()
        killed.wait()
        with start():  # what answered may still be a worker of the one before
            wait_until(lambda: log.read_text().count("ready bind=") == 2, 20, log.read_text)
            wait_until(lambda: answers(bind), 20, log.read_text)


@pytest.mark.parametrize("bind", ["path"], indirect=True)
class TestTheFileOfASocket:
    def test_a_dead_one_is_replaced(self, start: Callable[[], Any], bind: str) -> None:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(bind.removeprefix("unix:"))
        with start():
            pass

    def test_it_is_gone_with_its_service(self, start: Callable[[], Any], bind: str) -> None:
        with start() as service:
            service.terminate()
            assert service.wait(60) == 0
        assert not os.path.exists(bind.removeprefix("unix:"))

    def test_another_ones_of_the_same_name_stays(self, start: Callable[[], Any], bind: str) -> None:
        path = bind.removeprefix("unix:")
        with start() as service, socket.socket(socket.AF_UNIX) as other:
            os.unlink(path)
            other.bind(path)
            other.listen()
            service.terminate()
            assert service.wait(60) == 0
            connected(bind).close()

    def test_what_is_no_socket_stays(self, configured: Path, bind: str) -> None:
        file = Path(bind.removeprefix("unix:"))
        file.write_text("a file")
        assert mkiso("serve", "--config", configured).returncode == 2
        assert file.read_text() == "a file"
