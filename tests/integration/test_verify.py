"""`mkiso verify` on sound discs, and on discs that are broken one by one."""

import json
import os
import random
import shutil
import stat
import zipfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
from pydicom import Dataset

from mkiso.checks import Check
from mkiso.dicom import records as codec
from mkiso.dicom.records import FILE_ID, IN_USE, LAST, LOWER, NEXT, SOP_INSTANCE, TYPE, Record, element, flat
from mkiso.verify.medium import UnreadableDisc
from mkiso.verify.verify import verify
from tests.support import datasets
from tests.support.allowance import GB, require_files_of
from tests.support.pdi import (
    JPEG,
    KINDS,
    as_iso,
    as_zip,
    change_records,
    instances,
    made_disc,
    offsets,
    page,
    replace_in,
    set_offset,
)
from tests.support.service import mkiso
from tests.support.stage import JOHN, encoded
from tests.support.tools import run

SERIES = "IMAGES/ST000001/SE000001"
FIRST, SECOND = f"{SERIES}/IM000001", f"{SERIES}/IM000002"
OTHER = "OTHER/ST000001/SE000006/IM000001"
STUDY_DATE, STUDY_TIME, STUDY_ID, STUDY = 0x00080020, 0x00080030, 0x00200010, 0x0020000D
MODALITY, SERIES_NUMBER, SERIES_UID, INSTANCE_NUMBER = 0x00080060, 0x00200011, 0x0020000E, 0x00200013
PATIENT_ID, PATIENT_NAME = 0x00100020, 0x00100010
COMPLETION, CONCEPT, LABEL, MIME_TYPE = 0x0040A491, 0x0040A043, 0x00700080, 0x00420012
SOP_CLASS, SYNTAX = 0x00041510, 0x00041512
LEAVES, REFERENCED = "leaf records and IMAGES", "referenced files"

Break = Callable[[Path], object]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_disc(tmp_path_factory.mktemp("sound"), instances())


@pytest.fixture
def disc(sound: Path, tmp_path: Path) -> Path:
    """A disc that a test may break."""
    return shutil.copytree(sound, tmp_path / "disc")


def failed(path: Path) -> set[str]:
    return {check.name for check in verify(path) if not check.ok}


def found(path: Path, name: str) -> str:
    return next(check.found for check in verify(path) if check.name == name)


@pytest.mark.parametrize("made", KINDS)
def test_a_sound_disc_passes_every_check(made: Callable[[Path], Path], disc: Path) -> None:
    checks = verify(made(disc))
    assert [check for check in checks if not check.ok] == []
    assert len(checks) == 29
    assert len({check.name for check in checks}) == len(checks)
    assert all(check.found for check in checks)


def test_a_disc_is_sound_without_the_viewer_and_what_is_not_indexed(tmp_path: Path) -> None:
    disc = made_disc(tmp_path, [datasets.ct(datasets.study(JOHN, "CT.001"), 1, 1, side=16)])
    (disc / "viewer.exe").unlink()
    shutil.rmtree(disc / "Müller docs")
    replace_in(disc / "INDEX.HTM", b'<a href="viewer.exe">open</a>', b"")
    (disc / "PHONE.HTM").unlink()
    assert [failed(made(disc)) for made in KINDS] == [set()] * 3


def test_a_disc_of_which_nothing_can_be_indexed_is_sound(tmp_path: Path) -> None:
    disc = made_disc(tmp_path, [datasets.private_instance(datasets.study(JOHN, "CT.001"), 1, 1)])
    assert not (disc / "IMAGES" / "ST000001" / "SE000001" / "IM000001").exists()
    assert [failed(made(disc)) for made in KINDS] == [set()] * 3


def test_a_mounted_disc_whose_names_are_all_in_capitals_is_sound(disc: Path) -> None:
    """As ISO 9660 has them without Joliet and Rock Ridge."""
    for path in sorted((disc / "ihe_pdi").iterdir()):
        path.rename(path.with_name(path.name.upper()))
    (disc / "ihe_pdi").rename(disc / "IHE_PDI")
    assert failed(disc) == set()


