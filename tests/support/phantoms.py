"""Invented studies as people know real ones: a thorax with a nodule, a breast, a heart that beats, an ECG, a report.

Nothing is anybody's: bodies are ellipses in mm, drawn row by row, with noise that is the same in every run.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from operator import add

from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
)

from tests.support import datasets
from tests.support.pydicom_files import file

SLICES, APART = 150, 0.625  # mm from slice to slice
ACROSS = 360.0  # mm that a slice shows
NODULE = (-88.0, 18.0, 46.0)  # mm from the middle of a slice to the right and down, and from the first slice
NODULE_RADIUS = 5.0
WITH_NODULE = tuple(at for at in range(1, SLICES + 1) if abs((at - 0.5) * APART - NODULE[2]) < NODULE_RADIUS)
AIR, LUNG, FAT, MUSCLE, BLOOD, BONE = -1000, -860, -95, 50, 150, 600
SOFT_TISSUE, LUNG_WINDOW = (40, 400), (-600, 1500)
NOISE = 1 << 13


class Canvas:
    """Rows of values, and ellipses on them: middle, half axes in pixels, an angle to the right and down."""

    def __init__(self, rows: int, columns: int, value: int = 0) -> None:
        self.columns = columns
        self.rows = [array("h", (value,)) * columns for _ in range(rows)]

    def ellipse(self, x: float, y: float, rx: float, ry: float, value: int, angle: float = 0) -> None:
        for row, start, end in self._runs(x, y, rx, ry, angle):
            row[start:end] = array("h", (value,)) * (end - start)

    def _runs(self, x: float, y: float, rx: float, ry: float, angle: float) -> Iterator[tuple[array[int], int, int]]:
        if min(rx, ry) <= 0:
            return
        cos, sin = math.cos(angle), math.sin(angle)
        a, c = cos**2 / rx**2 + sin**2 / ry**2, sin**2 / rx**2 + cos**2 / ry**2
        b = cos * sin * (1 / rx**2 - 1 / ry**2)
        high = math.sqrt(a / (a * c - b * b))
        for at in range(max(0, math.ceil(y - high)), min(len(self.rows), math.floor(y + high) + 1)):
            down = at - y
            half, middle = math.sqrt(max(0, (b * down) ** 2 - a * (c * down**2 - 1))) / a, x - b * down / a
            start, end = max(0, round(middle - half)), min(self.columns, round(middle + half))
            if start < end:
                yield self.rows[at], start, end

    def smooth(self) -> None:
        """No edge is sharper than two pixels."""
        for at, row in enumerate(self.rows):
            below = self.rows[min(at + 1, len(self.rows) - 1)]
            both = array("h", map(add, row, below))
            self.rows[at] = array("h", (value >> 2 for value in map(add, both, (*both[1:], both[-1]))))

    def noisy(self, seed: int, size: float, least: int, most: int) -> bytes:
        """All of it with noise of this size, as little-endian words."""
        chance = random.Random(seed)
        noise = [round(chance.gauss(0, size)) for _ in range(NOISE)]
        words = array("h")
        for row in self.rows:
            start = chance.randrange(NOISE - self.columns)
            words.extend(min(most, max(least, one)) for one in map(add, row, noise[start : start + self.columns]))
        return words.tobytes()


def thorax(common: Dataset, series: int, number: int, side: int = 512) -> Dataset:
    """A slice of a CT from above downwards: two lungs with their vessels, and a nodule of 10 mm in the right one."""
    image = datasets.ct(common, series, number, side)
    image.SeriesDescription, image.BodyPartExamined = "Chest 0.6 mm", "CHEST"
    image.ImagePositionPatient = [-ACROSS / 2, -ACROSS / 2, -APART * number]
    image.PixelSpacing, image.SliceThickness = [ACROSS / side] * 2, APART
    image.WindowCenter, image.WindowWidth = map(list, zip(SOFT_TISSUE, LUNG_WINDOW, strict=True))
    image.WindowCenterWidthExplanation = ["MEDIASTINUM", "LUNG"]
    canvas, scale = Canvas(side, side, AIR + 1024), side / ACROSS

    def put(x: float, y: float, rx: float, ry: float, value: int, angle: float = 0) -> None:
        canvas.ellipse(side / 2 + x * scale, side / 2 + y * scale, rx * scale, ry * scale, value + 1024, angle)

    _slice_of_thorax(put, (number - 0.5) * APART)
    canvas.smooth()
    image.PixelData = canvas.noisy(number, 9, 0, 4095)
    return image


Put = Callable[..., None]


def _slice_of_thorax(put: Put, z: float) -> None:
    lower = z / (SLICES * APART)  # from 0 above to 1
    put(0, 0, 165, 112, FAT)
    put(0, 0, 152, 100, MUSCLE)
    put(0, 4, 136, 88, FAT)
    for side in (-1, 1):
        put(side * 72, 0 + 6 * lower, 54 + 7 * lower, 74 + 8 * lower, LUNG, side * 0.12)
        _vessels(put, side, z)
    put(0, 12, 30, 62, FAT)
    put(26 * lower + 8, -22 + 6 * lower, 32 + 24 * lower, 26 + 18 * lower, BLOOD - 90)
    put(26 * lower + 12, -20 + 6 * lower, 22 + 16 * lower, 16 + 12 * lower, BLOOD)
    put(18, 52, 13, 13, BLOOD)
    put(-14, -8 - 8 * lower, 11, 12, BLOOD)
    if lower < 0.55:
        put(-2, 20, 9, 8, AIR)
    else:
        put(-20 - 20 * (lower - 0.5), 20, 7, 6, AIR)
        put(18 + 20 * (lower - 0.5), 22, 7, 6, AIR)
    put(2, 42, 7, 5, MUSCLE)
    _bones(put, z)
    x, y, middle = NODULE
    if (left := NODULE_RADIUS**2 - (z - middle) ** 2) > 0:
        put(x, y, math.sqrt(left), math.sqrt(left), 45)


def _vessels(put: Put, side: int, z: float) -> None:
    """Tubes that run away from the middle as they go down, thinner the farther they are."""
    chance = random.Random(side)
    for _ in range(70):
        angle, far, down = chance.uniform(-math.pi, math.pi), chance.uniform(0.15, 0.92), chance.uniform(-0.35, 0.35)
        far += down * (z / 94 - 0.5)
        if far < 0.9:
            x, y = 72 + 50 * far * math.cos(angle), 4 + 66 * far * math.sin(angle)
            near = abs(x - 34) / 90
            size = max(0.7, 3.6 * (1 - near) * chance.uniform(0.5, 1))
            if math.dist((side * x, y), NODULE[:2]) > 3 * NODULE_RADIUS:
                put(side * x, y, size * 1.5, size, 40, side * angle)


def _bones(put: Put, z: float) -> None:
    put(0, 74, 20, 17, BONE - 330)
    put(0, 74, 17, 14, BONE - 420)
    put(0, 96, 5, 15, BONE - 200)
    put(0, 82, 9, 8, 25)
    put(0, -88, 22, 6, BONE - 300)
    for side in (-1, 1):
        put(side * 24, 86, 17, 5, BONE - 250, side * 0.4)
        for rib in range(6):
            angle = -1.05 + 0.42 * rib + 0.16 * math.sin(z / 9 + rib)
            x, y = 144 * math.cos(angle), 94 * math.sin(angle)
            along = math.atan2(94 * math.cos(angle), -144 * math.sin(angle))
            for half, value in ((1, BONE), (0.6, BONE - 380)):
                put(side * x, y, 13 * half, 5 * half, value, side * along)


def chest(common: Dataset, series: int, number: int) -> Dataset:
    """An X-ray of the chest, 2500 rows of 2000 pixels, with a letter at the patient's right as a marker."""
    image = _x_ray(common, series, number, DigitalXRayImageStorageForPresentation, "DX", _chest(), 5)
    image.SeriesDescription, image.BodyPartExamined, image.ViewPosition = "PA upright", "CHEST", "PA"
    image.PatientOrientation, image.ImageLaterality, image.ImagerPixelSpacing = ["L", "F"], "U", [0.14, 0.14]
    return image


