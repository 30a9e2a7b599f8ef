"""Archives by other hands, none of which stands on DCMTK: what they hold on discs, and discs as they read them."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from mkiso import errors
from mkiso.config import parse
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from mkiso.verify.verify import verify
from mkiso.waiting import Cancellation
from tests.support import dcmjs, orthanc, pixelmed, tinypacs
from tests.support.archive import running_archive
from tests.support.datasets import Patient
from tests.support.orthanc import Orthanc, running_orthanc
from tests.support.ports import free_ports
from tests.support.service import elements, read_disc, settings
from tests.support.storing import store
from tests.support.studies import GB18030, IR87, LATIN, RICHARD, UTF8, Study, ct_study, mixed_study

RECEIVER = "RECEIVER"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the studies are that the archives are given."""
    return tmp_path_factory.mktemp("held")


@pytest.fixture(scope="module")
def mixed(root: Path) -> Study:
    ct_study(root, Patient("PAT900", "OTHER^TEST"), "ANOTHER.001")
    return mixed_study(root)


@pytest.fixture(scope="module")
def named(root: Path) -> list[Study]:
    """Studies of the same patient, whose name each tells in another character set."""
    names = [replace(patient, patient_id=RICHARD.patient_id) for patient in (LATIN, UTF8, GB18030, IR87)]
    return [ct_study(root, name, f"NAMED.{n}", count=1, side=16) for n, name in enumerate(names)]


@dataclass(frozen=True)
class Archive:
    """An archive that listens, and can move to the receiver."""

    port: int
    receiver: int
    ae_title: str = "ABPACS"

    @contextmanager
    def ordered(self, studies: Iterable[Study], directory: Path, **media: Any) -> Iterator[Iterable[bytes]]:
        """The disc that mkiso makes of one patient's studies, as it is streamed."""
        configuration = settings(directory, self.port, {RECEIVER: self.receiver}, media={"layout": "pdi", **media})
        configuration["pacs"]["ae_title"] = self.ae_title
        installation = Installation(parse(configuration))
        try:
            order = Order(tuple(study.accession for study in studies), "test", "pdi")
            yield make_disc(installation, order, Cancellation())
        finally:
            installation.ledger.close()

    def disc(self, studies: Iterable[Study], directory: Path, **media: Any) -> dict[str, Path]:
        """What is on a disc that passes every check of `mkiso verify`."""
        iso = directory / "disc.iso"
        with self.ordered(studies, directory, **media) as disc:
            iso.write_bytes(b"".join(disc))
        assert [f"{check.name}: {check.found}" for check in verify(iso) if not check.ok] == []
        return read_disc(iso, directory / "disc")


def instances_on(disc: dict[str, Path]) -> list[Path]:
    return [file for path, file in disc.items() if path.startswith(("IMAGES/", "OTHER/"))]


@pytest.fixture(scope="module")
def in_pixelmed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """PixelMed's archive, which lists the instances of one series only."""
    port, http, receiver = free_ports(3)
    directory = tmp_path_factory.mktemp("pixelmed") / "archive"
    with pixelmed.running_pixelmed(directory, (port, http), {RECEIVER: receiver}):
        yield Archive(port, receiver, pixelmed.AE_TITLE)


def test_a_disc_from_pixelmed_is_whole(in_pixelmed: Archive, mixed: Study, tmp_path: Path) -> None:
    taken = store(in_pixelmed.port, pixelmed.AE_TITLE, mixed.files)
    assert len(taken) == 6  # what is not compressed, a report and a document
    assert elements(instances_on(in_pixelmed.disc([mixed], tmp_path))) == elements(taken)


