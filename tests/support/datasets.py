"""Synthetic DICOM data sets: one function a kind of instance, every UID the same in every run."""

import functools
import math
from array import array
from dataclasses import dataclass

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    CTImageStorage,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

PRIVATE_SOP_CLASS = UID("1.2.826.0.1.3680043.8.498.1.77")


@dataclass(frozen=True)
class Patient:
    """One invented person; the name may need the character set."""

    patient_id: str
    name: str
    birth_date: str = "19700101"
    sex: str = "O"
    character_set: str = "ISO_IR 100"


def uid(*sources: object) -> UID:
    """The UID that always belongs to these words."""
    return generate_uid(entropy_srcs=["mkiso tests", *map(str, sources)])


def study(patient: Patient, accession: str, number: int = 1) -> Dataset:
    """What every instance of a study has in common."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = patient.character_set
    dataset.PatientID = patient.patient_id
    dataset.PatientName = patient.name
    dataset.PatientBirthDate = patient.birth_date
    dataset.PatientSex = patient.sex
    dataset.AccessionNumber = accession
    dataset.StudyInstanceUID = uid(accession, number)
    dataset.StudyID = f"S{number}"
    dataset.StudyDate = f"202403{number:02d}"
    dataset.StudyTime = "101500"
    dataset.StudyDescription = f"Synthetic study {accession}"
    dataset.ReferringPhysicianName = "REFERRER^TEST"
    return dataset


def _instance(common: Dataset, sop_class: UID, modality: str, series: int, number: int) -> Dataset:
    dataset = Dataset()
    dataset.update(common)
    dataset.SOPClassUID = sop_class
    dataset.Modality = modality
    dataset.Manufacturer = "Synthetic"
    dataset.SeriesInstanceUID = uid(common.StudyInstanceUID, series)
    dataset.SeriesNumber = series
    dataset.SeriesDescription = f"Series {series}"
    dataset.SOPInstanceUID = uid(common.StudyInstanceUID, series, number)
    dataset.InstanceNumber = number
    dataset.ContentDate = common.StudyDate
    dataset.ContentTime = common.StudyTime
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


@functools.cache
def _disc_of_light(side: int) -> bytes:
    middle = side / 2
    return array(
        "H",
        (
            max(0, 2000 - int(4000 * math.hypot(x - middle, y - middle) / side))
            for y in range(side)
            for x in range(side)
        ),
    ).tobytes()


def pixels(side: int, turn: int) -> bytes:
    """A 16 bit image, shifted by `turn` rows so that no two images are alike."""
    image, offset = _disc_of_light(side), (turn % side) * side * 2
    return image[offset:] + image[:offset]


def _grey(dataset: Dataset, side: int, turn: int) -> Dataset:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows = dataset.Columns = side
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.add_new("PixelData", "OW", pixels(side, turn))
    return dataset


def _place(dataset: Dataset, number: int) -> Dataset:
    dataset.FrameOfReferenceUID = uid(dataset.StudyInstanceUID, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.ImagePositionPatient = [-100.0, -100.0, 2.0 * number]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [0.4, 0.4]
    dataset.SliceThickness = 2
    return dataset


def ct(common: Dataset, series: int, number: int, side: int = 512) -> Dataset:
    """A CT image (PS3.3 A.3)."""
    dataset = _instance(common, CTImageStorage, "CT", series, number)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.KVP = 120
    dataset.AcquisitionNumber = 1
    dataset.RescaleIntercept, dataset.RescaleSlope = -1024, 1
    return _grey(_place(dataset, number), side, series * 100 + number)


def mr(common: Dataset, series: int, number: int, side: int = 256) -> Dataset:
    """An MR image (PS3.3 A.4)."""
    dataset = _instance(common, MRImageStorage, "MR", series, number)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    dataset.ScanningSequence, dataset.SequenceVariant = "SE", "NONE"
    dataset.ScanOptions, dataset.MRAcquisitionType = "", "2D"
    dataset.RepetitionTime, dataset.EchoTime, dataset.EchoTrainLength = 500, 15, 1
    return _grey(_place(dataset, number), side, series * 100 + number)


def ct_capture(common: Dataset, series: int, number: int, side: int = 512) -> Dataset:
    """A secondary capture of modality CT, as a CT console makes them (PS3.3 A.8)."""
    dataset = _instance(common, SecondaryCaptureImageStorage, "CT", series, number)
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.ConversionType = "WSD"
    dataset.PatientOrientation = ""
    return _grey(dataset, side, series * 100 + number)


def _colour(dataset: Dataset, rows: int, columns: int, frames: int) -> Dataset:
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.PatientOrientation = ""
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    dataset.LossyImageCompression = "00"
    band = bytes((x + y * 3) % 256 for y in range(rows * frames) for x in range(columns * 3))
    dataset.add_new("PixelData", "OW", band)
    return dataset


def ultrasound(common: Dataset, series: int, number: int) -> Dataset:
    """A single-frame RGB ultrasound image (PS3.3 A.6)."""
    return _colour(_instance(common, UltrasoundImageStorage, "US", series, number), 120, 160, 1)


def ultrasound_loop(common: Dataset, series: int, number: int, frames: int = 5) -> Dataset:
    """A multi-frame RGB ultrasound image (PS3.3 A.7)."""
    dataset = _instance(common, UltrasoundMultiFrameImageStorage, "US", series, number)
    dataset.NumberOfFrames = frames
    dataset.FrameTime = 40
    dataset.FrameIncrementPointer = 0x00181063
    return _colour(dataset, 120, 160, frames)


def _code(value: str, scheme: str, meaning: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return Sequence([item])


def report(common: Dataset, series: int, number: int) -> Dataset:
    """A Basic Text SR of one sentence (PS3.3 A.35.1)."""
    dataset = _instance(common, BasicTextSRStorage, "SR", series, number)
    dataset.ReferencedPerformedProcedureStepSequence = Sequence([])
    dataset.PerformedProcedureCodeSequence = Sequence([])
    dataset.CompletionFlag, dataset.VerificationFlag = "PARTIAL", "UNVERIFIED"
    dataset.ValueType = "CONTAINER"
    dataset.ContinuityOfContent = "SEPARATE"
    dataset.ConceptNameCodeSequence = _code("11528-7", "LN", "Radiology Report")
    text = Dataset()
    text.RelationshipType, text.ValueType = "CONTAINS", "TEXT"
    text.ConceptNameCodeSequence = _code("121071", "DCM", "Finding")
    text.TextValue = "A synthetic finding."
    dataset.ContentSequence = Sequence([text])
    return dataset


def _pdf_file() -> bytes:
    page = b"BT /F1 18 Tf 40 700 Td (Synthetic report) Tj ET"
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 5 0 R"
        b" /Resources << /Font << /F1 4 0 R >> >> >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(page), page),
    )
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    body += b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table)
    return body + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        size,
        body.index(b"xref\n"),
    )


def document(common: Dataset, series: int, number: int) -> Dataset:
    """An encapsulated PDF of one page (PS3.3 A.45.1)."""
    dataset = _instance(common, EncapsulatedPDFStorage, "DOC", series, number)
    dataset.ConversionType = "WSD"
    dataset.BurnedInAnnotation = "NO"
    dataset.AcquisitionDateTime = ""
    dataset.DocumentTitle = "Synthetic report"
    dataset.ConceptNameCodeSequence = Sequence([])
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    pdf = _pdf_file()
    dataset.EncapsulatedDocumentLength = len(pdf)
    dataset.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    return dataset


def private_instance(common: Dataset, series: int, number: int) -> Dataset:
    """An instance of a SOP class that no standard names."""
    dataset = _instance(common, PRIVATE_SOP_CLASS, "OT", series, number)
    block = dataset.private_block(0x7FE1, "MKISO TESTS", create=True)
    block.add_new(0x01, "OB", bytes(range(256)) * 16)
    return dataset
