"""Orthanc with a configuration of the tests' own: an archive and a destination that others wrote."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.support.tools import LOCALHOST, listening, wait_until

AE_TITLE = "ORTHANC"


@dataclass(frozen=True)
class Orthanc:
    port: int
    url: str

    def put(self, files: Iterable[Path]) -> None:
        """Store instances, unchanged."""
        for file in files:
            requests.post(f"{self.url}/instances", data=file.read_bytes(), timeout=10).raise_for_status()

    def instances(self, directory: Path) -> list[Path]:
        """What it holds, each as it came, in files of `directory`."""
        directory.mkdir()
        return [self._saved(one, directory / one) for one in requests.get(f"{self.url}/instances", timeout=10).json()]

    def clear(self) -> None:
        """Forget all that it holds."""
        for one in requests.get(f"{self.url}/patients", timeout=10).json():
            requests.delete(f"{self.url}/patients/{one}", timeout=10).raise_for_status()

    def _saved(self, instance: str, file: Path) -> Path:
        file.write_bytes(requests.get(f"{self.url}/instances/{instance}/file", timeout=10).content)
        return file


@contextmanager
def running_orthanc(
    directory: Path, ports: tuple[int, int], destinations: Mapping[str, int], **settings: Any
) -> Iterator[Orthanc]:
    """Orthanc on a DICOM port and an HTTP port, which can move to these AE titles on 127.0.0.1."""
    directory.mkdir()
    port, http = ports
    configuration = {
        "StorageDirectory": str(directory / "storage"),
        "IndexDirectory": str(directory / "storage"),
        "Plugins": [],
        "HttpPort": http,
        "AuthenticationEnabled": False,
        "DicomPort": port,
        "DicomAet": AE_TITLE,
        "UnknownSopClassAccepted": True,
        "TcpNoDelay": True,
        "DicomModalities": {title: [title, LOCALHOST, to] for title, to in destinations.items()},
        **settings,
    }
    file = directory / "orthanc.json"
    file.write_text(json.dumps(configuration))
    orthanc = Orthanc(port, f"http://{LOCALHOST}:{http}")
    with listening(("/usr/sbin/Orthanc", file), port, directory / "log"):
        wait_until(lambda: _answers(orthanc), 10, (directory / "log").read_text)
        yield orthanc


def _answers(orthanc: Orthanc) -> bool:
    try:
        return requests.get(f"{orthanc.url}/system", timeout=10).ok
    except requests.ConnectionError:
        return False
