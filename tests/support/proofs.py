"""Proves that an archive serves C-ECHO, C-STORE, C-FIND and C-MOVE, with DCMTK's own clients."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.dcmqrscp import AE_TITLE
from tests.support.studies import Study, probe_study
from tests.support.tools import LOCALHOST, SUCCESS, findscu, movescu, run, running_storescp


def _require(condition: object, problem: str, log: str) -> None:
    if not condition:
        raise RuntimeError(f"{problem}; the client said:\n{log[-2000:]}")


def c_echo(port: int) -> str:
    """One C-ECHO; RuntimeError where it is not answered with success."""
    done = run(("/usr/bin/echoscu", "-to", "5", "-ta", "5", "-aec", AE_TITLE, LOCALHOST, str(port)))
    _require(done.returncode == 0, f"no answer to C-ECHO on port {port}", done.stderr)
    return f"answered on port {port}"


def c_store(port: int, study: Study) -> str:
    """A C-STORE of each instance of the study; RuntimeError where one is not acknowledged with success."""
    peer = ("-to", "5", "-ta", "5", "-aec", AE_TITLE, LOCALHOST, str(port))
    done = run(("/usr/bin/storescu", "-v", *peer, *study.files))
    acknowledged = done.stderr.count("Received Store Response (Success)")
    _require(acknowledged == len(study.files), f"{acknowledged} of {len(study.files)} stored", done.stderr)
    return f"{study.accession}: {acknowledged} acknowledged"


def c_find(port: int, accession: str, studies: int) -> str:
    """A C-FIND at STUDY level; RuntimeError where it does not find so many studies."""
    done = findscu(port, "QueryRetrieveLevel=STUDY", f"AccessionNumber={accession}", "StudyInstanceUID")
    found = done.stderr.count("(Pending)")
    _require("Final Find Response (Success)" in done.stderr, "C-FIND failed", done.stderr)
    _require(found == studies, f"{accession}: found {found} studies, not {studies}", done.stderr)
    return f"{accession}: {found} found"


def c_move(port: int, destination: str, studies: Sequence[Study], receiver_port: int) -> str:
    """A C-MOVE of each study; RuntimeError where not every instance arrives at a storescp on the port."""
    with tempfile.TemporaryDirectory(prefix="testpacs-") as name:
        received, log = Path(name, "received"), Path(name, "storescp.log")
        with running_storescp(destination, receiver_port, received, log):
            for study in studies:
                _move_one(port, destination, study, received)
    return f"{len(studies)} studies, {sum(len(study.files) for study in studies)} instances arrived"


def _move_one(port: int, destination: str, study: Study, received: Path) -> None:
    done = movescu(port, study.study_uid, destination)
    arrived = {path.name.partition(".")[2] for path in received.iterdir()}
    missing = study.sop_instance_uids - arrived
    _require(SUCCESS.search(done.stderr), f"C-MOVE of {study.accession} failed", done.stderr)
    _require(not missing, f"{study.accession}: {len(missing)} instances did not arrive", done.stderr)
    shutil.rmtree(received)
    received.mkdir()


def prove(port: int, destination: str, receiver_port: int, studies: Sequence[Study], scratch: Path) -> bool:
    """Tries the four services, prints a line each, and says whether all of them passed."""
    probe = probe_study(scratch)
    services: dict[str, Callable[[], str]] = {
        "C-ECHO": lambda: c_echo(port),
        "C-STORE": lambda: c_store(port, probe),
        "C-FIND": lambda: c_find(port, probe.accession, 1),
        "C-MOVE": lambda: c_move(port, destination, studies, receiver_port),
    }
    passed = [_passes(name, service) for name, service in services.items()]
    return all(passed)


def _passes(name: str, service: Callable[[], str]) -> bool:
    try:
        print(f"{name:8} ok      {service()}")
    except (RuntimeError, TimeoutError, OSError) as problem:
        print(f"{name:8} FAILED  {problem}")
        return False
    return True
