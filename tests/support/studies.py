"""Writes the synthetic studies that the test PACS and the tests use, as DICOM Part 10 files."""

import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import BasicTextSRStorage, JPEG2000Lossless

from tests.support import datasets
from tests.support.datasets import Patient

JOHN = Patient("PAT001", "DOE^JOHN", "19620304", "M")
JANE = Patient("PAT002", "DOE^JANE", "19710506", "F")
LATIN = Patient("PAT003", "MÜLLER^JÖRG", "19550607", "M", "ISO_IR 100")
UTF8 = Patient("PAT004", "YAMADA^TARO=山田^太郎", "19480809", "M", "ISO_IR 192")
GB18030 = Patient("PAT005", "WANG^XIAODONG=王^小东", "19800910", "M", "GB18030")
IR87 = Patient("PAT006", "Yamada^Tarou=山田^太郎=やまだ^たろう", "19481011", "M", "\\ISO 2022 IR 87")
RICHARD = Patient("PAT007", "ROE^RICHARD", "19901112", "M")
MARY = Patient("PAT008", "MAJOR^MARY", "19851213", "F")

# Each takes an explicit little endian file and writes it in another transfer syntax.
_RECODERS: dict[str, tuple[str, ...]] = {
    "implicit little endian": ("/usr/bin/dcmconv", "+ti"),
    "JPEG lossless": ("/usr/bin/dcmcjpeg", "+e1", "+un"),
    "JPEG-LS lossless": ("/usr/bin/dcmcjpls", "+un"),
    "RLE": ("/usr/bin/dcmcrle", "+un"),
    "deflated": ("/usr/bin/dcmconv", "+td"),
    "big endian": ("/usr/bin/dcmconv", "+tb"),
}


@dataclass(frozen=True)
class Study:
    """A study on disk: one directory, each instance in the file SOPInstanceUID.dcm."""

    accession: str
    patient_id: str
    patient_name: str
    study_uid: str
    directory: Path
    files: tuple[Path, ...]
    modalities: tuple[str, ...]

    @property
    def sop_instance_uids(self) -> frozenset[str]:
        return frozenset(path.name.removesuffix(".dcm") for path in self.files)


def _write(dataset: Dataset, directory: Path) -> Path:
    path = directory / f"{dataset.SOPInstanceUID}.dcm"
    directory.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _recode(path: Path, transfer_syntax: str) -> Path:
    recoded = path.with_suffix(".recoded")
    subprocess.run((*_RECODERS[transfer_syntax], path, recoded), check=True, timeout=60)
    return recoded.replace(path)


def _study(root: Path, common: Dataset, instances: Iterable[Dataset]) -> Study:
    number = common.StudyID.removeprefix("S")
    directory = root / (common.AccessionNumber + ("" if number == "1" else f"-{number}"))
    files, modalities = [], {}
    for instance in instances:
        modalities[instance.Modality] = True
        files.append(_write(instance, directory))
    return Study(
        common.AccessionNumber,
        common.PatientID,
        str(common.PatientName),
        common.StudyInstanceUID,
        directory,
        tuple(files),
        tuple(modalities),
    )


def ct_study(
    root: Path, patient: Patient, accession: str, *, number: int = 1, count: int = 2, side: int = 128, series: int = 1
) -> Study:
    """Writes a CT study, `count` images in so many series; `number` tells studies of one accession number apart."""
    common = datasets.study(patient, accession, number)
    return _study(root, common, (datasets.ct(common, 1 + n % series, n, side) for n in range(1, count + 1)))


def series_study(
    root: Path, patient: Patient, accession: str, *, number: int = 1, series: int = 3, count: int = 2
) -> Study:
    """Writes a CT study of several series of small images; the first has `count` of them, each other one more."""
    common = datasets.study(patient, accession, number)
    places = ((s, n) for s in range(1, series + 1) for n in range(1, count + s))
    return _study(root, common, (datasets.ct(common, s, n, 16) for s, n in places))


def several_series(
    root: Path,
    patient: Patient,
    accession: str,
    make: Callable[..., Dataset] = datasets.ct,
    *,
    series: int = 8,
    count: int = 40,
    side: int = 16,
) -> Study:
    """Writes a study of several series of so many images each, which `make` makes."""
    common = datasets.study(patient, accession, 1)
    places = ((s, n) for s in range(1, series + 1) for n in range(1, count + 1))
    return _study(root, common, (make(common, s, n, side) for s, n in places))


def _ct_001(root: Path) -> Study:
    common = datasets.study(JOHN, "CT.001")
    return _study(root, common, (datasets.ct(common, s, n) for s in (1, 2) for n in range(1, 7)))


def _mr_001(root: Path) -> Study:
    common = datasets.study(JOHN, "MR.001")
    return _study(root, common, (datasets.mr(common, 1, n) for n in range(1, 5)))


def _us_001(root: Path) -> Study:
    common = datasets.study(JANE, "US.001")
    return _study(root, common, [datasets.ultrasound_loop(common, 1, 1), datasets.ultrasound(common, 1, 2)])


