"""DICOMDIRs of what scanners write and dcmmkdir cannot parse: the records are those of the sound instances."""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.filereader import read_file_meta_info

from mkiso.config import Config, Media
from mkiso.dcmtk.dcmmkdir import Indexer
from mkiso.dicom.headers import Keys, read_keys
from mkiso.dicom.instances import read_arrival
from mkiso.dicom.records import SYNTAX, Record, flat, read
from mkiso.disc import dicomdir
from mkiso.disc.dicomdir import CHUNK, Completed, Dicomdir, make_dicomdir
from mkiso.disc.layout import Setting, Tree, pdi
from mkiso.disc.uncompressed import Uncompressed, uncompressed
from mkiso.verify.verify import verify
from mkiso.workspace import Workspace
from tests.support import datasets
from tests.support import odd_files as odd
from tests.support.datasets import Patient
from tests.support.dicomdirs import errors_of_dciodvfy, in_file_set, leaves_of_dcdirdmp, line_of, walked
from tests.support.odd_files import ODD, Odd
from tests.support.pdi import KINDS, made_disc
from tests.support.stage import JOHN, encoded, presentation, put, staged
from tests.support.studies import GB18030, IR87, LATIN, UTF8
from tests.support.tools import run

DCMTK = Path("/usr/bin")
PHILIPS, GE = odd.sequence_with_length_and_delimiter, odd.item_with_length_and_delimiter
CUT = odd.pixels_too_short


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    (tmp_path / "stage").mkdir()
    return tmp_path / "stage"


def made(stage: Path, files: list[str]) -> Dicomdir:
    work = stage.parent / "work"
    work.mkdir(exist_ok=True)
    try:
        return make_dicomdir(Indexer(DCMTK, stage, "CD1"), files, work, lambda: None)
    finally:
        assert list(work.iterdir()) == []


def records(stage: Path, contents: Iterable[bytes]) -> list[Record]:
    """Those of a DICOMDIR that names all of them."""
    files = [put(stage, number, content) for number, content in enumerate(contents)]
    assert made(stage, files).indexed == tuple(files)
    return list(flat(read((stage / "DICOMDIR").read_bytes())))


def elements(records: list[Record]) -> list[dict[int, bytes]]:
    return [record.elements for record in records]


def image(number: int = 1, patient: Patient = JOHN) -> Dataset:
    return datasets.ct(datasets.study(patient, "CT.001"), 1, number, side=16)


def assert_sound(stage: Path, made: Dicomdir, files: list[str]) -> None:
    """Every file is indexed, in its place, and everybody finds it."""
    lines = [line_of(stage, file) for file in files]
    assert (made.indexed, made.not_indexed) == (tuple(files), {})
    assert walked(stage / "DICOMDIR") == lines
    assert in_file_set(stage / "DICOMDIR") == set(lines)
    assert leaves_of_dcdirdmp(stage / "DICOMDIR") == len(files)
    assert errors_of_dciodvfy(stage / "DICOMDIR") == []


@pytest.mark.parametrize("odd_one", ODD.values(), ids=ODD)
def test_what_is_oddly_encoded_has_the_records_of_its_sound_twin(odd_one: Odd, stage: Path) -> None:
    sound = encoded(image())
    *above, wanted = records(
        stage, [odd.changed(sound, {odd.IMAGES: odd.element(odd.IMAGES, b"SQ", odd.referenced())})]
    )
    *found, leaf = records(stage, [odd_one(sound)])
    assert elements(found) == elements(above)
    assert without_images(leaf) == without_images(wanted)
    items = leaf.elements.get(odd.IMAGES, b"")[12:]
    assert items == odd.referenced() * items.count(odd.referenced())
    assert leaf.text(SYNTAX) == read_file_meta_info(stage / leaf.file).TransferSyntaxUID


def without_images(leaf: Record) -> dict[int, bytes]:
    return {tag: content for tag, content in leaf.elements.items() if tag not in {odd.IMAGES, SYNTAX}}


def test_what_no_reader_can_read_is_not_indexed(stage: Path) -> None:
    """It ends before its study."""
    sound, torn = encoded(image(1)), encoded(image(2))
    end = torn.index(odd.elements(torn)[0x0020000D])
    files = [put(stage, 1, sound), put(stage, 2, torn[:end])]
    dicomdir = made(stage, files)
    assert (dicomdir.indexed, list(dicomdir.not_indexed)) == ((files[0],), [files[1]])


