"""An archive on dcmjs-dimse, which speaks DICOM in JavaScript and writes every data set anew."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.tools import ROOT, listening

AE_TITLE = "DCMJS"
LOCK = ROOT / "tests" / "support" / "node" / "package-lock.json"
# Where `make setup-tests` installs what the lock file names.
_MODULES = ROOT / "build" / "node" / "node_modules"
INSTALLED = _MODULES / ".package-lock.json"


@contextmanager
def running_dcmjs(directory: Path, port: int, destination: tuple[str, int], files: Iterable[Path]) -> Iterator[int]:
    """The archive with these files, which can move to one AE title on 127.0.0.1; its port."""
    directory.mkdir()
    title, to = destination
    node = ("env", f"NODE_PATH={_MODULES}", "node", LOCK.with_name("archive.js"))
    with listening((*node, str(port), f"{title}={to}", *files), port, directory / "log"):
        yield port
