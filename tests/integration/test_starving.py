"""A service that cannot be starved: whoever takes jobs, reads nothing, or never ends what he asks."""

import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
import requests

from tests.integration.conftest import Site
from tests.integration.test_lifecycle import slow_archive
from tests.support.archive import running_archive
from tests.support.limited import User, filled, user_of
from tests.support.nginx import running_nginx
from tests.support.ports import free_ports
from tests.support.service import MKISO, Service, running_service, settings
from tests.support.studies import RICHARD, ct_study
from tests.support.testpacs import RunningPacs
from tests.support.tools import LOCALHOST, wait_until

LARGE = 1 << 26
THREADS, JOBS = 8, 4  # one worker with few threads: each test takes them all, and more
DISC = "/mkiso.php?accession_number=SR.001"
PROGRAM = "import mkiso.web.gunicorn as worker; worker.READ_LIMIT = 1; from gunicorn.workers import gthread; "
PROGRAM += "gthread.DEFAULT_WORKER_DATA_TIMEOUT = 600; from mkiso.commands.cli import main; main()"


def small(bind: str, **more: Any) -> dict[str, Any]:
    return {"bind": bind, "workers": 1, "threads": THREADS, **more}


@contextmanager
def serving(site: Site, program: Any = None, through: str = "TCP", **server: Any) -> Iterator[Service]:
    """A service whose discs have 64 MB, more than fits between it and a reader."""
    (site.directory / "viewer").mkdir()
    with (site.directory / "viewer" / "large.bin").open("wb") as large:
        large.truncate(LARGE)
    with TemporaryDirectory(prefix="mkiso-") as short, ExitStack() as held:  # a socket's path is to be short (unix(7))
        port, bind = free_ports(1)[0], f"unix:{short}/s"
        if through == "nginx":
            held.enter_context(running_nginx(site.directory / "nginx", port, Path(short) / "s"))
        else:
            bind = f"{LOCALHOST}:{port}"
        sections = {"media": {"viewer_dir": str(site.directory / "viewer")}, "server": small(bind, **server)}
        options = {"program": (sys.executable, "-c", program)} if program else {}
        yield held.enter_context(running_service(site.directory, port, site.settings(**sections), **options))


def connected(service: Service) -> socket.socket:
    return socket.create_connection((LOCALHOST, int(service.url.rpartition(":")[2])), timeout=20)


def asked(service: Service, path: str, more: bytes = b"") -> socket.socket:
    connection = connected(service)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() + more)
    return connection


def is_served(service: Service) -> bool:
    return service.get("/healthz").ok and service.get("/api/jobs").ok


def states(service: Service) -> list[str]:
    return [job["state"] for job in service.get("/api/jobs").json()["jobs"]]


def refuses(answer: requests.Response) -> bool:
    return answer.status_code == 503 and answer.json()["code"] == "busy" and int(answer.headers["Retry-After"]) > 0


def all_free(service: Service, work: Path) -> bool:
    return not list(work.glob("dicomdir_*")) and not {"queued", "querying", "retrieving", "mastering"} & {
        *states(service)
    }


def test_paused_downloads_leave_threads_to_the_others(site: Site) -> None:
    with serving(site) as service:
        paused = [asked(service, DISC) for _ in range(JOBS)]
        for one in paused:
            assert one.recv(12) == b"HTTP/1.1 200"
        with ThreadPoolExecutor(3 * THREADS) as pool:
            assert all(map(refuses, pool.map(lambda _: service.get(DISC), range(3 * THREADS))))
        assert is_served(service)
        for one in paused:
            one.close()
        wait_until(lambda: all_free(service, site.directory / "work"), 20, lambda: str(states(service)))
        assert service.get(DISC).status_code == 200