def _sr_001(root: Path) -> Study:
    common = datasets.study(JANE, "SR.001")
    return _study(root, common, [datasets.report(common, 1, 1)])


def _pdf_001(root: Path) -> Study:
    common = datasets.study(JANE, "PDF.001")
    return _study(root, common, [datasets.document(common, 1, 1)])


def _jpg_001(root: Path) -> Study:
    # dcmqrscp sends one transfer syntax a SOP class, and CT images are the uncompressed ones here.
    common = datasets.study(JANE, "JPG.001")
    study = _study(root, common, [datasets.ct_capture(common, 1, n) for n in (1, 2, 3)])
    for path in study.files:
        _recode(path, "JPEG lossless")
    return study


def standard_studies(root: Path) -> list[Study]:
    """Writes the studies that the test PACS always holds; two accession numbers have two studies each."""
    return [
        *(write(root) for write in (_ct_001, _mr_001, _us_001, _sr_001, _pdf_001, _jpg_001)),
        ct_study(root, LATIN, "LATIN.001"),
        ct_study(root, UTF8, "UTF8.001"),
        ct_study(root, GB18030, "GB.001"),
        ct_study(root, IR87, "IR87.001"),
        ct_study(root, MARY, "TWO.001", number=1),
        ct_study(root, MARY, "TWO.001", number=2),
        ct_study(root, RICHARD, "SHARED.001", number=1),
        ct_study(root, MARY, "SHARED.001", number=2),
    ]


def bench_studies(root: Path) -> list[Study]:
    """Writes BENCH.003 and BENCH.200: 3 and 200 CT images of 525 kB."""
    return [ct_study(root, RICHARD, f"BENCH.{count:03}", count=count, side=512) for count in (3, 200)]


def large_study(root: Path) -> Study:
    """Writes LARGE.001: 2,000 CT images in ten series, 1.05 GB."""
    return ct_study(root, RICHARD, "LARGE.001", count=2000, side=512, series=10)


def probe_study(root: Path) -> Study:
    """Writes PROBE.001, one small image, with which C-STORE is tried."""
    return ct_study(root, Patient("PROBE", "PROBE^TEST"), "PROBE.001", count=1, side=32)


def _jpeg2000(common: Dataset, number: int) -> Dataset:
    source = dcmread(str(get_testdata_file("MR_small_jp2klossless.dcm")))
    dataset = datasets.ct(common, 1, number, source.Rows)
    for keyword in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "Rows", "Columns"):
        dataset[keyword].value = source[keyword].value
    dataset.add_new("PixelData", "OB", source.PixelData)
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    return dataset


def mixed_study(directory: Path) -> Study:
    """Writes MIXED.001 under `directory`: eight transfer syntaxes, an SR, a PDF and a private SOP class."""
    common = datasets.study(RICHARD, "MIXED.001")
    recoded = dict(enumerate(_RECODERS, start=2))
    others: list[Callable[[Dataset, int, int], Dataset]] = [
        datasets.report,
        datasets.document,
        datasets.private_instance,
    ]
    images = [datasets.ct(common, 1, number, 128) for number in (1, *recoded)]
    images.append(_jpeg2000(common, len(images) + 1))
    rest = [make(common, series, 1) for series, make in enumerate(others, start=2)]
    study = _study(directory, common, [*images, *rest])
    for number, transfer_syntax in recoded.items():
        _recode(study.files[number - 1], transfer_syntax)
    return study


def private_study(root: Path) -> Study:
    """Writes PRIVATE.001: two instances of a SOP class that is nobody's but its maker's."""
    common = datasets.study(RICHARD, "PRIVATE.001")
    return _study(root, common, [datasets.private_instance(common, 1, number) for number in (1, 2)])


HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>'


def hostile_study(root: Path) -> Study:
    """Writes HOSTILE.001: an image and a report whose texts, and a UID that dsr2html does not escape, are script."""
    common = datasets.study(Patient(HOSTILE[:64], HOSTILE), "HOSTILE.001")
    common.StudyDescription = HOSTILE
    image, report = datasets.ct(common, 1, 1), datasets.report(common, 2, 1)
    image.SeriesDescription = report.SeriesDescription = HOSTILE
    finding = report.ContentSequence[0]
    finding.TextValue = finding.ConceptNameCodeSequence[0].CodeMeaning = HOSTILE
    report.ConceptNameCodeSequence[0].CodeMeaning = HOSTILE
    report.PredecessorDocumentsSequence = Sequence([_reference(HOSTILE)])
    return _study(root, common, [image, report])


def _reference(uid: str) -> Dataset:
    of_instance, of_series, of_study = Dataset(), Dataset(), Dataset()
    of_instance.ReferencedSOPClassUID, of_instance.ReferencedSOPInstanceUID = BasicTextSRStorage, uid
    of_series.SeriesInstanceUID, of_series.ReferencedSOPSequence = "1.2.4", Sequence([of_instance])
    of_study.StudyInstanceUID, of_study.ReferencedSeriesSequence = "1.2.5", Sequence([of_series])
    return of_study
