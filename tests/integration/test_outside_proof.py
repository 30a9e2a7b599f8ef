"""Discs of everything, before judges by other hands: they find nothing that mkiso made, and import what it names."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from mkiso.config import LayoutName, parse
from mkiso.dicom.encoding import PATIENT_ID
from mkiso.dicom.records import SOP_INSTANCE, Record
from mkiso.disc.product import Format
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from mkiso.waiting import Cancellation
from tests.support import pixelmed
from tests.support.archive import running_archive
from tests.support.everything import ARABIC, every_kind, named
from tests.support.odd import ACCESSION, MALFORMED, ODD, WELL_FORMED, odd_study
from tests.support.outside import OF_INSTANCES, OF_PDI, Disc, by_uid, complaints
from tests.support.pdi import change_records, replace_in
from tests.support.ports import free_ports
from tests.support.service import read_disc, settings
from tests.support.studies import IR87, Study, mixed_study
from tests.support.tools import run, running_storescp

ALL, RECEIVER = ("ALL.001", "MIXED.001"), "RECEIVER"
MEDIA = {"layout": "pdi", "institution": "RS Test", "contact": "radiology@example.org"}


@dataclass(frozen=True)
class Wanted:
    """What is asked for; `series` is the number of the only one that is chosen of the study of every kind."""

    accessions: tuple[str, ...] = ()
    layout: LayoutName = "pdi"
    format: Format = "iso"
    media: dict[str, Any] = field(default_factory=dict)
    series: int | None = None


WANTED = {
    "everything": Wanted(ALL),
    "everything in a ZIP": Wanted(ALL, format="zip"),
    "everything in the layout legacy": Wanted(ALL, layout="legacy"),
    "everything decompressed": Wanted(ALL, media={"uncompressed": True}),
    "a series": Wanted(series=1),
    "a name in Arabic": Wanted(("ARABIC.001",)),
    "a name in Japanese": Wanted(("JAPAN.001",)),
    "what is malformed": Wanted((ACCESSION,)),
}
IMPORTED = ("everything", "everything decompressed", "a name in Arabic", "a name in Japanese")
# Of what archives hold malformed, so much as shows how judges tell it from what mkiso makes.
REFUSED = (
    "a VR of ??",
    "a sequence that is shorter than it says",
    "an item with a length and a delimiter",
)  # by PixelMed
ODD_KINDS = (
    *REFUSED,
    "a sequence that is longer than it says",
    "pixel data that is longer than it says",
    "fragments without a delimiter",
    "a sequence with a length and a delimiter",
)
COUNTS = {"a series": 3, "a name in Arabic": 2, "a name in Japanese": 2, "what is malformed": 1 + len(ODD_KINDS)}


@dataclass
class Counter:
    """An archive of everything, and the discs that were made of it; `odd` has the UID of what is odd by its kind."""

    directory: Path
    port: int
    receiver: int
    whole: Study
    odd: dict[str, str]
    made: dict[str, Disc] = field(default_factory=dict)

    def disc(self, name: str) -> Disc:
        if name not in self.made:
            self.made[name] = self._make(WANTED[name], self.directory / name)
        return self.made[name]

    def _make(self, wanted: Wanted, directory: Path) -> Disc:
        directory.mkdir()
        media = {**MEDIA, "viewer_dir": str(self.directory / "viewer"), **wanted.media}
        installation = Installation(parse(settings(directory, self.port, {RECEIVER: self.receiver}, media=media)))
        medium = directory / f"disc.{wanted.format}"
        try:
            disc = make_disc(installation, self._order(wanted), Cancellation())
            medium.write_bytes(b"".join(disc))
        finally:
            installation.ledger.close()
        read_disc(medium, directory / "disc")
        return Disc(medium, directory / "disc", self._held("uncompressed" in wanted.media))

    def _order(self, wanted: Wanted) -> Order:
        if wanted.series is None:
            return Order(wanted.accessions, "test", wanted.layout, wanted.format)
        series = {one.SeriesInstanceUID for one in map(dcmread, self.whole.files) if one.SeriesNumber == wanted.series}
        return Order((), "test", study_uids=(self.whole.study_uid,), series_uids=tuple(map(str, series)))

    def _held(self, inflated: bool) -> dict[str, Path]:
        """As the archive sends it, or inflated: dicom3tools does not read what is deflated."""
        files = (self.directory / "held").rglob("*.dcm")
        sent = {file.stem: odd if (odd := file.with_suffix(ODD)).exists() else file for file in files}
        return {uid: _inflated(file) for uid, file in sent.items()} if inflated else sent


def _inflated(file: Path) -> Path:
    if file.suffix == ODD or dcmread(file).file_meta.TransferSyntaxUID != DeflatedExplicitVRLittleEndian:
        return file
    plain = file.with_suffix(".plain")
    assert run(("/usr/bin/dcmconv", "+te", file, plain)).returncode == 0
    return plain


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counter]:
    directory = tmp_path_factory.mktemp("outside")
    (directory / "viewer").mkdir()
    (directory / "viewer" / "The viewer of a test.exe").write_bytes(b"MZ")
    held = directory / "held"
    whole = every_kind(held, "ALL.001")
    mixed_study(held)
    named(held, ARABIC, "ARABIC.001")
    named(held, IR87, "JAPAN.001")
    _, odd = odd_study(held, {kind: (MALFORMED | WELL_FORMED)[kind] for kind in ODD_KINDS})
    port, receiver = free_ports(2)
    with running_archive(port, {RECEIVER: receiver}, held):
        yield Counter(directory, port, receiver, whole, odd)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WANTED)
def test_no_judge_finds_anything_that_mkiso_made(name: str, counter: Counter) -> None:
    disc = counter.disc(name)
    assert len(disc.instances) == COUNTS.get(name, 22)
    assert complaints(disc) == {}


@pytest.mark.parametrize("name", IMPORTED)
def test_pixelmed_imports_what_the_dicomdir_names(name: str, counter: Counter, tmp_path: Path) -> None:
    """But for what is compressed, which it takes from no disc."""
    disc = counter.disc(name)
    named = by_uid(file for file in disc.instances if file.is_relative_to(disc.root / "IMAGES"))
    wanted = {uid for uid, file in named.items() if not is_compressed(file)}
    assert imported(disc.root, tmp_path) == wanted
    assert len(named) - len(wanted) == {"everything": 5}.get(name, 0)


def imported(root: Path, directory: Path) -> set[str]:
    """What PixelMed's importer sends on of a disc."""
    (port,), arrived = free_ports(1), directory / "arrived"
    with running_storescp("ELSEWHERE", port, arrived, directory / "log"):
        pixelmed.import_disc(root, port, "ELSEWHERE")
    return set(by_uid(arrived.iterdir()))


