"""What a person sees of a disc: pictures, reports and documents, made while its DICOMDIR is.

It only reads the staged files, two at a time. What cannot be shown is told as such, and fails no disc. Patients,
studies and series (PS3.3 A.1.2) are named by the header of the first instance of each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, groupby, islice
from pathlib import Path

from mkiso.browse.choice import Header, Kind, Wanted, choose
from mkiso.browse.pictures import document, ecg, nothing, other_file, pictures, report
from mkiso.browse.shown import (
    LARGEST_ON_PHONE,
    WEB,
    Bench,
    Checkpoint,
    Item,
    Late,
    Maker,
    Nothing,
    ShownPatient,
    ShownSeries,
    ShownStudy,
    Why,
    on_time,
    room_for_pages,
)
from mkiso.browse.views import weight
from mkiso.dcmtk.converters import Converter, TooLarge
from mkiso.dicom.datasets import page_name
from mkiso.dicom.instances import Instance
from mkiso.errors import Busy, Internal
from mkiso.process import ToolTimeout
from mkiso.waiting import pool_of
from mkiso.workspace import means_full_disk, require_room

KEYWORDS = (
    *("PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyDescription", "AccessionNumber"),
    *("SeriesNumber", "SeriesDescription", "Modality", "BodyPartExamined"),
)
PROCESSES = 2
LIMIT = 20.0  # seconds of one program on a report or a document; usual ones take a fiftieth of a second
PICTURE, PICTURES, DOCUMENT = "p{:07}.jpg", "p*.jpg", "d{:07}.pdf"
# Of the room for all pages the pictures have this part: once more as large they are in PHONE.HTM, by base64 and all.
PART, LEAST = 0.42, 1 << 14  # bytes, of any picture
# Of a large disc PHONE.HTM takes no more than it may have.
BESIDE = LARGEST_ON_PHONE + (1 << 20)
PAGES, PAGES_OF_ALL = 20, 100  # of a document, and of all, that are shown as pictures
STRIPS = 6  # of an ECG


@dataclass(frozen=True)
class _Known:
    """A series: its first instance and what its header tells, and itself."""

    first: Instance
    header: Header
    series: ShownSeries


def series_of(instances: Iterable[Instance]) -> list[list[Instance]]:
    """Patient by patient, study by study, each where its first instance is."""
    patients: dict[str, dict[str, dict[str, list[Instance]]]] = {}
    for one in instances:
        studies = patients.setdefault(one.patient_id, {})
        studies.setdefault(one.study_uid, {}).setdefault(one.series_uid, []).append(one)
    return [series for studies in patients.values() for study in studies.values() for series in study.values()]


def patients_of(series: Iterable[tuple[Sequence[Instance], Sequence[Item]]]) -> tuple[ShownPatient, ...]:
    """The patients of these series, in the order of `series_of`, with what is shown of each."""
    known = [_known(instances, items) for instances, items in series]
    return tuple(_patient(list(one)) for _, one in groupby(known, lambda one: one.first.patient_id))


def _known(instances: Sequence[Instance], items: Sequence[Item]) -> _Known:
    first, header = instances[0], Header(instances[0].path, KEYWORDS)
    number, modality, description = map(header.text, ("SeriesNumber", "Modality", "SeriesDescription"))
    body_part = header.text("BodyPartExamined")
    return _Known(first, header, ShownSeries(number, modality, description, len(instances), tuple(items), body_part))


def _patient(series: Sequence[_Known]) -> ShownPatient:
    first, header = series[0].first, series[0].header
    studies = (_study(list(one)) for _, one in groupby(series, lambda one: one.first.study_uid))
    name, born, sex = page_name(header.text("PatientName")), header.date("PatientBirthDate"), header.text("PatientSex")
    return ShownPatient(name, first.patient_id, born, sex, tuple(studies))


def _study(series: Sequence[_Known]) -> ShownStudy:
    header = series[0].header
    description, accession = map(header.text, ("StudyDescription", "AccessionNumber"))
    return ShownStudy(header.date("StudyDate"), description, accession, tuple(one.series for one in series))


@dataclass(frozen=True)
class _Task:
    """What is made of one instance: the series that it is of, its place there, and the files."""

    series: int
    place: int
    wanted: Wanted
    files: tuple[str, ...]


def show(instances: Sequence[Instance], stage: Path, maker: Maker, checkpoint: Checkpoint) -> tuple[ShownPatient, ...]:
    """Make what is shown of the staged instances in the stage's WEB; what each patient's studies are, in their order.

    `checkpoint` is called from three threads. What it raises ends this, as DiskFull does, and nothing else.
    """
    (stage / WEB).mkdir(exist_ok=True)
    series = series_of(instances)
    tasks = _tasks(choose(series, maker.pictures, checkpoint), maker.pictures)
    images = [task for task in tasks if task.wanted.kind is Kind.IMAGE]
    others = [task for task in tasks if task.wanted.kind is not Kind.IMAGE]
    with tempfile.TemporaryDirectory(prefix="pictures-", dir=maker.directory) as room:
        in_time = on_time(maker.limit_of_all, checkpoint)
        converter = Converter(maker.dcmtk_dir, maker.directory, in_time, maker.limit)
        bench, room_left = Bench(converter, Path(room), stage / WEB), _room(instances)
        several = sum(len(task.files) > 0 for task in others)
        # Documents and ECGs leave half of the room for images.
        made = _made(others, replace(bench, share=room_left // (2 if images else 1) // max(1, several)))
        room_left -= sum(file.stat().st_size for file in bench.web.glob(PICTURES))
        made |= _made(images, replace(bench, share=_share(room_left, images)))
    items: dict[int, list[Item]] = {}
    for task in tasks:
        items.setdefault(task.series, []).extend(made[task])
    return patients_of((one, items.get(at, ())) for at, one in enumerate(series))


def _tasks(chosen: Sequence[Sequence[Wanted]], most: int) -> list[_Task]:
    pictures, documents = map(PICTURE.format, count(1)), map(DOCUMENT.format, count(1))
    many = sum(one.kind is Kind.DOCUMENT for series in chosen for one in series)
    pages = min(most, PAGES, max(1, PAGES_OF_ALL // max(1, many)))

    def files(wanted: Wanted) -> Iterator[str]:
        """A picture of each frame; a document's own, and each page or strip that may be shown."""
        if wanted.kind is Kind.DOCUMENT:
            yield next(documents)
        counts = {Kind.IMAGE: len(wanted.frames), Kind.DOCUMENT: pages, Kind.ECG: min(most, STRIPS)}
        yield from islice(pictures, counts.get(wanted.kind, 0))

    return [
        _Task(series, place, wanted, tuple(files(wanted)))
        for series, one in enumerate(chosen)
        for place, wanted in enumerate(one)
    ]