@pytest.mark.parametrize("volume_id", ["Müller  Radiologie 2024", "dicom", "DICOM-ARCHIVE", "X" * 32])
def test_a_volume_id_that_no_file_set_id_may_be_is_told_by_the_readme(volume_id: str, disc: Path) -> None:
    shown = " ".join(volume_id.replace("ü", "u").split()).encode()
    replace_in(disc / "README.TXT", b"Volume ID: STUDIES", b"Volume ID: " + shown)
    assert failed(as_iso(disc, volume_id)) == set()
    replace_in(disc / "README.TXT", b"Volume ID: ", b"Name: ")
    assert failed(as_iso(disc, volume_id)) == {"volume ID"}


def patched(old: bytes, new: bytes, file: str = "DICOMDIR") -> Break:
    return lambda disc: replace_in(disc / file, old, new)


def records(change: Callable[[list[Record]], object]) -> Break:
    return lambda disc: change_records(disc, change)


def valued(kind: str, tag: int, value: bytes) -> Break:
    """The first record of a type, with another value."""
    return records(lambda root: next(one for one in flat(root) if one.type == kind).put(tag, value))


def lacking(kind: str, tag: int) -> Break:
    return records(lambda root: next(one for one in flat(root) if one.type == kind).elements.pop(tag))


def split(level: int) -> Break:
    """A patient, a study or a series in two records, each with a part of what is below it."""

    def change(root: list[Record]) -> None:
        entity = root
        for _ in range(level):
            entity = entity[0].below
        again = deepcopy(entity[0])
        if len(entity[0].below) > 1:
            entity[0].below, again.below = entity[0].below[:1], again.below[1:]
        else:
            below = entity[0].below[0]
            below.below, again.below[0].below = below.below[:1], again.below[0].below[1:]
            again.below[0].put(STUDY, b"1.2.3")
        entity.append(again)

    return records(change)


def doubled_instance(disc: Path) -> None:
    """One instance in two files, each with a record."""
    shutil.copy(disc / FIRST, disc / SERIES / "IM000009")

    def change(root: list[Record]) -> None:
        series = root[0].below[0].below[0]
        series.below.append(deepcopy(series.below[0]))
        series.below[-1].put(FILE_ID, f"{SERIES}/IM000009".replace("/", "\\").encode())

    change_records(disc, change)


def misplaced_series(root: list[Record]) -> None:
    root[0].below.append(root[0].below[0].below.pop())


def an_empty_study(root: list[Record]) -> None:
    root[0].below.append(Record(deepcopy(root[0].below[0].elements)))
    root[0].below[-1].put(STUDY, b"1.2.3")


def a_key_object_without_a_title(root: list[Record]) -> None:
    report = next(one for one in flat(root) if one.type == "SR DOCUMENT")
    report.put(TYPE, b"KEY OBJECT DOC")
    del report.elements[CONCEPT]


def swapped(disc: Path) -> None:
    (disc / FIRST).rename(disc / "x")
    (disc / SECOND).rename(disc / FIRST)
    (disc / "x").rename(disc / SECOND)


def cut(file: str, count: int = 10) -> Break:
    return lambda disc: os.truncate(disc / file, (disc / file).stat().st_size - count)


def added(file: str, content: bytes | str = b"x") -> Break:
    def add(disc: Path) -> None:
        (disc / file).parent.mkdir(parents=True, exist_ok=True)
        (disc / file).write_bytes(content if isinstance(content, bytes) else content.encode())

    return add


def removed(file: str) -> Break:
    return lambda disc: (disc / file).unlink()


def copied(file: str, to: str) -> Break:
    return lambda disc: shutil.copy(disc / file, disc / to)


def body(markup: str) -> Break:
    return added("ihe_pdi/se000001.htm", page(f"<p>{markup}</p>"))


def linking(target: str) -> Break:
    return body(f'<a href="{target}">x</a>')


def crowded(disc: Path) -> None:
    for number in range(1_001):
        added(f"OTHER/ST000001/SE000007/IM{number:06}")(disc)


def image_of(patient_id: str) -> Dataset:
    common = datasets.study(JOHN, "CT.001")
    common.PatientID = patient_id
    return datasets.private_instance(common, 6, 1)