@pytest.mark.parametrize("kind", [None, *REFUSED])
def test_of_a_disc_that_names_certain_odd_files_pixelmed_takes_nothing_and_without_them_the_rest(
    kind: str | None, counter: Counter, tmp_path: Path
) -> None:
    disc, refused = counter.disc("what is malformed"), {counter.odd[one] for one in REFUSED if one != kind}
    shutil.copytree(disc.root, tmp_path / "disc")
    change_records(tmp_path / "disc", lambda records: leave_out(records, refused))
    rest = {uid for uid, file in by_uid(disc.instances).items() if not is_compressed(file)} - refused
    assert imported(tmp_path / "disc", tmp_path) == (set() if kind else rest)
    assert len(rest) >= 4


def leave_out(records: list[Record], uids: set[str]) -> None:
    """Those of the instances that are named so, wherever they are."""
    records[:] = [one for one in records if one.text(SOP_INSTANCE).rstrip("\0") not in uids]
    for one in records:
        leave_out(one.below, uids)


def is_compressed(file: Path) -> bool:
    syntax = read_file_meta_info(file).TransferSyntaxUID
    return bool(syntax.is_compressed or syntax.is_deflated)


def test_others_read_the_name_of_the_dicomdir_in_its_letters(counter: Counter) -> None:
    """DCMTK the Arabic one; Debian's has no table of the Japanese set, so that pydicom reads that."""
    arabic, japanese = (counter.disc(f"a name in {language}").dicomdir for language in ("Arabic", "Japanese"))
    assert run(("/usr/bin/dcmdump", "+U8", "+P", "0010,0010", arabic)).stdout.count(ARABIC.name) == 1
    assert str(dcmread(japanese).DirectoryRecordSequence[0].PatientName) == IR87.name


