"""DICOMDIRs by the real dcmmkdir, looked at by others than those who made them."""

import stat
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from mkiso.dcmtk.dcmmkdir import Indexer
from mkiso.disc.dicomdir import CHUNK, Completed, Dicomdir, make_dicomdir
from mkiso.errors import Cancelled, Internal
from mkiso.waiting import Cancellation
from tests.support import datasets
from tests.support.dicomdirs import errors_of_dciodvfy, in_file_set, leaves_of_dcdirdmp, line_of, walked
from tests.support.pydicom_files import storable
from tests.support.stage import JOHN, encoded, name, presentation, put, staged, staged_series
from tests.support.studies import UTF8, mixed_study

DCMTK = Path("/usr/bin")
RETIRED_OVERLAY = "1.2.840.10008.5.1.4.1.1.8"


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    (tmp_path / "stage").mkdir()
    return tmp_path / "stage"


@pytest.fixture
def make(stage: Path, tmp_path: Path) -> Callable[..., Dicomdir]:
    def made(files: Sequence[str], dcmtk_dir: Path = DCMTK, checkpoint: Callable[[], None] = lambda: None) -> Dicomdir:
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        try:
            return make_dicomdir(Indexer(dcmtk_dir, stage, "CD1"), files, work, checkpoint)
        finally:
            assert list(work.iterdir()) == []

    return made


def assert_sound(stage: Path, made: Dicomdir, files: Sequence[str]) -> None:
    """Every file is indexed or named, and everybody finds by the DICOMDIR what is indexed."""
    lines = [line_of(stage, file) for file in made.indexed]
    assert sorted([*made.indexed, *made.not_indexed]) == sorted(files)
    assert sorted(walked(stage / "DICOMDIR")) == sorted(lines)
    assert in_file_set(stage / "DICOMDIR") == set(lines)
    assert leaves_of_dcdirdmp(stage / "DICOMDIR") == len(lines)
    assert errors_of_dciodvfy(stage / "DICOMDIR") == []


def ct(accession: str, series: int, number: int, study: int = 1, **values: object) -> Dataset:
    """A small CT image with these values instead of its own; None is to have no such element."""
    one = datasets.ct(datasets.study(JOHN, accession, study), series, number, side=16)
    for keyword, value in values.items():
        if value is None:
            delattr(one, keyword)
        else:
            setattr(one, keyword, value)
    return one


@pytest.mark.parametrize("count", [1, 5, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 1, 700])
def test_a_series_of_any_length_is_indexed_in_its_order(count: int, stage: Path, make: Callable[..., Dicomdir]) -> None:
    files = staged_series(stage, count)
    made = make(files)
    assert (made.indexed, made.not_indexed, made.completed) == (tuple(files), {}, ())
    assert [line[-1] for line in walked(stage / "DICOMDIR")] == files
    assert_sound(stage, made, files)


def test_series_and_studies_that_chunks_cut_have_one_record_each(stage: Path, make: Callable[..., Dicomdir]) -> None:
    """Their instances come by turns, so that every chunk has some of each."""
    files = staged(
        stage, (ct("CT.001", series, n, study) for n in range(1, 71) for study in (1, 2) for series in (1, 2))
    )
    made = make(files)
    assert len(made.indexed) == 280 > 2 * CHUNK
    by_turns = [[files[at] for at in range(turn, 280, 4)] for turn in range(4)]
    assert [line[-1] for line in walked(stage / "DICOMDIR")] == [file for series in by_turns for file in series]
    assert_sound(stage, made, files)


def test_the_same_files_make_the_same_dicomdir(stage: Path, make: Callable[..., Dicomdir]) -> None:
    files = staged(stage, [ct("CT.001", 1, 1), ct("CT.002", 1, 2, StudyDate="", StudyID="")])
    make(files)
    first = (stage / "DICOMDIR").read_bytes()
    make(files)
    assert (stage / "DICOMDIR").read_bytes() == first


def test_the_keys_of_the_records_are_those_of_the_instances(stage: Path, make: Callable[..., Dicomdir]) -> None:
    make(staged(stage, [datasets.ct(datasets.study(UTF8, "UTF8.001"), 1, 1, side=16)]))
    patient, study, series, image = dcmread(stage / "DICOMDIR").DirectoryRecordSequence
    assert (patient.PatientName, patient.PatientID) == (UTF8.name, UTF8.patient_id)
    assert (study.StudyDate, study.StudyTime, study.StudyID) == ("20240301", "101500", "S1")
    assert (study.AccessionNumber, study.StudyDescription) == ("UTF8.001", "Synthetic study UTF8.001")
    assert (series.Modality, series.SeriesNumber, image.InstanceNumber) == ("CT", 1, 1)
    assert image.ReferencedTransferSyntaxUIDInFile == "1.2.840.10008.1.2.1"


