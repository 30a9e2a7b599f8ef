"""What a person sees of a `pdi` disc in any browser, as plain data between those who make it and the pages.

Texts are those of the instances, decoded and otherwise as they are: whoever writes a page escapes them. Files are names
below the folder of web content, in lower case and 8.3. All of it is made for one job, within a time, and fails no disc.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from mkiso.dcmtk.converters import LIMIT, Converter, TooLarge
from mkiso.dicom.instances import Instance, inflates_to
from mkiso.waiting import Stopwatch

WEB = "ihe_pdi"  # as the links to it, which are in lower case; IHE_PDI where a medium has capitals alone (ISO 9660)
Checkpoint = Callable[[], None]
LIMIT_OF_ALL = 120.0
LARGEST_OF_REPORTS = 1 << 24  # bytes of memory
# All pages with their pictures, INDEX.HTM and PHONE.HTM may take this part of a disc, and so many bytes of any.
PART, OF_ANY = 0.03, 3_150_000
LARGEST_ON_PHONE = 8_000_000  # bytes of PHONE.HTM
PARTS = 3  # of a staged file's path, which are its own


class Why(StrEnum):
    """Why there is nothing to see of an instance."""

    NO_PIXELS = "no_pixels"  # it is no image, report or document that a browser could show
    SYNTAX = "syntax"  # its transfer syntax cannot be decoded here
    BROKEN = "broken"  # it should be possible, and is not
    LATE = "late"  # making it would have held up the disc for too long
    LARGE = "large"  # it is more than may be decoded, or than a page can hold
    PAGES = "pages"  # it is a document that is here, and no pictures of its pages


@dataclass(frozen=True)
class Marks:
    """Where a picture is, as far as is known: each is plain ASCII, or empty.

    `position` is in mm across the slices; `left` and `right` are the patient's sides at the picture's edges (R, L, A,
    P, H, F, or two of these); `laterality` (R, L, B) and `view` (CC, MLO, PA) are what of the patient it shows.
    """

    position: str = ""
    left: str = ""
    right: str = ""
    laterality: str = ""
    view: str = ""


@dataclass(frozen=True)
class Other:
    """The same frame as a picture's, through the second window that is stored; `window` as there."""

    file: str
    width: int
    height: int
    window: str


@dataclass(frozen=True)
class Picture:
    """A JPEG of one frame; width and height in pixels. `number` is the instance's, `frame` counts from 1.

    It is the `place`th frame of the `places` of its series. `window` is what its header calls the window, or else
    its centre and width. Of a document it is one of the pages, of an ECG a strip, of which `frames` are shown.
    """

    file: str
    width: int
    height: int
    number: str
    frame: int = 1
    frames: int = 1
    is_page: bool = False
    place: int = 1
    places: int = 1
    window: str = ""
    marks: Marks = Marks()
    other: Other | None = None
    is_strip: bool = False

    @property
    def page(self) -> str:
        """The file of the page that it has for itself."""
        return f"i{self.file[1:].removesuffix('.jpg')}.htm"


@dataclass(frozen=True)
class ShownReport:
    """A structured report; `body` is XHTML that holds nothing but whitelisted elements without attributes.

    One that is not `whole` breaks DICOM's rules, and lacks the parts that could not be read.
    """

    number: str
    title: str
    body: str
    whole: bool = True


@dataclass(frozen=True)
class Document:
    """An encapsulated PDF. Where only its first pages are shown, `cut` tells how many these are."""

    file: str
    number: str
    title: str
    cut: int = 0


@dataclass(frozen=True)
class Nothing:
    """An instance of which nothing can be shown; `kind` is the name of its SOP class (PS3.6 A)."""

    number: str
    kind: str
    why: Why


Item = Picture | ShownReport | Document | Nothing


@dataclass(frozen=True)
class ShownSeries:
    """`instances` are all of the series, `items` what is shown of some; `body_part` is DICOM's code (PS3.16 L)."""

    number: str
    modality: str
    description: str
    instances: int
    items: tuple[Item, ...]
    body_part: str = ""


@dataclass(frozen=True)
class ShownStudy:
    """The date is DICOM's (YYYYMMDD), or empty."""

    date: str
    description: str
    accession_number: str
    series: tuple[ShownSeries, ...]