def test_odd_ones_and_sound_ones_of_a_series_have_one_record_above_them(stage: Path) -> None:
    """In their order, over several chunks."""
    kinds = (bytes, PHILIPS, GE, odd.elements_without_vr, CUT)
    images = [kinds[number % 5](encoded(image(number + 1))) for number in range(2 * CHUNK + 10)]
    files = [put(stage, number, content) for number, content in enumerate(images)]
    assert_sound(stage, made(stage, files), files)
    types = [record.type for record in flat(read((stage / "DICOMDIR").read_bytes()))]
    assert types == ["PATIENT", "STUDY", "SERIES", *["IMAGE"] * len(files)]


@pytest.mark.parametrize("patient", [UTF8, IR87, GB18030, LATIN, Patient("PAT\xc4", "M\xdcLLER^J\xd6RG")])
@pytest.mark.parametrize("first", [0, 1])
def test_a_patient_of_any_character_set_has_one_record_with_the_bytes_of_the_instances(
    patient: Patient, first: int, stage: Path
) -> None:
    contents = [encoded(image(1, patient)), PHILIPS(encoded(image(2, patient)))]
    found = records(stage, reversed(contents) if first else contents)
    assert [one.type for one in found] == ["PATIENT", "STUDY", "SERIES", "IMAGE", "IMAGE"]
    parts = odd.elements(contents[0])
    for record, tags in zip(found, [(0x00080005, 0x00100010, 0x00100020), (0x00081030,)], strict=False):
        assert [record.elements[tag] for tag in tags] == [parts[tag] for tag in tags]


def test_an_undeclared_character_set_stays_as_it_is(stage: Path) -> None:
    name = "JÖRG^MÜLLE".encode("latin-1")
    parts = odd.elements(encoded(image())) | {0x00100010: odd.element(0x00100010, b"PN", name)}
    undeclared = odd.joined({tag: one for tag, one in parts.items() if tag != 0x00080005})
    patient, *_ = records(stage, [GE(undeclared)])
    assert patient.value(0x00100010) == name
    assert elements([patient]) == elements(records(stage, [undeclared])[:1])


def test_each_kind_of_instance_has_the_keys_of_its_record(stage: Path) -> None:
    common = datasets.study(JOHN, "CT.001")
    kinds = [
        image(),
        datasets.mr(common, 2, 1, side=16),
        datasets.ultrasound_loop(common, 3, 1),
        datasets.report(common, 4, 1),
        presentation(common, 5, 1),
        datasets.document(common, 6, 1),
    ]
    kinds[3].VerificationFlag, kinds[3].ConceptNameCodeSequence[0].CodeMeaning = "VERIFIED", "Röntgen"
    kinds[3].VerifyingObserverSequence = datasets._code("1", "99X", "who")
    kinds[3].VerifyingObserverSequence[0].VerificationDateTime = "20240301120000"
    kinds[3].ContentSequence[0].RelationshipType = "HAS CONCEPT MOD"
    found = elements(records(stage, [odd.elements_without_vr(encoded(one)) for one in kinds]))
    assert found == elements(records(stage, map(encoded, kinds)))
    types = {record[0x00041430][8:].strip() for record in found}
    assert types == {b"PATIENT", b"STUDY", b"SERIES", b"IMAGE", b"SR DOCUMENT", b"PRESENTATION", b"ENCAP DOC"}


@pytest.mark.parametrize("program", [("dcmconv", "+ti"), ("dcmconv", "+tb"), ("dcmcrle", "+un"), ("dcmcjpls", "+un")])
def test_a_record_names_the_transfer_syntax_of_the_file_and_not_that_of_its_copy(
    program: tuple[str, str], stage: Path
) -> None:
    """Implicit, big endian and compressed ones, which end too early."""
    (stage / "one").write_bytes(encoded(image()))
    assert run((DCMTK / program[0], program[1], stage / "one", stage / "other")).returncode == 0
    content = (stage / "other").read_bytes()
    wanted = elements(records(stage, [content]))
    assert elements(records(stage, [content[:-20]])) == wanted


def test_a_deflated_one_is_indexed_too(stage: Path) -> None:
    wanted = elements(records(stage, [odd.deflated(encoded(image()))]))
    assert elements(records(stage, [odd.deflated(odd.elements_without_vr(encoded(image())))])) == wanted


