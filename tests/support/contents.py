"""Staged instances, and what is shown of them by the real programs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from mkiso.browse.contents import show
from mkiso.browse.shown import WEB, Item, Maker, Picture, ShownPatient, ShownSeries
from mkiso.dicom.instances import read_whole
from mkiso.disc.layout import Staged, stage
from tests.support.stage import encoded
from tests.support.tools import run

DCMTK = Path("/usr/bin")


@dataclass
class Showing:
    """A job's directory, its stage, and what is put there."""

    directory: Path
    staged: list[Staged] = field(default_factory=list)

    @property
    def stage(self) -> Path:
        return self.directory / "stage"

    @property
    def web(self) -> Path:
        return self.stage / WEB

    def put(self, *instances: Dataset | bytes | Path) -> "Showing":
        """Stage what is whole of these, which are data sets, files' contents or files."""
        inbox = self.directory / "inbox"
        inbox.mkdir(exist_ok=True)
        for number, one in enumerate(instances):
            (inbox / f"{number:06}").write_bytes(_content(one))
        found = [read_whole(path) for path in sorted(inbox.iterdir())]
        self.stage.mkdir(exist_ok=True)
        self.staged += stage([one for one in found if one], self.stage)
        return self

    def shown(
        self, checkpoint: Callable[[], None] = lambda: None, dcmtk_dir: Path = DCMTK, **values: float
    ) -> tuple[ShownPatient, ...]:
        """What is shown. Every file is that of an item, and nothing lies anywhere else afterwards."""
        maker = Maker(dcmtk_dir, self.directory, **values)  # type: ignore[arg-type]
        before = {one.instance.path: one.instance.path.read_bytes() for one in self.staged[:50]}
        patients = show([one.instance for one in self.staged], self.stage, maker, checkpoint)
        files = {item.file for item in items(patients) if hasattr(item, "file")}
        files |= {item.other.file for item in items(patients) if isinstance(item, Picture) and item.other}
        assert {path.name for path in self.web.iterdir()} == files
        assert {path.name for path in self.directory.iterdir()} <= {"inbox", "stage", "bin", "began", "log"}
        assert all(path.read_bytes() == content for path, content in before.items())
        return patients

    def items(self, **values: float) -> list[Item]:
        return items(self.shown(**values))


def series_of(patients: Iterable[ShownPatient]) -> list[ShownSeries]:
    return [series for patient in patients for study in patient.studies for series in study.series]


def items(patients: Iterable[ShownPatient]) -> list[Item]:
    return [item for series in series_of(patients) for item in series.items]


def grey_of(jpeg: Path, directory: Path) -> bytes:
    """The pixels of a grey JPEG, as DCMTK reads them back."""
    again = directory / "log"
    for argv in (("/usr/bin/img2dcm", jpeg, again), ("/usr/bin/dcmdjpeg", again, again)):
        assert run(argv).returncode == 0
    return bytes(dcmread(again).PixelData)


def _content(one: Dataset | bytes | Path) -> bytes:
    if isinstance(one, Path):
        return one.read_bytes()
    return one if isinstance(one, bytes) else encoded(one)