def test_requests_on_a_busy_receiver_leave_threads_to_the_others(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    with slow_archive(tmp_path, 0.2) as (archive, receiver, _):
        configuration = settings(tmp_path, archive, {"RECEIVER": receiver}, server=small(f"{LOCALHOST}:{port}"))
        with running_service(tmp_path, port, configuration) as service, ExitStack() as held:
            for _ in range(36):
                held.enter_context(asked(service, "/mkiso.php?accession_number=SLOW.001"))
            wait_until(lambda: len(states(service)) == JOBS, 20, lambda: str(states(service)))
            assert is_served(service)
            assert refuses(service.get("/mkiso.php?accession_number=SLOW.001"))
            held.close()
            wait_until(lambda: all_free(service, tmp_path / "work"), 20, lambda: str(states(service)))


def test_queries_of_the_archive_count_as_jobs(tmp_path: Path) -> None:
    archive, receiver, port = free_ports(3)
    ct_study(tmp_path / "held", RICHARD, "SLOW.001")
    sections = {"retrieve": {"query_timeout": 60}, "server": small(f"{LOCALHOST}:{port}")}
    configuration = settings(tmp_path, archive, {"RECEIVER": receiver}, **sections)
    with (
        running_archive(archive, {"RECEIVER": receiver}, tmp_path / "held", "hang-find"),
        running_service(tmp_path, port, configuration) as service,
        ExitStack() as held,
    ):
        for _ in range(2 * THREADS):
            held.enter_context(asked(service, "/api/studies?accession_numbers=SLOW.001"))
        wait_until(lambda: len(list(tmp_path.glob("work/dicomdir_*"))) == JOBS, 20, str)
        assert is_served(service)
        assert refuses(service.get("/api/studies?accession_numbers=SLOW.001"))
        held.close()
        wait_until(lambda: all_free(service, tmp_path / "work"), 20, str)


def is_over(connection: socket.socket) -> bool:
    """Whether the service has closed it, whatever it had said before."""
    connection.settimeout(0.1)
    try:
        while connection.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


def headers(connection: socket.socket) -> None:
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-More: ")


def form(connection: socket.socket) -> None:
    connection.sendall(b"POST /mkiso2.php HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n")
    connection.sendall(b"Content-Type: application/x-www-form-urlencoded\r\n\r\naccession_number=")


def nothing(_connection: socket.socket) -> None:
    return


@pytest.mark.parametrize("begin", [headers, form, nothing])
def test_requests_that_never_end_are_ended(begin: Callable[[socket.socket], None], site: Site) -> None:
    with serving(site, PROGRAM) as service, ExitStack() as held:
        slow = [held.enter_context(connected(service)) for _ in range(2 * THREADS)]
        for one in slow:
            begin(one)
        assert is_served(service)
        wait_until(lambda: all(map(is_over, slow)), 30, str)


def test_clients_that_do_not_say_goodbye_do_not_hold_the_worker(site: Site) -> None:
    waiting = "from gunicorn import util; util.close_graceful.__defaults__ = (600, 65536); "
    with serving(site, waiting + PROGRAM) as service, ExitStack() as held:
        for _ in range(2 * THREADS):
            staying = held.enter_context(connected(service))
            staying.sendall(b"no request\r\n\r\n")
            assert staying.recv(12) == b"HTTP/1.1 400"
        assert is_served(service)


@pytest.mark.parametrize("through", ["TCP", "nginx"])
def test_a_client_that_takes_nothing_is_cut_off(through: str, site: Site) -> None:
    with serving(site, through=through, send_timeout=1) as service, asked(service, DISC) as paused:
        assert paused.recv(12) == b"HTTP/1.1 200"
        wait_until(lambda: states(service) == ["cancelled"], 30, lambda: str(states(service)))
        wait_until(lambda: all_free(service, site.directory / "work"), 10, str)
        size = 0
        while piece := paused.recv(1 << 20):
            size += len(piece)
        assert size < LARGE


def test_slow_forms_through_nginx_hold_no_thread(site: Site) -> None:
    with serving(site, through="nginx") as service, ExitStack() as held:
        for _ in range(2 * THREADS):
            form(held.enter_context(connected(service)))
        assert is_served(service)
        assert service.get(DISC).status_code == 200


def test_nginx_refuses_as_the_service_does(site: Site) -> None:
    with serving(site, through="nginx") as service:
        refused = requests.post(f"{service.url}/mkiso2.php", data=b"x" * (1 << 17), timeout=30)
        assert (refused.status_code, refused.json()["code"]) == (413, "bad_request")
        with ExitStack() as held:
            for _ in range(20):
                form(held.enter_context(connected(service)))
            wait_until(lambda: refuses(service.get(DISC)), 20, str)
            assert is_served(service)


def test_a_client_that_had_sent_more_than_was_read_is_seen_to_leave(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    more = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2000
    with slow_archive(tmp_path, 0.2) as (archive, receiver, _):
        configuration = settings(tmp_path, archive, {"RECEIVER": receiver}, server=small(f"{LOCALHOST}:{port}"))
        with running_service(tmp_path, port, configuration) as service:
            with closing(asked(service, "/mkiso.php?accession_number=SLOW.001", more)):
                wait_until(lambda: states(service) == ["retrieving"], 20, lambda: str(states(service)))
            wait_until(lambda: states(service) == ["cancelled"], 5, lambda: str(states(service)))


PROCESSES = 120  # of the service's user: some 60 while it rests, with all threads


@contextmanager
def limited_service(pacs: RunningPacs) -> Iterator[tuple[User, Service]]:
    with user_of(PROCESSES) as user:
        configuration = Site(user.directory, pacs).settings()
        with running_service(user.directory, free_ports(1)[0], configuration, (*user.program, MKISO)) as service:
            wait_until(lambda: len(service.workers()) == 2, 10, str)
            assert service.get(DISC).status_code == 200
            yield user, service


def says(service: Service, words: str) -> int:
    return service.log.read_text().count(words)


def test_a_user_without_processes_left_ends_no_worker_and_no_service(pacs: RunningPacs) -> None:
    with limited_service(pacs) as (user, service), ThreadPoolExecutor(3 * THREADS) as pool:
        stays, killed = service.workers()
        with filled(user):
            disc = pool.submit(service.get, DISC)
            assert all(answer.ok for answer in pool.map(service.get, ["/healthz"] * 3 * THREADS))
            assert disc.result().status_code == 503
            assert "no more processes or threads" in disc.result().json()["detail"]
            killed.kill()
            # Its place is the master's, or the stranger's.
            wait_until(lambda: says(service, "start now") + says(service, "started now") > 0, 20, service.log.read_text)
            assert service.get("/healthz").ok
        wait_until(lambda: len(service.workers()) == 2, 20, service.log.read_text)
        assert stays in service.workers()
        wait_until(lambda: says(service, "worker started") == 3, 20, service.log.read_text)
        assert service.get(DISC).status_code == 200
        assert all_free(service, user.directory / "work")
        with filled(user):
            service.workers()[0].kill()
            assert service.stop() == 0


def test_a_master_without_files_left_starts_its_workers_later(site: Site) -> None:
    with serving(site) as service:
        master, (worker,) = psutil.Process(service.process.pid), service.workers()
        before = master.rlimit(psutil.RLIMIT_NOFILE)
        master.rlimit(psutil.RLIMIT_NOFILE, (3, before[1]))
        worker.kill()
        wait_until(lambda: says(service, "no worker can be started now") == 1, 10, service.log.read_text)
        master.rlimit(psutil.RLIMIT_NOFILE, before)
        wait_until(lambda: says(service, "worker started") == 2, 10, service.log.read_text)
        assert service.get(DISC).status_code == 200