def _chest() -> Canvas:
    """From above, of 500 rows: what weakens the rays is light."""
    canvas = Canvas(500, 400, 120)
    canvas.ellipse(200, 330, 188, 330, 1750)
    for side in (-1, 1):
        canvas.ellipse(200 + side * 150, 70, 90, 42, 1700, side * 0.35)
        canvas.ellipse(200 + side * 84, 215, 66, 150, 620, side * 0.1)
        _ribs(canvas, side)
        canvas.ellipse(200 + side * 80, 66, 74, 7, 1720, side * 0.16)
    canvas.ellipse(200, 250, 24, 260, 1950)
    for at in range(14):
        canvas.ellipse(200, 40 + 26 * at, 19, 9, 2150)
    canvas.ellipse(230, 150, 15, 20, 1980)
    canvas.ellipse(220, 296, 60, 64, 2020, 0.6)
    for side in (-1, 1):
        canvas.ellipse(200 + side * 84, 440, 92, 76 - 5 * side, 2060)
    canvas.ellipse(200, 590, 180, 190, 2060)
    for _ in range(6):
        canvas.smooth()
    return canvas


def _ribs(canvas: Canvas, side: int) -> None:
    for rib in range(9):
        for step in range(60):
            part = step / 59
            x = 200 + side * (26 + 118 * math.sin(part * math.pi / 2) * min(1, 0.6 + 0.06 * rib))
            y = 82 + 33 * rib + 44 * part**2
            canvas.ellipse(x, y, 6, 4.2, 980)
            if step % 4 == 0:
                canvas.ellipse(x, y, 3, 2, 860)


