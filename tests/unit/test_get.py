"""The program that takes instances by C-GET: what it writes on the line and on the disk, and how it reads both."""

import struct
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.filereader import read_file_meta_info
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom.dsutils import decode
from pynetdicom.pdu import A_ASSOCIATE_RQ

from mkiso.dicom import get
from mkiso.dicom.get import Kept, Lost

CONTEXTS = {
    1: (get.GET, get.IMPLICIT),
    3: (str(CTImageStorage), str(ExplicitVRLittleEndian)),
    5: (str(CTImageStorage), str(JPEG2000Lossless)),
    255: ("1.2.3.77", str(ExplicitVRLittleEndian)),
}


@pytest.fixture(scope="module")
def request_() -> A_ASSOCIATE_RQ:
    """As another library reads it."""
    found = A_ASSOCIATE_RQ()
    found.decode(get.request_pdu("MKISO", "ABPACS", CONTEXTS))
    return found


def test_the_association_request_is_read_by_others(request_: A_ASSOCIATE_RQ) -> None:
    assert (request_.calling_ae_title.strip(), request_.called_ae_title.strip()) == ("MKISO", "ABPACS")
    assert (request_.protocol_version, request_.application_context_name) == (1, get.APPLICATION)
    assert request_.user_information.maximum_length == get.LARGEST_PDU
    assert request_.encode() == get.request_pdu("MKISO", "ABPACS", CONTEXTS)


def test_each_context_is_of_one_sop_class_and_one_transfer_syntax(request_: A_ASSOCIATE_RQ) -> None:
    offered = {one.context_id: (one.abstract_syntax, one.transfer_syntax) for one in request_.presentation_context}
    assert offered == {number: (sop, [syntax]) for number, (sop, syntax) in CONTEXTS.items()}


def test_it_is_the_scp_of_what_is_stored_and_the_scu_of_c_get_alone(request_: A_ASSOCIATE_RQ) -> None:
    roles = {uid: (one.scu_role, one.scp_role) for uid, one in request_.user_information.role_selection.items()}
    assert roles == {CTImageStorage: (False, True), "1.2.3.77": (False, True)}


def test_a_command_set_tells_its_length_and_is_in_order() -> None:
    data = get.message({0x0800: get.NO_DATA, 0x0002: get.padded("1.2.3"), 0x0100: get.STORED})
    found = decode(BytesIO(data), True, True)
    assert found.CommandGroupLength == len(data) - 12
    assert (found.AffectedSOPClassUID, found.CommandField, found.CommandDataSetType) == ("1.2.3", 0x8001, 0x0101)
    assert [element.tag.element for element in found] == [0x0000, 0x0002, 0x0100, 0x0800]
    read = get.elements(data)
    assert (get.text(read, 0, 0x0002), get.integer(read, 0x0100)) == ("1.2.3", get.STORED)


@pytest.mark.parametrize("left", [1, 7])
def test_a_command_set_that_is_cut_in_the_midst_of_a_tag_is_none(left: int) -> None:
    data = get.message({0x0100: get.STORED})
    with pytest.raises(Lost):
        get.elements(data[: 12 + left])


def test_what_is_not_there_has_no_value() -> None:
    assert (get.text({}, 8, 0x18), get.integer({}, 0x0900)) == ("", 0)


def kept(directory: Path) -> Kept:
    (directory / "received").mkdir()
    return Kept(str(directory / "received"), str(directory / "c-get.part"), "ABPACS")


