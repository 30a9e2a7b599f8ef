"""nginx in front of two hosts, of which one is away."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import requests

from tests.integration.conftest import Site
from tests.support.nginx import running_nginx
from tests.support.ports import free_ports
from tests.support.service import running_service
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
