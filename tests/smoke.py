"""`make smoke-test`: the service behind nginx as a hospital runs it; its discs compared with what the PACS holds."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import dcmqrscp
from tests.support.nginx import Front, running_front
from tests.support.ports import free_ports
from tests.support.service import Service, instances_of, instances_on, mkiso, read_disc, running_service, settings
from tests.support.testpacs import RunningPacs, running_testpacs
from tests.support.tools import LOCALHOST, end, findscu, wait_until


def curl(url: str, output: Path, *options: str) -> dict[str, str]:
    """Fetch a URL; its status (`:status`) and headers, in lower case."""
    head = output.with_suffix(".head")
    subprocess.run(("curl", "-sS", "-D", head, "-o", output, *options, url), check=True)
    status, *lines = head.read_text().strip().splitlines()
    pairs = (line.partition(":") for line in lines)
    return {":status": status.split()[1], **{name.lower(): value.strip() for name, _, value in pairs}}


def check_disc(url: str, name: str, accessions: tuple[str, ...], pacs: RunningPacs, directory: Path) -> None:
    """Fetch a disc through nginx, and compare it byte for byte with what was stored."""
    iso = directory / name
    headers = curl(url, iso)
    assert headers[":status"] == "200", iso.read_text()
    assert headers["content-disposition"] == f'attachment; filename="{name}"', headers
    assert int(headers["content-length"]) == iso.stat().st_size
    on_disc = instances_on(read_disc(iso, directory / "read" / name))
    stored = instances_of(study for accession in accessions for study in pacs.of(accession))
    assert on_disc == stored, f"{len(on_disc)} instances on the disc, {len(stored)} stored"
    verified = mkiso("verify", iso)
    assert verified.returncode == 0, verified.stdout.decode()
    print(f"ok  {url}: {name}, {len(stored)} instances, each as it was stored; mkiso verify finds no fault")


def check_error(url: str, status: str, code: str, directory: Path) -> None:
    body = directory / "error.json"
    headers = curl(url, body)
    assert headers[":status"] == status, headers
    assert f'"code":"{code}"' in body.read_text(), body.read_text()
    print(f"ok  {url}: {status} {code}")


def check_front(front: Front, directory: Path) -> None:
    """Before mkiso runs, and before anybody is admitted."""
    body = directory / "front.html"
    disc = "/mkiso.php?accession_number=CT.001"
    headers = curl(f"{front.redirecting}{disc}", body, "-H", "Host: mkiso.hospital.example")
    port = front.url.rpartition(":")[2]
    assert headers[":status"] == "301", headers
    assert headers["location"] == f"https://mkiso.hospital.example:{port}{disc}", headers
    curl(front.redirecting, body)
    assert body.read_text() == "another site"
    print(f"ok  {front.redirecting}: mkiso's names are redirected to TLS, another site has the others")
    assert curl(front.url, body, "-H", "Accept: text/html")[":status"] == "403"
    assert "<h1>Not admitted" in body.read_text(), body.read_text()
    check_error(f"{front.url}{disc}", "403", "forbidden", directory)
    front.admit(LOCALHOST)
    wait_until(lambda: curl(front.url, body, "-H", "Accept: text/html")[":status"] == "502", 10, body.read_text)
    assert "<h1>One moment" in body.read_text(), body.read_text()
    assert 'http-equiv="refresh"' in body.read_text(), body.read_text()
    curl(f"{front.url}{disc}", body, "-H", "Accept: text/html")
    assert 'http-equiv="refresh"' not in body.read_text(), body.read_text()
    check_error(f"{front.url}{disc}", "502", "internal", directory)
    logged = (front.directory / "access.log").read_text()
    assert "GET /mkiso.php HTTP" in logged, logged
    assert "accession" not in logged, logged
    print(f"ok  {front.url}: nobody is let in before he is admitted, and waits for mkiso on a page")


def check_ledger(service: Service, url: str, directory: Path) -> None:
    """What the ledger knows of a client behind the proxy."""
    curl(f"{url}/api/jobs", directory / "jobs.json")
    told = (directory / "jobs.json").read_text()
    assert f'"requester":"{LOCALHOST}"' in told, told
    assert "dicomdir_" not in "".join(path.name for path in (service.config_file.parent / "work").iterdir())
    print(f"ok  {url}/api/jobs: the requester is nginx's client, and no job directory is left")


def check_relay(url: str, accession: str, pacs: RunningPacs, archive_port: int, directory: Path) -> None:
    """Relay through nginx, and find every instance in the archive by C-FIND."""
    body = directory / "relay.json"
    headers = curl(f"{url}/mkiso2.php?accession_number={accession}", body)
    assert headers[":status"] == "200", body.read_text()
    (study,) = pacs.of(accession)
    keys = ("QueryRetrieveLevel=IMAGE", f"StudyInstanceUID={study.study_uid}", "SeriesInstanceUID", "SOPInstanceUID")
    answers = findscu(archive_port, *keys).stderr
    missing = [uid for uid in study.sop_instance_uids if uid not in answers]
    assert not missing, f"not in the archive: {missing}\n{answers}"
    assert f'"files_sent":{len(study.files)}' in body.read_text(), body.read_text()
    print(f"ok  {url}/mkiso2.php: {len(study.files)} instances of {accession} are found in the other archive")


def check_pages(url: str, directory: Path) -> None:
    """The operator's pages through nginx; their forms know their own address, and no other."""
    page = directory / "page.html"
    for path in ("/", "/history"):
        headers = curl(f"{url}{path}", page, "-H", "Accept: text/html")
        assert headers[":status"] == "200", page.read_text()
        assert "default-src 'none'" in headers["content-security-policy"], headers
    form = ("-H", "Accept: text/html", "-d", "accession_numbers=CT.001")
    assert curl(f"{url}/jobs", page, *form, "-H", f"Origin: {url}")[":status"] == "303", page.read_text()
    assert curl(f"{url}/jobs", page, *form, "-H", "Origin: http://elsewhere.example")[":status"] == "403"
    print(f"ok  {url}/: the pages, and their forms from here alone")