def _room(instances: Iterable[Instance]) -> int:
    """The bytes that all pictures may have."""
    room = room_for_pages(instances)
    return max(int(room * PART), room - BESIDE)


def _share(room: int, images: Iterable[_Task]) -> int:
    """The bytes that a picture may have, so that all have this room."""
    wanted = [task.wanted for task in images]
    return max(
        LEAST, room // max(1, sum(len(one.frames) * one.windows * weight(one.instance.sop_class_uid) for one in wanted))
    )


def _made(tasks: Sequence[_Task], bench: Bench) -> dict[_Task, list[Item]]:
    """The items of each task; one of every series first, for it may become late for others."""
    in_turn = sorted(tasks, key=lambda task: (task.place, task.series))
    with pool_of(PROCESSES) as pool:
        return dict(zip(in_turn, pool.map(lambda task: _items(bench, task), in_turn), strict=True))


def _items(bench: Bench, task: _Task) -> list[Item]:
    """What became of one instance. Of a file that is not whole nothing is left, and a full disk is not its fault."""
    items: list[Item] = []
    why = Why.BROKEN
    try:
        for item in _making(bench, task):
            items.append(item)
    except (Late, ToolTimeout):
        why = Why.LATE
    except TooLarge:
        why = Why.LARGE
    except (Internal, Busy):
        pass
    except OSError as error:
        if means_full_disk(error):
            raise
    items.extend([nothing(task.wanted.instance, why)] * (len(task.wanted.frames) - len(items)))
    _clear(bench, task, items)
    return items


def _making(bench: Bench, task: _Task) -> Iterator[Item]:
    instance, kind = task.wanted.instance, task.wanted.kind
    if kind is Kind.OTHER or (kind is Kind.ECG and not task.files):
        yield nothing(instance, Why.NO_PIXELS)
        return
    bench.converter.checkpoint()
    if kind is Kind.IMAGE:
        yield from pictures(bench, task.wanted, task.files)
        return
    bench = replace(bench, converter=replace(bench.converter, limit=min(LIMIT, bench.converter.limit)))
    if kind is Kind.REPORT:
        yield report(bench, instance) or nothing(instance, Why.BROKEN)
    else:
        yield from (ecg if kind is Kind.ECG else document)(bench, instance, *task.files)


def _clear(bench: Bench, task: _Task, items: Sequence[Item]) -> None:
    if any(isinstance(item, Nothing) and item.why is Why.BROKEN for item in items):
        require_room(bench.web)
    for file, item in zip(task.files, items, strict=False):
        if isinstance(item, Nothing):
            for made in (file, other_file(file)):
                (bench.web / made).unlink(missing_ok=True)
