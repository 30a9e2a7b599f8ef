"""The keys of directory records, read of whatever a stranger sent."""

import tracemalloc
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mkiso.browse.choice import Header
from mkiso.dicom.headers import KEYS, KEYWORDS, LARGEST, LONGEST, READ, Keys, read_keys
from mkiso.disc.dicomdir import own_values
from tests.support import datasets
from tests.support import odd_files as odd
from tests.support.odd_files import ODD
from tests.support.stage import JOHN, encoded, presentation

NAME, ROWS, DESCRIPTION = 0x00100010, 0x00280010, 0x00081030
BOUND = 32 << 20  # bytes of memory


def image() -> Dataset:
    return datasets.ct(datasets.study(JOHN, "CT.001"), 1, 1, side=16)


def keys_of(directory: Path, content: bytes) -> Keys:
    (directory / "one").write_bytes(content)
    found = read_keys(directory / "one")
    assert found is not None
    return found


def in_syntax(dataset: Dataset, syntax: str) -> bytes:
    dataset.file_meta.TransferSyntaxUID = syntax
    if dataset.get("PixelData"):
        del dataset.PixelData
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def test_the_keys_are_the_instances_elements_byte_for_byte(tmp_path: Path) -> None:
    content = encoded(image())
    found = keys_of(tmp_path, content)
    assert found.elements == {tag: one for tag, one in odd.elements(content).items() if tag in KEYS}
    assert found.transfer_syntax.decode() == ExplicitVRLittleEndian


def test_the_file_of_the_keys_is_a_sound_one_without_pixels(tmp_path: Path) -> None:
    instance = image()
    copy = dcmread(BytesIO(keys_of(tmp_path, odd.elements_without_vr(encoded(instance))).file()))
    meta = copy.file_meta
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (
        instance.SOPClassUID,
        instance.SOPInstanceUID,
    )
    assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert {element.tag for element in copy} <= KEYS


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_sequences_of_every_encoding_are_those_of_explicit_little_endian(syntax: str, tmp_path: Path) -> None:
    common = datasets.study(JOHN, "PR.001")
    wanted = keys_of(tmp_path, encoded(presentation(common, 1, 1)))
    found = keys_of(tmp_path, in_syntax(presentation(common, 1, 1), syntax))
    assert (found.transfer_syntax.decode(), found.elements) == (syntax, wanted.elements)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_numbers_are_turned_round_where_they_stand_the_other_way(syntax: str, tmp_path: Path) -> None:
    assert keys_of(tmp_path, in_syntax(image(), syntax)).elements[ROWS] == odd.element(ROWS, b"US", b"\x10\0")


PRIVATE = 0x00190010


@pytest.mark.parametrize("size", [READ - 1000, READ, READ + 1000, 3 * READ])
def test_what_lies_behind_a_long_value_is_read(size: int, tmp_path: Path) -> None:
    long = {
        PRIVATE: odd.element(PRIVATE, b"UN", bytes(size)),
        DESCRIPTION: odd.element(DESCRIPTION, b"UT", bytes(size)),
    }
    found = keys_of(tmp_path, odd.changed(encoded(image()), long))
    expected = keys_of(tmp_path, encoded(image())).elements
    assert found.elements == {tag: one for tag, one in expected.items() if tag != DESCRIPTION}
    assert DESCRIPTION in found.filled


