"""pydicom's own test files: compressed, structured reports, waveforms, plans, private and damaged ones."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file, get_testdata_files
from pydicom.errors import InvalidDicomError
from pydicom.uid import MediaStorageDirectoryStorage, generate_uid

from tests.support import datasets


def file(name: str) -> Path:
    found = get_testdata_file(name)
    assert found
    return Path(str(found))


def with_uids(path: Path) -> Dataset:
    """A file with what the receiver asks of an instance."""
    found = dcmread(path)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        setattr(found, keyword, found.get(keyword) or datasets.uid(path.name, keyword))
    return found


def storable() -> Iterator[Path]:
    """Those that are instances, not DICOMDIRs, and tell their SOP class."""
    for path in filter(Path.is_file, map(Path, sorted(get_testdata_files()))):
        try:
            meta = dcmread(path, stop_before_pixels=True).file_meta
        except (InvalidDicomError, EOFError, AttributeError):
            continue
        if meta.get("MediaStorageSOPClassUID", MediaStorageDirectoryStorage) != MediaStorageDirectoryStorage:
            yield path


def of_one_patient(directory: Path, accession: str) -> list[Path]:
    """Copies as an archive would hold them: each SOP Instance UID once, all of one patient and accession number."""
    directory.mkdir(parents=True, exist_ok=True)
    written: dict[str, Path] = {}
    for path in storable():
        dataset = dcmread(path)
        dataset.PatientID, dataset.PatientName, dataset.AccessionNumber = "PYDICOM", "TEST^PYDICOM", accession
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            if not dataset.get(keyword):
                setattr(dataset, keyword, generate_uid(entropy_srcs=[path.name, keyword]))
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        if dataset.SOPInstanceUID not in written:
            target = directory / f"{dataset.SOPInstanceUID}.dcm"
            with suppress(AttributeError, TypeError):  # three that pydicom cannot write
                dataset.save_as(target, enforce_file_format=True)
                written[dataset.SOPInstanceUID] = target
    return list(written.values())
