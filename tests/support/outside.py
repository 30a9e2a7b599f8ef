"""What programs by other hands say against a disc, but for what they say of the instances as the archive holds them."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydicom import dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.fileset import FileSet

from mkiso.verify.verify import verify
from tests.support.tools import run

# A remark, no fault: dcmmkdir gives the record of an image its Image Type, which is no key that it must have.
EXTENDED = re.compile(r"Warning - .*(?:\(0008,0008\)|\(0x0008,0x0008\) CS Image Type|Standard Extended SOP Class)")
HEADING = re.compile(r"[A-Za-z]+\s*")  # the kind of instance that dciodvfy takes it for
NO_DICOM = re.compile(r"no: .*")


@dataclass(frozen=True)
class Disc:
    """An image or archive, the directory that has its files, and the archive's files by SOP Instance UID."""

    medium: Path
    root: Path
    held: Mapping[str, Path]

    @property
    def dicomdir(self) -> Path:
        return self.root / "DICOMDIR"

    @property
    def instances(self) -> list[Path]:
        """Those of the disc, whatever its layout."""
        folders = [self.root / name for name in ("IMAGES", "OTHER", "DICOMDIR")]
        return sorted(file for folder in folders for file in folder.rglob("*") if file.is_file())


def by_uid(files: Iterable[Path]) -> dict[str, Path]:
    """Each file by the SOP Instance UID that its meta information tells."""
    return {str(read_file_meta_info(file).MediaStorageSOPInstanceUID): file for file in files}


def complaints(disc: Disc) -> dict[str, list[str]]:
    """What each judge has to say, by its name; nothing of those who are content."""
    of_disc = {name: list(judge(disc)) for name, judge in (OF_EVERY_DISC if disc.dicomdir.is_dir() else OF_PDI).items()}
    for file in disc.instances:
        for name, judge in OF_INSTANCES.items():
            of_disc[name] = of_disc.get(name, []) + [f"{file.name}: {one}" for one in _added(judge, file, disc.held)]
    return {name: said for name, said in of_disc.items() if said}


def _added(judge: Callable[[Path], Iterable[str]], file: Path, held: Mapping[str, Path]) -> list[str]:
    """What is said of a file of the disc, and not of the archive's."""
    said = _said(judge, file)
    before = _said(judge, held[next(iter(by_uid([file])))]) if said else []
    return [one for one in said if one not in before]


_SAID: dict[tuple[object, bytes], list[str]] = {}


def _said(judge: Callable[[Path], Iterable[str]], file: Path) -> list[str]:
    """What is said of a file, without its name; of one that is the same byte for byte, it is not asked again."""
    key = (judge, file.read_bytes())
    if key not in _SAID:
        _SAID[key] = [line.replace(str(file), "") for line in judge(file)]
    return _SAID[key]


def _lines(argv: Iterable[str | Path], *, fails: bool = True) -> Iterator[str]:
    """What a program says beside its output, and that it failed."""
    done = run([*argv])
    yield from filter(None, map(str.strip, done.stderr.splitlines()))
    if fails and done.returncode:
        yield f"status {done.returncode}"


def mkiso(disc: Disc) -> Iterator[str]:
    yield from (f"{check.name}: {check.found}" for check in verify(disc.medium) if not check.ok)


def dciodvfy(file: Path) -> Iterator[str]:
    """dicom3tools: is it what PS3.3 says of its kind?"""
    lines = _lines(("/usr/bin/dciodvfy", file), fails=False)
    yield from (line for line in lines if not HEADING.fullmatch(line))


def dciodvfy_of_dicomdir(disc: Disc) -> Iterator[str]:
    yield from (line for line in dciodvfy(disc.dicomdir) if not EXTENDED.match(line))


def dcdirdmp(disc: Disc) -> Iterator[str]:
    """dicom3tools: its walk by the offsets comes to each file that DCMTK finds named."""
    lines = list(_lines(("/usr/bin/dcdirdmp", "-paths", disc.dicomdir)))
    yield from (line for line in lines if not line.startswith("IMAGES/"))
    reached = [line for line in lines if line.startswith("IMAGES/")]
    if sorted(reached) != sorted(_named(disc)):
        yield f"comes to {len(reached)} of {len(_named(disc))} files"


