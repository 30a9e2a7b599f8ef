"""C-GET from archives by other hands: what they hold comes bit for bit, or is refused by name."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.uid import KeyObjectSelectionDocumentStorage

from mkiso import errors
from mkiso.config import parse
from mkiso.dcmtk.getting import steps
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from mkiso.waiting import Cancellation
from tests.support import datasets, dcmjs, dcmqrscp, orthanc, pixelmed, qrscp, tools
from tests.support.ecg import lead, recorded
from tests.support.ports import free_ports
from tests.support.service import data_set, elements, read_disc, settings
from tests.support.storing import store
from tests.support.studies import RICHARD, Study, mixed_study

RECEIVER = "RECEIVER"
MIXED, KINDS = "MIXED.001", "KINDS.001"


@dataclass(frozen=True)
class Archive:
    """An archive that listens, and what it took of the studies."""

    port: int
    ae_title: str
    taken: frozenset[Path]

    def configuration(self, directory: Path, **pacs: Any) -> dict[str, Any]:
        """Orthanc answers only those whose AE title it knows. Nobody may listen on the receiver's port."""
        made = settings(directory, self.port, {RECEIVER: 1}, retrieve={"calling_ae_title": RECEIVER})
        made["pacs"] |= {"ae_title": self.ae_title, "retrieve": "get", **pacs}
        return made

    def disc(self, accession: str, directory: Path, **order: Any) -> list[Path]:
        """The instances on the disc that is made."""
        installation = Installation(parse(self.configuration(directory)))
        try:
            disc = make_disc(installation, Order((accession,), "test", "legacy", **order), Cancellation())
            found = read_disc(b"".join(disc), directory / "disc")
            return [file for path, file in found.items() if path.startswith("DICOMDIR/")]
        finally:
            installation.ledger.close()

    def require_held(self, found: list[Path], files: Iterable[Path]) -> None:
        """That is what it took of these, bit for bit. PixelMed sends deflated what it holds otherwise, as by C-MOVE."""
        taken = self.taken.intersection(files)
        if self.ae_title == pixelmed.AE_TITLE:
            assert elements(found) == elements(taken)
        else:
            assert {uid_of(file): data_set(file) for file in found} == {uid_of(file): data_set(file) for file in taken}


def uid_of(file: Path) -> str:
    return str(read_file_meta_info(file).MediaStorageSOPInstanceUID)


def written(dataset: Any, directory: Path) -> Path:
    file = directory / f"{dataset.SOPInstanceUID}.dcm"
    directory.mkdir(parents=True, exist_ok=True)
    dataset.save_as(file, enforce_file_format=True)
    return file


@dataclass(frozen=True)
class Held:
    mixed: Study
    kinds: Study

    @property
    def files(self) -> list[Path]:
        return [*self.mixed.files, *self.kinds.files]


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Held:
    """A study of every transfer syntax and kind, and one of five SOP classes of images, in series of their own."""
    root = tmp_path_factory.mktemp("held")
    mixed, common = mixed_study(root), datasets.study(RICHARD, MIXED)
    ecg = recorded(common, [lead("I", [n % 500 for n in range(1000)])], 500, number=20)
    ecg.SeriesInstanceUID = datasets.uid(MIXED, "ECG")
    notes = datasets.report(common, 7, 1)
    notes.SOPClassUID, notes.Modality = KeyObjectSelectionDocumentStorage, "KO"
    further = [written(one, mixed.directory) for one in (ecg, notes)]
    return Held(replace(mixed, files=(*mixed.files, *further)), kinds_study(root))


def kinds_study(root: Path) -> Study:
    common, directory = datasets.study(RICHARD, KINDS), root / KINDS
    kinds: list[Callable[..., Any]] = [datasets.ct, datasets.mr, datasets.ct_capture]
    images = [make(common, number, 1, 32) for number, make in enumerate(kinds, start=1)]
    images += [datasets.ultrasound(common, 4, 1), datasets.ultrasound_loop(common, 5, 1, 2)]
    files = tuple(written(one, directory) for one in images)
    uid = str(common.StudyInstanceUID)
    return Study(KINDS, RICHARD.patient_id, RICHARD.name, uid, directory, files, ("CT", "MR", "US"))


