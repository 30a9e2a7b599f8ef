"""A DICOM archive that serves C-ECHO, C-FIND, C-MOVE and C-GET, rightly or with one chosen misbehaviour."""

import argparse
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, _config, debug_logger, evt
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import QueryRetrieveServiceClass
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from tests.support import answers, behaviours, gets, lists, parts, series, tools
from tests.support.behaviours import Answers, Behaviour
from tests.support.holdings import Holdings
from tests.support.moves import (
    CANNOT_PERFORM,
    UNKNOWN_DESTINATION,
    Archive,
    Get,
    Move,
    Options,
    Unreachable,
    send_at_once,
)
from tests.support.tools import LOCALHOST

BEHAVIOURS = {
    name: behaviour
    for module in (behaviours, lists, answers, parts, series, gets)
    for name, behaviour in module.BEHAVIOURS.items()
}


@dataclass(frozen=True)
class RunningArchive:
    """An archive that listens."""

    port: int
    pid: int
    log: Path


@contextmanager
def running_archive(
    port: int,
    destinations: Mapping[str, int | str],
    studies_dir: Path,
    behaviour: str = "normal",
    inside: Sequence[str] = (),
    **options: object,
) -> Iterator[RunningArchive]:
    """An archive in a process of its own, listening; options are the command line's (`n`, `status`, …).

    A destination is a port of this host, or ADDRESS:PORT; `inside` names another network namespace.
    """
    words = [f"--to={title}={to}" for title, to in destinations.items()]
    words += [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    argv = (*inside, sys.executable, "-m", "tests.support.archive", f"--port={port}", f"--studies={studies_dir}")
    with tempfile.TemporaryDirectory(prefix="archive-") as name:
        log = Path(name, "archive.log")
        process = tools.start_listener((*argv, f"--behaviour={behaviour}", *words), port, log)
        try:
            yield RunningArchive(port, process.pid, log)
        finally:
            tools.end(process)


def _serve_moves(archive: Archive, behaviour: Behaviour) -> None:
    def move_scp(service: Any, request: C_MOVE, context: PresentationContext) -> None:
        move = Move(archive, service, request, context)
        if move.destination not in archive.destinations:
            move.answer(UNKNOWN_DESTINATION)
            return
        try:
            behaviour.move(move)
        except Unreachable:
            move.answer(CANNOT_PERFORM, failed_uids=[one.sop_instance_uid for one in move.instances])

    def get_scp(service: Any, request: C_GET, context: PresentationContext) -> None:
        behaviour.move(Get(archive, service, request, context))

    # The handlers of EVT_C_MOVE and EVT_C_GET have no say in when, where and what is sent, and pynetdicom would encode
    # the data sets anew.
    QueryRetrieveServiceClass._move_scp, QueryRetrieveServiceClass._get_scp = move_scp, get_scp
    _config.STORE_SEND_CHUNKED_DATASET = True


def _application(title: str, archive: Archive, behaviour: Behaviour) -> AE:
    _serve_moves(archive, behaviour)
    # Rejected with "called AE title not recognised", whatever the title that was called.
    application = AE("NOBODY-HERE" if behaviour.rejects else title)
    application.require_called_aet = behaviour.rejects
    application.network_timeout = application.dimse_timeout = None
    application.maximum_associations = behaviour.most
    for service in (
        Verification,
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelMove,
    ):
        application.add_supported_context(service)
    if behaviour.gets:
        application.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
        for sop in {one.sop_class for one in archive.holdings.instances}:
            application.add_supported_context(sop, ALL_TRANSFER_SYNTAXES, scu_role=True, scp_role=True)
    return application


def _listen(options: argparse.Namespace, archive: Archive) -> object:
    behaviour, address = BEHAVIOURS[options.behaviour], (options.address, options.port)
    if not behaviour.associates:
        return socket.create_server(address)

    def find(event: evt.Event) -> Answers:
        return behaviour.find(archive, event.identifier)

    handlers = [(evt.EVT_C_FIND, find), (evt.EVT_CONN_OPEN, send_at_once)]
    application = _application(options.ae, archive, behaviour)
    return application.start_server(address, block=False, evt_handlers=handlers)


def _destination(text: str) -> tuple[str, tuple[str, int]]:
    title, _, peer = text.partition("=")
    address, _, port = peer.rpartition(":")
    if not title or not port.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not AE=PORT or AE=ADDRESS:PORT, as in CDRECORD=10104")
    return title, (address or LOCALHOST, int(port))


def _status(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(f"{text!r} is not a status in hexadecimal, as A702") from problem


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="archive", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--address", default=LOCALHOST, help="where it listens (default: %(default)s)")
    parser.add_argument("--ae", default="ABPACS", help="its AE title (default: %(default)s)")
    parser.add_argument("--to", type=_destination, action="append", default=[], metavar="AE=[ADDRESS:]PORT")
    parser.add_argument("--studies", type=Path, required=True, help="directory of DICOM files (*.dcm)")
    parser.add_argument("--behaviour", choices=BEHAVIOURS, default="normal")
    parser.add_argument("--n", type=int, default=3, help="instances: stall, abort, partial")
    parser.add_argument("--status", type=_status, default="A702", help="move-status, find-status")
    parser.add_argument("--pace", type=float, default=0.0, help="seconds before each instance")
    parser.add_argument("--delay", type=float, default=0.2, help="seconds between two instances: slow")
    parser.add_argument("--ready-file", type=Path, help="written once it listens")
    parser.add_argument("--debug", action="store_true", help="logs all messages to standard error")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until it is sent SIGTERM or SIGINT."""
    options = _parser().parse_args(arguments)
    signals = {signal.SIGTERM, signal.SIGINT}
    # Blocked before any thread starts, so that only sigwait takes them.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    if options.debug:
        debug_logger()
    with tempfile.TemporaryDirectory(prefix="archive-") as scratch:
        behaves = Options(options.n, options.status, options.delay, options.pace)
        archive = Archive(Holdings(options.studies), dict(options.to), behaves, Path(scratch))
        try:
            archive.kept.append(_listen(options, archive))
        except OSError as problem:
            print(f"archive: cannot listen on port {options.port}: {problem}; end what does", file=sys.stderr)
            return 1
        if options.ready_file:
            options.ready_file.touch()
        signal.sigwait(signals)
    return 0


if __name__ == "__main__":
    # Threads that hang on purpose would keep the interpreter.
    os._exit(main())
