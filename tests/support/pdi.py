"""A small disc of the layout `pdi` made by hand, apart from the service: for the checks of `mkiso verify`."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pydicom import Dataset

from mkiso.config import Media, Tools
from mkiso.dcmtk.dcmmkdir import Indexer
from mkiso.dicom.instances import read_whole
from mkiso.dicom.records import Record, element, read, taken_apart, written
from mkiso.disc.dicomdir import make_dicomdir
from mkiso.disc.layout import set_aside, stage
from mkiso.disc.product import Graft, Product, mastering, zipping
from tests.support import datasets
from tests.support.stage import JOHN, encoded, presentation

TOOLS = Tools()
FILE_SET = "STUDIES"
JPEG, PDF = b"\xff\xd8\xff\xe0pixels\xff\xd9", b"%PDF-1.4\n%%EOF\n"
POLICY = "default-src 'none'; img-src 'self' file: data:"
PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd">
<html xmlns="http://www.w3.org/1999/xhtml"><head><title>Disc</title>
<meta http-equiv="Content-Security-Policy" content="{policy}" /></head><body>{body}</body></html>
"""
README = (
    "Disc of a test",
    "",
    f"File-set ID: {FILE_SET}",
    f"Volume ID: {FILE_SET}",
    "",
    "The viewer's files:",
    "  viewer.exe",
    "  Muller docs",
    "",
    "Not in the DICOMDIR:",
)


def page(body: str, policy: str = POLICY) -> str:
    return PAGE.format(body=body, policy=policy)


def instances() -> list[Dataset]:
    """One study of images, a report, a presentation state, a document, and of what no DICOMDIR can name."""
    common = datasets.study(JOHN, "CT.001")
    images = [datasets.ct(common, series, number, side=16) for series in (1, 2) for number in (1, 2)]
    others = [datasets.report(common, 3, 1), presentation(common, 4, 1), datasets.document(common, 5, 1)]
    return [*images, *others, datasets.private_instance(common, 6, 1)]


def made_disc(directory: Path, datasets: Sequence[Dataset | bytes]) -> Path:
    """The stage of a disc with these instances, and a viewer's files with it."""
    root, received = directory / "disc", directory / "received"
    root.mkdir(parents=True)
    received.mkdir()
    for number, one in enumerate(datasets):
        (received / f"{number}").write_bytes(one if isinstance(one, bytes) else encoded(one))
    found = [read_whole(received / f"{number}") for number in range(len(datasets))]
    staged = stage([one for one in found if one], root)
    made = make_dicomdir(
        Indexer(TOOLS.dcmtk_dir, root, FILE_SET), [one.file for one in staged], directory, lambda: None
    )
    others = set_aside([one for one in staged if one.file in made.not_indexed], root)
    lines = [*README, *(f"  {one.file}  {one.instance.sop_instance_uid}" for one in others), ""]
    (root / "README.TXT").write_bytes("\r\n".join(lines).encode("ascii"))
    _write_pages(root)
    _write_viewer(root)
    return root


def _write_pages(root: Path) -> None:
    web = root / "ihe_pdi"
    web.mkdir()
    (web / "im000001.jpg").write_bytes(JPEG)
    (web / "re000001.pdf").write_bytes(PDF)
    series = '<p><a href="im000001.jpg"><img src="im000001.jpg" alt="1" /></a> <a href="re000001.pdf">2</a></p>'
    (web / "se000001.htm").write_text(page(series))
    index = '<p id="a"><a href="#a">up</a> <a href="viewer.exe">open</a> <a href="ihe_pdi/se000001.htm">1</a></p>'
    (root / "INDEX.HTM").write_text(page(index))
    (root / "PHONE.HTM").write_text(page('<p><img src="data:image/jpeg;base64,/9j/4AAQ" alt="1" /></p>'))


def _write_viewer(root: Path) -> None:
    docs = root / "Müller docs" / "a" / "b" / "c" / "d" / "e" / "f" / "g" / "h"
    docs.mkdir(parents=True)
    (docs / "how=to long name.text").write_text("how to")
    (docs / "empty").touch()
    (root / "viewer.exe").write_bytes(b"MZ")


def as_iso(root: Path, volume_id: str = FILE_SET) -> Path:
    """The disc's image, as the service has it made."""
    file, media = root.parent / "disc.iso", Media(volume_id=volume_id)
    with mastering(TOOLS.genisoimage, media, _grafts(root), root.parent, lambda: None) as product:
        return _saved(product, file)


def as_zip(root: Path, password: str | None = None) -> Path:
    """The disc's archive, as the service makes it."""
    with zipping(Media(), _grafts(root), lambda: None, password) as product:
        return _saved(product, root.parent / "disc.zip")


def as_directory(root: Path) -> Path:
    return root


KINDS: tuple[Callable[[Path], Path], ...] = (as_iso, as_zip, as_directory)


def _grafts(root: Path) -> list[Graft]:
    return [(entry.name, entry) for entry in sorted(root.iterdir())]


def _saved(product: Product, file: Path) -> Path:
    with file.open("wb") as out:
        out.writelines(product.chunks())
    return file


def change_records(root: Path, change: Callable[[list[Record]], object]) -> None:
    """Change a disc's DICOMDIR, which is sound otherwise."""
    dicomdir = root / "DICOMDIR"
    records = read(dicomdir.read_bytes())
    change(records)
    dicomdir.write_bytes(written(records, FILE_SET))


def replace_in(file: Path, old: bytes, new: bytes) -> None:
    """Replace bytes that must be there."""
    data = file.read_bytes()
    assert old in data
    file.write_bytes(data.replace(old, new, 1))


def set_offset(root: Path, tag: int, number: int, value: int) -> None:
    """Patch an offset where it stands in the DICOMDIR: the one of this tag in the record of this number."""
    dicomdir = root / "DICOMDIR"
    data = bytearray(dicomdir.read_bytes())
    at = -1
    for _ in range(number + 1):
        at = data.index(element(tag, b"UL", bytes(4))[:8], at + 1)
    data[at + 8 : at + 12] = value.to_bytes(4, "little")
    dicomdir.write_bytes(data)


def offsets(root: Path) -> list[int]:
    """Where the records of a disc's DICOMDIR begin."""
    return list(taken_apart((root / "DICOMDIR").read_bytes()).records)
