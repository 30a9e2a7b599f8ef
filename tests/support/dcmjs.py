"""An archive on dcmjs-dimse, which speaks DICOM in JavaScript and writes every data set anew."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.tools import ROOT, listening

AE_TITLE = "DCMJS"
_ARCHIVE = ROOT / "tests" / "support" / "node" / "archive.js"


@contextmanager
def running_dcmjs(directory: Path, port: int, destination: tuple[str, int], files: Iterable[Path]) -> Iterator[int]:
    """The archive with these files, which can move to one AE title on 127.0.0.1; its port."""
    directory.mkdir()
    title, to = destination
    # Where `make setup-tests` installs what package-lock.json names.
    modules = f"NODE_PATH={ROOT / 'build' / 'node' / 'node_modules'}"
    with listening(("env", modules, "node", _ARCHIVE, str(port), f"{title}={to}", *files), port, directory / "log"):
        yield port