def test_a_study_of_many_kinds_is_indexed_but_for_what_no_dicomdir_can_name(
    stage: Path, make: Callable[..., Dicomdir], tmp_path: Path
) -> None:
    study = mixed_study(tmp_path)
    files = [put(stage, number, path.read_bytes()) for number, path in enumerate(study.files)]
    common = datasets.study(JOHN, "MIXED.002")
    retired = datasets.ct(common, 2, 1, side=16)
    retired.SOPClassUID = RETIRED_OVERLAY
    others = [datasets.ct(common, 1, 1, side=16), presentation(common, 3, 1), retired]
    files += [put(stage, number, encoded(one)) for number, one in enumerate(others, len(files))]
    made = make(files)
    private = next(file for file in files if dcmread(stage / file).SOPClassUID == datasets.PRIVATE_SOP_CLASS)
    assert set(made.not_indexed) == {private, files[-1]}
    assert all("invalid SOP class" in why for why in made.not_indexed.values())
    types = {record.DirectoryRecordType for record in dcmread(stage / "DICOMDIR").DirectoryRecordSequence}
    assert types == {"PATIENT", "STUDY", "SERIES", "IMAGE", "SR DOCUMENT", "ENCAP DOC", "PRESENTATION"}
    assert_sound(stage, made, files)


@pytest.mark.filterwarnings("ignore")
def test_of_pydicoms_own_files_each_is_indexed_or_named(stage: Path, make: Callable[..., Dicomdir]) -> None:
    files = [put(stage, number, path.read_bytes()) for number, path in enumerate(storable())]
    assert len(files) > 120
    made = make(files)
    assert len(made.indexed) > 80
    assert_sound(stage, made, files)
    for record in dcmread(stage / "DICOMDIR").DirectoryRecordSequence:
        for keyword in ("PatientID", "StudyDate", "StudyTime", "StudyID", "SeriesNumber", "InstanceNumber"):
            assert keyword not in record or str(record[keyword].value)
    assert all(one.file in made.indexed for one in made.completed)


def test_what_is_invented_is_replaced_and_told(stage: Path, make: Callable[..., Dicomdir]) -> None:
    bare = {"StudyDate": "", "StudyTime": "", "StudyID": None, "ContentDate": None, "ContentTime": None}
    files = staged(
        stage,
        [
            ct("CT.001", 1, 1, SeriesNumber=None, InstanceNumber=None, **bare, AccessionNumber=""),
            ct("CT.001", 1, 2, SeriesNumber=None, InstanceNumber=None, **bare, AccessionNumber=""),
            ct("CT.002", 1, 1, **{**bare, "ContentDate": "20200229", "ContentTime": "0815"}),
        ],
    )
    made = make(files)
    assert made.completed == (
        Completed(files[0], "STUDY", "StudyDate", "19000101"),
        Completed(files[0], "STUDY", "StudyTime", "000000"),
        Completed(files[2], "STUDY", "StudyDate", "20200229"),
        Completed(files[2], "STUDY", "StudyTime", "0815"),
        Completed(files[2], "STUDY", "StudyID", "CT.002"),
        Completed(files[0], "STUDY", "StudyID", "1"),
        Completed(files[0], "SERIES", "SeriesNumber", "1"),
        Completed(files[0], "IMAGE", "InstanceNumber", "1"),
        Completed(files[1], "IMAGE", "InstanceNumber", "2"),
    )
    content = (stage / "DICOMDIR").read_bytes()
    assert b"DCMTK" not in content
    assert date.today().strftime("%Y%m%d").encode() not in content
    assert_sound(stage, made, files)


def test_what_an_instance_has_is_kept_where_it_lacks_another_key(stage: Path, make: Callable[..., Dicomdir]) -> None:
    """Also the day of today, which dcmmkdir would invent."""
    today = date.today().strftime("%Y%m%d")
    files = staged(stage, [ct("CT.001", 4, 7, StudyDate=today, StudyTime="", ContentDate=today, ContentTime="0815")])
    made = make(files)
    assert made.completed == (Completed(files[0], "STUDY", "StudyTime", "0815"),)
    _, study, series, image = dcmread(stage / "DICOMDIR").DirectoryRecordSequence
    assert (study.StudyDate, study.StudyID, series.SeriesNumber, image.InstanceNumber) == (today, "S1", 4, 7)


