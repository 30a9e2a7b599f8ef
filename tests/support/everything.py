"""A study of each kind of instance that a disc may hold, and names that no letter of ASCII spells."""

from collections.abc import Iterable
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import ComputedRadiographyImageStorage

from tests.support import datasets
from tests.support.datasets import Patient
from tests.support.pydicom_files import file
from tests.support.stage import encoded, presentation
from tests.support.studies import RICHARD, Study

ARABIC = Patient("PAT010", "قباني^لنزار", "19530322", "M", "ISO_IR 127")


def computed_radiograph(common: Dataset, series: int, number: int) -> Dataset:
    """A CR image (PS3.3 A.2)."""
    dataset = datasets.ct_capture(common, series, number, 256)
    dataset.SOPClassUID, dataset.Modality = ComputedRadiographyImageStorage, "CR"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.PatientOrientation = ["L", "F"]
    dataset.BodyPartExamined, dataset.ViewPosition = "CHEST", "PA"
    del dataset.ConversionType
    return dataset


def electrocardiogram(common: Dataset, series: int, number: int) -> Dataset:
    """The 12-lead ECG that pydicom brings along (PS3.3 A.34.3), as one of this study; its private elements stay."""
    dataset = dcmread(file("waveform_ecg.dcm"))
    dataset.update(common)
    dataset.SeriesInstanceUID = datasets.uid(common.StudyInstanceUID, series)
    dataset.SOPInstanceUID = datasets.uid(common.StudyInstanceUID, series, number)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SeriesNumber, dataset.InstanceNumber = series, number
    return dataset


KINDS = (
    datasets.ct,
    datasets.mr,
    computed_radiograph,
    datasets.ultrasound_loop,
    datasets.report,
    datasets.document,
    electrocardiogram,
    presentation,
    datasets.private_instance,
)


def every_kind(root: Path, accession: str) -> Study:
    """Writes a study of an instance of each kind, each in a series of its own, and of two slices more of the CT."""
    common = datasets.study(RICHARD, accession)
    instances = [make(common, series, 1) for series, make in enumerate(KINDS, 1)]
    return written(root / accession, common, [*instances, *(datasets.ct(common, 1, number) for number in (2, 3))])


def named(root: Path, patient: Patient, accession: str) -> Study:
    """Writes a study of an image and a report of somebody."""
    common = datasets.study(patient, accession)
    return written(root / accession, common, [datasets.ct(common, 1, 1, 64), datasets.report(common, 2, 1)])


def written(directory: Path, common: Dataset, instances: Iterable[Dataset]) -> Study:
    """A study on disk."""
    directory.mkdir(parents=True)
    held = list(instances)
    files = [directory / f"{one.SOPInstanceUID}.dcm" for one in held]
    for path, one in zip(files, held, strict=True):
        path.write_bytes(encoded(one))
    return Study(
        common.AccessionNumber,
        common.PatientID,
        str(common.PatientName),
        common.StudyInstanceUID,
        directory,
        tuple(files),
        tuple(dict.fromkeys(one.Modality for one in held)),
    )
