"""nginx in front of two hosts, of which one is away; the tunnel to the second one, as docs/hosts.md has it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import requests

from tests.integration.conftest import Site
from tests.support.certificates import Authority
from tests.support.nginx import running_nginx
from tests.support.ports import free_ports
from tests.support.service import running_service
from tests.support.stunnel import running_end
from tests.support.tools import LOCALHOST


@contextmanager
def one_of_two_hosts(site: Site) -> Iterator[str]:
    """A URL; nginx goes on to ask the host that is away, as at the first request."""
    port, away = free_ports(2)
    with TemporaryDirectory(prefix="mkiso-") as short:  # a socket's path is to be short (unix(7))
        socket = Path(short) / "s"
        configuration = site.settings(server={"bind": f"unix:{socket}"})
        with (
            running_nginx(site.directory / "nginx", port, socket, f"{LOCALHOST}:{away} max_fails=0") as url,
            running_service(site.directory, port, configuration),
        ):
            yield url


def statuses(url: str, path: str) -> set[int]:
    return {requests.get(url + path, timeout=60).status_code for _ in range(6)}


def test_what_moves_nothing_is_asked_of_the_host_that_is_there(site: Site) -> None:
    with one_of_two_hosts(site) as url:
        assert statuses(url, "/api/jobs") == {200}


def test_what_moves_something_is_asked_for_once(site: Site) -> None:
    with one_of_two_hosts(site) as url:
        assert statuses(url, "/mkiso.php?accession_number=NONE.001") == {404, 502}


@pytest.fixture(scope="module")
def to_second_host(site_of_module: Site) -> Iterator[tuple[str, str]]:
    """Two URLs that a tunnel takes to a service: from the first host, and from one with a certificate of another CA."""
    directory = site_of_module.directory
    hospital, other = Authority(directory / "hospital"), Authority(directory / "other")
    first, second = (hospital.pair(f"{n}", host=f"mkiso{n}.hospital.example") for n in (1, 2))
    stranger = other.pair("stranger", host="mkiso1.hospital.example")
    own, theirs, accepting = free_ports(3)
    with TemporaryDirectory(prefix="mkiso-") as short, ExitStack() as running:
        bind = f"unix:{short}/s"
        led = {"10.1.2.6:8443": f"{LOCALHOST}:{accepting}", "/run/mkiso/mkiso.sock": f"{short}/s"}
        running.enter_context(running_end(directory / "second.conf", "second", second, hospital.certificate, led))
        for port, pair in ((own, first), (theirs, stranger)):
            leading = {f"{LOCALHOST}:8443": f"{LOCALHOST}:{port}", "10.1.2.6:8443": f"{LOCALHOST}:{accepting}"}
            file = directory / f"{port}.conf"
            running.enter_context(running_end(file, "first", pair, hospital.certificate, leading))
        running.enter_context(running_service(directory, own, site_of_module.settings(server={"bind": bind})))
        yield f"http://{LOCALHOST}:{own}", f"http://{LOCALHOST}:{theirs}"


def test_the_second_host_knows_who_asked_through_the_tunnel(to_second_host: tuple[str, str]) -> None:
    url, _ = to_second_host
    who = {"X-Forwarded-For": "10.9.9.9", "X-Forwarded-User": "sari"}
    assert requests.get(f"{url}/mkiso.php?accession_number=CT.001", headers=who, timeout=60).status_code == 200
    assert requests.get(f"{url}/api/jobs", timeout=60).json()["jobs"][0]["requester"] == "sari@10.9.9.9"


def test_the_tunnel_to_the_second_host_takes_nobody_without_a_certificate_of_the_ca(
    to_second_host: tuple[str, str],
) -> None:
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{to_second_host[1]}/healthz", timeout=60)