def test_keys_that_it_lacks_are_not_invented(stage: Path) -> None:
    bare = image()
    bare.StudyTime, bare.StudyID, bare.InstanceNumber = "", "", None
    files = [put(stage, 1, GE(encoded(bare)))]
    assert made(stage, files).completed == (
        Completed(files[0], "STUDY", "StudyTime", "101500"),
        Completed(files[0], "STUDY", "StudyID", "CT.001"),
        Completed(files[0], "IMAGE", "InstanceNumber", "1"),
    )
    assert_sound(stage, made(stage, files), files)


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"])
def test_without_a_key_that_must_not_be_invented_it_is_not_indexed(keyword: str, stage: Path) -> None:
    bare = image()
    setattr(bare, keyword, "")
    dicomdir = made(stage, [put(stage, 1, GE(encoded(bare)))])
    assert dicomdir.indexed == ()


def test_what_has_two_patients_to_two_readers_is_not_indexed(stage: Path) -> None:
    one, other = (odd.element(0x00100020, b"LO", value) for value in (b"PAT001", b"PAT002"))
    content = GE(encoded(image()))
    assert one in content
    assert made(stage, [put(stage, 1, content.replace(one, one + other))]).indexed == ()
    assert made(stage, [put(stage, 1, content.replace(one, one + one))]).indexed != ()


def test_what_no_dicomdir_can_name_is_not_copied_again(stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[Path] = []

    def read_some(file: Path, *wanted: Collection[int]) -> Keys | None:
        if not wanted:  # all, for a copy
            copied.append(file)
        return read_keys(file, *wanted)

    monkeypatch.setattr(dicomdir, "read_keys", read_some)
    common = datasets.study(JOHN, "CT.001")
    files = staged(stage, [image(), datasets.private_instance(common, 2, 1)])
    assert list(made(stage, files).not_indexed) == [files[1]]
    assert copied == []


def test_of_files_that_dcmmkdir_takes_no_header_is_read(stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(file: Path) -> None:
        raise AssertionError(file)

    monkeypatch.setattr(dicomdir, "read_keys", never)
    monkeypatch.setattr(dicomdir, "own_values", never)
    files = staged(stage, [image(1), image(2)])
    assert_sound(stage, made(stage, files), files)


def laid_out(directory: Path, contents: Iterable[bytes], *, raw: bool = False) -> tuple[Path, Tree]:
    """A disc's tree of what came so, as a job lays it out."""
    (directory / "received").mkdir()
    arrived = []
    for number, content in enumerate(contents):
        (directory / "received" / f"{number}").write_bytes(content)
        arrived.append(read_arrival(directory / "received" / f"{number}", lambda _: True))
    instances = [one for one in arrived if one]
    assert len(instances) == len(arrived)
    setting = Setting(Config(media=Media(uncompressed=raw)), Workspace(directory), "iso", lambda: None)
    setting.stage.mkdir()
    plain = uncompressed(instances, setting) if raw else Uncompressed(tuple(instances), 0, 0)
    return setting.stage, pdi(plain.instances, setting)


@pytest.mark.parametrize("raw", [False, True])
def test_a_disc_of_every_odd_encoding_is_sound(raw: bool, tmp_path: Path) -> None:
    contents = [make(encoded(image(number))) for number, make in enumerate([bytes, *ODD.values()], 1)]
    disc, tree = laid_out(tmp_path, contents, raw=raw)
    assert tree.not_indexed == 0
    assert sorted(file.read_bytes() for file in (disc / "IMAGES").rglob("IM*")) == sorted(contents)
    assert [check for check in verify(disc) if not check.ok] == []
    assert len(in_file_set(disc / "DICOMDIR")) == len(contents)
    assert errors_of_dciodvfy(disc / "DICOMDIR") == []


def test_an_odd_one_that_no_dicomdir_can_name_is_beside_it(tmp_path: Path) -> None:
    private = datasets.private_instance(datasets.study(JOHN, "CT.001"), 2, 1)
    disc, tree = laid_out(tmp_path, [PHILIPS(encoded(image())), CUT(encoded(private))])
    assert tree.not_indexed == 1
    assert [file.read_bytes() for file in (disc / "OTHER").rglob("IM*")] == [CUT(encoded(private))]
    assert [check for check in verify(disc) if not check.ok] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_disc_of_odd_instances_is_sound(kind: Callable[[Path], Path], tmp_path: Path) -> None:
    contents = [one(encoded(image(number))) for number, one in enumerate([bytes, PHILIPS, GE, odd.elements_without_vr])]
    private = datasets.private_instance(datasets.study(JOHN, "CT.001"), 2, 1)
    disc = made_disc(tmp_path, [*contents, GE(encoded(private))])
    assert [check for check in verify(kind(disc)) if not check.ok] == []
    assert len(in_file_set(disc / "DICOMDIR")) == 4
    assert [path.parent.name for path in (disc / "OTHER").rglob("IM*")] == ["SE000002"]