def breasts(common: Dataset, series: int) -> list[Dataset]:
    """A mammogram: each side from above and obliquely, 2400 rows of 1800 pixels, with specks of lime in the left."""
    found = []
    for number, (side, view) in enumerate((("R", "CC"), ("L", "CC"), ("R", "MLO"), ("L", "MLO")), 1):
        canvas = _breast(side, view)
        image = _x_ray(common, series, number, DigitalMammographyXRayImageStorageForPresentation, "MG", canvas, 6)
        image.SeriesDescription, image.BodyPartExamined = "Screening", "BREAST"
        image.ImageLaterality, image.ViewPosition = side, view
        image.PatientOrientation = ["P" if side == "R" else "A", {"CC": {"R": "L", "L": "R"}[side], "MLO": "F"}[view]]
        image.ImagerPixelSpacing = [0.1, 0.1]
        found.append(image)
    return found


def _breast(side: str, view: str) -> Canvas:
    canvas, chance = Canvas(400, 300, 30), random.Random(view)
    wall, inward = (300, -1) if side == "R" else (0, 1)
    lower = 40 if view == "MLO" else 0
    canvas.ellipse(wall, 200 + lower, 235, 165, 900)
    canvas.ellipse(wall, 200 + lower, 229, 159, 620)
    for _ in range(260):
        far, angle = chance.uniform(0.1, 0.85) ** 0.7, chance.uniform(-1.0, 1.0)
        x, y = 200 * far * math.cos(angle), 130 * far * math.sin(angle)
        value = 700 + round(520 * chance.random() * (1 - abs(angle) / 1.4))
        canvas.ellipse(
            wall + inward * x, 200 + lower + y, chance.uniform(4, 22), chance.uniform(2, 7), value, inward * angle
        )
    canvas.ellipse(wall + inward * 226, 200 + lower, 9, 9, 1100)
    if view == "MLO":
        canvas.ellipse(wall, 20, 95, 190, 1500, inward * 0.35)
    for _ in range(3):
        canvas.smooth()
    return canvas


