"""Archives by other hands, none of which stands on DCMTK: discs of what they hold, and a disc as another's reader takes it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from mkiso.cancellation import Cancellation
from mkiso.config import parse
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from mkiso.verify.verify import verify
from tests.support import orthanc, pixelmed
from tests.support.archive import running_archive
from tests.support.datasets import Patient
from tests.support.orthanc import running_orthanc
from tests.support.ports import free_ports
from tests.support.service import elements, read_disc, settings
from tests.support.storing import store
from tests.support.studies import RICHARD, Study, ct_study, mixed_study

RECEIVER = "RECEIVER"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the studies are that the archives are given."""
    return tmp_path_factory.mktemp("held")


@pytest.fixture(scope="module")
def mixed(root: Path) -> Study:
    ct_study(root, Patient("PAT900", "OTHER^TEST"), "ANOTHER.001")
    return mixed_study(root)


@dataclass(frozen=True)
class Archive:
    """An archive that listens, and can move to the receiver."""

    port: int
    receiver: int
    ae_title: str = "ABPACS"

    def disc(self, accession: str, directory: Path, **media: Any) -> dict[str, Path]:
        """What is on a disc that passes every check of `mkiso verify`."""
        configuration = settings(directory, self.port, {RECEIVER: self.receiver}, media={"layout": "pdi", **media})
        configuration["pacs"]["ae_title"] = self.ae_title
        installation, iso = Installation(parse(configuration)), directory / "disc.iso"
        iso.write_bytes(b"".join(make_disc(installation, Order((accession,), "test", "pdi"), Cancellation())))
        installation.ledger.close()
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
    assert elements(instances_on(in_pixelmed.disc(mixed.accession, tmp_path))) == elements(taken)


def is_compressed(file: Path) -> bool:
    syntax = dcmread(file, specific_tags=["SOPInstanceUID"]).file_meta.TransferSyntaxUID
    return syntax.is_compressed or syntax == DeflatedExplicitVRLittleEndian


@pytest.mark.parametrize("uncompressed", [False, True])
def test_pixelmed_finds_all_that_the_dicomdir_names_and_sends_it_to_an_archive(
    uncompressed: bool, root: Path, mixed: Study, tmp_path: Path
) -> None:
    """But for what is compressed, which its importer does not take from any disc."""
    source, receiver, port, http = free_ports(4)
    with running_archive(source, {RECEIVER: receiver}, root):
        disc = Archive(source, receiver).disc(mixed.accession, tmp_path, uncompressed=uncompressed)
    indexed = [file for file in instances_on(disc) if file.is_relative_to(tmp_path / "disc" / "IMAGES")]
    with running_orthanc(tmp_path / "elsewhere", (port, http), {}) as elsewhere:
        done = pixelmed.import_disc(tmp_path / "disc", port, orthanc.AE_TITLE)
        arrived = elsewhere.instances(tmp_path / "arrived")
    assert (len(indexed), sum(map(is_compressed, indexed))) == (10, 0 if uncompressed else 5)
    assert elements(arrived) == elements(file for file in indexed if not is_compressed(file)), done.stdout