@contextmanager
def in_orthanc(directory: Path, held: Held) -> Iterator[Archive]:
    port, http = free_ports(2)
    with orthanc.running_orthanc(directory, (port, http), {RECEIVER: 1}) as running:
        running.put(held.files)
        yield Archive(port, orthanc.AE_TITLE, frozenset(held.files))


@contextmanager
def in_qrscp(directory: Path, held: Held) -> Iterator[Archive]:
    (port,) = free_ports(1)
    with qrscp.running_qrscp(directory, port, {}):
        yield Archive(port, qrscp.AE_TITLE, frozenset(store(port, qrscp.AE_TITLE, held.files)))


@contextmanager
def in_dcmqrscp(directory: Path, held: Held, *, gets: bool = True) -> Iterator[Archive]:
    (port,) = free_ports(1)
    argv = dcmqrscp.configure(directory, port, {}, gets=gets)
    dcmqrscp.index(directory, held.files)
    process = dcmqrscp.start(argv, directory, port)
    try:
        yield Archive(port, dcmqrscp.AE_TITLE, frozenset(held.files))
    finally:
        tools.end(process)


@contextmanager
def in_pixelmed(directory: Path, held: Held) -> Iterator[Archive]:
    port, http = free_ports(2)
    with pixelmed.running_pixelmed(directory, (port, http), {}):
        yield Archive(port, pixelmed.AE_TITLE, frozenset(store(port, pixelmed.AE_TITLE, held.files)))


@pytest.fixture(scope="module", params=[in_orthanc, in_qrscp, in_dcmqrscp, in_pixelmed])
def archive(request: pytest.FixtureRequest, held: Held, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with request.param(tmp_path_factory.mktemp("archive") / "archive", held) as running:
        yield running


def test_what_is_held_comes_bit_for_bit_or_is_refused_by_name(archive: Archive, held: Held, tmp_path: Path) -> None:
    """dcmqrscp sends of each SOP class in one transfer syntax, none that is compressed, and tells no SOP class."""
    if archive.ae_title != dcmqrscp.AE_TITLE:
        archive.require_held(archive.disc(MIXED, tmp_path), held.mixed.files)
        return
    unsent = [file.stem for file in held.mixed.files if is_compressed(file) or is_private(file)]
    with pytest.raises(errors.Incomplete) as refused:
        archive.disc(MIXED, tmp_path)
    assert re.findall(r"[0-9.]{20,}(?=[,.])", refused.value.detail) == sorted(unsent)
    assert refused.value.fields["received"] == len(held.mixed.files) - len(unsent)


def test_more_sop_classes_than_an_association_has_room_for_come_by_several(
    archive: Archive, held: Held, tmp_path: Path
) -> None:
    classes = {file.stem: str(read_file_meta_info(file).MediaStorageSOPClassUID) for file in held.kinds.files}
    assert len(steps(list(classes), classes, [])) == 2
    archive.require_held(archive.disc(KINDS, tmp_path), held.kinds.files)


def test_a_series_comes_alone(archive: Archive, held: Held, tmp_path: Path) -> None:
    ecg = held.mixed.files[-2]
    found = archive.disc(MIXED, tmp_path, series_uids=(str(dcmread(ecg).SeriesInstanceUID),))
    assert [uid_of(file) for file in found] == [ecg.stem]
    archive.require_held(found, [ecg])


def is_compressed(file: Path) -> bool:
    return bool(read_file_meta_info(file).TransferSyntaxUID.is_encapsulated)


def is_private(file: Path) -> bool:
    return bool(read_file_meta_info(file).MediaStorageSOPClassUID.is_private)


def test_an_archive_that_takes_no_c_get_is_named(held: Held, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with dcmjs.running_dcmjs(tmp_path / "archive", port, (RECEIVER, 1), held.kinds.files):
        archive = Archive(port, dcmjs.AE_TITLE, frozenset())
        with pytest.raises(errors.PacsRejected, match=f"{dcmjs.AE_TITLE} .*takes no C-GET"):
            archive.disc(KINDS, tmp_path)


def test_an_archive_that_takes_c_get_and_may_not_store_names_what_does_not_come(held: Held, tmp_path: Path) -> None:
    with (
        in_dcmqrscp(tmp_path / "archive", held, gets=False) as archive,
        pytest.raises(errors.PacsRejected, match="ended the C-GET with status A702") as refused,
    ):
        archive.disc(KINDS, tmp_path)
    assert all(file.stem in refused.value.detail for file in held.kinds.files)
