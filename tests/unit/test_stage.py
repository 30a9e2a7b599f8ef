"""Where a pdi disc has its instances: names that a DICOMDIR may hold, in the order they are looked at."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from mkiso.dicom.instances import Instance
from mkiso.disc.layout import set_aside, stage

Make = Callable[..., Instance]


@pytest.fixture
def received(tmp_path: Path) -> Make:
    (tmp_path / "received").mkdir()

    def made(uid: str, series: str = "1.1", number: str = "1", study: str = "1", series_number: str = "1") -> Instance:
        path = tmp_path / "received" / f"CT.{uid}"
        path.write_text(uid)
        numbers = {"series_number": series_number, "instance_number": number}
        return Instance(path, uid, "1.2", series, study, "1.2.840.10008.1.2", len(uid), (len(uid), 0), **numbers)

    return made


def test_the_instances_lie_in_the_order_of_their_numbers_and_what_has_none_comes_last(
    received: Make, tmp_path: Path
) -> None:
    instances = [
        received("9.1", series="1.9", number="", series_number="x"),
        received("2.10", series="1.2", number="10", series_number="2"),
        received("2.9", series="1.2", number=" 9", series_number="2"),
        received("2.0", series="1.2", number="-1", series_number="2"),
        received("1.1", series="1.1", number="3", series_number="10"),
    ]
    staged = stage(instances, tmp_path)
    assert [(one.file, one.instance.path.read_text()) for one in staged] == [
        ("IMAGES/ST000001/SE000001/IM000001", "2.0"),
        ("IMAGES/ST000001/SE000001/IM000002", "2.9"),
        ("IMAGES/ST000001/SE000001/IM000003", "2.10"),
        ("IMAGES/ST000001/SE000002/IM000001", "1.1"),
        ("IMAGES/ST000001/SE000003/IM000001", "9.1"),
    ]
    assert all(one.instance.path == tmp_path / one.file for one in staged)
    assert list((tmp_path / "received").iterdir()) == []


def test_each_study_has_a_folder_of_its_own(received: Make, tmp_path: Path) -> None:
    staged = stage([received("1", study="8"), received("2", study="9"), received("3", study="8")], tmp_path)
    assert {one.instance.sop_instance_uid: one.file.split("/")[1] for one in staged} == {
        **dict.fromkeys(("1", "3"), "ST000001"),
        "2": "ST000002",
    }


@pytest.mark.parametrize("series", [1, 2_001])
def test_no_folder_holds_more_than_a_thousand(series: int, received: Make, tmp_path: Path) -> None:
    staged = stage([received(f"1.{n}", f"1.{n % series}", str(n)) for n in range(2_001)], tmp_path)
    entries = Counter(file.parent for file in (tmp_path / "IMAGES").rglob("*"))
    assert max(entries.values()) == 1_000
    assert all(re.fullmatch(r"IMAGES/[A-Z0-9_]{8}/[A-Z0-9_]{8}/[A-Z0-9_]{8}", one.file) for one in staged)
    assert [one.file for one in staged] == sorted(one.file for one in staged)


def test_what_a_dicomdir_cannot_name_is_set_aside_under_the_same_name(received: Make, tmp_path: Path) -> None:
    first, second = stage([received("1", number="1"), received("2", number="2")], tmp_path)
    (aside,) = set_aside([second], tmp_path)
    assert aside.file == "OTHER/ST000001/SE000001/IM000002"
    assert aside.instance.path.read_text() == "2"
    assert first.instance.path.exists()
    assert not second.instance.path.exists()


def test_no_empty_folder_stays_where_everything_is_set_aside(received: Make, tmp_path: Path) -> None:
    one, two, three = stage([received("1"), received("2", series="1.2"), received("3", study="2")], tmp_path)
    set_aside([two, three], tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "IMAGES").rglob("*")) == [
        "IMAGES/ST000001",
        "IMAGES/ST000001/SE000001",
        one.file,
    ]
    (tmp_path / "DICOMDIR").touch()
    set_aside([one], tmp_path)
    assert not (tmp_path / "IMAGES").exists()
