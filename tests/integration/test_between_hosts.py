"""nginx asks another host through TLS: who may, who is told to have asked, and what a disc is then."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import requests

from tests.integration.conftest import Site
from tests.support.certificates import Authority, Pair
from tests.support.nginx import running_nginx
from tests.support.ports import free_ports
from tests.support.service import Service, running_service
from tests.support.stunnel import CONF, running_tunnel_of_hosts
from tests.support.tools import LOCALHOST, wait_until

OTHER = "other.hospital.example"


@dataclass(frozen=True)
class Between:
    url: str
    tls: int
    own: Pair
    authority: Authority
    service: Service


@contextmanager
def other_host(site: Site) -> Iterator[Between]:
    """A site of nginx whose own host is away; the other one is behind the tunnel."""
    http, here, between = free_ports(3)
    authority = Authority(site.directory / "ca")
    own = authority.pair("other", host=OTHER)
    with TemporaryDirectory(prefix="mkiso-") as short:  # a socket's path is to be short (unix(7))
        socket, nobodys = Path(short) / "s", Path(short) / "none"
        configuration = site.settings(server={"bind": f"unix:{socket}"})
        with (
            running_tunnel_of_hosts(site.directory / "stunnel", own, here, between, socket),
            running_nginx(site.directory / "nginx", http, nobodys, f"{LOCALHOST}:{here} max_fails=0") as url,
            running_service(site.directory, http, configuration, url=url) as service,
        ):
            yield Between(url, between, own, authority, service)


def asked_with(pair: Pair | None, between: Between) -> int:
    """The status of an answer to whoever has this certificate; raises where there is no way in."""
    cert = (str(pair.certificate), str(pair.key)) if pair else None
    url = f"https://{LOCALHOST}:{between.tls}/healthz"
    return requests.get(url, cert=cert, verify=False, timeout=20).status_code


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_the_other_host_serves_whom_nginx_admitted_and_nobody_else(site: Site) -> None:
    with other_host(site) as between:
        wait_until(lambda: requests.get(between.url + "/healthz", timeout=60).ok, 20, str)
        answer = next(
            one
            for one in (requests.get(f"{between.url}/mkiso.php?accession_number=CT.001", timeout=60) for _ in range(6))
            if one.status_code == requests.codes.ok
        )
        assert len(answer.content) == int(answer.headers["Content-Length"])
        job = requests.get(f"{between.url}/api/jobs/{answer.headers['X-Job-Id']}", timeout=60).json()
        assert (job["state"], job["requester"]) == ("done", LOCALHOST)
        assert asked_with(between.own, between) == requests.codes.ok
        for stranger in (None, between.authority.pair("stranger", host="stranger.hospital.example")):
            with pytest.raises(requests.ConnectionError):
                asked_with(stranger, between)


def test_the_file_of_both_hosts_has_a_port_for_each_of_its_sections() -> None:
    """One port on loopback and on every address are one port too many: stunnel would not start."""
    ports = re.findall(r"^accept = (?:.*:)?(\d+)$", CONF.with_name("mkiso-hosts.conf").read_text(), re.M)
    assert len(ports) == len(set(ports)) == 2
