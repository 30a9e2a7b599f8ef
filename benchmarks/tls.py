"""A disc of 200 CT images encrypted all the way against a plain one of the same archive: `make bench` runs it."""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from mkiso.config import parse
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from mkiso.waiting import Cancellation
from tests.support.certificates import Authority
from tests.support.orthanc import AE_TITLE, running_orthanc
from tests.support.ports import free_ports
from tests.support.service import settings
from tests.support.studies import RICHARD, Study, ct_study
from tests.support.stunnel import running_stunnel
from tests.support.tools import LOCALHOST

REPEAT = 7
TARGET = 1.5


def disc(directory: Path, pacs_port: int, receiver: int, tls: dict[str, str] | None, study: Study) -> float:
    """Seconds from the order to the disc's last byte."""
    configuration = settings(directory, pacs_port, {"RECEIVER": receiver}, retrieve={"calling_ae_title": "RECEIVER"})
    configuration["pacs"]["ae_title"] = AE_TITLE
    configuration["receivers"][0]["tls"] = tls
    installation = Installation(parse(configuration))
    os.sync()
    began = time.monotonic()
    made = sum(map(len, make_disc(installation, Order((study.accession,), "bench", layout="legacy"), Cancellation())))
    seconds = time.monotonic() - began
    installation.ledger.close()
    assert made > sum(file.stat().st_size for file in study.files)
    return seconds


@contextmanager
def archives(directory: Path, study: Study) -> Iterator[dict[str, Callable[[], float]]]:
    """Two Orthancs with the study, one plain and one that speaks TLS alone: a disc of each."""
    hospital = Authority(directory / "hospital")
    own, of_pacs = hospital.pair("mkiso"), hospital.pair("pacs", host="pacs.hospital.example")
    plain, plain_http, port, http, tunnel, receiver, tls_receiver = free_ports(7)
    tls: dict[str, Any] = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(of_pacs.certificate),
        "DicomTlsPrivateKey": str(of_pacs.key),
        "DicomTlsTrustedCertificates": str(hospital.certificate),
        "DicomModalities": {
            "RECEIVER": {"AET": "RECEIVER", "Host": LOCALHOST, "Port": tls_receiver, "UseDicomTls": True}
        },
    }
    with (
        running_orthanc(directory / "plain", (plain, plain_http), {"RECEIVER": receiver}) as first,
        running_orthanc(directory / "tls", (port, http), {}, **tls) as second,
        running_stunnel(directory / "stunnel", own, hospital.certificate, {"pacs": (tunnel, port)}),
    ):
        first.put(study.files)
        second.put(study.files)
        yield {
            "plain": lambda: disc(directory, plain, receiver, None, study),
            "TLS": lambda: disc(directory, tunnel, tls_receiver, own.tls(), study),
        }


def main(_arguments: Sequence[str] = ()) -> int:
    with tempfile.TemporaryDirectory(prefix="mkiso-bench-", dir="/var/tmp") as name:
        study = ct_study(Path(name, "held"), RICHARD, "BENCH.200", count=200, side=512)
        with archives(Path(name), study) as discs:
            seconds: dict[str, list[float]] = {kind: [make()] for kind, make in discs.items()}
            for number in range(REPEAT):
                for kind, make in list(discs.items())[:: -1 if number % 2 else 1]:
                    seconds[kind].append(make())
    times = {kind: runs[1:] for kind, runs in seconds.items()}
    for kind, runs in times.items():
        print(f"disc of 200 images, {kind}: {median(runs):.3f} s ({min(runs):.3f} to {max(runs):.3f}, {REPEAT})")
    ratio = median(times["TLS"]) / median(times["plain"])
    print(f"{'ok' if ratio <= TARGET else 'missed':<6}  disc: {ratio:.2f} times as long with TLS (target {TARGET})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
