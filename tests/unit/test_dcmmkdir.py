from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_subprocess import FakeProcess

from mkiso.dcmtk.dcmmkdir import Crashed, Indexer, complaints, index, index_argv
from mkiso.errors import Internal

INDEXER = Indexer(Path("/opt/dcmtk"), Path("/w/stage"), "CD1")
FILES = [f"IMAGES/S0000001/I{number:07}" for number in (1, 2)]


def indexed(directory: Path, invent: bool = False) -> dict[str, str]:
    product = directory / "one.dicomdir"
    return index(INDEXER, FILES, product, invent=invent, directory=directory, checkpoint=lambda: None)


def argv(directory: Path, invent: bool = False) -> tuple[str, ...]:
    return index_argv(INDEXER, directory / "one.dicomdir", directory / "one.list", invent)


def test_the_argv_of_dcmmkdir() -> None:
    assert index_argv(INDEXER, Path("/w/a.dicomdir"), Path("/w/a.list"), invent=False) == (
        *("/opt/dcmtk/dcmmkdir", "-Pgp", "-Nxc", "-Nec", "-Nrc", "-nb"),
        *("+id", "/w/stage", "+D", "/w/a.dicomdir", "+F", "CD1", "@/w/a.list"),
    )


def test_the_argv_of_dcmmkdir_that_may_invent() -> None:
    assert index_argv(INDEXER, Path("/w/a.dicomdir"), Path("/w/a.list"), invent=True) == (
        *("/opt/dcmtk/dcmmkdir", "+I", "-Pgp", "-Nxc", "-Nec", "-Nrc", "-nb"),
        *("+id", "/w/stage", "+D", "/w/a.dicomdir", "+F", "CD1", "@/w/a.list"),
    )


@pytest.mark.parametrize("invent", [False, True])
def test_it_is_given_the_files_in_a_list(invent: bool, fake: FakeProcess, tmp_path: Path) -> None:
    fake.register(argv(tmp_path, invent))
    assert indexed(tmp_path, invent) == {}
    assert (tmp_path / "one.list").read_text() == "IMAGES/S0000001/I0000001\nIMAGES/S0000001/I0000002\n"


def test_what_it_says_against_a_file_is_told_without_the_path_of_the_host(captured: Callable[[str], str]) -> None:
    files = [f"IMAGES/S0000001/I{number:07}" for number in range(1, 21)]
    told = complaints(captured("dcmmkdir-left-out"), Path("stage"), files)
    assert told == {
        files[0]: "required attribute PatientID (0010,0020) empty",
        files[1]: "required attribute Modality (0008,0060) empty",
        files[2]: "required attribute SeriesInstanceUID (0020,000e) empty",
        files[3]: "required attribute StudyInstanceUID (0020,000d) empty",
        files[5]: "required attribute InstanceNumber (0020,0013) empty",
        files[6]: "required attribute CompletionFlag (0040,a491) empty",
        files[7]: "required attribute InstanceNumber (0020,0013) empty",
        files[8]: "invalid SOP class (1.2.826.0.1.3680043.8.498.1.77) for STD-GEN-CD/DVD-RAM profile",
        files[11]: "required attribute PatientID (0010,0020) missing",
        files[12]: "required attribute StudyDate (0008,0020) missing",
        files[13]: "required attribute ConceptNameCodeSequence (0040,a043) missing",
        files[15]: "directory record for this SOP instance already exists",
    }


def test_a_warning_about_a_file_that_it_takes_is_no_complaint() -> None:
    log = f"W: LittleEndianExplicit expected but JPEG2000 found: {FILES[0]}\n"
    log += f"W: file /w/stage/{FILES[0]}: StudyDate (0008,0020) missing, using alternative: 20200101\n"
    assert complaints(log, Path("/w/stage"), FILES) == {}


def test_that_no_file_is_good_is_no_failure(fake: FakeProcess, tmp_path: Path) -> None:
    said = f"E: Invalid stream: reading file: {FILES[0]}\nE: no good files: DICOMDIR not created\n"
    fake.register(argv(tmp_path), stderr=said, returncode=1)
    assert indexed(tmp_path) == {FILES[0]: "Invalid stream: reading file"}


def test_any_other_failure_is_internal_and_its_words_are_for_the_log(fake: FakeProcess, tmp_path: Path) -> None:
    said = "F: dcmmkdir: error (No space left on device) writing file: /w/one.dicomdir\n"
    fake.register(argv(tmp_path), stderr=said, returncode=1)
    with pytest.raises(Internal) as failure:
        indexed(tmp_path)
    assert "/w" not in str(failure.value)
    assert "No space left" in failure.value.__notes__[0]


def test_that_its_memory_ended_is_a_crash(fake: FakeProcess, tmp_path: Path) -> None:
    fake.register(argv(tmp_path), stderr="F: dcmmkdir: error (Virtual Memory exhausted) reading", returncode=1)
    with pytest.raises(Crashed):
        indexed(tmp_path)


def test_a_signal_that_ended_it_is_a_crash(fake: FakeProcess, tmp_path: Path) -> None:
    fake.register(argv(tmp_path), stderr="E: no good files", returncode=-11)
    with pytest.raises(Crashed):
        indexed(tmp_path)