def test_items_of_a_sequence_that_is_longer_than_is_read_are_no_keys(tmp_path: Path) -> None:
    item = odd.bare(
        odd.ITEM, odd.element(0x00100010, b"PN", b"ROE^JANE") + odd.element(PRIVATE, b"UN", bytes(READ // 3))
    )
    endless = odd.element(odd.IMAGES, b"SQ", item * 9)
    open_one = endless[:8] + b"\xff" * 4 + endless[12:] + bytes.fromhex("feffdde000000000")
    found = keys_of(tmp_path, odd.changed(encoded(image()), {odd.IMAGES: open_one}))
    assert NAME not in found.elements


def test_what_comes_before_the_end_of_a_file_is_read_and_no_value_that_is_cut(tmp_path: Path) -> None:
    content = encoded(image())
    parts = odd.elements(content)
    end = content.index(parts[NAME]) + len(parts[NAME])
    assert NAME in keys_of(tmp_path, content[:end]).elements
    assert keys_of(tmp_path, content[: end - 1]).elements.keys() == {tag for tag in parts if tag in KEYS and tag < NAME}


@pytest.mark.parametrize("instead", [odd.element(NAME, b"UN", b"DOE^JOHN"), odd.bare(NAME, b"DOE^JOHN")])
def test_an_element_of_unknown_vr_has_that_of_the_dictionary(instead: bytes, tmp_path: Path) -> None:
    found = keys_of(tmp_path, odd.changed(encoded(image()), {NAME: instead}))
    assert found.elements[NAME] == odd.element(NAME, b"PN", b"DOE^JOHN")


def test_a_value_that_is_too_long_for_a_key_is_left_out(tmp_path: Path) -> None:
    sequence = odd.element(odd.IMAGES, b"SQ", odd.referenced() * (LARGEST // 50))
    long = {DESCRIPTION: odd.element(DESCRIPTION, b"UT", b"x" * (LONGEST + 2)), odd.IMAGES: sequence}
    found = keys_of(tmp_path, odd.changed(encoded(image()), long))
    assert not found.elements.keys() & long
    assert NAME in found.elements


def test_a_sequence_that_cannot_be_read_costs_no_other_key(tmp_path: Path) -> None:
    broken = {odd.IMAGES: odd.element(odd.IMAGES, b"SQ", b"\xff" * 7)}
    found = keys_of(tmp_path, odd.changed(encoded(image()), broken))
    assert found.elements == keys_of(tmp_path, encoded(image())).elements


def test_what_the_dictionary_does_not_know_costs_no_sequence(tmp_path: Path) -> None:
    inside = odd.element(0x00080003, b"LO", b"ABCD") + odd.element(0x00091001, b"LO", b"ABCD")
    content = odd.bare(odd.ITEM, inside + odd.element(0x00081155, b"UI", b"1.2.3\0"))
    found = keys_of(tmp_path, odd.changed(encoded(image()), {odd.IMAGES: odd.element(odd.IMAGES, b"SQ", content)}))
    assert found.elements[odd.IMAGES][20:] == odd.element(0x00081155, b"UI", b"1.2.3\0")


def test_two_values_of_one_key_are_none(tmp_path: Path) -> None:
    content = encoded(image())
    other = odd.element(NAME, b"PN", b"ROE^JANE")
    (tmp_path / "one").write_bytes(content.replace(other[:8] + b"DOE^JOHN", other[:8] + b"DOE^JOHN" + other))
    assert read_keys(tmp_path / "one") is None


def test_what_is_no_file_or_no_dicom_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"no DICOM")
    assert [read_keys(tmp_path / name) for name in ("one", "none", ".")] == [None, None, None]


@cache
def bomb() -> bytes:
    """A deflated data set of 100 MB, all of it one element behind the keys."""
    return odd.deflated(encoded(image())[:-524] + odd.element(0x00420011, b"OB", bytes(100 << 20)))


def items() -> bytes:
    content = odd.bare(odd.ITEM) * (LARGEST // 8)
    return odd.changed(encoded(image()), {odd.IMAGES: odd.element(odd.IMAGES, b"SQ", content)})


def large_value() -> bytes:
    return odd.changed(encoded(image()), {DESCRIPTION: odd.element(DESCRIPTION, b"UT", bytes(64 << 20))})


def large_character_set() -> bytes:
    return odd.changed(encoded(image()), {0x00080005: odd.element(0x00080005, b"UT", bytes(64 << 20))})


@pytest.mark.parametrize("made", [bomb, items, large_value, large_character_set])
@pytest.mark.parametrize(
    "reader", [read_keys, own_values, lambda path: Header(path, KEYWORDS).text("StudyDescription")]
)
def test_no_stranger_costs_more_than_a_few_megabytes(
    made: Callable[[], bytes], reader: Callable[[Path], object], tmp_path: Path
) -> None:
    (tmp_path / "one").write_bytes(made())
    tracemalloc.start()
    reader(tmp_path / "one")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < BOUND


def test_a_file_whose_lengths_are_all_wrong_is_given_up(tmp_path: Path) -> None:
    """Each of its sequences would be walked to the end of the file: for half an hour."""
    sequence = odd.element(odd.IMAGES, b"SQ", length=8) + odd.bare(odd.ITEM, length=12)
    found = keys_of(tmp_path, odd.changed(encoded(image()), {odd.IMAGES: sequence * 60_000 + b"\xff" * 24}))
    assert 0x00100020 not in found.elements


@pytest.mark.parametrize("character_set", [b"ISO_IR\0100", b"ISO 2022 IR 999", b"\xff\xff"])
def test_a_character_set_that_is_none_is_kept_as_it_is(character_set: bytes, tmp_path: Path) -> None:
    instead = {0x00080005: odd.element(0x00080005, b"CS", character_set)}
    found = keys_of(tmp_path, odd.changed(encoded(image()), instead))
    assert found.elements[0x00080005] in {instead[0x00080005], odd.element(0x00080005, b"CS", character_set + b" ")}
    assert len(found.elements) == 20


CONTENTS = [encoded(image()), *(make(encoded(image())) for make in ODD.values())]


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(CONTENTS), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255))))
def test_a_damaged_file_raises_nothing_and_the_file_of_its_keys_is_sound(
    tmp_path: Path, content: bytes, damage: list[tuple[float, int]]
) -> None:
    damaged = bytearray(content)
    for place, value in damage:
        damaged[132 + int(place * (min(len(content), 1300) - 132))] = value
    (tmp_path / "one").write_bytes(damaged)
    if found := read_keys(tmp_path / "one"):
        assert odd.elements(found.file()).keys() - found.elements.keys() < {0x00020000 + one for one in range(0x14)}