@pytest.mark.parametrize("first", [0, 1])
def test_a_study_has_the_keys_of_those_instances_that_have_them(
    first: int, stage: Path, make: Callable[..., Dicomdir]
) -> None:
    whole, bare = ct("CT.001", 1, 1), ct("CT.001", 1, 2, StudyDate="", StudyTime="", StudyID="", SeriesNumber=None)
    files = staged(stage, [bare, whole] if first else [whole, bare])
    made = make(files)
    assert (made.indexed, made.completed) == (tuple(files), ())
    _, study, series, *images = dcmread(stage / "DICOMDIR").DirectoryRecordSequence
    assert (study.StudyDate, study.StudyTime, study.StudyID, series.SeriesNumber) == ("20240301", "101500", "S1", 1)
    assert ["/".join(image.ReferencedFileID) for image in images] == files


def test_numbers_that_are_missing_do_not_start_again_in_each_chunk(stage: Path, make: Callable[..., Dicomdir]) -> None:
    files = staged(stage, (ct("CT.001", 1, n, InstanceNumber=None) for n in range(1, CHUNK + 11)))
    made = make(files)
    images = dcmread(stage / "DICOMDIR").DirectoryRecordSequence[3:]
    assert [image.InstanceNumber for image in images] == list(range(1, CHUNK + 11))
    assert len(made.completed) == CHUNK + 10


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"PatientID": ""}, "PatientID"),
        ({"PatientID": "\0\0"}, "patient"),
        ({"PatientID": None, "StudyDate": ""}, "PatientID"),
        ({"StudyInstanceUID": ""}, "StudyInstanceUID"),
        ({"SeriesInstanceUID": ""}, "SeriesInstanceUID"),
        ({"Modality": ""}, "Modality"),
    ],
)
def test_what_must_not_be_invented_is_not_indexed(
    values: dict[str, object], why: str, stage: Path, make: Callable[..., Dicomdir]
) -> None:
    files = staged(stage, [ct("CT.001", 1, 1), ct("CT.002", 1, 1, **values)])
    made = make(files)
    assert made.indexed == (files[0],)
    assert why in made.not_indexed[files[1]]
    assert_sound(stage, made, files)


def test_an_instance_that_is_there_twice_is_indexed_once_and_it_is_the_first(
    stage: Path, make: Callable[..., Dicomdir]
) -> None:
    """Twice in one chunk, in two chunks, and in two series; the first may be the one that lacks a key."""
    images = [ct("CT.001", 1, n) for n in range(1, CHUNK + 1)]
    bare, other = ct("CT.001", 2, 1, InstanceNumber=None), ct("CT.001", 2, 1)
    elsewhere = ct("CT.001", 3, 1, SOPInstanceUID=images[5].SOPInstanceUID)
    files = staged(stage, [*images[:4], images[0], *images[4:], images[9], bare, other, elsewhere])
    made = make(files)
    assert set(made.not_indexed) == {files[4], *files[-4:-3], *files[-2:]}
    assert all("already" in why for why in made.not_indexed.values())
    assert_sound(stage, made, files)


def test_a_series_in_two_studies_and_a_study_of_two_patients_stay_with_the_first(
    stage: Path, make: Callable[..., Dicomdir]
) -> None:
    one = ct("CT.001", 1, 1)
    files = staged(
        stage,
        [one, ct("CT.002", 1, 2, SeriesInstanceUID=one.SeriesInstanceUID), ct("CT.001", 2, 3, PatientID="OTHER")],
    )
    made = make(files)
    assert made.indexed == (files[0],)
    assert made.not_indexed == {
        files[1]: "its series belongs to another study, too",
        files[2]: "its study belongs to another patient, too",
    }
    assert_sound(stage, made, files)


@pytest.mark.parametrize("count", [0, 3])
def test_where_nothing_can_be_indexed_the_dicomdir_is_empty(
    count: int, stage: Path, make: Callable[..., Dicomdir]
) -> None:
    files = [put(stage, number, b"no DICOM") for number in range(count)]
    made = make(files)
    assert (made.indexed, set(made.not_indexed)) == ((), set(files))
    assert walked(stage / "DICOMDIR") == []


def test_a_file_that_is_gone_is_not_indexed(stage: Path, make: Callable[..., Dicomdir]) -> None:
    files = [*staged(stage, [ct("CT.001", 1, 1)]), name(7)]
    assert set(make(files).not_indexed) == {name(7)}


def instead(directory: Path, script: str) -> Path:
    """A directory with a program in the place of dcmmkdir; the last of its arguments is the list."""
    program = directory / "bin" / "dcmmkdir"
    program.parent.mkdir()
    program.write_text(f'#!/bin/bash\nlist="${{@: -1}}"; list="${{list#@}}"\n{script}\n')
    program.chmod(stat.S_IRWXU)
    return program.parent


