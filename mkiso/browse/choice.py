"""What of a series is shown: some of its frames, evenly spaced, and its reports, documents and the rest.

The frames of a series' images, one after another, are one sequence. A header is read only where an instance may have
several frames, or where its class does not tell whether it is an image; it gives texts for people, and whatever a
stranger wrote there, nothing is raised.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from io import BytesIO
from itertools import accumulate, groupby
from math import isfinite
from pathlib import Path

from pydicom import Dataset, uid
from pydicom.tag import Tag
from pydicom.uid import UID

from mkiso.browse.shown import Checkpoint
from mkiso.dicom.datasets import CHARACTER_SET, Unreadable, first_item, plain_date, read, values
from mkiso.dicom.headers import read_keys
from mkiso.dicom.instances import Instance

DIGITS = 9
TIMES = 6  # as many pictures as a series has a disc has
A_SERIES = 120  # that are no images
MOST_HEADERS = 500  # that are read of a series; what lies behind is taken to have one frame, and no pixels
WINDOW = ("WindowCenter", "WindowWidth")
NARROWEST = 1  # PS3.3 C.11.2.1.2.1; dcmj2pnm makes a grey picture of another one
MOST_WINDOWS = 2  # lung beside mediastinum
REPORT = "1.2.840.10008.5.1.4.1.1.88."
IMAGE = re.compile(
    r".* Image Storage\b.*|Enhanced US Volume Storage|RT Dose Storage|Segmentation Storage|Parametric Map Storage"
    r"|Ophthalmic Thickness Map Storage|Corneal Topography Map Storage"
)
# These have one frame (PS3.3 A), and may be thousands.
SINGLE_FRAME = frozenset(
    {
        uid.ComputedRadiographyImageStorage,
        uid.CTImageStorage,
        uid.DigitalMammographyXRayImageStorageForPresentation,
        uid.DigitalXRayImageStorageForPresentation,
        uid.MRImageStorage,
        uid.PositronEmissionTomographyImageStorage,
        uid.SecondaryCaptureImageStorage,
        uid.UltrasoundImageStorage,
    }
)


class Header:
    """Some attributes of an instance; what is missing, very long or cannot be read is empty."""

    def __init__(self, path: Path, keywords: Iterable[str]) -> None:
        keys = read_keys(path, {CHARACTER_SET, *map(Tag, keywords)})
        self.broken = keys is None
        self._dataset, self._filled = Dataset(), keys.filled if keys else frozenset[int]()
        try:
            if keys:
                self._dataset = read(BytesIO(keys.file()))
        except Unreadable:
            self.broken = True

    def has(self, keyword: str) -> bool:
        """Whether there is something in it, also what is too long or cannot be read."""
        return Tag(keyword) in self._filled

    def text(self, keyword: str) -> str:
        """A value as one line, empty where there is none; several are separated by backslashes."""
        return _text(self._dataset, keyword)

    def meaning(self, keyword: str) -> str:
        """What the first code of a sequence means (PS3.3 8.8)."""
        return _text(first_item(self._dataset, keyword), "CodeMeaning")

    def date(self, keyword: str) -> str:
        """YYYYMMDD, or empty."""
        return plain_date(self.text(keyword))

    def number(self, keyword: str) -> int:
        """The first value; 0 where it is no whole number above."""
        first = self.text(keyword).partition("\\")[0]
        return int(first) if first.isascii() and first.isdecimal() and len(first) <= DIGITS else 0

    def decimal(self, keyword: str) -> float:
        """The first value; 0 where it is no number."""
        try:
            return float(self.text(keyword).partition("\\")[0])
        except ValueError:
            return 0.0

    def numbers(self, keyword: str, count: int | None = None) -> tuple[float, ...]:
        """All values; none where one of them is no number, or where there are not just so many."""
        try:
            found = tuple(map(float, self.text(keyword).split("\\")))
        except ValueError:
            return ()
        return found if all(map(isfinite, found)) and count in {None, len(found)} else ()

    def windows(self) -> list[int]:
        """The stored windows (PS3.3 C.11.2.1.2) of which each shows something else, by their numbers from 1."""
        pairs = list(zip(self.numbers("WindowCenter"), self.numbers("WindowWidth"), strict=False))
        return [at + 1 for at, pair in enumerate(pairs) if pair[1] >= NARROWEST and pair not in pairs[:at]]


def _text(dataset: Dataset, keyword: str) -> str:
    return "\\".join(" ".join(one.split()) for one in values(dataset, keyword))


class Kind(Enum):
    """As what an instance is shown."""

    IMAGE = auto()
    REPORT = auto()
    DOCUMENT = auto()
    ECG = auto()
    OTHER = auto()


KINDS = {uid.EncapsulatedPDFStorage: Kind.DOCUMENT} | dict.fromkeys(
    (
        uid.TwelveLeadECGWaveformStorage,
        uid.GeneralECGWaveformStorage,
        uid.AmbulatoryECGWaveformStorage,
        uid.General32bitECGWaveformStorage,
    ),
    Kind.ECG,
)


@dataclass(frozen=True)
class Wanted:
    """What is to be shown of an instance: these `frames` (from 1) of all that it has, one where it is no image.

    Each is shown through so many of its stored `windows`. Of the `in_series` frames of its series, `before` come first.
    """

    instance: Instance
    kind: Kind
    frames: tuple[int, ...] = (1,)
    of: int = 1
    windows: int = 1
    before: int = 0
    in_series: int = 1


@dataclass(frozen=True)
class _Series:
    instances: Sequence[Instance]
    kinds: Sequence[Kind]
    ends: Sequence[int]  # how many frames there are up to each instance's last
    windows: int = 1

    @property
    def frames(self) -> int:
        return self.ends[-1] if self.ends else 0

    def wanted(self, pictures: int) -> list[Wanted]:
        others = [at for at, kind in enumerate(self.kinds) if kind is not Kind.IMAGE]
        shown = [others[at] for at in spread(min(len(others), A_SERIES), len(others))]
        found = {at: Wanted(self.instances[at], self.kinds[at]) for at in shown}
        places = ((bisect_right(self.ends, frame), frame) for frame in spread(pictures, self.frames))
        for at, frames in groupby(places, key=lambda place: place[0]):
            found[at] = self._image(at, [frame for _, frame in frames])
        return [found[at] for at in sorted(found)]

    def _image(self, at: int, frames: Sequence[int]) -> Wanted:
        begin = self.ends[at - 1] if at else 0
        numbers = tuple(frame - begin + 1 for frame in frames)
        of = self.ends[at] - begin
        return Wanted(self.instances[at], Kind.IMAGE, numbers, of, self.windows, begin, self.frames)


def choose(series: Iterable[Sequence[Instance]], pictures: int, checkpoint: Checkpoint) -> list[list[Wanted]]:
    """What is shown of each series, in its order; at most so many frames of one, and TIMES as many pictures of all.

    A frame that is shown through a second window is two pictures.
    """
    looked_at = [_looked_at(one, pictures > 0, checkpoint) for one in series]
    given = shares([min(one.frames, pictures) * one.windows for one in looked_at], pictures * TIMES)
    return [one.wanted(max(min(1, share), share // one.windows)) for one, share in zip(looked_at, given, strict=True)]


def shares(there: Sequence[int], of_all: int) -> list[int]:
    """How many everyone gets of what is there: one of each before a second of any."""
    given = [0] * len(there)
    while of_all > 0 and (hungry := [at for at, count in enumerate(there) if given[at] < count]):
        more = max(1, min(of_all // len(hungry), *(there[at] - given[at] for at in hungry)))
        for at in hungry[:of_all]:
            given[at] += more
            of_all -= more
    return given


def spread(count: int, of: int) -> list[int]:
    """So many places among all, from 0: evenly, the first and the last among them; the middle where it is one."""
    if count == 1:
        return [of // 2]
    return [(part * (of - 1) + (count - 1) // 2) // (count - 1) for part in range(count)]


def _looked_at(instances: Sequence[Instance], with_frames: bool, checkpoint: Checkpoint) -> _Series:
    headers_left = MOST_HEADERS

    def may_be_read() -> bool:
        nonlocal headers_left
        checkpoint()
        headers_left -= 1
        return headers_left >= 0

    def kind_of(instance: Instance) -> Kind:
        if kind := kind_of_class(instance.sop_class_uid):
            return kind
        return Kind.IMAGE if may_be_read() and Header(instance.path, ["Rows"]).number("Rows") else Kind.OTHER

    def frames_of(instance: Instance, kind: Kind) -> int:
        if kind is not Kind.IMAGE:
            return 0
        if not with_frames or instance.sop_class_uid in SINGLE_FRAME or not may_be_read():
            return 1
        return max(1, Header(instance.path, ["NumberOfFrames"]).number("NumberOfFrames"))

    kinds = [kind_of(one) for one in instances]
    ends = list(accumulate(map(frames_of, instances, kinds)))
    image = next((one for one, kind in zip(instances, kinds, strict=True) if kind is Kind.IMAGE), None)
    windows = len(Header(image.path, WINDOW).windows()) if image and with_frames else 1
    return _Series(instances, kinds, ends, min(MOST_WINDOWS, max(1, windows)))


def kind_of_class(sop_class_uid: str) -> Kind | None:
    """By the SOP class; None where that is nobody's but its maker's, or newer than what is known here."""
    sop_class = UID(sop_class_uid)
    if sop_class.startswith(REPORT):
        return Kind.REPORT
    if kind := KINDS.get(sop_class):
        return kind
    if sop_class.name == sop_class:
        return None
    return Kind.IMAGE if IMAGE.fullmatch(sop_class.name) else Kind.OTHER
