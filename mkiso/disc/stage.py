"""Where the instances lie on a `pdi` disc: generated names, a folder a series, in the order they are looked at.

Names are of `[A-Z0-9_]`, eight characters at most, without extension, at most three folders deep
(PS3.10 8.2, PS3.12 F.3.2): a program that lists the folders by name reads the disc forward.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from mkiso.retrieve.instances import Instance

IMAGES, OTHER = "IMAGES", "OTHER"
A_FOLDER = 1_000
NO_NUMBER = float("inf")

T = TypeVar("T")


@dataclass(frozen=True)
class Staged:
    """An instance under its name on the disc, which is below the stage; `instance.path` is that file."""

    file: str
    instance: Instance


def stage(instances: Sequence[Instance], directory: Path) -> list[Staged]:
    """Rename the instances into `directory`/IMAGES: study by study, each by series and instance number."""
    return [_moved(one, directory, file) for file, one in _named(instances)]


def set_aside(staged: Sequence[Staged], directory: Path) -> list[Staged]:
    """Rename what a DICOMDIR cannot name from IMAGES into OTHER, under the same name; no folder is left empty."""
    aside = [_moved(one.instance, directory, f"{OTHER}{one.file.removeprefix(IMAGES)}") for one in staged]
    for folder in {one.instance.path.parent for one in staged}:
        with suppress(OSError):  # there is something in it
            os.removedirs(folder)
    return aside


def _named(instances: Sequence[Instance]) -> Iterator[tuple[str, Instance]]:
    """Each instance with its file. A folder that is full is followed by another of the same study or series."""
    studies = _grouped(instances, lambda one: one.study_uid)
    folders = [folder for study in studies for folder in _parts(_series_folders(study))]
    for number, series in enumerate(folders, 1):
        for place, images in enumerate(series, 1):
            for at, image in enumerate(images, 1):
                yield f"{IMAGES}/ST{number:06}/SE{place:06}/IM{at:06}", image


def _series_folders(study: Sequence[Instance]) -> list[Sequence[Instance]]:
    series = _grouped(sorted(study, key=_place), lambda one: one.series_uid)
    return [folder for one in series for folder in _parts(one)]


def _place(instance: Instance) -> tuple[float, str, float, str]:
    series, image = _number(instance.series_number), _number(instance.instance_number)
    return series, instance.series_uid, image, instance.sop_instance_uid


def _number(text: str) -> float:
    """An integer string (PS3.5 6.2), after all others where it is none."""
    try:
        return int(text)
    except ValueError:
        return NO_NUMBER


def _grouped(instances: Iterable[Instance], key: Callable[[Instance], str]) -> list[list[Instance]]:
    groups: dict[str, list[Instance]] = {}
    for instance in instances:
        groups.setdefault(key(instance), []).append(instance)
    return list(groups.values())


def _parts(whole: Sequence[T]) -> list[Sequence[T]]:
    return [whole[at : at + A_FOLDER] for at in range(0, len(whole), A_FOLDER)]


def _moved(instance: Instance, directory: Path, file: str) -> Staged:
    path = directory / file
    path.parent.mkdir(parents=True, exist_ok=True)
    os.rename(instance.path, path)
    return Staged(file, replace(instance, path=path))
