"""What others make of a DICOMDIR: pydicom, dicom3tools, and a walk by its offsets."""

from collections import Counter
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.fileset import FileSet

from tests.support.tools import run

Line = tuple[str, ...]  # the keys from a patient down to a file
KEYS = {"PATIENT": "PatientID", "STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID"}


def walked(dicomdir: Path) -> list[Line]:
    """PatientID, UIDs and file of each leaf, in the order of the offsets; each record must be reached exactly once."""
    whole = dcmread(dicomdir)
    records = {item.seq_item_tell: item for item in whole.DirectoryRecordSequence}
    reached: Counter[int] = Counter()
    first = whole.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity
    lines = _entity(records, first, (), reached)
    assert reached == Counter(records.keys())
    assert whole.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity in {0, *records}
    return lines


def _entity(records: dict[int, Dataset], offset: int, above: Line, reached: Counter[int]) -> list[Line]:
    lines: list[Line] = []
    while offset:
        reached[offset] += 1
        assert reached[offset] == 1
        record = records[offset]
        lines += _line(records, record, above, reached)
        offset = record.OffsetOfTheNextDirectoryRecord
    return lines


def _line(records: dict[int, Dataset], record: Dataset, above: Line, reached: Counter[int]) -> list[Line]:
    if key := KEYS.get(record.DirectoryRecordType):
        below = _entity(
            records, record.OffsetOfReferencedLowerLevelDirectoryEntity, (*above, str(record[key].value)), reached
        )
        assert below, "a patient, study or series of nothing"
        return below
    uid = str(record.ReferencedSOPInstanceUIDInFile)
    return [(*above, uid, "/".join(record.ReferencedFileID))]


def line_of(stage: Path, file: str) -> Line:
    """What a DICOMDIR has to say of a file."""
    one = dcmread(stage / file, stop_before_pixels=True, force=True)
    return one.PatientID, one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID, file


def in_file_set(dicomdir: Path) -> set[Line]:
    """The instances that pydicom finds by it."""
    instances = list(FileSet(dicomdir))
    lines = {
        (
            one.PatientID,
            one.StudyInstanceUID,
            one.SeriesInstanceUID,
            one.SOPInstanceUID,
            str(Path(one.path).relative_to(dicomdir.parent)),
        )
        for one in instances
    }
    assert len(lines) == len(instances)
    return lines


def errors_of_dciodvfy(dicomdir: Path) -> list[str]:
    """What dicom3tools finds wrong with it."""
    said = run(("/usr/bin/dciodvfy", dicomdir), seconds=120).stderr.splitlines()
    assert "BasicDirectory" in said, said
    return [line for line in said if line.startswith("Error")]


def leaves_of_dcdirdmp(dicomdir: Path) -> int:
    """How many files dicom3tools' other reader of DICOMDIRs tells."""
    result = run(("/usr/bin/dcdirdmp", dicomdir), seconds=120)
    assert result.returncode == 0
    assert "Error" not in result.stderr
    return sum(" -> " in line for line in result.stderr.splitlines())
