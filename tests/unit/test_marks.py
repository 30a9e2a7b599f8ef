"""What a header tells of where an image is: nothing that is not there, and no side that may be wrong."""

from pathlib import Path

import pytest
from pydicom import Dataset

from mkiso.browse.choice import Header
from mkiso.browse.marks import KEYWORDS, marks
from mkiso.browse.shown import Marks
from tests.support import datasets
from tests.support.stage import JOHN, encoded

COMMON = datasets.study(JOHN, "MARKS.001")
NOWHERE = {"ImagePositionPatient": None, "ImageOrientationPatient": None}


def of(directory: Path, frames: int = 1, **values: object) -> Marks:
    one: Dataset = datasets.ct(COMMON, 1, 1, 16)
    for keyword, value in values.items():
        setattr(one, keyword, None)
        one[keyword]._value = value
    path = directory / "one"
    path.write_bytes(encoded(one))
    return marks(Header(path, KEYWORDS), frames)


@pytest.mark.parametrize(
    ("orientation", "left", "right"),
    [
        (["1", "0", "0", "0", "1", "0"], "R", "L"),  # axial, seen from the feet
        (["-1", "0", "0", "0", "1", "0"], "L", "R"),
        (["0", "1", "0", "0", "0", "-1"], "A", "P"),  # sagittal
        (["1", "0", "0", "0", "0", "-1"], "R", "L"),  # coronal
        (["0.8", "0.6", "0", "-0.6", "0.8", "0"], "RA", "LP"),
        (["0.999", "0.04", "0", "-0.04", "0.999", "0"], "R", "L"),
        (["1", "0", "0"], "", ""),
        (["2", "0", "0", "0", "1", "0"], "", ""),
        (["0", "0", "0", "0", "0", "0"], "", ""),
        (["1", "x", "0", "0", "1", "0"], "", ""),
        (["nan", "0", "0", "0", "1", "0"], "", ""),
        (None, "", ""),
    ],
)
def test_the_sides_are_those_of_the_orientation(orientation: object, left: str, right: str, tmp_path: Path) -> None:
    found = of(tmp_path, ImageOrientationPatient=orientation)
    assert (found.left, found.right) == (left, right)


@pytest.mark.parametrize(
    ("told", "left", "right"),
    [
        (["L", "F"], "R", "L"),
        (["R", "F"], "L", "R"),
        (["P", "F"], "A", "P"),
        (["LE", "RT"], "", ""),  # of an animal (PS3.3 C.7.6.1.1.1)
        (["<b>L</b>", "F"], "", ""),
        (None, "", ""),
    ],
)
def test_the_sides_of_a_projection_are_those_that_it_tells(told: object, left: str, right: str, tmp_path: Path) -> None:
    found = of(tmp_path, PatientOrientation=told, **NOWHERE)
    assert (found.left, found.right) == (left, right)


def test_sides_that_contradict_each_other_and_those_of_an_animal_are_not_told(tmp_path: Path) -> None:
    assert of(tmp_path, PatientOrientation=["R", "P"]).left == ""
    assert of(tmp_path, PatientOrientation=["L", "P"]).left == "R"
    assert of(tmp_path, AnatomicalOrientationType="QUADRUPED").left == ""


def test_a_position_is_along_the_normal_of_the_slices(tmp_path: Path) -> None:
    assert of(tmp_path, ImagePositionPatient=["-100", "-90", "-12.34"]).position == "-12.3"
    sagittal = ["0", "1", "0", "0", "0", "-1"]
    assert of(tmp_path, ImagePositionPatient=["31.5", "1", "2"], ImageOrientationPatient=sagittal).position == "31.5"
    assert of(tmp_path, SliceLocation="7.25", **NOWHERE).position == "7.2"


@pytest.mark.parametrize("place", [None, ["1", "2"], ["1", "2", "x"], ["1", "2", "1e30"], ["inf", "2", "3"]])
def test_a_position_that_is_none_is_not_told(place: object, tmp_path: Path) -> None:
    assert of(tmp_path, ImagePositionPatient=place).position == ""


def test_the_position_of_one_frame_among_several_is_not_known(tmp_path: Path) -> None:
    assert of(tmp_path, frames=2).position == ""


def test_which_breast_and_how(tmp_path: Path) -> None:
    assert of(tmp_path, ImageLaterality="L", ViewPosition="MLO", **NOWHERE) == Marks(laterality="L", view="MLO")
    assert of(tmp_path, Laterality="R", **NOWHERE).laterality == "R"
    assert of(tmp_path, ImageLaterality="X", ViewPosition="<script>", **NOWHERE) == Marks()