def test_an_instance_is_written_as_it_came_behind_its_file_meta_information(tmp_path: Path) -> None:
    into, data = kept(tmp_path), bytes(range(256)) * 10
    pieces = (memoryview(data[at : at + 100]) for at in range(0, len(data), 100))
    assert into.keep(str(CTImageStorage), "1.2.3.4", str(JPEG2000Lossless), pieces) == get.SUCCESS
    (file,) = (tmp_path / "received").iterdir()
    assert (into.uids, [*tmp_path.glob("*.part")]) == ({"1.2.3.4"}, [])
    assert file.read_bytes().endswith(data)
    meta = read_file_meta_info(file)
    assert file.stat().st_size == 144 + meta.FileMetaInformationGroupLength + len(data)
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (CTImageStorage, "1.2.3.4")
    assert (meta.TransferSyntaxUID, meta.SourceApplicationEntityTitle) == (JPEG2000Lossless, "ABPACS")
    assert (meta.ImplementationClassUID, meta.FileMetaInformationVersion) == (get.IMPLEMENTATION, b"\0\1")


def test_no_two_instances_have_one_name(tmp_path: Path) -> None:
    """Nor does what comes say how a file is called."""
    into = kept(tmp_path)
    for uid in ("../../1.2", "1.2", "1.2"):
        into.keep("1.2", uid, get.IMPLICIT, iter([memoryview(b"ab")]))
    assert len([*(tmp_path / "received").iterdir()]) == 3
    assert [one.name for one in tmp_path.iterdir()] == ["received"]


def test_an_instance_of_which_the_end_does_not_come_has_no_name(tmp_path: Path) -> None:
    into = kept(tmp_path)

    def pieces() -> object:
        yield memoryview(b"ab")
        raise Lost("it hung up")

    with pytest.raises(Lost):
        into.keep("1.2", "1.3", get.IMPLICIT, pieces())  # type: ignore[arg-type]
    assert (into.uids, [*(tmp_path / "received").iterdir()]) == (set(), [])


def test_what_cannot_be_written_is_read_to_its_end_and_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    into, pieces = Kept(str(tmp_path / "gone"), str(tmp_path / "c-get.part"), "ABPACS"), iter([memoryview(b"ab")] * 3)
    assert into.keep("1.2", "1.3", get.IMPLICIT, pieces) == get.NO_ROOM
    assert (next(pieces, None), into.uids, [*tmp_path.iterdir()]) == (None, set(), [])
    assert '{"instance": "1.3", "why": "No such file or directory"}' in capsys.readouterr().out


def test_a_plan_asks_for_all_first_and_then_for_what_has_not_come(tmp_path: Path) -> None:
    plan = {"study": "1.2", "series": None, "wanted": {"1.2.1": ["1.1", "1.3"], "1.2.2": ["1.4"]}}
    into = kept(tmp_path)
    study, series, instance = (get.STUDY, "1.2"), get.SERIES, get.INSTANCE
    assert list(get.requests(plan, None)) == [("STUDY", [study])]
    assert list(get.requests(plan | {"series": "1.2.1"}, None)) == [("SERIES", [study, (series, "1.2.1")])]
    into.uids.add("1.3")
    left = get.missing(plan, {"instances": None}, into)
    assert list(get.requests(plan, left)) == [
        ("IMAGE", [study, (series, "1.2.1"), (instance, "1.1")]),
        ("IMAGE", [study, (series, "1.2.2"), (instance, "1.4")]),
    ]
    assert get.missing(plan, {"instances": ["1.3", "1.4"]}, into) == {"1.2.2": ["1.4"]}


def test_many_instances_are_asked_for_by_hundreds() -> None:
    plan = {"study": "1.2", "series": None}
    asked = [keys[2][1].count("\\") + 1 for _, keys in get.requests(plan, {"1.2.1": [f"1.{n}" for n in range(250)]})]
    assert asked == [100, 100, 50]


def test_items_that_are_cut_are_left_out() -> None:
    whole = get.item(get.ANSWER, b"\3\0\0\0") + get.item(get.USER, b"ab")
    assert list(get.items(whole)) == [(get.ANSWER, b"\3\0\0\0"), (get.USER, b"ab")]
    assert list(get.items(whole[:-6] + struct.pack(">B", 1))) == [(get.ANSWER, b"\3\0\0\0")]
