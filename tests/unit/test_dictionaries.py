"""Which dictionary DCMTK's programs read when they start: none that is larger than they need."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mkiso.config import Receiver, Retrieve, Tools
from mkiso.dcmtk.association import SMALL_DICTIONARY, Peer, echo
from mkiso.dcmtk.converters import PICTURE_DICTIONARY, Converter
from mkiso.dcmtk.dcmmkdir import Indexer, index
from mkiso.dcmtk.findscu import Finder
from mkiso.errors import PacsRejected, ReceiverUnavailable
from mkiso.retrieve.receiver import started_receiver
from mkiso.workspace import Workspace
from tests.support.ports import free_ports


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DCMTK of its own place, each of whose programs tells where it has its dictionary from."""
    monkeypatch.delenv("DCMDICTPATH", raising=False)
    for directory in ("bin", "share/dcmtk-3.6", "received"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "share" / "dcmtk-3.6" / "dicom.dic").touch()
    for name in ("echoscu", "findscu", "storescp", "dcmj2pnm", "dsr2html", "dcm2pdf", "dcmdjpeg"):
        program = tmp_path / "bin" / name
        program.write_text('#!/bin/sh\necho "E: DCMDICTPATH=$DCMDICTPATH" >&2\necho "$DCMDICTPATH" > dictionary\n')
        program.chmod(0o700)
    return tmp_path


def of_echoscu(installation: Path, pacs: Peer) -> str:
    failure = echo(installation / "bin", pacs)
    assert failure is not None
    return failure.why


def of_findscu(installation: Path, pacs: Peer) -> str:
    with pytest.raises(PacsRejected) as refused:
        Finder(installation / "bin", pacs, 10, installation).studies("CT.001")
    return refused.value.detail


def of_storescp(installation: Path, _pacs: Peer) -> str:
    receiver = Receiver(port=free_ports(1)[0])
    tools, workspace = Tools(dcmtk_dir=installation / "bin"), Workspace(installation)
    with (
        started_receiver(tools, receiver, Retrieve(), workspace) as running,
        pytest.raises(ReceiverUnavailable) as died,
    ):
        running.wait_until_it_listens()
    return died.value.detail


@pytest.mark.parametrize("program", [of_echoscu, of_findscu, of_storescp])
def test_a_program_that_reads_no_data_sets_has_the_small_dictionary(
    program: Callable[[Path, Peer], str], installation: Path, pacs: Peer
) -> None:
    small = SMALL_DICTIONARY["DCMDICTPATH"]
    assert f"DCMDICTPATH={small}" in program(installation, replace(pacs, connect_timeout=1))
    assert Path(small).exists()


def dictionary_of(name: str, installation: Path) -> str:
    """What a program that makes one file of another has as its dictionary; nothing where that is its default."""
    Converter(installation / "bin", installation, lambda: None).run((str(installation / "bin" / name),))
    return (installation / "dictionary").read_text().strip()


@pytest.mark.parametrize(("name", "public"), [("dsr2html", True), ("dcm2pdf", True), ("dcmdjpeg", False)])
def test_only_a_program_that_shows_has_the_dictionary_without_private_attributes(
    name: str, public: bool, installation: Path
) -> None:
    dictionary = f"{installation}/share/dcmtk-3.6/dicom.dic"
    assert dictionary_of(name, installation) == (dictionary if public else "")


def test_what_makes_a_dicomdir_has_it_too(installation: Path) -> None:
    (installation / "bin" / "dcmj2pnm").rename(installation / "bin" / "dcmmkdir")
    indexer, product = Indexer(installation / "bin", installation, "CD1"), installation / "one.dicomdir"
    index(indexer, ["IM1"], product, invent=False, directory=installation, checkpoint=lambda: None)
    assert (installation / "dictionary").read_text().strip() == f"{installation}/share/dcmtk-3.6/dicom.dic"


def test_a_program_that_makes_pictures_knows_what_pictures_have(installation: Path) -> None:
    assert dictionary_of("dcmj2pnm", installation) == str(PICTURE_DICTIONARY)
    assert PICTURE_DICTIONARY.exists()


def test_a_dictionary_that_the_operator_named_stands(installation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCMDICTPATH", "/opt/own.dic")
    assert dictionary_of("dcmj2pnm", installation) == "/opt/own.dic"


def test_a_program_without_a_dictionary_of_its_installation_has_its_default(installation: Path) -> None:
    (installation / "share" / "dcmtk-3.6" / "dicom.dic").unlink()
    assert dictionary_of("dsr2html", installation) == ""