def _named(disc: Disc) -> list[str]:
    """The files that DCMTK finds in the records of the DICOMDIR."""
    said = run(("/usr/bin/dcmdump", "+L", "+P", "0004,1500", disc.dicomdir)).stdout
    return [file.replace("\\", "/") for file in re.findall(r"CS \[(.*?)\]", said)]


def dcmdump(file: Path) -> Iterator[str]:
    """DCMTK: can it be read?"""
    yield from _lines(("/usr/bin/dcmdump", "-ll", "warn", file))


def gdcmdump(disc: Disc) -> Iterator[str]:
    """GDCM: can the DICOMDIR be read, with as many files as DCMTK finds named?"""
    done = run(("/usr/bin/gdcmdump", disc.dicomdir))
    yield from done.stderr.splitlines()
    if done.returncode:
        yield f"status {done.returncode}"
    if (count := done.stdout.count("(0004,1500)")) != len(_named(disc)):
        yield f"finds {count} of {len(_named(disc))} files"


def gdcminfo(file: Path) -> Iterator[str]:
    """GDCM: can it be read, and what does it take it for?"""
    yield from _lines(("/usr/bin/gdcminfo", "-W", "-E", file))


def dcmftest(disc: Disc) -> Iterator[str]:
    """DCMTK: is it a file of PS3.10?"""
    files = [*disc.instances, *([disc.dicomdir] if disc.dicomdir.is_file() else [])]
    yield from NO_DICOM.findall(run(("/usr/bin/dcmftest", *files)).stdout)


def pydicom(disc: Disc) -> Iterator[str]:
    """Its file-set has each instance that is named, and no other, with its own identifiers and name."""
    try:
        found = {str(Path(one.path).relative_to(disc.root)): one for one in FileSet(disc.dicomdir)}
    except Exception as wrong:
        yield f"{type(wrong).__name__}: {wrong}"
        return
    yield from (f"finds no {name}" for name in {*_named(disc)} - found.keys())
    for name, one in found.items():
        own = dcmread(one.path, specific_tags=[*KEYS], stop_before_pixels=True)
        # Of one that is malformed it may read no key.
        yield from (f"{name}: {key}" for key in KEYS if own.get(key) not in (None, getattr(one, key)))


KEYS = ("PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def dcentvfy(disc: Disc) -> Iterator[str]:
    """dicom3tools: do the instances agree on their patient, study and series, as much as the archive's do?"""
    on_disc = by_uid(disc.instances)
    before = set(_agreement(tuple((uid, disc.held[uid]) for uid in on_disc)))
    yield from (line for line in _agreement(tuple(on_disc.items())) if line not in before)


@cache
def _agreement(files: tuple[tuple[str, Path], ...]) -> list[str]:
    said = list(_lines(("/usr/bin/dcentvfy", *(file for _, file in files)), fails=False))
    for uid, file in files:
        said = [line.replace(f"<{file}>", uid) for line in said]
    return said


OF_EVERY_DISC: dict[str, Callable[[Disc], Iterable[str]]] = {"mkiso": mkiso, "dcmftest": dcmftest, "dcentvfy": dcentvfy}
OF_PDI: dict[str, Callable[[Disc], Iterable[str]]] = {
    **OF_EVERY_DISC,
    "dciodvfy of the DICOMDIR": dciodvfy_of_dicomdir,
    "dcdirdmp": dcdirdmp,
    "dcmdump of the DICOMDIR": lambda disc: dcmdump(disc.dicomdir),
    "gdcmdump": gdcmdump,
    "pydicom": pydicom,
}
OF_INSTANCES: dict[str, Callable[[Path], Iterable[str]]] = {
    "dciodvfy": dciodvfy,
    "dcmdump": dcmdump,
    "gdcminfo": gdcminfo,
}
