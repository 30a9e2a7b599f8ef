from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import Dataset, dcmwrite
from pydicom.datadict import dictionary_VR
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian
from pytest_subprocess import FakeProcess

from mkiso.accession import uid_fault
from mkiso.dcmtk import findscu
from mkiso.dcmtk.association import SMALL_DICTIONARY, Peer
from mkiso.dcmtk.findscu import LARGEST_ANSWER, LARGEST_LISTED, Finder, answered, fault, find_argv, listed
from mkiso.errors import PacsRejected, PacsTimeout, PacsUnreachable
from mkiso.process import ToolTimeout

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
BIN = Path("/opt/dcmtk")
CHARSET = "SpecificCharacterSet"
STUDY_KEYS = (
    *(CHARSET, "QueryRetrieveLevel=STUDY", "AccessionNumber=MR.001", "StudyInstanceUID", "PatientID"),
    *("IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyDescription"),
    *("ModalitiesInStudy", "NumberOfStudyRelatedInstances"),
)
SERIES_KEYS = (CHARSET, "QueryRetrieveLevel=SERIES", "StudyInstanceUID=1.2.3", "SeriesInstanceUID", "Modality")
IMAGE_KEYS = (CHARSET, "QueryRetrieveLevel=IMAGE", "StudyInstanceUID=1.2.3", "SeriesInstanceUID", "SOPInstanceUID")


def said(answers: int) -> str:
    """findscu's words, with -X or -Xs, where the archive gave so many answers."""
    pending = "".join(f"I: Received Find Response {number + 1} (Pending)\n" for number in range(answers))
    return f"I: Association Accepted (Max Send PDV: 131060)\n{pending}I: Received Final Find Response (Success)\n"


def xml(*uids: tuple[str, str, str]) -> str:
    """findscu's -Xs: study, series and SOP Instance UID of each answer."""
    names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    answers = (
        "".join(
            f'<element tag="0020,000d" vr="UI" name="{name}">{uid}</element>'
            for name, uid in zip(names, one, strict=True)
        )
        for one in uids
    )
    sets = "".join(f'<data-set xfer="1.2.840.10008.1.2.1">{answer}</data-set>' for answer in answers)
    return f'<?xml version="1.0" encoding="UTF-8"?><responses type="C-FIND">{sets}</responses>'


def of_series(series: str) -> tuple[str, ...]:
    return (*IMAGE_KEYS[:3], f"SeriesInstanceUID={series}", *IMAGE_KEYS[4:])


@pytest.fixture
def finder(pacs: Peer, tmp_path: Path) -> Finder:
    return Finder(BIN, pacs, 30, tmp_path)


@pytest.fixture
def archive(fake: FakeProcess, finder: Finder) -> Callable[..., None]:
    """An archive that answers a query: with data sets as files, or with one file of XML."""

    def prepare(
        keys: tuple[str, ...], *data_sets: Dataset, stderr: str | None = None, listed: str | None = None
    ) -> None:
        output = ("-X",) if listed is None else ("-Xs", "instances.xml")
        argv = find_argv(BIN, finder.pacs, 30, keys, (*output, "-od", str(finder.directory)))

        def write(_: object) -> None:
            if listed is not None:
                (finder.directory / "instances.xml").write_text(listed)
            for number, one in enumerate(data_sets, start=1):
                one.file_meta = FileMetaDataset()
                one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
                one.file_meta.MediaStorageSOPClassUID = one.file_meta.MediaStorageSOPInstanceUID = "1.2"
                dcmwrite(finder.directory / f"rsp{number:04d}.dcm", one, enforce_file_format=True)

        fake.register(argv, stderr=said(len(data_sets)) if stderr is None else stderr, callback=write)

    return prepare