def a_study_of_a_file(root: list[Record]) -> None:
    value = FIRST.replace("/", "\\").encode()
    root[0].below[0].elements[FILE_ID] = element(FILE_ID, b"CS", value)


def elsewhere(disc: Path) -> None:
    """An instance whose record is sound, but that lies below OTHER."""
    (disc / FIRST).rename(disc / "OTHER" / "IM000001")
    change_records(disc, lambda root: root[0].below[0].below[0].below[0].put(FILE_ID, b"OTHER\\IM000001"))


BROKEN: list[tuple[str, Break, set[str]]] = [
    ("no DICOMDIR", removed("DICOMDIR"), {"DICOMDIR"}),
    ("a torn one", cut("DICOMDIR"), {"DICOMDIR"}),
    ("no prefix", patched(b"DICM", b"DICN"), {"DICOMDIR"}),
    ("version", patched(b"OB\0\0\2\0\0\0\0\1", b"OB\0\0\2\0\0\0\0\2"), {"file meta information"}),
    ("SOP class", patched(b"10008.1.3.10", b"10008.1.3.11"), {"file meta information"}),
    ("syntax", patched(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0"), {"file meta information"}),
    ("UID", patched(b"2.25.", b"2.2.."), {"file meta information"}),
    ("implementation", patched(b"2.25.14005", b"2.25.04005"), {"file meta information"}),
    ("inconsistent", patched(b"\4\0\x12\x12US\2\0\0\0", b"\4\0\x12\x12US\2\0\xff\xff"), {"records"}),
    ("an offset to nothing", lambda disc: set_offset(disc, NEXT, 4, 7), {"records"}),
    ("a loop", lambda disc: set_offset(disc, NEXT, 4, offsets(disc)[3]), {"records"}),
    ("a loop upwards", lambda disc: set_offset(disc, LOWER, 4, offsets(disc)[0]), {"records"}),
    ("never reached", lambda disc: set_offset(disc, NEXT, 3, 0), {"records", LEAVES}),
    ("the last of the root", lambda disc: set_offset(disc, LAST, 0, 7), {"records"}),
    ("not in use", valued("IMAGE", IN_USE, b"\0\0"), {"records"}),
    ("a retired type", valued("IMAGE", TYPE, b"CURVE"), {"record types"}),
    ("below another", records(misplaced_series), {"record types", REFERENCED}),
    ("an empty study", records(an_empty_study), {"record types"}),
    ("no patient", records(list.clear), {"PATIENT", LEAVES}),
    ("no PatientID", valued("PATIENT", PATIENT_ID, b""), {"PATIENT", "one patient"}),
    ("no PatientName", lacking("PATIENT", PATIENT_NAME), {"PATIENT"}),
    ("no StudyID", valued("STUDY", STUDY_ID, b""), {"STUDY"}),
    ("no StudyDate", valued("STUDY", STUDY_DATE, b""), {"STUDY"}),
    ("no day", valued("STUDY", STUDY_DATE, b"20240230"), {"STUDY"}),
    ("no StudyTime", lacking("STUDY", STUDY_TIME), {"STUDY"}),
    ("no time", valued("STUDY", STUDY_TIME, b"2460"), {"STUDY"}),
    ("no study UID", valued("STUDY", STUDY, b""), {"STUDY", REFERENCED}),
    ("no Modality", valued("SERIES", MODALITY, b""), {"SERIES"}),
    ("no SeriesNumber", valued("SERIES", SERIES_NUMBER, b""), {"SERIES"}),
    ("no series UID", valued("SERIES", SERIES_UID, b""), {"SERIES", REFERENCED}),
    ("no InstanceNumber", valued("IMAGE", INSTANCE_NUMBER, b""), {"IMAGE"}),
    ("no CompletionFlag", lacking("SR DOCUMENT", COMPLETION), {"SR, KO, PR"}),
    ("no ContentLabel", valued("PRESENTATION", LABEL, b""), {"SR, KO, PR"}),
    ("no title of a key object", records(a_key_object_without_a_title), {"SR, KO, PR"}),
    ("no MIME type", lacking("ENCAP DOC", MIME_TYPE), {"other records"}),
    ("a patient twice", split(0), {"unique identifiers", REFERENCED}),
    ("a study twice", split(1), {"unique identifiers"}),
    ("a series twice", split(2), {"unique identifiers"}),
    ("an instance twice", doubled_instance, {"unique identifiers"}),
    ("a file ID in lower case", valued("IMAGE", FILE_ID, FIRST.lower().replace("/", "\\").encode()), {"file IDs"}),
    ("no file ID", lacking("IMAGE", FILE_ID), {"file IDs", LEAVES}),
    ("a study of a file", records(a_study_of_a_file), {"file IDs", LEAVES, REFERENCED}),
    ("an instance is gone", removed(FIRST), {REFERENCED}),
    ("an instance is torn", cut(FIRST), {REFERENCED}),
    ("an instance is none", added(FIRST), {REFERENCED}),
    ("instances are swapped", swapped, {REFERENCED}),
    ("another SOP class", valued("IMAGE", SOP_CLASS, b"1.2.840.10008.5.1.4.1.1.4"), {REFERENCED}),
    ("another instance", valued("IMAGE", SOP_INSTANCE, b"1.2.3"), {REFERENCED}),
    ("another syntax", valued("IMAGE", SYNTAX, b"1.2.840.10008.1.2.4.90"), {REFERENCED}),
    ("another study", valued("STUDY", STUDY, b"1.2.3"), {REFERENCED}),
    ("another series", valued("SERIES", SERIES_UID, b"1.2.3"), {REFERENCED}),
    ("an instance without a record", copied(FIRST, f"{SERIES}/IM000009"), {LEAVES}),
    ("a file of another folder", elsewhere, {LEAVES, "OTHER"}),
    ("not indexed, and torn", cut(OTHER), {"OTHER"}),
    ("not indexed, and gone", removed(OTHER), {"OTHER"}),
    ("not indexed, and not named", patched(b"  OTHER/", b" OTHER/", "README.TXT"), {"OTHER"}),
    ("not indexed, and another", added(OTHER, encoded(instances()[0])), {"OTHER"}),
    ("an image of another patient", patched(b"PAT001", b"PAT002", FIRST), {"one patient"}),
    ("another patient, not indexed", added(OTHER, encoded(image_of("PAT002"))), {"one patient"}),
    ("another patient's records", valued("PATIENT", PATIENT_ID, b"PAT002"), {"one patient"}),
    ("another file-set ID", patched(b"File-set ID: STUDIES", b"File-set ID: OTHER", "README.TXT"), {"volume ID"}),
    ("a file-set ID that is none", patched(b"STUDIES ", b"studies "), {"volume ID"}),
    ("a long name", added("ihe_pdi/seriesnumber1.htm", page("")), {"names"}),
    ("a long extension", added("ihe_pdi/a.html", page("")), {"names", "web content"}),
    ("an extension", copied(FIRST, f"{SERIES}/IM000009.DCM"), {"names", LEAVES}),
    ("9 levels", added("ihe_pdi/a/b/c/d/e/f/g/a.htm", page("")), {"names"}),
    ("a name twice", copied("INDEX.HTM", "index.htm"), {"names"}),
    ("a symbolic link", lambda disc: (disc / "ihe_pdi" / "a.jpg").symlink_to("im000001.jpg"), {"names"}),
    ("a loop of links", lambda disc: (disc / "ihe_pdi" / "a").symlink_to(".."), {"names"}),
    ("a pipe", lambda disc: os.mkfifo(disc / "ihe_pdi" / "a.jpg"), {"names"}),
    ("a folder of 1,001", crowded, {"folders", "OTHER"}),
    ("no README.TXT", removed("README.TXT"), {"README.TXT", "OTHER", "nothing unknown"}),
    ("not ASCII", patched(b"Disc", "Dísc".encode(), "README.TXT"), {"README.TXT"}),
    ("a line without CR", patched(b"Disc of a test\r\n", b"Disc of a test\n", "README.TXT"), {"README.TXT"}),
    ("DICOM at the root", copied(FIRST, "viewer.exe"), {"DICOM files at the root"}),
    ("a file that nobody knows", added("NOTES.TXT"), {"nothing unknown"}),
    ("a folder that nobody knows", lambda disc: (disc / "NOTES").mkdir(), {"nothing unknown"}),
    ("no INDEX.HTM", removed("INDEX.HTM"), {"INDEX.HTM"}),
    ("no JPEG", added("ihe_pdi/im000001.jpg", b"GIF89a\xff\xd9"), {"web content"}),
    ("a torn JPEG", added("ihe_pdi/im000001.jpg", JPEG[:-1]), {"web content"}),
    ("no PDF", added("ihe_pdi/re000001.pdf", b"<script/>"), {"web content"}),
    ("no web content", added("ihe_pdi/a.js", b""), {"web content"}),
    ("no XML", body("<br>"), {"XHTML"}),
    ("no UTF-8", added("ihe_pdi/a.htm", page("é").encode("latin-1")), {"XHTML"}),
    ("UTF-16", added("ihe_pdi/a.htm", page("").partition("?>")[2].strip().encode("utf-16")), {"XHTML"}),
    ("another encoding", added("ihe_pdi/a.htm", page("").replace("UTF-8", "UTF-7")), {"XHTML"}),
    ("a comment", body("<!--> <script> -->"), {"XHTML"}),
    ("a CDATA section", body("<![CDATA[<script>alert(1)</script>]]>"), {"XHTML"}),
    ("an instruction", body("<?a <script>?>"), {"XHTML"}),
    ("an empty page", added("PHONE.HTM", b""), {"XHTML"}),
    ("a link to the web", linking("https://example.org/"), {"links"}),
    ("a link to a host", linking("//example.org/a"), {"links"}),
    ("a link to a folder of the computer", linking("/etc/passwd"), {"links"}),
    ("a link out of the disc", linking("../../a.htm"), {"links"}),
    ("a link back into the disc", linking("../../disc/index.htm"), {"links"}),
    ("a link to nothing", linking("a.htm"), {"links"}),
    ("a link in capitals", linking("../INDEX.HTM"), {"links"}),
    ("a link in capitals to nothing", linking("IM000001.JPG"), {"links"}),
    ("a link that Linux does not find", linking("../index.htm"), {"links"}),
    ("a link with a backslash", linking("..\\viewer.exe"), {"links"}),
    ("a link to no file of the viewer", linking("../m%C3%BCller%20docs/a"), {"links"}),
    ("a picture of the web", body('<img src="http://example.org/a.jpg" alt="" />'), {"links"}),
    ("a picture that is none", body('<img src="data:image/jpeg;base64,PHNj" alt="" />'), {"links"}),
    ("script", body("<script>alert(1)</script>"), {"no script"}),
    ("script of a prefix", body('<x:script xmlns:x="http://www.w3.org/1999/xhtml" />'), {"no script"}),
    ("a handler", body('<img src="im000001.jpg" alt="" onerror="a" />'), {"no script"}),
    ("a link to script", linking(" JavaScript:alert(1)"), {"no script"}),
    ("a link to markup", linking("data:text/html,x"), {"no script"}),
    ("a frame", body('<iframe src="im000001.jpg"></iframe>'), {"no script"}),
    ("a style", body('<b style="color:red">x</b>'), {"no script"}),
    ("a style sheet", body('<link rel="stylesheet" href="im000001.jpg" />'), {"no script"}),
    ("a refresh", body('<meta http-equiv="refresh" content="0" />'), {"no script"}),
    ("no policy", added("PHONE.HTM", page("").replace("Content-Security-Policy", "x")), {"Content-Security-Policy"}),
    ("a lax one", added("PHONE.HTM", page("", "default-src *")), {"Content-Security-Policy"}),
    (
        "one that allows script",
        added("PHONE.HTM", page("", "default-src 'none'; script-src 'unsafe-inline'")),
        {"Content-Security-Policy"},
    ),
]


@pytest.mark.parametrize(("broken", "expected"), [one[1:] for one in BROKEN], ids=[one[0] for one in BROKEN])
def test_a_disc_that_is_broken_fails_the_check_of_it_and_no_other(
    broken: Break, expected: set[str], disc: Path
) -> None:
    broken(disc)
    assert failed(disc) == expected


def test_every_check_fails_on_some_disc(sound: Path) -> None:
    """The medium's own are those of images and archives."""
    assert set().union(*(expected for _, _, expected in BROKEN), {"medium"}) == {one.name for one in verify(sound)}


def patched_in(made: Callable[[Path], Path], old: bytes, new: bytes) -> Break:
    """A product of the disc, with other bytes at their first place in it."""

    def change(disc: Path) -> Path:
        file = made(disc)
        replace_in(file, old, new)
        return file

    return change


def members_changed(change: Callable[[zipfile.ZipFile], object]) -> Break:
    def made(disc: Path) -> Path:
        file = as_zip(disc)
        with zipfile.ZipFile(file, "a") as archive:
            change(archive)
        return file

    return made


def member(name: str) -> Break:
    """One more member of an archive."""
    return members_changed(lambda archive: archive.writestr(name, "x"))


def a_link_within(archive: zipfile.ZipFile) -> None:
    link = zipfile.ZipInfo("ihe_pdi/a.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(link, "/etc/passwd")


def without_joliet(disc: Path) -> Path:
    file = disc.parent / "bare.iso"
    argv = ("/usr/bin/genisoimage", "-quiet", "-r", "-input-charset", "utf-8", "-V", "STUDIES", "-o", file, disc)
    assert run(argv).returncode == 0
    return file


def shortened(made: Callable[[Path], Path]) -> Break:
    def change(disc: Path) -> Path:
        file = made(disc)
        os.truncate(file, file.stat().st_size - 2048)
        return file

    return change


BROKEN_MEDIA: list[tuple[str, Break, set[str]]] = [
    ("cut short", shortened(as_iso), {"medium"}),
    ("another name in ISO 9660", patched_in(as_iso, b"IM000001.;1", b"IM000007.;1"), {"medium"}),
    ("another name in Joliet", patched_in(as_iso, "IM000001".encode("utf-16-be"), b"\0I" * 8), {"medium"}),
    ("no Joliet", without_joliet, {"medium"}),
    ("another volume ID", lambda disc: as_iso(disc, "OTHER"), {"volume ID"}),
    ("a volume ID that is not told", lambda disc: as_iso(disc, "Other"), {"volume ID"}),
    ("a flipped bit", patched_in(as_zip, b"pixels", b"pixelt"), {"medium"}),
    ("a member above", member("../a.htm"), {"names"}),
    ("a member of the computer", member("/etc/passwd"), {"names"}),
    ("a member of a drive", member("C:/a.htm"), {"names"}),
    ("a backslash", member("..\\a.htm"), {"names"}),
    ("a member that is a link", members_changed(a_link_within), {"names"}),
    ("a member in a file", member("viewer.exe/a"), {"names"}),
    ("a member nobody knows", member("a"), {"nothing unknown"}),
]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("broken", "expected"), [one[1:] for one in BROKEN_MEDIA], ids=[one[0] for one in BROKEN_MEDIA]
)
def test_a_medium_that_is_broken_fails_the_check_of_it(broken: Break, expected: set[str], disc: Path) -> None:
    file = broken(disc)
    assert isinstance(file, Path)
    assert failed(file) == expected


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_told(disc: Path) -> None:
    file = member("INDEX.HTM")(disc)
    assert found(file, "names") == "INDEX.HTM is there twice"


def test_an_archive_that_somebody_else_compressed_is_a_disc_too(disc: Path) -> None:
    assert failed(Path(shutil.make_archive(str(disc), "zip", disc))) == set()


def test_an_archive_that_would_unpack_to_too_much_is_not_unpacked(disc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkiso.verify.medium.MOST_UNPACKED", 1 << 20)
    added("PHONE.HTM", bytes(1 << 24))(disc)
    with pytest.raises(UnreadableDisc, match="would unpack"):
        verify(Path(shutil.make_archive(str(disc), "zip", disc)))


def test_an_archive_that_is_encrypted_is_no_sound_disc(disc: Path) -> None:
    file = as_zip(disc)
    data = bytearray(file.read_bytes())
    at = -1
    while (at := data.find(b"PK\1\2", at + 1)) >= 0:
        data[at + 8] |= 1
    file.write_bytes(data)
    assert {"medium", "DICOMDIR"} <= failed(file)


@pytest.mark.parametrize("made", [as_iso, as_zip])
def test_a_medium_that_is_cut_short_anywhere_fails(made: Callable[[Path], Path], disc: Path) -> None:
    file = made(disc)
    whole = file.stat().st_size
    for end in range(whole - 1, -1, -whole // 40):
        os.truncate(file, end)
        assert not passes(file)


@pytest.mark.parametrize("made", [as_iso, as_zip])
def test_a_medium_of_flipped_bytes_is_no_error_of_the_program(made: Callable[[Path], Path], disc: Path) -> None:
    file, chance = made(disc), random.Random(made.__name__)
    whole = file.read_bytes()
    begin, end = (16 * 2048, 90 * 2048) if made is as_iso else (0, len(whole))
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 10, 100))):
            data[chance.randrange(begin, end)] = chance.choice((0, 1, 255, ord("/")))
        file.write_bytes(data)
        passes(file)


def test_a_dicomdir_of_flipped_bytes_is_no_error_of_the_program(disc: Path) -> None:
    chance, whole = random.Random(1), (disc / "DICOMDIR").read_bytes()
    for _ in range(100):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 10))):
            data[chance.randrange(128, len(whole))] = chance.randrange(256)
        (disc / "DICOMDIR").write_bytes(data)
        verify(disc)


