"""Which frames of which instances are shown."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import uid

from mkiso.browse import choice
from mkiso.browse.choice import A_SERIES, TIMES, Kind, Wanted, choose, shares, spread
from mkiso.config import ALL
from mkiso.dicom.instances import Instance, read_whole
from mkiso.errors import Cancelled
from mkiso.waiting import Cancellation
from tests.support import datasets
from tests.support.stage import JOHN, encoded

COMMON = datasets.study(JOHN, "MIX.001")
GONE = Path("/nonexistent")  # its header cannot be read, nor is it


def instance(sop_class: str, path: Path = GONE, number: int = 1) -> Instance:
    return Instance(path, f"1.2.{number}", sop_class, "1.2", "1.3", uid.ExplicitVRLittleEndian, 1, (1, 1))


def series(sop_class: str, count: int) -> list[Instance]:
    return [instance(sop_class, number=number) for number in range(1, count + 1)]


def loop(directory: Path, frames: int, number: int = 1) -> Instance:
    path = directory / f"loop{number}"
    path.write_bytes(encoded(datasets.ultrasound_loop(COMMON, 1, number, frames)))
    found = read_whole(path)
    assert found is not None
    return found


def chosen(instances: Sequence[Instance], pictures: int) -> list[Wanted]:
    return choose([instances], pictures, lambda: None)[0]


@given(st.integers(1, 300), st.integers(0, 300))
def test_places_are_evenly_spread_and_each_once(of: int, count: int) -> None:
    places = spread(min(count, of), of)
    assert len(set(places)) == min(count, of)
    assert all(0 <= place < of for place in places)
    gaps = {after - before for before, after in pairwise(places)}
    assert not gaps or max(gaps) - min(gaps) <= 1
    assert len(places) < 2 or (places[0], places[-1]) == (0, of - 1)


def test_one_of_many_is_that_in_the_middle_and_of_more_the_first_and_the_last_are_two() -> None:
    assert (spread(1, 200), spread(2, 200), spread(3, 200), spread(3, 3)) == ([100], [0, 199], [0, 100, 199], [0, 1, 2])


@given(st.lists(st.integers(0, 40), max_size=40), st.integers(0, 150))
def test_everyone_has_one_before_anyone_has_a_second(there: list[int], of_all: int) -> None:
    given_away = shares(there, of_all)
    assert sum(given_away) == min(of_all, sum(there))
    assert all(share <= count for share, count in zip(given_away, there, strict=True))
    hungry = [share for share, count in zip(given_away, there, strict=True) if share < count]
    assert not hungry or max(given_away) <= min(hungry) + 1


def test_of_a_long_series_some_are_shown_and_no_header_is_read() -> None:
    shown = chosen(series(uid.CTImageStorage, 2000), 4)
    assert [one.instance.sop_instance_uid for one in shown] == ["1.2.1", "1.2.667", "1.2.1334", "1.2.2000"]
    assert [(one.frames, one.before + 1, one.in_series) for one in shown] == [
        ((1,), place, 2000) for place in (1, 667, 1334, 2000)
    ]


def stack(directory: Path, count: int, **values: object) -> list[Instance]:
    """CT images, of which the first tells the windows of the series."""
    one = datasets.ct(COMMON, 1, 1, 16)
    for keyword, value in values.items():
        setattr(one, keyword, value)
    (directory / "first").write_bytes(encoded(one))
    return [instance(uid.CTImageStorage, directory / "first"), *series(uid.CTImageStorage, count)[1:]]


@pytest.mark.parametrize(
    ("centers", "widths", "windows"),
    [
        (["40", "-600"], ["400", "1500"], 2),
        (["40", "-600", "300"], ["400", "1500", "2000"], 2),
        (["40", "40"], ["400", "400"], 1),
        (["40", "-600"], ["400", "0"], 1),
        (["40", "-600"], "400", 1),
        ("40", "400", 1),
        (None, None, 1),
    ],
)
def test_a_second_window_is_shown_where_one_is_stored(
    centers: object, widths: object, windows: int, tmp_path: Path
) -> None:
    shown = chosen(stack(tmp_path, 9, WindowCenter=centers, WindowWidth=widths), 4)
    assert [one.windows for one in shown] == [windows] * 4


def test_a_second_window_is_a_picture_that_the_disc_has_room_for(tmp_path: Path) -> None:
    two_windows = stack(tmp_path, 50, WindowCenter=["40", "-600"], WindowWidth=["400", "1500"])
    shown = choose([two_windows] * TIMES, 48, lambda: None)
    assert {sum(len(one.frames) * one.windows for one in wanted) for wanted in shown} == {48}
    assert [one.before for one in shown[0]][:: len(shown[0]) - 1] == [0, 49]


def test_a_disc_has_so_many_pictures_fairly() -> None:
    shown = choose([series(uid.CTImageStorage, 50)] * 50, 12, lambda: None)
    assert {len(one) for one in shown} == {1, 2}
    assert sum(map(len, shown)) == 12 * TIMES
    many = choose([series(uid.CTImageStorage, 5)] * (12 * TIMES + 30), 12, lambda: None)
    assert [len(one) for one in many] == [1] * 12 * TIMES + [0] * 30


def test_of_all_that_there_is_nothing_is_left_out() -> None:
    shown = choose([series(uid.CTImageStorage, 3000)] * 4, ALL, lambda: None)
    assert [len(one) for one in shown] == [3000] * 4


def test_a_series_is_the_sequence_of_its_frames(tmp_path: Path) -> None:
    instances = [instance(uid.UltrasoundImageStorage), loop(tmp_path, 9), loop(tmp_path, 2, 2)]
    assert [(one.instance, one.frames, one.of) for one in chosen(instances, 4)] == [
        (instances[0], (1,), 1),
        (instances[1], (4, 7), 9),
        (instances[2], (2,), 2),
    ]
    assert [one.frames for one in chosen(instances, 12)] == [(1,), tuple(range(1, 10)), (1, 2)]


def test_what_is_no_image_is_shown_each_in_its_place() -> None:
    instances = [
        instance(sop_class)
        for sop_class in (
            uid.BasicTextSRStorage,
            uid.CTImageStorage,
            uid.EncapsulatedPDFStorage,
            uid.RTPlanStorage,
            uid.KeyObjectSelectionDocumentStorage,
            datasets.PRIVATE_SOP_CLASS,
        )
    ]
    kinds = [Kind.REPORT, Kind.IMAGE, Kind.DOCUMENT, Kind.OTHER, Kind.REPORT, Kind.OTHER]
    assert [one.kind for one in chosen(instances, 12)] == kinds
    assert [one.kind for one in chosen(instances, 0)] == [kind for kind in kinds if kind is not Kind.IMAGE]


@pytest.mark.parametrize(
    "sop_class",
    [
        uid.EnhancedMRImageStorage,
        uid.SegmentationStorage,
        uid.RTDoseStorage,
        uid.ParametricMapStorage,
        uid.NuclearMedicineImageStorage,
        uid.DigitalXRayImageStorageForProcessing,
        "1.2.840.10008.5.1.4.1.1.6",  # retired
    ],
)
def test_these_may_have_pixels(sop_class: str) -> None:
    assert [one.kind for one in chosen([instance(sop_class)], 12)] == [Kind.IMAGE]


@pytest.mark.parametrize(
    "sop_class",
    [
        uid.SurfaceSegmentationStorage,
        uid.MRSpectroscopyStorage,
        uid.RawDataStorage,
        uid.GrayscaleSoftcopyPresentationStateStorage,
        uid.EncapsulatedSTLStorage,
    ],
)
def test_these_have_none(sop_class: str) -> None:
    assert [one.kind for one in chosen([instance(sop_class)], 12)] == [Kind.OTHER]


@pytest.mark.parametrize(("make", "kind"), [(datasets.ct, Kind.IMAGE), (datasets.private_instance, Kind.OTHER)])
def test_a_class_that_nobody_knows_is_looked_at(make: object, kind: Kind, tmp_path: Path) -> None:
    dataset = make(COMMON, 1, 1)  # type: ignore[operator]
    path = tmp_path / "one"
    path.write_bytes(encoded(dataset))
    assert [one.kind for one in chosen([instance(datasets.PRIVATE_SOP_CLASS, path)], 12)] == [kind]


def test_of_thousands_that_are_no_images_some_are_named() -> None:
    shown = chosen([*series(uid.RawDataStorage, 5000), instance(uid.CTImageStorage)], 12)
    assert len(shown) == A_SERIES + 1
    assert shown[-1].kind is Kind.IMAGE


def test_not_every_header_of_thousands_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    class Counted(choice.Header):
        def __init__(self, path: Path, keywords: object) -> None:
            read.append(path)
            self.broken = True
            super().__init__(path, keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(choice, "Header", Counted)
    for sop_class in (datasets.PRIVATE_SOP_CLASS, uid.EnhancedCTImageStorage):
        read.clear()
        chosen(series(sop_class, 3000), 12)
        assert len(read) in {choice.MOST_HEADERS, choice.MOST_HEADERS + 1}, "one for the windows of the series"


def test_a_number_of_frames_that_is_none_counts_as_one(tmp_path: Path) -> None:
    path = tmp_path / "one"
    for said in ("0", "-3", "1A"):
        content = encoded(datasets.ultrasound_loop(COMMON, 1, 1, 5)).replace(
            b"IS\x02\x005 ", b"IS\x02\x00%-2b" % said.encode()
        )
        path.write_bytes(content)
        assert [one.of for one in chosen([instance(uid.UltrasoundMultiFrameImageStorage, path)], 12)] == [1]


def test_a_cancel_is_seen_while_headers_are_read() -> None:
    cancellation = Cancellation()
    cancellation.cancel("enough")
    with pytest.raises(Cancelled):
        choose([series(uid.EnhancedCTImageStorage, 3)], 12, cancellation.checkpoint)
