"""What each hostile instance of the tests costs the worker that makes a disc of it, and all of them on one disc."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import psutil

from tests.support import hostile
from tests.support.archive import running_archive
from tests.support.memory import forget_peak, peak
from tests.support.ports import free_ports
from tests.support.service import Service, running_service, settings
from tests.support.studies import RICHARD, ct_study

MB, HONEST = 10**6, "CT.001"


def _cost(service: Service, worker: psutil.Process) -> str:
    """Of a disc: bytes of memory above the worker's rest, seconds, and the answer's status."""
    forget_peak(worker)
    rest = peak(worker)
    answer = service.get(f"/api/iso/download?accession_number={hostile.ACCESSION}", timeout=300)
    return f"{(peak(worker) - rest) / MB:6.1f} MB {answer.elapsed.total_seconds():6.1f} s  {answer.status_code}"


def _measured(directory: Path, files: Iterable[Path], uncompressed: bool) -> str:
    held = directory / "held"
    for file in files:
        for one in (file, file.with_suffix(".dcm")):
            (held / one.name).hardlink_to(one)
    archive, receiver, port = free_ports(3)
    media = {"layout": "pdi", "uncompressed": uncompressed}
    told = settings(directory, archive, {"RECEIVER": receiver}, media=media, server={"workers": 1})
    with (
        running_archive(archive, {"RECEIVER": receiver}, held),
        running_service(directory / "service", port, told) as service,
    ):
        for _ in range(2):
            service.get(f"/api/iso/download?accession_number={HONEST}")
        (worker,) = service.workers()
        return _cost(service, worker)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="mkiso-hostile-") as name:
        files = hostile.instances(Path(name, "made"))
        for number, chosen in enumerate([*([file] for file in files), files, files]):
            directory = Path(name, f"{number}")
            ct_study(directory / "held", RICHARD, HONEST)
            uncompressed = number > len(files)
            what = chosen[0].stem if len(chosen) == 1 else f"all, media.uncompressed: {uncompressed}"
            print(f"{what:45}", _measured(directory, chosen, uncompressed), flush=True)


if __name__ == "__main__":
    main()
