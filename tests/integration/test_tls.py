"""DICOM TLS: a disc and a relay encrypted all the way; each peer that is not what it should be, refused and told."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import create_connection, create_server
from typing import Any

import pytest
import yaml

from mkiso import errors
from mkiso.checks import Check
from mkiso.commands.check import checks
from mkiso.config import Receiver, Retrieve, Tls, Tools, parse
from mkiso.errors import MkisoError
from mkiso.installation import Installation
from mkiso.job import Order, make_disc, relay
from mkiso.retrieve.receiver import RunningReceiver, started_receiver
from mkiso.waiting import Cancellation
from mkiso.workspace import job_directory
from tests.integration.conftest import Site
from tests.support.certificates import PAST, Authority, Pair, openssl
from tests.support.orthanc import AE_TITLE, Orthanc, running_orthanc
from tests.support.ports import free_ports
from tests.support.service import elements, instances_of, instances_on, read_disc, settings
from tests.support.studies import Study, mixed_study
from tests.support.stunnel import CONF, running_stunnel
from tests.support.tools import LOCALHOST, ROOT, Finished, run, wait_until
from tests.support.wire import Wire, wire

ACCESSION, NAME = "MIXED.001", b"ROE^RICHARD"
PACS_HOST, ARCHIVE_HOST = "pacs.hospital.example", "archive.hospital.example"


@dataclass(frozen=True)
class Pki:
    """The hospital's CA and certificates, and others that are not to be taken."""

    hospital: Authority
    mkiso: Pair
    pacs: Pair
    archive: Pair
    expired: Pair
    misnamed: Pair
    stranger: Pair

    @property
    def ca(self) -> Path:
        return self.hospital.certificate


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    directory = tmp_path_factory.mktemp("pki")
    hospital, other = Authority(directory / "hospital"), Authority(directory / "other")
    return Pki(
        hospital,
        hospital.pair("mkiso", host="mkiso.hospital.example"),
        hospital.pair("pacs", host=PACS_HOST),
        hospital.pair("archive", host=ARCHIVE_HOST),
        hospital.pair("expired", host=PACS_HOST, valid=PAST),
        hospital.pair("misnamed", host="ct1.hospital.example"),
        other.pair("stranger", host=PACS_HOST),
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return mixed_study(tmp_path_factory.mktemp("held"))


def speaking_tls(own: Pair, trusted: Path, **settings: Any) -> dict[str, Any]:
    """Orthanc's settings with which it calls, and is called, by TLS alone; both sides have certificates."""
    return {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(own.certificate),
        "DicomTlsPrivateKey": str(own.key),
        "DicomTlsTrustedCertificates": str(trusted),
        "DicomTlsRemoteCertificateRequired": True,
        **settings,
    }


def modality(port: int, tls: bool = True) -> dict[str, Any]:
    """RECEIVER as Orthanc's DicomModalities have it."""
    return {"RECEIVER": {"AET": "RECEIVER", "Host": LOCALHOST, "Port": port, "UseDicomTls": tls}}


PATIENT = {"connect_timeout": 20}  # a handshake takes its time on a busy host


def configuration(directory: Path, pacs: int, receiver: int, tls: dict[str, str] | None) -> dict[str, Any]:
    made = settings(directory, pacs, {"RECEIVER": receiver}, retrieve={"calling_ae_title": "RECEIVER", **PATIENT})
    made["pacs"]["ae_title"] = AE_TITLE
    made["receivers"][0]["tls"] = tls
    return made


@contextmanager
def installed(made: dict[str, Any]) -> Iterator[Installation]:
    installation = Installation(parse(made))
    try:
        yield installation
    finally:
        installation.ledger.close()


def disc_of(installation: Installation, directory: Path) -> dict[str, bytes]:
    disc = make_disc(installation, Order((ACCESSION,), "test"), Cancellation())
    return instances_on(read_disc(b"".join(disc), directory))


def refusal(made: dict[str, Any], kind: type[MkisoError]) -> str:
    with installed(made) as installation, pytest.raises(kind) as caught:
        make_disc(installation, Order((ACCESSION,), "test"), Cancellation())
    return caught.value.detail


def echo(port: int, *options: str | Path) -> Finished:
    return run(("/usr/bin/echoscu", "-v", *options, "-to", "3", "-ta", "3", "-aec", AE_TITLE, LOCALHOST, str(port)))


def store(port: int, study: Study, *options: str | Path) -> Finished:
    return run(("/usr/bin/storescu", "-v", *options, "-to", "3", "-ta", "3", LOCALHOST, str(port), study.files[0]))


def by_tls(own: Pair, trusted: Path) -> tuple[str | Path, ...]:
    return ("+tls", own.key, own.certificate, "+cf", trusted)


# All the way


@dataclass(frozen=True)
class House:
    """Archive, destination and mkiso, with a wire that remembers before each of the three that is called."""

    configuration: dict[str, Any]
    archive: Orthanc
    ports: dict[str, int]
    wires: dict[str, Wire]

    def require_encrypted(self, *names: str) -> None:
        for passed in map(self.wires.__getitem__, names):
            assert passed.size > 0
            assert passed.is_tls()
            assert [text for text in (NAME, ACCESSION.encode()) if passed.carried(text)] == []


@pytest.fixture(scope="module")
def house(pki: Pki, study: Study, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    directory = tmp_path_factory.mktemp("house")
    to_pacs, to_archive, to_receiver, pacs, pacs_http, archive, archive_http, receiver, *tunnels = free_ports(10)
    of_pacs = speaking_tls(pki.pacs, pki.ca, DicomModalities=modality(to_receiver))
    leading = {"pacs": (tunnels[0], to_pacs), "relay": (tunnels[1], to_archive)}
    made = configuration(directory, tunnels[0], receiver, pki.mkiso.tls())
    made["destinations"] = {"relay": {"ae_title": AE_TITLE, "host": LOCALHOST, "port": tunnels[1]}}
    with (
        running_orthanc(directory / "pacs", (pacs, pacs_http), {}, **of_pacs) as holding,
        running_orthanc(
            directory / "archive", (archive, archive_http), {}, **speaking_tls(pki.archive, pki.ca)
        ) as taking,
        wire(to_pacs, pacs) as first,
        wire(to_archive, archive) as second,
        wire(to_receiver, receiver) as third,
        running_stunnel(directory / "stunnel", pki.mkiso, pki.ca, leading),
    ):
        holding.put(study.files)
        wires = {"pacs": first, "relay": second, "receiver": third}
        yield House(made, taking, {"pacs": pacs, "relay": archive}, wires)


def test_a_disc_is_encrypted_from_the_first_query_to_the_last_image(house: House, study: Study, tmp_path: Path) -> None:
    with installed(house.configuration) as installation:
        assert disc_of(installation, tmp_path / "disc") == instances_of([study])
    house.require_encrypted("pacs", "receiver")
    assert house.wires["receiver"].size > sum(map(len, instances_of([study]).values()))


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_a_relay_is_encrypted_all_the_way(tool: str, house: House, study: Study, tmp_path: Path) -> None:
    relaying = {"relay": house.configuration["destinations"]["relay"] | {"tool": tool}}
    with installed(house.configuration | {"destinations": relaying}) as installation:
        done = relay(installation, Order((ACCESSION,), "test"), "relay", Cancellation())
    assert done.delivery.sent == len(study.files)
    assert elements(house.archive.instances(tmp_path / "arrived")) == elements(study.files)
    house.require_encrypted("pacs", "receiver", "relay")


@pytest.mark.parametrize("peer", ["pacs", "relay"])
def test_what_the_tunnels_lead_to_takes_no_plain_peer(peer: str, house: House, pki: Pki) -> None:
    assert echo(house.ports[peer]).returncode != 0
    assert echo(house.ports[peer], *by_tls(pki.mkiso, pki.ca)).returncode == 0


def test_check_passes_where_all_is_encrypted(house: House) -> None:
    made = {one.name: one for one in checks(parse(house.configuration))}
    named = ("pacs", "receiver RECEIVER", "receiver RECEIVER tls", "destination relay")
    assert [made[name].ok for name in named] == [True] * len(named)


# Who may send to the receiver


@contextmanager
def listening_receiver(directory: Path, tls: dict[str, str], port: int) -> Iterator[tuple[RunningReceiver, Path]]:
    """A receiver with these files, and the directory that it writes to."""
    receiver = Receiver(ae_title="RECEIVER", port=port, tls=Tls(**{key: Path(path) for key, path in tls.items()}))
    work_dir = directory / "work"
    work_dir.mkdir(mode=0o700, exist_ok=True)
    with (
        job_directory(work_dir, "00000000-0000-4000-8000-000000000000") as workspace,
        started_receiver(Tools(), receiver, Retrieve(), workspace) as running,
    ):
        running.wait_until_it_listens()
        yield running, workspace.received


SENDERS = {
    "plain": "the peer does not speak TLS",
    "without a certificate": "the peer has no certificate",
    "of another CA": "out of date, or not of the CA",
    "expired": "out of date, or not of the CA",
    "trusting another CA": "does not trust the CA of receivers[].tls.cert_file",
}


def sender(name: str, pki: Pki) -> tuple[str | Path, ...]:
    return {
        "plain": (),
        "without a certificate": ("+tla", "-ic"),
        "of another CA": by_tls(pki.stranger, pki.ca),
        "expired": by_tls(pki.expired, pki.ca),
        "trusting another CA": by_tls(pki.pacs, pki.stranger.ca),
    }[name]


@pytest.mark.parametrize("name", SENDERS)
def test_the_receiver_takes_nothing_from_a_peer(name: str, pki: Pki, study: Study, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with listening_receiver(tmp_path, pki.mkiso.tls(), port) as (receiver, received):
        store(port, study, *sender(name, pki))
        wait_until(lambda: SENDERS[name] in receiver.failed_handshakes(), 5, receiver.failed_handshakes)
        assert list(received.iterdir()) == []
        assert store(port, study, *by_tls(pki.pacs, pki.ca)).returncode == 0
        assert len(list(received.iterdir())) == 1


def test_a_connection_that_is_held_open_before_its_handshake_holds_up_nobody(
    pki: Pki, study: Study, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    with listening_receiver(tmp_path, pki.mkiso.tls(), port) as (_, received), create_connection((LOCALHOST, port)):
        assert store(port, study, *by_tls(pki.pacs, pki.ca)).returncode == 0
        assert len(list(received.iterdir())) == 1


ARCHIVES = {
    "plain": "the peer does not speak TLS",
    "of another CA": "out of date, or not of the CA",
    "expired": "out of date, or not of the CA",
}


@pytest.mark.parametrize("synchronous", [True, False])
@pytest.mark.parametrize("name", ARCHIVES)
def test_a_job_whose_archive_fails_at_the_receivers_handshake_says_so(
    name: str, synchronous: bool, pki: Pki, study: Study, tmp_path: Path
) -> None:
    port, http, receiver = free_ports(3)
    own = {"plain": pki.pacs, "of another CA": pki.stranger, "expired": pki.expired}[name]
    of_pacs = speaking_tls(
        own,
        pki.ca,
        DicomTlsEnabled=False,
        DicomModalities=modality(receiver, name != "plain"),
        SynchronousCMove=synchronous,
    )
    with running_orthanc(tmp_path / "pacs", (port, http), {}, **of_pacs) as pacs:
        pacs.put(study.files)
        made = configuration(tmp_path, port, receiver, pki.mkiso.tls())
        detail = refusal(made, errors.PacsRejected if synchronous else errors.NoDicomData)
    assert "TLS handshakes with the receiver failed" in detail
    assert ARCHIVES[name] in detail


def test_a_certificate_of_our_own_that_has_expired_is_told_by_the_job_that_it_fails(
    pki: Pki, study: Study, tmp_path: Path
) -> None:
    port, http, receiver = free_ports(3)
    of_pacs = speaking_tls(pki.pacs, pki.ca, DicomTlsEnabled=False, DicomModalities=modality(receiver))
    with running_orthanc(tmp_path / "pacs", (port, http), {}, **of_pacs) as pacs:
        pacs.put(study.files)
        detail = refusal(configuration(tmp_path, port, receiver, pki.expired.tls()), errors.PacsRejected)
    assert "tls.cert_file expired on 2020-02-01" in detail


# Whom mkiso calls


CALLED = {
    "plain": "SSL_connect: Connection reset by peer",
    "of another CA": "unable to get local issuer certificate",
    "expired": "certificate has expired",
    "of another host": "Subject checks failed",
    "taking another CA": "alert unknown ca|unsent byte",  # the alert, unless the end of the connection outran it
}


@contextmanager
def called_orthanc(name: str, directory: Path, port: int, pki: Pki) -> Iterator[Orthanc]:
    """An Orthanc that stunnel must not call, or that must not take its call."""
    own = {"of another CA": pki.stranger, "expired": pki.expired, "of another host": pki.misnamed}.get(name, pki.pacs)
    trusted = pki.stranger.ca if name == "taking another CA" else pki.ca
    tls = speaking_tls(own, trusted, DicomTlsEnabled=name != "plain")
    with running_orthanc(directory, (port, free_ports(1)[0]), {}, **tls) as orthanc:
        yield orthanc


@pytest.mark.parametrize("name", CALLED)
def test_a_pacs_or_destination_that_is_not_the_one_is_unreachable(
    name: str, pki: Pki, site: Site, tmp_path: Path
) -> None:
    port, tunnel, receiver = free_ports(3)
    to = {"relay": {"ae_title": AE_TITLE, "host": LOCALHOST, "port": tunnel}}
    relaying = site.settings(destinations=to, retrieve=PATIENT)
    with (
        called_orthanc(name, tmp_path / "called", port, pki),
        running_stunnel(tmp_path / "stunnel", pki.mkiso, pki.ca, {"pacs": (tunnel, port)}) as log,
    ):
        detail = refusal(configuration(tmp_path, tunnel, receiver, pki.mkiso.tls()), errors.PacsUnreachable)
        assert re.search(CALLED[name], log.read_text())
        with installed(relaying) as installation, pytest.raises(errors.DestinationUnreachable) as caught:
            relay(installation, Order(("SR.001",), "test"), "relay", Cancellation())
    assert "TLS tunnel" in detail
    assert "TLS tunnel" in caught.value.detail


# What is wrong with our own files


def encrypted(key: Path, directory: Path) -> Path:
    locked = directory / "locked.key"
    openssl("pkcs8", "-topk8", "-in", key, "-out", locked, "-passout", "pass:s3cr3t-w0rd")
    return locked


def faulty(name: str, pki: Pki, directory: Path) -> dict[str, str]:
    tls = pki.mkiso.tls()
    text = directory / "text"
    text.write_text("s3cr3t-w0rd is no PEM\n")
    wrong = {
        "missing key": {"key_file": directory / "absent"},
        "missing certificate": {"cert_file": directory / "absent"},
        "missing CA": {"ca_file": directory / "absent"},
        "a directory": {"key_file": directory},
        "key of another": {"key_file": pki.pacs.key},
        "locked key": {"key_file": encrypted(pki.mkiso.key, directory)},
        "no key": {"key_file": text},
        "no certificate": {"cert_file": text},
        "no CA": {"ca_file": text},
    }[name]
    return tls | {key: str(path) for key, path in wrong.items()}


FAULTS = {
    "missing key": ("key_file", "is missing"),
    "missing certificate": ("cert_file", "is missing"),
    "missing CA": ("ca_file", "is missing"),
    "a directory": ("key_file", "is no file"),
    "key of another": ("key_file", "does not belong to the certificate"),
    "locked key": ("key_file", "holds no private key"),
    "no key": ("key_file", "holds no private key"),
    "no certificate": ("cert_file", "holds no certificate"),
    "no CA": ("ca_file", "holds no certificate"),
}


def tls_check(tls: dict[str, str], directory: Path) -> Check:
    pacs, receiver = free_ports(2)
    config = parse(configuration(directory, pacs, receiver, tls))
    return next(one for one in checks(config) if one.name == "receiver RECEIVER tls")


@pytest.mark.parametrize("name", FAULTS)
def test_a_receiver_that_cannot_use_its_files_is_unavailable_and_check_says_why(
    name: str, pki: Pki, tmp_path: Path
) -> None:
    tls, (port,), (key, why) = faulty(name, pki, tmp_path), free_ports(1), FAULTS[name]
    with pytest.raises(errors.ReceiverUnavailable) as caught, listening_receiver(tmp_path, tls, port):
        pass
    assert f"tls.{key} {why}" in caught.value.detail
    assert str(tmp_path) not in caught.value.detail
    found = tls_check(tls, tmp_path)
    assert not found.ok
    assert f"{key} {tls[key]} {why}" in found.found
    assert "s3cr3t" not in caught.value.detail + found.found


def test_check_tells_the_date_on_which_a_certificate_expired(pki: Pki, tmp_path: Path) -> None:
    found = tls_check(pki.expired.tls(), tmp_path)
    assert (found.ok, found.found) == (False, f"cert_file {pki.expired.certificate} expired on 2020-02-01")


@pytest.mark.parametrize(("mode", "ok"), [(0o600, True), (0o640, True), (0o644, False), (0o660, False)])
def test_check_tells_of_a_key_that_others_can_read(mode: int, ok: bool, pki: Pki, tmp_path: Path) -> None:
    key = tmp_path / "open.key"
    key.write_bytes(pki.mkiso.key.read_bytes())
    key.chmod(mode)
    found = tls_check(pki.mkiso.tls() | {"key_file": str(key)}, tmp_path)
    assert found.ok is ok
    assert (f"key_file {key} is open to others (mode {mode:04o})" in found.found) is not ok


def test_a_port_that_is_taken_is_told_as_such_with_tls_too(pki: Pki, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with (
        create_server(("", port)),
        pytest.raises(errors.ReceiverUnavailable, match="Address already in use"),
        listening_receiver(tmp_path, pki.mkiso.tls(), port),
    ):
        pass


def test_the_documented_configuration_calls_the_listeners_of_the_documented_tunnels() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "tls.md").read_text(), re.M | re.S)
    made = parse(yaml.safe_load("".join(blocks)))
    assert made.receivers[0].tls
    called = {f"{peer.host}:{peer.port}" for peer in (made.pacs, *made.destinations.values())}
    assert called == set(re.findall(r"^accept = (.*)$", CONF.read_text(), re.M))
