"""What each archive that the tests run does: the table of docs/pacs.md. `python -m benchmarks.archives [NAME]...`

Each is as the tests have it, with two studies: one of 8 series of 25 small images, and one of every kind (several
transfer syntaxes, a report, a document, a private SOP class). Nothing here is judged.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydicom import dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from benchmarks import far
from mkiso.config import parse
from mkiso.dcmtk.association import Peer
from mkiso.dcmtk.findscu import Finder
from mkiso.dcmtk.movescu import announced, move_argv
from mkiso.errors import MkisoError
from mkiso.retrieve.scu import GetScu, Part, WholeFiles
from mkiso.workspace import Workspace
from tests.support import dcmjs, pixelmed, qrscp, tinypacs, tools
from tests.support.ports import free_ports
from tests.support.storing import store
from tests.support.studies import RICHARD, Study, mixed_study, several_series

RECEIVER = "RECEIVER"
DCMTK = Path("/usr/bin")
ANSWERED = "Find Response"
MOST = 40  # associations that are tried at once
LISTED = re.compile(r"^[ID]: \(0008,0018\) UI \[([0-9.]+)\]", re.M)
FOUND = re.compile(r"^[ID]: \(0020,000d\) UI \[([0-9.]+)\]", re.M)
Held = Sequence[Study]
Taken = tuple[str, list[Path]]


def _files(studies: Held) -> list[Path]:
    return [file for study in studies for file in study.files]


@contextmanager
def _dcmqrscp(directory: Path, port: int, receiver: int, studies: Held) -> Iterator[Taken]:
    """With its profiles, without which C-MOVE sends nothing that is compressed; by C-GET it gives nothing with them."""
    with far.in_dcmqrscp(directory, port, receiver, studies, gets=False) as title:
        yield title, _files(studies)


@contextmanager
def _plain_dcmqrscp(directory: Path, port: int, receiver: int, studies: Held) -> Iterator[Taken]:
    with far.in_dcmqrscp(directory, port, receiver, studies) as title:
        yield title, _files(studies)


@contextmanager
def _orthanc(directory: Path, port: int, receiver: int, studies: Held) -> Iterator[Taken]:
    with far.in_orthanc(directory, port, receiver, studies) as title:
        yield title, _files(studies)


@contextmanager
def _pixelmed(directory: Path, port: int, receiver: int, studies: Held) -> Iterator[Taken]:
    with pixelmed.running_pixelmed(directory, (port, free_ports(1)[0]), {RECEIVER: receiver}):
        yield pixelmed.AE_TITLE, store(port, pixelmed.AE_TITLE, _files(studies))


@contextmanager
def _tinypacs(directory: Path, port: int, receiver: int, studies: Held) -> Iterator[Taken]:
    with tinypacs.running_tinypacs(directory, port, {RECEIVER: receiver}):
        yield tinypacs.AE_TITLE, store(port, tinypacs.AE_TITLE, _files(studies))


@contextmanager
def _dcmjs(directory: Path, port: int, receiver: int, studies: Held) -> Iterator[Taken]:
    with dcmjs.running_dcmjs(directory, port, (RECEIVER, receiver), _files(studies)):
        yield dcmjs.AE_TITLE, _files(studies)


@contextmanager
def _qrscp(directory: Path, port: int, receiver: int, studies: Held) -> Iterator[Taken]:
    with qrscp.running_qrscp(directory, port, {RECEIVER: receiver}):
        yield qrscp.AE_TITLE, store(port, qrscp.AE_TITLE, _files(studies))


ARCHIVES: dict[str, Callable[..., object]] = {
    "dcmqrscp -xf": _dcmqrscp,
    "dcmqrscp": _plain_dcmqrscp,
    "Orthanc": _orthanc,
    "PixelMed": _pixelmed,
    "tiny-pacs": _tinypacs,
    "dcmjs-dimse": _dcmjs,
    "qrscp": _qrscp,
}


class Survey:
    """What one archive that listens does."""

    def __init__(self, directory: Path, title: str, port: int, receiver: int) -> None:
        self._directory, self._title, self._port, self._receiver = directory, title, port, receiver
        self._peer = Peer(title, tools.LOCALHOST, port, RECEIVER, 10)

    def _find(self, *keys: str) -> str:
        wanted = [word for key in keys for word in ("-k", key)]
        argv = ("/usr/bin/findscu", "-v", "-S", "-aet", RECEIVER, "-aec", self._title, *wanted)
        return tools.run((*argv, tools.LOCALHOST, str(self._port))).stderr

    def lists(self, series: str, study: Study) -> Iterator[str]:
        whole = self._find(
            "QueryRetrieveLevel=IMAGE", f"StudyInstanceUID={study.study_uid}", "SeriesInstanceUID", "SOPInstanceUID"
        )
        yield f"lists {len(set(LISTED.findall(whole)))} of {len(study.files)} instances of a study at once"
        alone = self._find("QueryRetrieveLevel=SERIES", f"SeriesInstanceUID={series}", "StudyInstanceUID")
        yield f"a series without its study: {study.study_uid in FOUND.findall(alone[alone.find(ANSWERED) :])}"

    def associations(self) -> str:
        application, held = AE(RECEIVER), []
        application.add_requested_context(Verification)
        for _ in range(MOST):
            held.append(application.associate(tools.LOCALHOST, self._port, ae_title=self._title))
            if not held[-1].is_established:
                break
        taken = sum(one.is_established for one in held)
        for one in held:
            if one.is_established:
                one.release()
        return f"takes {taken} associations at once" + (" or more" if taken == MOST else "")

    def _move(self, study: Study, series: str | None = None) -> str:
        argv = move_argv(DCMTK, self._peer, RECEIVER, study.study_uid, 60, series)
        return subprocess.run(
            argv, env=tools.environment(), capture_output=True, text=True, timeout=120, check=False
        ).stderr

    def moves_alone(self, series: str, study: Study) -> Iterator[str]:
        yield f"says at first that {announced(self._move(study))} are to come of {len(study.files)}"
        of_series = announced(self._move(study, series))
        yield f"a series alone: {of_series} are to come of {len(study.files) // far.SERIES}"

    def at_once(self, study: Study) -> str:
        try:
            one, four, got = (self._seconds(study, way) for way in far.WAYS.values())
        except MkisoError as error:
            return f"no job: {error.detail}"
        return f"by four {one / four:.1f} times as fast as by one ({one:.1f} s, {four:.1f} s), by C-GET in {got:.1f} s"

    def _seconds(self, study: Study, way: dict[str, object]) -> float:
        return min(
            far.seconds(self._directory, (self._port, self._title), self._receiver, way, study) for _ in range(2)
        )

    def kinds(self, study: Study, taken: Sequence[Path]) -> Iterator[str]:
        """Of each kind, whether the archive took it, and sends it as it was, by C-MOVE and by C-GET."""
        received = self._directory / "received"
        with tools.running_storescp(RECEIVER, self._receiver, received, self._directory / "storescp.log"):
            self._move(study)
        moved, got = (_by_uid(directory) for directory in (received, self._got(study)))
        for file in study.files:
            header = dcmread(file, stop_before_pixels=True)
            name, syntax = UID(header.SOPClassUID).name, UID(header.file_meta.TransferSyntaxUID).name
            became = [_became(file, came.get(header.SOPInstanceUID)) for came in (moved, got)]
            there = f"{became[0]}; by C-GET {became[1]}" if file in taken else "not taken"
            yield f"{name}, {syntax}: {there}"

    def _got(self, study: Study) -> Path:
        """Where everything is that came by C-GET, as a job asks for it, but for the proof."""
        workspace = Workspace(self._directory / "job")
        workspace.received.mkdir(parents=True)
        config = parse({"pacs": {"retrieve": "get"}})
        finder = Finder(DCMTK, self._peer, 30, workspace.path)
        scu = GetScu(config, self._peer, workspace, "survey", lambda: None, finder, WholeFiles())
        listed = dict.fromkeys((str(dcmread(one, stop_before_pixels=True).SOPInstanceUID) for one in study.files), "")
        keys = frozenset((study.study_uid, uid) for uid in listed)
        with scu.begun(Part(study.study_uid, None, keys, finder.instances(study.study_uid) or listed)) as child:
            child.wait(60, lambda: None)
        return workspace.received


def _by_uid(directory: Path) -> dict[str, Path]:
    return {read_file_meta_info(file).MediaStorageSOPInstanceUID: file for file in directory.iterdir()}


def _became(file: Path, there: Path | None) -> str:
    if there is None:
        return "not sent"
    return "as it was" if _content(there) == _content(file) else f"as {_syntax(there)}"


def _content(file: Path) -> tuple[str, bytes]:
    """The transfer syntax, and the bytes behind the file meta information, which every store writes anew."""
    meta = read_file_meta_info(file)
    return meta.TransferSyntaxUID, file.read_bytes()[144 + meta.FileMetaInformationGroupLength :]


def _syntax(file: Path) -> str:
    return f"{UID(read_file_meta_info(file).TransferSyntaxUID).name}, changed"


def surveyed(name: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="mkiso-archives-", dir="/var/tmp") as root, ExitStack() as held:
        directory, (port, receiver) = Path(root), free_ports(2)
        many = several_series(directory / "held", RICHARD, "MANY.001", series=far.SERIES, count=25, side=64)
        mixed = mixed_study(directory / "held")
        archive = ARCHIVES[name](directory / "archive", port, receiver, [many, mixed])
        title, taken = held.enter_context(archive)  # type: ignore[arg-type]
        series = str(dcmread(many.files[-1], stop_before_pixels=True).SeriesInstanceUID)
        survey = Survey(directory, title, port, receiver)
        yield from survey.lists(series, many)
        yield survey.associations()
        yield from survey.kinds(mixed, taken)
        with tools.running_storescp(RECEIVER, receiver, directory / "some", directory / "some.log"):
            yield from list(survey.moves_alone(series, many))
        yield survey.at_once(many)


def main(names: Sequence[str]) -> int:
    for name in names or ARCHIVES:
        print(f"{name}", flush=True)
        for line in surveyed(name):
            print(f"  {line}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