def answer(**values: str) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def test_the_argv_of_findscu(pacs: Peer) -> None:
    assert find_argv(BIN, pacs, 30.5, ("QueryRetrieveLevel=STUDY", "PatientID"), ("-X", "-od", "/w")) == (
        *("/opt/dcmtk/findscu", "-v", "-S", "-aet", "CDRECORD", "-aec", "ABPACS", "-to", "10", "-ta", "10"),
        *("-td", "31", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID", "-X", "-od", "/w"),
        *("pacs.example", "11112"),
    )


def test_studies_are_asked_for_by_accession_number_and_read_in_their_character_set(
    finder: Finder, archive: Callable[..., None]
) -> None:
    one = answer(SpecificCharacterSet="ISO_IR 192", PatientName="山田^太郎", AccessionNumber="MR.001")
    archive(STUDY_KEYS, one, answer(PatientName="DOE^JOHN", AccessionNumber=" MR.001 "))
    assert [found["PatientName"] for found in finder.studies("MR.001")] == ["山田^太郎", "DOE^JOHN"]
    assert list(finder.directory.iterdir()) == []


@pytest.mark.parametrize("other", ["mr.001", "MR.0010", "", "MR.001\\B", "B"])
def test_only_the_very_number_counts(other: str, finder: Finder, archive: Callable[..., None]) -> None:
    archive(STUDY_KEYS, answer(AccessionNumber=other))
    assert finder.studies("MR.001") == []


def test_an_archive_that_knows_none_is_no_failure(finder: Finder, archive: Callable[..., None]) -> None:
    archive(STUDY_KEYS)
    assert finder.studies("MR.001") == []


def test_answers_that_were_not_written_are_not_taken_for_none(finder: Finder, archive: Callable[..., None]) -> None:
    archive(STUDY_KEYS, stderr=said(2))
    with pytest.raises(PacsRejected):
        finder.studies("MR.001")


def test_modalities_come_from_the_series(finder: Finder, archive: Callable[..., None]) -> None:
    archive(SERIES_KEYS, answer(Modality="CT"), answer(Modality="SR"), answer(Modality="CT"), answer())
    assert finder.modalities("1.2.3") == {"CT", "SR"}


def test_the_instances_of_a_study_are_listed_with_their_series(finder: Finder, archive: Callable[..., None]) -> None:
    archive(IMAGE_KEYS, stderr=said(2), listed=xml(("1.2.3", "1.4", "1.5"), ("1.2.3", "1.4", "1.6")))
    assert finder.instances("1.2.3") == {"1.5": "1.4", "1.6": "1.4"}
    assert list(finder.directory.iterdir()) == []


def test_a_study_without_instances_has_none(finder: Finder, archive: Callable[..., None]) -> None:
    archive(IMAGE_KEYS, stderr=said(0), listed=xml())
    archive(SERIES_KEYS)
    assert finder.instances("1.2.3") == {}


def test_a_study_is_asked_for_series_by_series_where_it_is_not_answered_at_once(
    finder: Finder, archive: Callable[..., None]
) -> None:
    archive(IMAGE_KEYS, stderr=said(0), listed=xml())
    archive(SERIES_KEYS, answer(SeriesInstanceUID="1.4"), answer(SeriesInstanceUID="1.7"))
    for series, instance in {"1.4": "1.5", "1.7": "1.8"}.items():
        archive(of_series(series), stderr=said(1), listed=xml(("1.2.3", series, instance)))
    assert finder.instances("1.2.3") == {"1.5": "1.4", "1.8": "1.7"}


def test_a_busy_archive_is_not_asked_for_the_series_of_a_study(
    finder: Finder, archive: Callable[..., None], captured: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findscu, "attempts", lambda *_: range(2))
    for _ in range(2):
        archive(IMAGE_KEYS, stderr=captured("findscu-busy"), listed="")
    with pytest.raises(PacsRejected, match="as many associations"):
        finder.instances("1.2.3")


def test_a_series_that_cannot_be_asked_for_is_named_where_the_study_is_not_listed_at_once(
    finder: Finder, archive: Callable[..., None]
) -> None:
    archive(IMAGE_KEYS, stderr=said(0), listed=xml())
    archive(SERIES_KEYS, answer(SeriesInstanceUID="LOCALIZER1.2"))
    with pytest.raises(PacsRejected, match=r"Series Instance UID 'LOCALIZER1\.2' has 'LOCAIZER' in it"):
        finder.instances("1.2.3")


ONE, SECOND = ("1.2.3", "1.4", "1.5"), ("1.2.3", "1.4", "1.6")


def test_a_list_that_repeats_a_uid_is_asked_for_by_series_too(finder: Finder, archive: Callable[..., None]) -> None:
    archive(IMAGE_KEYS, stderr=said(2), listed=xml(ONE, ONE))
    archive(SERIES_KEYS, answer(SeriesInstanceUID="1.4"))
    archive(of_series("1.4"), stderr=said(2), listed=xml(ONE, SECOND))
    assert finder.instances("1.2.3") == {"1.5": "1.4", "1.6": "1.4"}


def test_what_is_repeated_by_series_too_counts_once(finder: Finder, archive: Callable[..., None]) -> None:
    archive(IMAGE_KEYS, stderr=said(2), listed=xml(ONE, ONE))
    archive(SERIES_KEYS, answer(SeriesInstanceUID="1.4"), answer(SeriesInstanceUID="1.4"))
    archive(of_series("1.4"), stderr=said(2), listed=xml(ONE, ONE))
    assert finder.instances("1.2.3") == {"1.5": "1.4"}


def test_a_list_by_series_takes_nothing_away(finder: Finder, archive: Callable[..., None]) -> None:
    archive(IMAGE_KEYS, stderr=said(2), listed=xml(ONE, SECOND))
    archive(SERIES_KEYS, answer(SeriesInstanceUID="1.4"), answer(SeriesInstanceUID="1.9"))
    archive(of_series("1.4"), stderr=said(0), listed=xml())
    archive(of_series("1.9"), stderr=said(1), listed=xml(("1.2.3", "1.9", "1.7")))
    assert finder.instances("1.2.3", by_series=True) == {"1.5": "1.4", "1.6": "1.4", "1.7": "1.9"}


@pytest.mark.parametrize("series", ["", "LOCALIZER1.2", "1" * 65])
def test_a_series_that_cannot_be_asked_for_is_left_to_the_list_at_once(
    series: str, finder: Finder, archive: Callable[..., None]
) -> None:
    archive(IMAGE_KEYS, stderr=said(1), listed=xml(("1.2.3", series, "1.5")))
    archive(SERIES_KEYS, answer(SeriesInstanceUID=series), answer(SeriesInstanceUID="1.4"))
    archive(of_series("1.4"), stderr=said(1), listed=xml(SECOND))
    assert finder.instances("1.2.3", by_series=True) == {"1.5": series[:64], "1.6": "1.4"}


@pytest.mark.parametrize("captured_name", ["findscu-a700", "findscu-timeout"])
def test_an_archive_that_does_not_list_by_series_keeps_its_list_at_once(
    captured_name: str, finder: Finder, archive: Callable[..., None], captured: Callable[[str], str]
) -> None:
    archive(IMAGE_KEYS, stderr=said(2), listed=xml(ONE, ONE))
    archive(SERIES_KEYS, stderr=captured(captured_name))
    assert finder.instances("1.2.3") == {"1.5": "1.4"}


@pytest.mark.parametrize(("name", "error"), [("findscu-rejected", PacsRejected), ("findscu-refused", PacsUnreachable)])
def test_an_association_that_fails_is_no_reason_to_ask_by_series(
    name: str, error: type[Exception], finder: Finder, archive: Callable[..., None], captured: Callable[[str], str]
) -> None:
    archive(IMAGE_KEYS, stderr=captured(name), listed=xml())
    with pytest.raises(error):
        finder.instances("1.2.3")


def test_answers_about_the_same_study_come_behind_those_with_the_number(
    finder: Finder, archive: Callable[..., None]
) -> None:
    told = (("mr.001", "1.2", "Q"), ("MR.001", "1.2", "P"), ("MR.002", "1.3", "R"), ("", "1.2", "S"))
    made = [answer(AccessionNumber=one, StudyInstanceUID=uid, PatientID=patient) for one, uid, patient in told]
    archive(STUDY_KEYS, *made)
    assert [one["PatientID"] for one in finder.studies("MR.001")] == ["P", "Q", "S"]


def test_a_study_is_asked_for_by_its_uid_under_any_accession_number(
    finder: Finder, archive: Callable[..., None]
) -> None:
    keys = tuple("AccessionNumber" if key.startswith("Acc") else key for key in STUDY_KEYS)
    asked = tuple("StudyInstanceUID=1.2.3" if key == "StudyInstanceUID" else key for key in keys)
    other = answer(StudyInstanceUID="1.2.4", PatientID="R")
    archive(asked, answer(StudyInstanceUID="1.2.3", PatientID="P", AccessionNumber="A"), other)
    assert [one["PatientID"] for one in finder.of_study("1.2.3")] == ["P"]


@pytest.mark.parametrize("listed", [xml(), "<responses><data-set>\xe9", ""])
def test_answers_that_the_list_left_out_are_asked_for_once_more(
    listed: str, finder: Finder, archive: Callable[..., None]
) -> None:
    archive(IMAGE_KEYS, stderr=said(1), listed=listed)
    archive(IMAGE_KEYS, answer(StudyInstanceUID="1.2.3", SeriesInstanceUID="1.4", SOPInstanceUID="1.5"))
    assert finder.instances("1.2.3") == {"1.5": "1.4"}


def test_a_list_that_is_longer_than_lists_are_is_not_read(finder: Finder, archive: Callable[..., None]) -> None:
    long = xml(("1.2.3", "1.4", "1.5")).replace("</data-set>", " " * 2 * LARGEST_LISTED + "</data-set>")
    archive(IMAGE_KEYS, stderr=said(1), listed=long)
    archive(IMAGE_KEYS, answer(StudyInstanceUID="1.2.3", SeriesInstanceUID="1.4", SOPInstanceUID="1.6"))
    assert finder.instances("1.2.3") == {"1.6": "1.4"}


def test_an_answer_that_is_larger_than_answers_are_is_refused(finder: Finder, archive: Callable[..., None]) -> None:
    archive(SERIES_KEYS, answer(SeriesInstanceUID="1.4", Modality="CT", PatientComments="x" * LARGEST_ANSWER))
    with pytest.raises(PacsRejected, match="too large"):
        finder.modalities("1.2.3")


@pytest.mark.parametrize("uid", ["", "1.2.x", "../../etc", "..", "1" * 65])
def test_an_instance_without_a_valid_uid_is_not_dropped_in_silence(
    uid: str, finder: Finder, archive: Callable[..., None]
) -> None:
    archive(SERIES_KEYS, answer(SeriesInstanceUID="1.4"))
    for keys in (IMAGE_KEYS, of_series("1.4")):
        archive(keys, stderr=said(1), listed=xml(("1.2.3", "1.4", uid)))
        archive(keys, answer(StudyInstanceUID="1.2.3", SeriesInstanceUID="1.4", SOPInstanceUID=uid))
    with pytest.raises(PacsRejected):
        finder.instances("1.2.3")


@pytest.mark.parametrize(
    ("written", "of_study"),
    [
        (xml(("1.2.3", "1.4", " 1.5 ")), True),
        (xml(("", "1.4", "1.5")), True),
        (xml(("1.2.3", "", "1.5")), True),
        (xml(("1.2.3", "LOCALIZER1.2", "1.5")), True),
        (xml(("1.2.9", "1.4", "1.5")), False),
        (xml(("1.2.3", "1.4", "")), False),
    ],
)
def test_a_list_is_of_the_study_where_its_study_and_instances_are(written: str, of_study: bool) -> None:
    answers = listed(written.encode())
    assert len(answers) == 1
    assert (fault(answers, "1.2.3") is None) is of_study


@pytest.mark.parametrize(
    "written",
    [
        b'<!DOCTYPE d [<!ENTITY a "b">]><responses><data-set>&a;&c;</data-set></responses>',
        b"<responses>",
        b'<?xml version="1.0" encoding="KLINGON"?><responses/>',
        b'<?xml version="1.0" encoding="utf-7"?><responses/>',
        b"\0\xff",
        b"",
    ],
)
def test_a_list_that_is_no_xml_has_no_answers(written: bytes) -> None:
    assert listed(written) == []


@pytest.mark.parametrize(
    ("uid", "why"),
    [
        ("1.2.3", None),
        ("1.02.003", None),
        ("1" * 64, None),
        ("", "is empty"),
        ("1" * 65, "has 65 characters, and 64 are allowed"),
        ("1.2.x y", "has 'x y' in it, and only digits and full stops are allowed"),
        ("1.\xe4", "has '\\xe4' in it, and only digits and full stops are allowed"),
        ("1..2", "has a full stop without a number before or behind it"),
        (".1", "has a full stop without a number before or behind it"),
        ("1.2\n", "has '\\n' in it, and only digits and full stops are allowed"),
    ],
)
def test_why_a_uid_cannot_be_used(uid: str, why: str | None) -> None:
    assert uid_fault(uid) == why


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("findscu-refused", PacsUnreachable),
        ("findscu-rejected", PacsRejected),
        ("findscu-a700", PacsRejected),
        ("findscu-timeout", PacsTimeout),
    ],
)
def test_a_query_that_failed_is_told_from_none_found(
    name: str, error: type[Exception], captured: Callable[[str], str], pacs: Peer
) -> None:
    with pytest.raises(error):
        answered(pacs, 30, captured(name))


