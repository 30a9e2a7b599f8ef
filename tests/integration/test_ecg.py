"""An ECG's leads as a picture: its paper measures what was recorded, and whatever is wrong costs no more than that."""

from itertools import pairwise
from pathlib import Path
from statistics import mean
from struct import pack

import pytest
from PIL import Image
from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items

from mkiso.browse.pages import write_pages
from mkiso.browse.shown import Nothing, Picture, Why
from mkiso.browse.strips import LEFT, MM, TOP
from mkiso.dcmtk import converters
from tests.support import datasets
from tests.support.contents import Showing
from tests.support.ecg import lead, recorded
from tests.support.everything import electrocardiogram
from tests.support.shown import about
from tests.support.studies import JOHN

COMMON = datasets.study(JOHN, "ECG.001")
KIND = "12-lead ECG Waveform Storage"


@pytest.fixture
def job(tmp_path: Path) -> Showing:
    return Showing(tmp_path)


def pulses(seconds: float = 10, frequency: int = 500, height: int = 400) -> list[int]:
    """Half a second at the height after each half second at zero: 1 mV by the default sensitivity."""
    return [height * (at % frequency >= frequency // 2) for at in range(int(seconds * frequency))]


def ink(picture: Path) -> list[tuple[int, int]]:
    """Where it is black, right of the pulse that calibrates it and below what is written."""
    grey = Image.open(picture).convert("L")
    columns = range(LEFT * MM + 20 * MM, grey.width)
    return [(x, y) for x in columns for y in range(TOP * MM, grey.height) if grey.getpixel((x, y)) < 90]


def test_a_millivolt_is_ten_millimetres_and_a_second_twenty_five(job: Showing) -> None:
    (strip,) = job.put(recorded(COMMON, [lead("I", pulses())], 500)).items()
    assert isinstance(strip, Picture)
    assert (strip.is_strip, strip.frame, strip.frames) == (True, 1, 1)
    found = ink(job.web / strip.file)
    high, low = (line(y for _, y in found) for line in (min, max))
    top, bottom = (mean(y for _, y in found if abs(y - line) <= 2) for line in (high, low))
    assert abs(bottom - top - 10 * MM) < 1
    risen = sorted({x for x, y in found if y <= high + 2})
    begins = [x for before, x in pairwise(risen) if x - before > MM]
    assert all(abs(later - one - 25 * MM) <= 1 for one, later in pairwise(begins))
    assert len(begins) >= 8


@pytest.mark.parametrize(
    ("unit", "sensitivity", "correction", "height"),
    [("mV", "0.0025", "1", 400), ("uV", "1.25", "2", 400), ("V", "0.000005", "0.5", 400), ("uV", "10", "1", 100)],
)
def test_it_is_calibrated_by_sensitivity_correction_and_unit(
    unit: str, sensitivity: str, correction: str, height: int, job: Showing
) -> None:
    one = lead("I", pulses(height=height), unit=unit, sensitivity=sensitivity, correction=correction, baseline="900")
    (strip,) = job.put(recorded(COMMON, [one], 500)).items()
    assert isinstance(strip, Picture)
    lines = [y for _, y in ink(job.web / strip.file)]
    assert abs(max(lines) - min(lines) - 10 * MM) <= 3


def test_each_recording_of_an_instance_has_strips_and_a_long_one_from_its_beginning_to_its_end(job: Showing) -> None:
    ten = electrocardiogram(COMMON, 1, 1)  # ten seconds, and a median beat
    hour = recorded(COMMON, [lead("II", [0] * 50 * 3600)], 50, number=2)
    found = job.put(ten, hour).items()
    assert [(one.number, one.frame, one.frames) for one in found if isinstance(one, Picture)] == [
        *(("1", frame, 2) for frame in (1, 2)),
        *(("2", frame, 6) for frame in range(1, 7)),
    ]
    sizes = [Image.open(job.web / one.file).size for one in found if isinstance(one, Picture)]
    assert sizes == [(one.width, one.height) for one in found if isinstance(one, Picture)]
    assert all(one == sizes[2] for one in sizes[2:])


def test_whatever_is_wrong_with_a_recording_costs_its_strip_alone(job: Showing) -> None:
    def wrong(**values: object) -> Dataset:
        one = recorded(COMMON, [lead("I", pulses())], 500, number=len(ones) + 1)
        for keyword, value in values.items():
            group = one.WaveformSequence[0]
            group[keyword] = group[keyword] if keyword in group else group["WaveformData"]
            group[keyword]._value = value  # as it comes over a wire: pydicom would not take all of them
        ones.append(one)
        return one

    ones: list[Dataset] = []
    for keyword, values in {
        "NumberOfWaveformChannels": (0, 2, 65535),
        "NumberOfWaveformSamples": (0, 5001, 4294967295),
        "SamplingFrequency": ("0", "-500", "1e-9", "1e300", "NaN", "inf", "x", ""),
        "WaveformBitsAllocated": (0, 8, 64),
        "WaveformSampleInterpretation": ("MB", "", "XX"),
        "WaveformData": (b"", b"\0" * 100),
        "ChannelDefinitionSequence": (Items([]),),
    }.items():
        for value in values:
            wrong(**{keyword: value})
    bare = wrong()
    del bare.WaveformSequence
    empty = wrong()
    empty.WaveformSequence = Items([])
    found = job.put(*ones, datasets.ct(COMMON, 2, 1, 64)).items()
    assert found[:-1] == [Nothing(str(n), KIND, Why.BROKEN) for n in range(1, len(ones) + 1)]
    assert isinstance(found[-1], Picture)


@pytest.mark.parametrize(
    "values", [{"sensitivity": "nan"}, {"sensitivity": ""}, {"sensitivity": "0"}, {"unit": "mm[Hg]"}, {"baseline": "x"}]
)
def test_a_lead_that_is_not_of_volts_is_named_and_not_drawn(values: dict[str, str], job: Showing) -> None:
    one = recorded(COMMON, [lead("I", pulses(), **values), lead("II", [0] * 5000)], 500)
    (strip,) = job.put(one).items()
    assert isinstance(strip, Picture)
    assert len({y // MM for _, y in ink(job.web / strip.file)}) <= 2, "one line, that of II"


def test_where_a_recording_says_that_there_is_no_sample_there_is_no_line(job: Showing) -> None:
    gap = pulses()
    gap[2000:4000] = [-32768] * 2000
    (strip,) = job.put(recorded(COMMON, [lead("I", gap)], 500, padding=-32768)).items()
    assert isinstance(strip, Picture)
    columns = {x for x, _ in ink(job.web / strip.file)}
    drawn = [(x / MM - LEFT) / 25 for x in columns]
    assert not [second for second in drawn if 4.05 < second < 7.95]
    assert [second for second in drawn if second < 4]


def test_samples_in_big_endian_are_the_same_picture(job: Showing) -> None:
    little, big = (recorded(COMMON, [lead("I", pulses())], 500, number=number) for number in (1, 2))
    big.file_meta = FileMetaDataset()
    big.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
    big.file_meta.MediaStorageSOPClassUID, big.file_meta.MediaStorageSOPInstanceUID = (
        big.SOPClassUID,
        big.SOPInstanceUID,
    )
    big.WaveformSequence[0].WaveformData = b"".join(pack(">h", one) for one in pulses())
    one, other = job.put(little, big).items()
    assert isinstance(one, Picture)
    assert isinstance(other, Picture)
    assert (job.web / one.file).read_bytes() == (job.web / other.file).read_bytes()


def test_without_pictures_there_are_no_strips(job: Showing) -> None:
    assert job.put(electrocardiogram(COMMON, 1, 1)).items(pictures=0) == [Nothing("1", KIND, Why.NO_PIXELS)]


def test_what_takes_too_long_is_late(job: Showing) -> None:
    assert job.put(electrocardiogram(COMMON, 1, 1)).items(limit=0.01) == [Nothing("1", KIND, Why.LATE)]


def test_a_host_whose_program_is_broken_loses_the_strip(job: Showing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converters, "STRIPS", "mkiso.browse.missing")
    assert job.put(electrocardiogram(COMMON, 1, 1)).items() == [Nothing("1", KIND, Why.BROKEN)]


@pytest.mark.parametrize(("language", "words"), [("en", "1 ECG"), ("id", "1 rekaman EKG")])
def test_the_pages_show_it_as_a_picture_in_their_words(language: str, words: str, job: Showing) -> None:
    patients = job.put(electrocardiogram(COMMON, 1, 1)).shown()
    write_pages(patients, about(language=language), job.stage)
    index, phone, series, image = (
        (job.stage / file).read_text()
        for file in ("INDEX.HTM", "PHONE.HTM", "ihe_pdi/s0000001.htm", "ihe_pdi/i0000001.htm")
    )
    assert 'src="ihe_pdi/p0000001.jpg"' in index
    assert words in index
    assert phone.count("data:image/jpeg;base64,") == 2
    assert all("25 mm/" in page for page in (phone, series))
    assert 'src="p0000001.jpg"' in image