def test_a_file_that_crashes_dcmmkdir_takes_no_other_with_it(
    stage: Path, make: Callable[..., Dicomdir], tmp_path: Path
) -> None:
    files = staged(stage, (ct("CT.001", 1, n) for n in range(1, CHUNK + 6)))
    crash = f'grep -qx "{files[40]}" "$list" && kill -SEGV $$\nexec /usr/bin/dcmmkdir "$@"'
    made = make(files, instead(tmp_path, crash))
    assert made.not_indexed == {files[40]: "dcmmkdir crashes on it"}
    assert_sound(stage, made, files)


@pytest.mark.parametrize(
    "script",
    [
        'truncate -s -1 "${list%.list}.dicomdir"',
        "kill -XCPU $$",
        "kill -ABRT $$",
        'echo "F: Virtual Memory exhausted" >&2; exit 1',
        "ulimit -f 1; exec cat /dev/zero > $list.more",
    ],
)
def test_a_file_that_takes_more_than_it_may_costs_its_own_entry(
    script: str, stage: Path, make: Callable[..., Dicomdir], tmp_path: Path
) -> None:
    files = staged(stage, (ct("CT.001", 1, n) for n in range(1, 6)))
    script = f'/usr/bin/dcmmkdir "$@"\nif grep -qx "{files[3]}" "$list"; then {script}; fi'
    made = make(files, instead(tmp_path, script))
    assert made.not_indexed == {files[3]: "dcmmkdir crashes on it"}
    assert_sound(stage, made, files)


def test_a_dicomdir_that_is_missing_is_an_error_and_never_a_short_one(
    stage: Path, make: Callable[..., Dicomdir], tmp_path: Path
) -> None:
    script = 'echo "F: dcmmkdir: error (No space left on device) writing file" >&2; exit 1'
    files = staged(stage, [ct("CT.001", 1, 1)])
    with pytest.raises(Internal):
        make(files, instead(tmp_path, script))
    assert not (stage / "DICOMDIR").exists()


def test_dcmmkdirs_word_counts_nothing_against_the_referenced_file_ids(
    stage: Path, make: Callable[..., Dicomdir], tmp_path: Path
) -> None:
    """One that leaves a file out and says nothing."""
    files = staged(stage, [ct("CT.001", 1, 1), ct("CT.001", 1, 2)])
    silent = f'sed -i "\\\\|{files[1]}|d" "$list"; [ -s "$list" ] || exit 0; exec /usr/bin/dcmmkdir "$@"'
    made = make(files, instead(tmp_path, silent))
    assert (made.indexed, made.not_indexed) == ((files[0],), {files[1]: "dcmmkdir refuses it"})


def test_two_run_at_a_time_and_no_more(stage: Path, make: Callable[..., Dicomdir], tmp_path: Path) -> None:
    files = staged_series(stage, 5 * CHUNK)
    log = tmp_path / "running"
    make(files, instead(tmp_path, f'echo +1 >> {log}; /usr/bin/dcmmkdir "$@"; sleep 0.1; echo -1 >> {log}'))
    running = [int(line) for line in log.read_text().split()]
    assert len(running) == 12, "as many parts for each of the two"
    assert max(sum(running[:end]) for end in range(13)) == 2


def test_a_cancel_ends_it_and_its_programs(stage: Path, make: Callable[..., Dicomdir], tmp_path: Path) -> None:
    files = staged_series(stage, 3 * CHUNK)
    cancellation, began = Cancellation(), tmp_path / "began"

    def checkpoint() -> None:
        if began.exists():
            cancellation.cancel("enough")
        cancellation.checkpoint()

    with pytest.raises(Cancelled):
        make(files, instead(tmp_path, f"touch {began}; sleep 600"), checkpoint)
    assert not (stage / "DICOMDIR").exists()


def test_a_job_that_was_cancelled_before_starts_nothing(
    stage: Path, make: Callable[..., Dicomdir], tmp_path: Path
) -> None:
    cancellation, began = Cancellation(), tmp_path / "began"
    cancellation.cancel("enough")
    with pytest.raises(Cancelled):
        make(staged_series(stage, 1), instead(tmp_path, f"touch {began}"), cancellation.checkpoint)
    assert not began.exists()


def test_a_cancel_is_seen_while_headers_are_read(stage: Path, make: Callable[..., Dicomdir], tmp_path: Path) -> None:
    files, cancellation = [put(stage, number, b"no DICOM") for number in range(5)], Cancellation()
    asked: list[None] = []

    def checkpoint() -> None:
        asked.append(None)
        if len(asked) > 4:
            cancellation.cancel("enough")
        cancellation.checkpoint()

    with pytest.raises(Cancelled):
        make(files, instead(tmp_path, 'echo "E: no good files" >&2; exit 1'), checkpoint)