def test_a_query_that_ended_well_counts_its_answers(captured: Callable[[str], str], pacs: Peer) -> None:
    assert answered(pacs, 30, captured("findscu-none")) == 0
    assert answered(pacs, 30, said(3)) == 3


@pytest.mark.parametrize(
    "log", ["", "I: Association Accepted (Max Send PDV: 1)\nI: Received Find Response 1 (Pending)\n"]
)
def test_a_query_without_a_final_response_failed(log: str, pacs: Peer) -> None:
    with pytest.raises(PacsRejected):
        answered(pacs, 30, log)


@pytest.mark.parametrize(
    ("stderr", "error"),
    [
        ("I: Requesting Association\n", PacsUnreachable),
        ("I: Requesting Association\nI: Association Accepted (Max Send PDV: 1)\n", PacsTimeout),
    ],
)
def test_an_archive_that_is_silent_is_unreachable_before_and_late_after_the_association(
    stderr: str, error: type[Exception], finder: Finder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(argv: tuple[str, ...], *, timeout: float, log: Path, **_: object) -> None:
        log.write_text(stderr)
        raise ToolTimeout(argv, timeout)

    monkeypatch.setattr(findscu, "run", late)
    with pytest.raises(error):
        finder.studies("MR.001")


@pytest.mark.parametrize("key", sorted({*STUDY_KEYS, *SERIES_KEYS, *IMAGE_KEYS}))
def test_the_small_dictionary_knows_what_is_asked_for(key: str) -> None:
    lines = Path(SMALL_DICTIONARY["DCMDICTPATH"]).read_text().splitlines()[3:]
    known = {line.split("\t")[2]: line.split("\t")[:2] for line in lines}
    keyword = key.partition("=")[0]
    tag = Tag(keyword)
    assert known[keyword] == [f"({tag.group:04x},{tag.element:04x})", dictionary_VR(tag)]
