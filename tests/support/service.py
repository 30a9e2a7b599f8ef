"""The service under test: configurations on ports of their own, `mkiso serve` as a user runs it, discs read back."""

import re
import signal
import subprocess
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests
import yaml
from pydicom import Dataset, FileDataset, dcmread

from mkiso.config import Config, Retrieve, parse
from tests.support import preloaded, tools
from tests.support.preloaded import MKISO
from tests.support.tools import LOCALHOST

PATIENT = Retrieve().model_dump()  # `settings` gives up sooner than the configuration does where nothing is said


def settings(directory: Path, pacs_port: int, receivers: Mapping[str, int], **sections: Any) -> dict[str, Any]:
    """A configuration as YAML has it: everything in `directory`, nothing that takes long."""
    return {
        "pacs": {"port": pacs_port},
        "receivers": [{"ae_title": title, "port": port} for title, port in receivers.items()],
        "storage": {
            "work_dir": str(directory / "work"),
            "ledger": f"sqlite:///{directory}/ledger.db",
            "min_free": "1MB",
        },
        "destinations": {
            name: {"ae_title": "ANY-SCP", "host": LOCALHOST, "port": 9} for name in ("relay", "cd_publisher")
        },
        **sections,
        "media": {"layout": "legacy", **sections.get("media", {})},
        "retrieve": {
            "connect_timeout": 2,
            "query_timeout": 15,
            "stall_timeout": 15,
            "settle_timeout": 2,
            "queue_timeout": 60,
            **sections.get("retrieve", {}),
        },
    }


def config(*arguments: Any, **sections: Any) -> Config:
    return parse(settings(*arguments, **sections))


@dataclass
class Service:
    """A running `mkiso serve`."""

    url: str
    config_file: Path
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, **{"timeout": 60} | options)

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it as an administrator does, and wait for its end; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


@contextmanager
def running_service(
    directory: Path,
    port: int,
    configuration: dict[str, Any],
    program: Sequence[Any] = (MKISO,),
    url: str | None = None,
) -> Iterator[Service]:
    """`mkiso serve` with this configuration, answering; told to stop at the end, where it still runs.

    `url` is where it answers behind a proxy.
    """
    directory.mkdir(exist_ok=True)
    file, log = directory / "mkiso.yaml", directory / "service.log"
    configuration = configuration | {"server": {"bind": f"{LOCALHOST}:{port}"} | configuration.get("server", {})}
    file.write_text(yaml.safe_dump(configuration))
    with log.open("ab") as output:
        process = preloaded.start(
            (*program, "serve", "--config", file), stdout=output, stderr=output, env=tools.environment()
        )
    service = Service(url or f"http://{LOCALHOST}:{port}", file, process, log)
    try:
        tools.wait_until(lambda: _answers(service), 20, lambda: f"no answer; its log:\n{log.read_text()}")
        yield service
    finally:
        if process.poll() is None:
            service.stop()


def _answers(service: Service) -> bool:
    if service.process.poll() is not None:
        raise RuntimeError(f"the service ended:\n{service.log.read_text()}")
    try:
        return service.get("/healthz").ok
    except requests.ConnectionError:
        return False


def mkiso(*arguments: Any, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """A command of `mkiso`, run to its end."""
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    with preloaded.start((MKISO, *arguments), cwd=cwd, env=tools.environment(), **pipes) as process:
        try:
            output, log = process.communicate(timeout=120)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(arguments, process.returncode, output, log)


def read_disc(iso: bytes | Path, directory: Path) -> dict[str, Path]:
    """The files of an ISO (by Rock Ridge names), unpacked below `directory`: path on the disc to file."""
    directory.mkdir(parents=True, exist_ok=True)
    if isinstance(iso, bytes):
        iso = _saved(iso, directory.with_suffix(".iso"))
    subprocess.run(("/usr/bin/bsdtar", "-xf", iso, "-C", directory), check=True, capture_output=True)
    return {str(file.relative_to(directory)): file for file in directory.rglob("*") if file.is_file()}


def _saved(iso: bytes, file: Path) -> Path:
    file.write_bytes(iso)
    return file


def data_set(file: Path) -> bytes:
    """The bytes of an instance behind its file meta information, which every store writes anew (PS3.10 7.1)."""
    meta_length = dcmread(file, specific_tags=["SOPInstanceUID"]).file_meta.FileMetaInformationGroupLength
    return file.read_bytes()[144 + meta_length :]


def instances_on(disc: Mapping[str, Path]) -> dict[str, bytes]:
    """SOP Instance UID to data set of what a disc of either layout holds."""
    files = [file for path, file in disc.items() if path.startswith(("DICOMDIR/", "IMAGES/", "OTHER/"))]
    return {dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID: data_set(file) for file in files}


def instances_of(studies: Iterable[Any]) -> dict[str, bytes]:
    """SOP Instance UID to data set of what the archive was given."""
    return {file.stem: data_set(file) for study in studies for file in study.files}


def elements(files: Iterable[Path]) -> dict[str, Any]:
    """SOP Instance UID to data set, element by element, whatever byte order it was sent in."""
    return {read.SOPInstanceUID: {**values(read), "pixels": little_endian_pixels(read)} for read in map(dcmread, files)}


def values(dataset: Dataset) -> dict[str, Any]:
    return {
        str(element.tag): [values(item) for item in element.value] if element.VR == "SQ" else element.value
        for element in dataset
        if element.keyword != "PixelData"
    }


def little_endian_pixels(dataset: FileDataset) -> bytes:
    pixels = array("H", dataset.get("PixelData", b""))
    if not dataset.file_meta.TransferSyntaxUID.is_little_endian:
        pixels.byteswap()
    return pixels.tobytes()


def file_name(response: requests.Response) -> str:
    match = re.fullmatch(r'attachment; filename="([^"]+)"', response.headers["Content-Disposition"])
    assert match, response.headers
    return match[1]
