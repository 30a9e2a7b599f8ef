"""Instances staged as a disc has them: below IMAGES, a folder a thousand, names of eight characters."""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, GrayscaleSoftcopyPresentationStateStorage

from tests.support import datasets
from tests.support.datasets import Patient

JOHN = Patient("PAT001", "DOE^JOHN", "19620304", "M")
A_FOLDER = 1_000


def name(number: int) -> str:
    return f"IMAGES/S{number // A_FOLDER:07}/I{number % A_FOLDER:07}"


def put(stage: Path, number: int, content: bytes) -> str:
    """Stage one file; what it is called below the stage."""
    path = stage / name(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return name(number)


def encoded(dataset: Dataset) -> bytes:
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def staged(stage: Path, instances: Iterable[Dataset]) -> list[str]:
    """Stage these instances in their order."""
    return [put(stage, number, encoded(one)) for number, one in enumerate(instances)]


def staged_series(stage: Path, count: int) -> list[str]:
    """Stage a series of small images, one as the other but for what tells them apart: fast enough for 20,000."""
    first = datasets.ct(datasets.study(JOHN, "LONG.001"), 1, 1, side=16)
    first.SOPInstanceUID, first.InstanceNumber = "1.2.3.100000", "100000"
    content = encoded(first)
    return [
        put(
            stage, number, content.replace(b"1.2.3.100000", b"1.2.3.%d" % one).replace(b"\6\x00100000", b"\6\0%d" % one)
        )
        for number, one in enumerate(range(100_001, 100_001 + count))
    ]


def presentation(common: Dataset, series: int, number: int) -> Dataset:
    """A Greyscale Softcopy Presentation State that refers to the study's first image (PS3.3 A.33.1)."""
    dataset = datasets.report(common, series, number)
    del dataset.ContentSequence
    image, images = Dataset(), Dataset()
    image.ReferencedSOPClassUID = CTImageStorage
    image.ReferencedSOPInstanceUID = datasets.uid(common.StudyInstanceUID, 1, 1)
    images.SeriesInstanceUID = datasets.uid(common.StudyInstanceUID, 1)
    images.ReferencedImageSequence = Sequence([image])
    dataset.ReferencedSeriesSequence = Sequence([images])
    dataset.SOPClassUID, dataset.Modality = GrayscaleSoftcopyPresentationStateStorage, "PR"
    dataset.ContentLabel, dataset.ContentDescription, dataset.ContentCreatorName = "WINDOW", "", ""
    dataset.PresentationCreationDate, dataset.PresentationCreationTime = "20240301", "101500"
    return dataset