@dataclass(frozen=True)
class ShownPatient:
    """`name` is a DICOM person name in one text, as `datasets.page_name` gives it."""

    name: str
    patient_id: str
    birth_date: str
    sex: str
    studies: tuple[ShownStudy, ...]


@dataclass(frozen=True)
class Viewer:
    """The viewer's entries at the root, the one to open, where that can be told, and the page for any browser."""

    entries: tuple[str, ...] = ()
    start: str | None = None
    in_browser: str | None = None

    @property
    def program(self) -> str | None:
        """What a person starts, where it is not the page."""
        return None if self.start == self.in_browser else self.start


@dataclass(frozen=True)
class NotIndexed:
    """An instance that the DICOMDIR cannot name: its file on the disc (`OTHER/…`) and its SOP Instance UID."""

    file: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Part:
    """A study of which the disc has `series` of the `of` that the archive has; the date is DICOM's."""

    date: str
    description: str
    series: int
    of: int


@dataclass(frozen=True)
class Logo:
    """The institution's, a file beside the pictures; as large as it is shown, in pixels."""

    file: str
    width: int
    height: int


@dataclass(frozen=True)
class About:
    """What README.TXT and the pages tell beside the patients: who made the disc, and what is particular about it.

    `profile` is the media application profile that every instance fits (PS3.11), None where there is none;
    `malformed` are the files, and their SOP Instance UIDs, that came whole and are not well-formed;
    `decompressed` and `left_compressed` count instances where `media.uncompressed` was asked for; `parts` are the
    studies that the disc has in part; the `logo` is there already.
    """

    institution: str
    contact: str
    language: str
    made_at: datetime
    file_set_id: str
    volume_id: str
    viewer: Viewer = Viewer()
    profile: str | None = None
    not_indexed: tuple[NotIndexed, ...] = ()
    malformed: tuple[tuple[str, str], ...] = ()
    decompressed: int = 0
    left_compressed: int = 0
    parts: tuple[Part, ...] = ()
    logo: Logo | None = None


@dataclass(frozen=True)
class Maker:
    """Where DCMTK is, the job's directory, how many pictures a series has, and the seconds that all may take.

    `limit` are those of one program.
    """

    dcmtk_dir: Path
    directory: Path
    pictures: int = 48
    limit: float = LIMIT
    limit_of_all: float = LIMIT_OF_ALL


def room_for_pages(instances: Iterable[Instance]) -> int:
    """The bytes that all pages of a disc may take; its documents are not counted, which are there as they came."""
    return max(OF_ANY, int(sum(one.bytes for one in instances) * PART))


class RoomForReports:
    """The memory that a disc's reports may take until its pages are written; used by several threads."""

    def __init__(self) -> None:
        self._bytes, self._lock = 0, threading.Lock()

    def take(self, text: str) -> None:
        """Count a report's text; raises TooLarge where there is no room for it any more."""
        with self._lock:
            self._bytes += sys.getsizeof(text)
            if self._bytes > LARGEST_OF_REPORTS:
                raise TooLarge


@dataclass(frozen=True)
class Bench:
    """Where it is made: what runs the programs, room for what lies between, and the disc's web content."""

    converter: Converter
    room: Path
    web: Path
    reports: RoomForReports = field(default_factory=RoomForReports)
    # Bytes of a picture; one that is shown larger has `views.LARGER` times as many. Of a document or an ECG, of all.
    share: int = 1 << 20

    def path(self, instance: Instance, ending: str) -> Path:
        """A file for what lies between: no UID is a name, for a stranger wrote it."""
        return self.room / f"{'-'.join(instance.path.parts[-PARTS:])}.{ending}"


class Late(Exception):
    """The time for all is over."""


def require_small(instance: Instance, most: int) -> None:
    """Raise TooLarge where an instance has more than so many bytes, or inflates to them (PS3.5 A.5)."""
    if instance.bytes > most or (instance.is_deflated and inflates_to(instance, most)):
        raise TooLarge


def on_time(seconds: float, checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint for several threads that raises Late after so many seconds, and before that what another raises."""
    watch = Stopwatch()

    def checked() -> None:
        checkpoint()
        if watch.seconds() >= seconds:
            raise Late

    return checked