@pytest.mark.parametrize(
    "fault",
    [
        {"NEXT": LOWER, "LOWER": NEXT},
        {"RECORDS": 0x00041222},
        {"FILE_SET_ID": 0x00041132},
    ],
    ids=["offsets that change places", "another tag of the records", "another tag of the file-set ID"],
)
def test_a_fault_of_the_codec_that_wrote_the_dicomdir_is_found(
    fault: dict[str, int], disc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads what it wrote as it meant it: a judge that shared it would find nothing."""
    meant = codec.read((disc / "DICOMDIR").read_bytes())
    kinds = [one.type for one in flat(meant)]
    for name, value in fault.items():
        monkeypatch.setattr(codec, name, value)
    data = codec.written(meant, "STUDIES")
    assert [one.type for one in flat(codec.read(data))] == kinds
    assert codec.taken_apart(data).head[codec.FILE_SET_ID][8:] == b"STUDIES "
    (disc / "DICOMDIR").write_bytes(data)
    assert failed(disc)


@pytest.mark.parametrize("character_set", [b"ISO_IR\x00100", b"ISO_IR 10\0", b"NO SUCH 1 "])
def test_a_disc_of_an_odd_character_set_is_sound(character_set: bytes, tmp_path: Path) -> None:
    data = encoded(datasets.ct(datasets.study(JOHN, "CT.001"), 1, 1, side=16))
    at = data.index(b"\x08\0\x05\0CS\x0a\0") + 8
    disc = made_disc(tmp_path, [data[:at] + character_set.ljust(10) + data[at + 10 :]])
    assert failed(disc) == set()


def passes(file: Path) -> bool:
    try:
        return not failed(file)
    except UnreadableDisc:
        return False


@pytest.mark.parametrize("name", ["DICOMDIR", "README.TXT", "PHONE.HTM"])
def test_a_file_that_is_far_too_large_is_not_read(name: str, disc: Path) -> None:
    require_files_of(16 * GB)
    os.truncate(disc / name, 16 * GB)
    assert not passes(disc)


def test_a_directory_that_is_far_too_large_is_not_read(disc: Path) -> None:
    file, root, size = as_iso(disc), 16 * 2048 + 156, 2 * GB
    require_files_of(2 * size)
    with file.open("r+b") as image:
        image.seek(root + 10)
        image.write(size.to_bytes(4, "little") + size.to_bytes(4, "big"))
        image.truncate(2 * size)
    with pytest.raises(UnreadableDisc, match="a directory is too large"):
        verify(file)


def test_what_is_wrong_is_told_with_the_first_and_their_number(disc: Path) -> None:
    for number in range(5):
        added(f"x{number}\33[2J")(disc)
    assert found(disc, "nothing unknown") == (
        "x0\\x1b[2J is not named in README.TXT; x1\\x1b[2J is not named in README.TXT;"
        " x2\\x1b[2J is not named in README.TXT … and 2 more"
    )


@pytest.mark.parametrize("made", KINDS)
def test_a_legacy_disc_is_whole_named_by_its_instances_and_of_one_patient(
    made: Callable[[Path], Path], tmp_path: Path
) -> None:
    disc, one = tmp_path / "disc", instances()[0]
    file = disc / "DICOMDIR" / one.SOPInstanceUID
    added(f"DICOMDIR/{file.name}", encoded(one))(disc)
    checks = verify(made(disc))
    assert [(check.name, check.ok) for check in checks] == [
        (name, True) for name in ("layout", "medium", "instances", "one patient")
    ]
    file.write_bytes(file.read_bytes()[:-1])
    assert failed(made(disc)) == {"instances"}
    file.rename(file.with_name("1.2.3"))
    file.with_name("1.2.3").write_bytes(encoded(one))
    assert failed(made(disc)) == {"instances"}
    one.PatientID = "ANOTHER"
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = "1.2.4"
    added("DICOMDIR/1.2.4", encoded(one))(disc)
    assert failed(made(disc)) == {"instances", "one patient"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "neither an ISO image nor a ZIP"),
        (b"PK\3\4" + bytes(100), "its directory of members cannot be read"),
        (bytes(32768) + b"\1CD001\1", "cut short"),
        (bytes(32768) + b"\1CD001\1" + bytes(1 << 16), "its directories cannot be read"),
        (None, "there is no such file"),
    ],
)
def test_what_is_no_disc_cannot_be_read(content: bytes | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "disc").write_bytes(content)
    with pytest.raises(UnreadableDisc, match=said):
        verify(tmp_path / "disc")


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKISO_CONFIG", "/nowhere/mkiso.yaml")


@pytest.mark.usefixtures("nowhere")
def test_the_command_has_a_line_a_check_and_needs_no_configuration(disc: Path) -> None:
    done = mkiso("verify", as_iso(disc))
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "ok    DICOMDIR: 14 records, 7 of them of files"
    assert [line[:6] for line in lines] == ["ok    "] * 29


@pytest.mark.usefixtures("nowhere")
def test_the_command_ends_with_1_where_a_check_fails(disc: Path) -> None:
    removed("INDEX.HTM")(disc)
    done = mkiso("verify", disc)
    assert (done.returncode, done.stderr) == (1, b"")
    assert [line for line in done.stdout.decode().splitlines() if not line.startswith("ok    ")] == [
        "FAIL  INDEX.HTM: there is no INDEX.HTM at the root"
    ]


@pytest.mark.usefixtures("nowhere")
def test_the_command_answers_as_json(disc: Path) -> None:
    file = as_zip(disc)
    done = mkiso("verify", "--json", file)
    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert (told["file"], told["ok"]) == (str(file), True)
    assert [Check(**one) for one in told["checks"]] == verify(file)
    os.truncate(disc / "DICOMDIR", 200)
    done = mkiso("verify", disc, "--json")
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (1, False)


@pytest.mark.usefixtures("nowhere")
def test_what_cannot_be_read_as_a_disc_fails_and_what_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"garbage")
    done = mkiso("verify", "--config", "/nowhere/mkiso.yaml", tmp_path / "x")
    assert (done.returncode, done.stderr) == (1, b"")
    assert done.stdout.startswith(b"FAIL  medium: it cannot be read as a disc: it is neither an ISO image nor a ZIP")
    done = mkiso("verify", tmp_path / "gone")
    assert (done.returncode, done.stdout) == (2, b"")
    assert f"{tmp_path}/gone: there is no such file".encode() in done.stderr