@contextmanager
def running_archive(directory: Path, port: int) -> Iterator[None]:
    """A second dcmqrscp, empty."""
    argv = dcmqrscp.configure(directory, port, {})
    process = dcmqrscp.start(argv, directory, port)
    try:
        yield
    finally:
        end(process)


def check_service(service: Service, pacs: RunningPacs, archive_port: int, directory: Path) -> None:
    url = service.url
    check_disc(f"{url}/mkiso.php?accession_number=CT.001", "CT.001.iso", ("CT.001",), pacs, directory)
    several = f"{url}/mkiso_multiple.php?accession_number=CT.001,MR.001"
    check_disc(several, "DOEJOHN-CT001MR001.iso", ("CT.001", "MR.001"), pacs, directory)
    check_error(f"{url}/mkiso.php?accession_number=NONE.001", "404", "accession_not_found", directory)
    check_relay(url, "CT.001", pacs, archive_port, directory)
    check_ledger(service, url, directory)
    check_pages(url, directory)


def main() -> int:
    pacs_port, receiver, port, archive_port = free_ports(4)
    with tempfile.TemporaryDirectory(prefix="mkiso-smoke-") as name:
        directory = Path(name)
        unix_socket = directory / "mkiso.sock"
        sections = {"server": {"bind": f"unix:{unix_socket}"}, "media": {"layout": "pdi"}}
        configuration = settings(directory, pacs_port, {"CDRECORD": receiver}, **sections)
        archive = {"ae_title": dcmqrscp.AE_TITLE, "host": LOCALHOST, "port": archive_port}
        configuration["destinations"] = {"relay": archive}
        with (
            running_testpacs(directory / "pacs", pacs_port, {"CDRECORD": receiver}) as pacs,
            running_archive(directory / "archive", archive_port),
            running_front(directory / "nginx", port, unix_socket) as front,
        ):
            os.environ["CURL_CA_BUNDLE"] = os.environ["REQUESTS_CA_BUNDLE"] = str(front.certificate)
            check_front(front, directory)
            with running_service(directory, port, configuration, url=front.url) as service:
                check_service(service, pacs, archive_port, directory)
    print("smoke test passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
