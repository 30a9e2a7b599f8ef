"""ECGs that are made up: of each lead the samples are given (PS3.3 A.34.3, C.10.9)."""

from collections.abc import Sequence
from dataclasses import dataclass
from struct import pack

from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import TwelveLeadECGWaveformStorage

from tests.support import datasets


@dataclass(frozen=True)
class Lead:
    definition: Dataset
    samples: Sequence[int]


def lead(
    name: str,
    samples: Sequence[int],
    *,
    unit: str = "uV",
    sensitivity: str = "2.5",
    correction: str = "1",
    baseline: str = "0",
) -> Lead:
    source, units, one = Dataset(), Dataset(), Dataset()
    source.CodeValue, source.CodingSchemeDesignator, source.CodeMeaning = "5.6.3-9-1", "SCPECG", f"Lead {name}"
    units.CodeValue, units.CodingSchemeDesignator, units.CodeMeaning = unit, "UCUM", unit
    one.ChannelSourceSequence, one.ChannelSensitivityUnitsSequence = Items([source]), Items([units])
    for keyword, value in (
        ("ChannelSensitivity", sensitivity),
        ("ChannelSensitivityCorrectionFactor", correction),
        ("ChannelBaseline", baseline),
    ):
        setattr(one, keyword, None)
        one[keyword]._value = value  # whatever it is
    one.ChannelSampleSkew, one.WaveformBitsStored = "0", 16
    return Lead(one, samples)


def recorded(
    common: Dataset, leads: Sequence[Lead], frequency: float, *, number: int = 1, padding: int | None = None
) -> Dataset:
    """A 12-lead ECG, though it may have fewer, of one recording."""
    dataset = datasets.report(common, 1, number)
    del dataset.ContentSequence
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = TwelveLeadECGWaveformStorage
    dataset.Modality = "ECG"
    group = Dataset()
    group.MultiplexGroupTimeOffset, group.WaveformOriginality = "0", "ORIGINAL"
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = len(leads), len(leads[0].samples)
    group.SamplingFrequency = str(frequency)
    group.ChannelDefinitionSequence = Items([one.definition for one in leads])
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
    if padding is not None:
        group.add_new("WaveformPaddingValue", "OW", pack("<h", padding))
    samples = [value for values in zip(*(one.samples for one in leads), strict=True) for value in values]
    group.add_new("WaveformData", "OW", pack(f"<{len(samples)}h", *samples))
    dataset.WaveformSequence = Items([group])
    return dataset
