"""The test PACS: dcmqrscp as ABPACS with synthetic studies, as a program and as a context manager."""

import argparse
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tests.support import dcmqrscp, proofs, studies, tools
from tests.support.ports import free_ports
from tests.support.studies import Study

PROBE_AE_TITLE = "TESTPACS"


@dataclass(frozen=True)
class RunningPacs:
    """A test PACS that listens: where, and what it holds."""

    port: int
    directory: Path
    ae_titles: dict[str, int]
    studies: tuple[Study, ...]
    ae_title: str = dcmqrscp.AE_TITLE

    @property
    def log(self) -> Path:
        return self.directory / "dcmqrscp.log"

    def of(self, accession: str) -> list[Study]:
        """The studies with this accession number."""
        return [study for study in self.studies if study.accession == accession]

    def study(self, accession: str) -> Study:
        """The only study with this accession number."""
        (study,) = self.of(accession)
        return study


@dataclass(frozen=True)
class _Record:
    """What is needed to find the started process again, and no other one of the same number."""

    pid: int
    create_time: float
    port: int

    def process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.create_time) < 1 and process.name() == "dcmqrscp"
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as problem:
            raise RuntimeError(
                f"port {port} is taken ({problem.strerror}): end what listens there, or choose another --port"
            ) from problem


def _empty(directory: Path) -> None:
    # Only what a test PACS wrote may go: the directory is the caller's, and may be any.
    mark, owned = directory / "mkiso-testpacs", [directory / "archive", directory / "studies"]
    if not mark.exists() and any(path.exists() for path in owned):
        raise RuntimeError(f"{directory} has an archive or studies of another origin: choose another with --dir")
    directory.mkdir(parents=True, exist_ok=True)
    mark.touch()
    for path in owned:
        shutil.rmtree(path, ignore_errors=True)


def _write_studies(root: Path, large: bool, bench: bool) -> tuple[Study, ...]:
    written = studies.standard_studies(root)
    if bench:
        written += studies.bench_studies(root)
    if large:
        written.append(studies.large_study(root))
    return tuple(written)


def _start(
    directory: Path, port: int, ae_titles: Mapping[str, int], large: bool, bench: bool
) -> tuple[subprocess.Popen[bytes], RunningPacs]:
    _require_free(port)
    _empty(directory)
    argv = dcmqrscp.configure(directory, port, ae_titles)
    held = _write_studies(directory / "studies", large, bench)
    dcmqrscp.index(directory, (path for study in held for path in study.files))
    process = dcmqrscp.start(argv, directory, port)
    return process, RunningPacs(port, directory, dict(ae_titles), held)


@contextmanager
def running_testpacs(
    directory: Path, port: int, ae_titles: dict[str, int], large: bool = False, bench: bool = False
) -> Iterator[RunningPacs]:
    """A test PACS in `directory` which can move to these AE titles on 127.0.0.1; it ends with the context."""
    process, pacs = _start(directory.resolve(), port, ae_titles, large, bench)
    try:
        yield pacs
    finally:
        tools.end(process)


def _recorded(directory: Path) -> _Record | None:
    path = directory / "testpacs.json"
    return _Record(**json.loads(path.read_text())) if path.exists() else None


def _record(directory: Path, pid: int, port: int) -> None:
    record = _Record(pid, psutil.Process(pid).create_time(), port)
    (directory / "testpacs.json").write_text(json.dumps(asdict(record)))


def _start_command(options: argparse.Namespace) -> int:
    record = _recorded(options.dir)
    if record and record.process():
        print(f"already running on port {record.port} (process {record.pid}): first run testpacs stop")
        return 1
    receiver_port = free_ports(1)[0]
    destinations = {**dict(options.ae or [("CDRECORD", 10104)]), PROBE_AE_TITLE: receiver_port}
    process, pacs = _start(options.dir, options.port, destinations, options.large, options.bench)
    _record(options.dir, process.pid, options.port)
    print(f"{pacs.ae_title} listens on port {pacs.port} (process {process.pid}), log {pacs.log}")
    standard = [study for study in pacs.studies if not study.accession.startswith(("LARGE", "BENCH"))]
    passed = proofs.prove(pacs.port, PROBE_AE_TITLE, receiver_port, standard, options.dir / "studies")
    return 0 if passed else 1


def _stop_command(options: argparse.Namespace) -> int:
    record = _recorded(options.dir)
    process = record.process() if record else None
    if record and process:
        tools.end_group(record.pid, lambda: record.process() is None)
    print(f"stopped process {record.pid}" if record and process else "not running")
    (options.dir / "testpacs.json").unlink(missing_ok=True)
    return 0


def _status_command(options: argparse.Namespace) -> int:
    record = _recorded(options.dir)
    if record is None or record.process() is None:
        print(f"not running (directory {options.dir})")
        return 1
    print(f"running: {dcmqrscp.AE_TITLE} on port {record.port} (process {record.pid}, directory {options.dir})")
    return 0


def _destination(text: str) -> tuple[str, int]:
    title, _, port = text.partition("=")
    if not title or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not TITLE=PORT, as in CDRECORD=10104")
    return title, int(port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="testpacs", description="A PACS of synthetic studies on 127.0.0.1.")
    parser.add_argument("command", choices=_COMMANDS)
    parser.add_argument("--port", type=int, default=11112, help="where it listens (default: %(default)s)")
    parser.add_argument("--dir", type=lambda text: Path(text).resolve(), default="/var/tmp/mkiso-testpacs")
    parser.add_argument("--ae", type=_destination, nargs="+", action="extend", metavar="TITLE=PORT")
    parser.add_argument("--large", action="store_true", help="also LARGE.001, 2,000 images (1.05 GB)")
    parser.add_argument("--bench", action="store_true", help="also BENCH.003 and BENCH.200")
    return parser


_COMMANDS = {"start": _start_command, "stop": _stop_command, "status": _status_command}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status is 0 where it did what it says."""
    options = _parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
    except (RuntimeError, OSError) as problem:
        print(f"testpacs: {problem}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
