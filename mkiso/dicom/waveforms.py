"""An ECG's recordings (PS3.3 A.34.3 to A.34.5, C.10.9), in millivolts: a stranger wrote them, and a child reads them.

pydicom makes arrays of them only by way of NumPy, which is three times as large as all that mkiso needs beside it; the
samples of a recording lie one channel beside the other, and Python's own arrays take them apart.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian

from mkiso.dicom.datasets import Unreadable, first_item, read, values

# By Waveform Sample Interpretation (PS3.3 C.10.9.1.5): bits, and their array's type. Companded ones are no ECG.
SAMPLES = {"SB": (8, "b"), "UB": (8, "B"), "SS": (16, "h"), "US": (16, "H"), "SL": (32, "i"), "UL": (32, "I")}
MILLIVOLTS = {"nV": 1e-6, "uV": 1e-3, "mV": 1.0, "V": 1e3}  # UCUM's, of which case counts
MOST_CHANNELS = 24  # A.34.4.4.4
SLOWEST, FASTEST = 10.0, 20_000.0  # Hz
NO_SAMPLE = math.nan


@dataclass(frozen=True)
class Channel:
    """Its name, and what makes millivolts of a sample: nothing does where it is not of volts, or does not say so."""

    name: str
    factor: float | None = None
    offset: float = 0.0


@dataclass(frozen=True)
class Recording:
    """A multiplex group: channels that were sampled at once, so many times in all, `frequency` times in a second."""

    label: str
    channels: tuple[Channel, ...]
    count: int
    frequency: float
    kind: str
    swapped: bool
    padding: int | None
    data: bytes

    @property
    def seconds(self) -> float:
        return self.count / self.frequency

    def millivolts(self, begin: float, end: float) -> Iterator[tuple[Channel, Sequence[float]]]:
        """Each channel between two seconds, a value a sample; NaN where there is none (Waveform Padding Value)."""
        first, last = round(begin * self.frequency), min(self.count, round(end * self.frequency))
        samples = array(self.kind)
        width = samples.itemsize * len(self.channels)
        samples.frombytes(self.data[first * width : last * width])
        if self.swapped:
            samples.byteswap()
        for at, one in enumerate(self.channels):
            own = samples[at :: len(self.channels)] if one.factor is not None else ()
            factor = one.factor or 0.0
            yield one, [NO_SAMPLE if now == self.padding else now * factor + one.offset for now in own]


def recordings(instance: Path) -> list[Recording]:
    """Those of an instance that can be read, in their order. Raises Unreadable, OSError."""
    dataset = read(instance)
    is_big = dataset.file_meta.get("TransferSyntaxUID") == ExplicitVRBigEndian
    try:
        groups = list(dataset.WaveformSequence)
    except Exception as error:  # pydicom's objections are many: see datasets
        raise Unreadable(f"{type(error).__name__} in its waveforms") from error
    return [found for group in groups if (found := _recording(group, is_big))]


def _recording(group: Dataset, is_big: bool) -> Recording | None:
    try:
        bits, kind = SAMPLES[_text(group, "WaveformSampleInterpretation")]
        number, count = (int(_text(group, f"NumberOfWaveform{what}")) for what in ("Channels", "Samples"))
        frequency, data = float(_text(group, "SamplingFrequency")), bytes(group.WaveformData)
        channels = tuple(_channel(one, at) for at, one in enumerate(group.ChannelDefinitionSequence, 1))
        padding = _padding(group.get("WaveformPaddingValue"), kind, is_big)
    except Exception:  # as above, of values that are missing, or no numbers
        return None
    is_sound = (
        int(_text(group, "WaveformBitsAllocated") or 0) == bits
        and 0 < number <= MOST_CHANNELS
        and number == len(channels)
        and SLOWEST <= frequency <= FASTEST
        and 0 < count <= len(data) // (number * bits // 8)
        and not (is_big and array(kind).itemsize == 1)  # two of them may be swapped, or not
    )
    swapped = (sys.byteorder == "big") != is_big
    label = _text(group, "MultiplexGroupLabel")
    return Recording(label, channels, count, frequency, kind, swapped, padding, data) if is_sound else None


def _channel(definition: Dataset, number: int) -> Channel:
    source = first_item(definition, "ChannelSourceSequence")
    name = _text(definition, "ChannelLabel") or _text(source, "CodeMeaning") or f"{number}"
    unit = MILLIVOLTS.get(_text(first_item(definition, "ChannelSensitivityUnitsSequence"), "CodeValue"))
    try:
        sensitivity, correction, baseline = (
            float(_text(definition, f"Channel{what}") or default)
            for what, default in (("Sensitivity", "nan"), ("SensitivityCorrectionFactor", "1"), ("Baseline", "0"))
        )
    except ValueError:
        unit = None
    if unit is None or not (math.isfinite(sensitivity * correction) and math.isfinite(baseline)) or not sensitivity:
        return Channel(name)
    return Channel(name, sensitivity * correction * unit, baseline * unit)


def _padding(value: object, kind: str, is_big: bool) -> int | None:
    samples = array(kind)
    if isinstance(value, int):
        return value
    if not isinstance(value, bytes) or len(value) < samples.itemsize:
        return None
    samples.frombytes(value[: samples.itemsize])
    if (sys.byteorder == "big") != is_big:
        samples.byteswap()
    return samples[0]


def _text(dataset: Dataset, keyword: str) -> str:
    return " ".join(" ".join(values(dataset, keyword)).split())