def test_by_the_names_that_every_computer_reads_a_disc_has_what_the_profile_wants(counter: Counter) -> None:
    """Those of ISO 9660, level 1, without Rock Ridge and Joliet: IHE_PDI in capitals, and nothing else of IHE's."""
    listed = run(("/usr/bin/isoinfo", "-f", "-i", counter.disc("everything").medium)).stdout.split()
    roots = {name.removesuffix(";1").removesuffix(".") for name in listed if name.count("/") == 1}
    ours = {"/DICOMDIR", "/README.TXT", "/INDEX.HTM", "/PHONE.HTM", "/IMAGES", "/OTHER", "/IHE_PDI"}
    assert roots == {*ours, "/THE_VIEW.EXE"}
    for name in listed:
        assert re.fullmatch(r"(/[A-Z0-9_]{1,8}){1,8}(\.[A-Z0-9_]{0,3};1)?", name), name


def test_a_dicomdir_has_no_private_key_and_no_retired_record(counter: Counter) -> None:
    """Whatever the instances hold: the ECG has private elements."""
    disc = counter.disc("everything")
    records = dcmread(disc.dicomdir).DirectoryRecordSequence
    assert any(element.tag.is_private for file in disc.instances for element in dcmread(file))
    assert not [element.tag for record in records for element in record if element.tag.is_private]
    assert {record.DirectoryRecordType for record in records} == {
        *("PATIENT", "STUDY", "SERIES", "IMAGE", "SR DOCUMENT", "ENCAP DOC", "WAVEFORM", "PRESENTATION")
    }


@dataclass(frozen=True)
class Break:
    """What is done to a disc of three CT images, and the judges who have to say so, among others."""

    does: Callable[[Path], object]
    judges: frozenset[str]


def cut(name: str, by: int) -> Callable[[Path], object]:
    return lambda root: os.truncate(root / name, (root / name).stat().st_size - by)


def changed(keyword: str, value: str | None) -> Callable[[Path], object]:
    def change(root: Path) -> None:
        dataset = dcmread(root / SECOND)
        delattr(dataset, keyword) if value is None else setattr(dataset, keyword, value)
        dataset.save_as(root / SECOND)

    return change


SECOND = "IMAGES/ST000001/SE000001/IM000002"
BREAKS = {
    "a DICOMDIR that is cut": Break(
        cut("DICOMDIR", 100),
        frozenset({"mkiso", "dciodvfy of the DICOMDIR", "dcdirdmp", "dcmdump of the DICOMDIR", "gdcmdump", "pydicom"}),
    ),
    "a record without its patient's ID": Break(
        lambda root: change_records(root, lambda records: records[0].put(PATIENT_ID, b"")),
        frozenset({"mkiso", "dciodvfy of the DICOMDIR", "pydicom"}),
    ),
    "an instance that is not there": Break(lambda root: (root / SECOND).unlink(), frozenset({"mkiso", "pydicom"})),
    "an instance of another name": Break(changed("PatientName", "OTHER"), frozenset({"dcentvfy", "pydicom"})),
    "an instance that lacks a key": Break(changed("KVP", None), frozenset({"dciodvfy"})),
    "an instance that is cut": Break(cut(SECOND, 1000), frozenset({"mkiso", "dciodvfy", "dcmdump", "gdcminfo"})),
    "a DICOMDIR that does not begin as one": Break(
        lambda root: replace_in(root / "DICOMDIR", b"DICM", b"DISC"), frozenset({"mkiso", "dcmftest", "pydicom"})
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BREAKS)
def test_judges_tell_what_is_wrong_with_a_disc(name: str, counter: Counter, tmp_path: Path) -> None:
    sound = counter.disc("a series")
    shutil.copytree(sound.root, tmp_path / "disc")
    BREAKS[name].does(tmp_path / "disc")
    said = complaints(Disc(tmp_path / "disc", tmp_path / "disc", sound.held))
    assert said.keys() >= BREAKS[name].judges


def test_each_judge_tells_something() -> None:
    assert {*OF_PDI, *OF_INSTANCES} == {judge for one in BREAKS.values() for judge in one.judges}