def test_a_disc_from_dcmjs_is_whole(mixed: Study, tmp_path: Path) -> None:
    """It holds what that archive sends: all of it in UTF-8."""
    files = [file for file in mixed.files if is_kept_by_dcmjs(file)]
    assert len(files) == 7
    port, receiver = free_ports(2)
    with dcmjs.running_dcmjs(tmp_path / "archive", port, (RECEIVER, receiver), files):
        disc = Archive(port, receiver, dcmjs.AE_TITLE).disc([mixed], tmp_path)
    utf_8 = {uid: values | {"(0008,0005)": "ISO_IR 192"} for uid, values in elements(files).items()}
    assert elements(instances_on(disc)) == utf_8


def test_what_it_is_made_of_is_what_its_lock_file_names_and_has_no_address() -> None:
    """By digest, so that no later release changes it, and from whichever registry npm is set to ask."""
    locked, installed = (json.loads(file.read_text())["packages"] for file in (dcmjs.LOCK, dcmjs.INSTALLED))
    del locked[""]
    assert all(one["integrity"].startswith("sha512-") and "resolved" not in one for one in locked.values())
    assert {name: one["version"] for name, one in installed.items()} == {
        name: one["version"] for name, one in locked.items()
    }


def is_kept_by_dcmjs(file: Path) -> bool:
    """It sends no implicit VR, does not deflate what it says is, adds offset tables, and drops private elements."""
    meta = dcmread(file, specific_tags=["SOPInstanceUID"]).file_meta
    changed = (ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, JPEG2000Lossless)
    return meta.TransferSyntaxUID not in changed and not meta.MediaStorageSOPClassUID.is_private


def test_the_list_of_tiny_pacs_which_names_one_of_eleven_is_not_believed(root: Path, tmp_path: Path) -> None:
    study = ct_study(root, RICHARD, "ELEVEN.001", count=11)
    port, receiver = free_ports(2)
    with tinypacs.running_tinypacs(tmp_path / "archive", port, {RECEIVER: receiver}):
        assert store(port, tinypacs.AE_TITLE, study.files) == [*study.files]
        archive = Archive(port, receiver, tinypacs.AE_TITLE)
        with pytest.raises(errors.Incomplete) as refused, archive.ordered([study], tmp_path):
            pass
    assert refused.value.fields == {"accession": study.accession, "expected": 1, "received": 11, "failed": 0}


@pytest.fixture(scope="module")
def orthanc_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    port, http = free_ports(2)
    with running_orthanc(tmp_path_factory.mktemp("elsewhere") / "orthanc", (port, http), {}) as running:
        yield running


@pytest.fixture
def elsewhere(orthanc_elsewhere: Orthanc) -> Iterator[Orthanc]:
    """An empty archive."""
    yield orthanc_elsewhere
    orthanc_elsewhere.clear()


def is_compressed(file: Path) -> bool:
    syntax = dcmread(file, specific_tags=["SOPInstanceUID"]).file_meta.TransferSyntaxUID
    return syntax.is_compressed or syntax == DeflatedExplicitVRLittleEndian


@pytest.mark.parametrize("uncompressed", [False, True])
def test_pixelmed_finds_all_that_the_dicomdir_names_and_sends_it_to_an_archive(
    uncompressed: bool, root: Path, mixed: Study, named: list[Study], elsewhere: Orthanc, tmp_path: Path
) -> None:
    """But for what is compressed, which its importer does not take from any disc."""
    source, receiver = free_ports(2)
    with running_archive(source, {RECEIVER: receiver}, root):
        disc = Archive(source, receiver).disc([mixed, *named], tmp_path, uncompressed=uncompressed)
    indexed = [file for file in instances_on(disc) if file.is_relative_to(tmp_path / "disc" / "IMAGES")]
    done = pixelmed.import_disc(tmp_path / "disc", elsewhere.port, orthanc.AE_TITLE)
    arrived = elsewhere.instances(tmp_path / "arrived")
    assert (len(indexed), sum(map(is_compressed, indexed))) == (10 + len(named), 0 if uncompressed else 5)
    assert elements(arrived) == elements(file for file in indexed if not is_compressed(file)), done.stdout
