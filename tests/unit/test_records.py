from collections.abc import Sequence
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.uid import UID

from mkiso.dicom.records import (
    FILE_ID,
    IN_USE,
    LOWER,
    NEXT,
    SOP_INSTANCE,
    TYPE,
    Malformed,
    Record,
    element,
    flat,
    read,
    written,
)

CHARACTER_SET, CODES = 0x00080005, 0x0040A043


def record(kind: str, *below: Record, file: str = "") -> Record:
    elements = {
        NEXT: element(NEXT, b"UL", b"\7\0\0\0"),
        IN_USE: element(IN_USE, b"US", b"\xff\xff"),
        LOWER: element(LOWER, b"UL", b"\7\0\0\0"),
        TYPE: element(TYPE, b"CS", kind.encode()),
    }
    if file:
        elements[FILE_ID] = element(FILE_ID, b"CS", file.replace("/", "\\").encode())
        elements[SOP_INSTANCE] = element(SOP_INSTANCE, b"UI", b"1.2.3")
    return Record(elements, list(below))


def tree() -> list[Record]:
    series = record("SERIES", record("IMAGE", file="IMAGES/A"), record("IMAGE", file="IMAGES/B"), record("RAW DATA"))
    return [record("PATIENT", record("STUDY", series, record("SERIES")), record("STUDY")), record("PATIENT")]


def shape(records: Sequence[Record]) -> list[object]:
    return [(one.type, one.file, shape(one.below)) for one in records]


def test_what_is_written_is_read_again() -> None:
    assert shape(read(written(tree(), "CD1"))) == shape(tree())


def test_no_records_are_a_dicomdir_too() -> None:
    assert read(written([], "CD1")) == []
    assert dcmread(BytesIO(written([], "CD1"))).OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity == 0


def test_pydicom_finds_each_record_where_the_offsets_say() -> None:
    dicomdir = dcmread(BytesIO(written(tree(), "CD1")))
    items = list(dicomdir.DirectoryRecordSequence)
    at = {item.seq_item_tell: number for number, item in enumerate(items)} | {0: None}
    assert [item.DirectoryRecordType for item in items] == [one.type for one in flat(tree())]
    # PATIENT, its STUDY, its SERIES, three leaves, an empty SERIES, an empty STUDY, an empty PATIENT
    assert [at[item.OffsetOfTheNextDirectoryRecord] for item in items] == [8, 7, 6, 4, 5, None, None, None, None]
    assert [at[item.OffsetOfReferencedLowerLevelDirectoryEntity] for item in items] == [1, 2, 3, *[None] * 6]
    assert at[dicomdir.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity] == 0
    assert at[dicomdir.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity] == 8


def test_the_file_meta_information_is_that_of_a_dicomdir() -> None:
    dicomdir = dcmread(BytesIO(written(tree(), "CD1")))
    meta = dicomdir.file_meta
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert meta.MediaStorageSOPClassUID == "1.2.840.10008.1.3.10"
    assert meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert UID(meta.MediaStorageSOPInstanceUID).is_valid
    assert UID(meta.ImplementationClassUID).is_valid
    assert dicomdir.FileSetID == "CD1"
    assert dicomdir.FileSetConsistencyFlag == 0


def test_the_same_records_make_the_same_dicomdir_and_others_one_of_another_uid() -> None:
    def uid(dicomdir: bytes) -> str:
        return str(dcmread(BytesIO(dicomdir)).file_meta.MediaStorageSOPInstanceUID)

    assert written(tree(), "CD1") == written(tree(), "CD1")
    others = {uid(written(tree()[:count], "CD1")) for count in range(3)} | {uid(written(tree(), "CD2"))}
    assert len(others) == 4


def test_a_records_other_elements_are_kept_byte_for_byte() -> None:
    one = record("PATIENT")
    one.elements[CHARACTER_SET] = b"\x08\x00\x05\x00CS\x04\x00A\\B\x00"
    code = b"\xfe\xff\x00\xe0\x04\x00\x00\x00ABCD"
    one.elements[CODES] = b"\x40\x00\x43\xa0SQ\x00\x00\x0c\x00\x00\x00" + code
    again = read(written([one], "CD1"))[0]
    assert list(again.elements) == list(one.elements)
    assert (again.elements[CHARACTER_SET], again.elements[CODES]) == (one.elements[CHARACTER_SET], one.elements[CODES])
    assert again.value(CODES) == code


@pytest.mark.parametrize(("value", "written_as"), [(b"1", b"1 "), (b"12", b"12"), (b"", b"")])
def test_a_value_is_padded_as_its_vr_demands(value: bytes, written_as: bytes) -> None:
    assert element(0x00200013, b"IS", value)[8:] == written_as
    assert element(0x0020000D, b"UI", value)[8:] == written_as.replace(b" ", b"\0")


def test_a_torn_dicomdir_is_malformed_wherever_it_ends() -> None:
    whole = written(tree(), "CD1")
    for end in range(len(whole)):
        with pytest.raises(Malformed):
            read(whole[:end])


@pytest.mark.parametrize("places", [(0, 2), (2, 1), (5, 3), (8, 8), (0, None), (4, None)])
def test_a_record_that_is_reached_twice_or_never_is_malformed(places: tuple[int, int | None]) -> None:
    whole = bytearray(written(tree(), "CD1"))
    items = dcmread(BytesIO(bytes(whole))).DirectoryRecordSequence
    of, to = (0 if place is None else items[place].seq_item_tell for place in places)
    next_offset = of + 8 + 8
    assert whole[next_offset - 8 : next_offset - 4] == b"\x04\x00\x00\x14"
    whole[next_offset : next_offset + 4] = to.to_bytes(4, "little")
    with pytest.raises(Malformed):
        read(bytes(whole))
