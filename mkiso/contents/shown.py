"""What a person sees of a `pdi` disc in any browser: plain data between those who make it and the pages.

Texts are those of the instances, decoded and otherwise as they are: whoever writes a page escapes them.
Files are names below the folder of web content, in lower case and 8.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

WEB = "ihe_pdi"  # in lower case, as the links to it are: on ISO 9660 the name is in capitals all the same


class Why(StrEnum):
    """Why there is nothing to see of an instance."""

    NO_PIXELS = "no_pixels"  # it is no image, report or document that a browser could show
    SYNTAX = "syntax"  # its transfer syntax cannot be decoded here
    BROKEN = "broken"  # it should be possible, and is not
    LATE = "late"  # making it would have held up the disc for too long
    LARGE = "large"  # it is more than may be decoded, or than a page can hold
    PAGES = "pages"  # it is a document that is here, and no pictures of its pages


@dataclass(frozen=True)
class Picture:
    """A JPEG of one frame; width and height in pixels. `number` is the instance's, `frame` counts from 1.

    Of a document it is one of the first pages, of which there are `frames`.
    """

    file: str
    width: int
    height: int
    number: str
    frame: int = 1
    frames: int = 1
    is_page: bool = False


@dataclass(frozen=True)
class Report:
    """A structured report; `body` is XHTML that holds nothing but whitelisted elements without attributes.

    One that is not `whole` breaks DICOM's rules, and lacks the parts that could not be read.
    """

    number: str
    title: str
    body: str
    whole: bool = True


@dataclass(frozen=True)
class Document:
    """An encapsulated PDF."""

    file: str
    number: str
    title: str


@dataclass(frozen=True)
class Nothing:
    """An instance of which nothing can be shown; `kind` is the name of its SOP class (PS3.6 A)."""

    number: str
    kind: str
    why: Why


Item = Picture | Report | Document | Nothing


@dataclass(frozen=True)
class Series:
    """Dates are DICOM's (YYYYMMDD) or empty; `instances` are all of the series, `items` what is shown of some."""

    number: str
    modality: str
    description: str
    instances: int
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Study:
    date: str
    description: str
    accession_number: str
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Patient:
    """`name` is a DICOM person name in one text, as `names.display_name` gives it."""

    name: str
    patient_id: str
    birth_date: str
    sex: str
    studies: tuple[Study, ...]


@dataclass(frozen=True)
class Viewer:
    """The viewer's entries at the root, and the one to open, where that can be told."""

    entries: tuple[str, ...] = ()
    start: str | None = None


@dataclass(frozen=True)
class NotIndexed:
    """An instance that the DICOMDIR cannot name: its file on the disc (`OTHER/…`) and its SOP Instance UID."""

    file: str
    sop_instance_uid: str


@dataclass(frozen=True)
class About:
    """What README.TXT and the pages tell beside the patients: who made the disc, and what is particular about it.

    `profile` is the media application profile that every instance fits (PS3.11), None where there is none;
    `malformed` are the files, and their SOP Instance UIDs, that came whole and are not well-formed;
    `decompressed` and `left_compressed` count instances where `media.uncompressed` was asked for.
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