def _x_ray(
    common: Dataset, series: int, number: int, sop_class: UID, modality: str, canvas: Canvas, times: int
) -> Dataset:
    """An image that is so many times as large as the canvas, of 12 bits."""
    image = datasets.ct_capture(common, series, number, 16)
    image.SOPClassUID, image.Modality, image.ImageType = sop_class, modality, ["ORIGINAL", "PRIMARY"]
    image.file_meta.MediaStorageSOPClassUID = sop_class
    image.PresentationIntentType = "FOR PRESENTATION"
    large = _enlarged(canvas, times)
    _mark(large, "R" if modality == "DX" else "")
    if modality == "MG" and number in (2, 4):
        chance = random.Random(7)
        for _ in range(14):
            large.ellipse(640 + chance.gauss(0, 26), 1150 + chance.gauss(0, 26), 3, 3, 2900)
    image.Rows, image.Columns = len(large.rows), large.columns
    image.WindowCenter, image.WindowWidth = (1300, 2500) if modality == "DX" else (1000, 2000)
    image.PixelData = large.noisy(number, 14, 0, 4095)
    return image


def _enlarged(canvas: Canvas, times: int) -> Canvas:
    large = Canvas(0, canvas.columns * times)
    wide = [_between(row, [*row[1:], row[-1]], times) for row in canvas.rows]
    for row, below in zip(wide, [*wide[1:], wide[-1]], strict=True):
        for part in range(times):
            mixed = (one * (times - part) + other * part for one, other in zip(row, below, strict=True))
            large.rows.append(array("h", (value // times for value in mixed)))
    return large


def _between(row: Sequence[int], after: Sequence[int], times: int) -> list[int]:
    pairs = zip(row, after, strict=True)
    return [(one * (times - part) + other * part) // times for one, other in pairs for part in range(times)]


def _mark(canvas: Canvas, letter: str) -> None:
    if letter == "R":
        for at in range(60):
            canvas.ellipse(120, 300 + at * 2, 7, 7, 3800)
            canvas.ellipse(125 + at * 0.9, 362 + at, 7, 7, 3800)
            angle = math.pi * (at / 60 - 0.5)
            canvas.ellipse(130 + 46 * math.cos(angle), 331 + 31 * math.sin(angle), 7, 7, 3800)


def heart_loop(common: Dataset, series: int, number: int, frames: int = 30) -> Dataset:
    """An ultrasound cine of 480 rows of 640 pixels: a sector with a chamber that grows and shrinks once."""
    loop = datasets.ultrasound_loop(common, series, number, 1)
    loop.SeriesDescription, loop.BodyPartExamined = "Apical four chamber", "HEART"
    loop.SamplesPerPixel, loop.PhotometricInterpretation = 1, "MONOCHROME2"
    loop.NumberOfFrames, loop.FrameTime = frames, 33
    del loop.PlanarConfiguration
    loop.Rows, loop.Columns = 480, 640
    drawn = b"".join(_frame(at, frames) for at in range(frames))
    loop.add_new("PixelData", "OB", drawn)
    return loop


def _frame(at: int, frames: int) -> bytes:
    canvas, chance = Canvas(480, 640, 0), random.Random(at)
    beat = math.sin(2 * math.pi * at / frames)
    canvas.ellipse(320, 20, 440, 440, 74)
    canvas.ellipse(320, 240, 170, 205, 112)
    for x, y, rx, ry, share in (
        (262, 200, 52, 95, 9),
        (376, 205, 48, 84, 7),
        (266, 360, 48, 52, -6),
        (372, 360, 46, 48, -5),
    ):
        canvas.ellipse(x, y, rx + share * beat, ry + share * beat, 12)
    for x, side in ((262, 1), (376, -1)):
        canvas.ellipse(x - 22, 300, 26, 4, 170, side * (0.3 + 0.35 * beat))
        canvas.ellipse(x + 22, 300, 26, 4, 170, -side * (0.3 + 0.35 * beat))
    speckles = [max(0.15, chance.gauss(1, 0.34)) for _ in range(NOISE)]
    pixels = bytearray()
    for y, row in enumerate(canvas.rows):
        reach = max(0, round((y - 18) * 0.78))
        start = chance.randrange(NOISE - 640)
        seen = slice(max(0, 320 - reach), min(640, 320 + reach))
        values = (min(255, int(one * by)) for one, by in zip(row[seen], speckles[start:], strict=False))
        pixels += bytes(seen.start) + bytes(values) + bytes(640 - max(seen.start, seen.stop))
    return bytes(pixels)


# Of a beat, as each lead has it: seconds from its R wave, width in seconds, millivolts.
WAVES = ((-0.16, 0.022, 0.14), (-0.026, 0.008, -0.12), (0.0, 0.010, 1.15), (0.028, 0.010, -0.25), (0.24, 0.040, 0.32))
LEADS = (0.7, 1.0, 0.3, -0.85, 0.2, 0.65, -0.5, -0.2, 0.5, 1.1, 1.2, 0.9)  # I, II, III, aVR, aVL, aVF, V1 to V6
A_BEAT = 0.84  # s


def electrocardiogram(common: Dataset, series: int, number: int) -> Dataset:
    """An ECG of twelve leads for ten seconds, in the frame of pydicom's: its samples are drawn anew."""
    ecg = dcmread(file("waveform_ecg.dcm"))
    ecg.remove_private_tags()
    ecg.update(common)
    ecg.SeriesInstanceUID = datasets.uid(common.StudyInstanceUID, series)
    ecg.SOPInstanceUID = datasets.uid(common.StudyInstanceUID, series, number)
    ecg.file_meta.MediaStorageSOPInstanceUID = ecg.SOPInstanceUID
    ecg.SeriesNumber, ecg.InstanceNumber = series, number
    for group in ecg.WaveformSequence:
        rate, count = float(group.SamplingFrequency), int(group.NumberOfWaveformSamples)
        samples = [_millivolts((at / rate) % A_BEAT - 0.3) for at in range(count)]
        per_unit = 1000 / 1.25
        interleaved = array("h", (round(one * lead * per_unit) for one in samples for lead in LEADS))
        group.WaveformData = interleaved.tobytes()
    return ecg


def _millivolts(since: float) -> float:
    return sum(high * math.exp(-(((since - at) / width) ** 2) / 2) for at, width, high in WAVES)


FINDING = (
    "Solid nodule of 10 mm in the right lower lobe, smooth margin, no calcification. "
    "No other nodule. No enlarged lymph nodes. No effusion. Heart of normal size."
)
IMPRESSION = "Solitary pulmonary nodule of 10 mm on the right. CT control in three months is recommended."


def written_report(common: Dataset, series: int, number: int) -> Dataset:
    """What a radiologist writes of the thorax."""
    report = datasets.report(common, series, number)
    report.SeriesDescription, report.CompletionFlag = "Report", "COMPLETE"
    (finding,) = report.ContentSequence
    impression = deepcopy(finding)
    finding.TextValue, impression.TextValue = FINDING, IMPRESSION
    impression.ConceptNameCodeSequence = [_code("121073", "DCM", "Impression")]
    report.ContentSequence = [finding, impression]
    return report


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def letter(common: Dataset, series: int, number: int, pdf: bytes) -> Dataset:
    """A PDF as an instance."""
    document = datasets.document(common, series, number)
    document.SeriesDescription, document.DocumentTitle = "Discharge letter", "Discharge letter"
    document.EncapsulatedDocumentLength = len(pdf)
    document.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    return document
