"""C-GET: what is run, which associations a study needs, and what the program's word comes to."""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom import uid

from mkiso.dcmtk.association import Failure, Peer
from mkiso.dcmtk.getting import announced, events, failure, get_argv, get_result, steps, unkept
from mkiso.dcmtk.movescu import Ending, MoveResult
from mkiso.dicom import get
from mkiso.errors import PacsRejected, PacsUnreachable

CT, MR, SR, ECG = uid.CTImageStorage, uid.MRImageStorage, uid.BasicTextSRStorage, uid.TwelveLeadECGWaveformStorage
PRIVATE = "1.2.826.0.1.3680043.8.498.1.77"
ASKED, OF_IMAGES = {"asked": "STUDY"}, {"asked": "IMAGE"}
Told = list[dict[str, Any]]


def response(status: int, *counts: int, **further: Any) -> dict[str, Any]:
    """With the counts of what remains, is completed, failed, and was stored with a warning."""
    return {"status": status, **dict(zip(get.COUNTS, counts, strict=False)), **further}


def classes_of(step: dict[str, Any]) -> list[str]:
    return [sop for sop, _ in step["classes"]]


def contexts_of(step: dict[str, Any]) -> int:
    return sum(len(syntaxes) for _, syntaxes in step["classes"])


def test_the_argv_runs_the_file_alone_with_its_plan() -> None:
    """Isolated: neither this project nor what a user has set is in its way."""
    program = Path(get.__file__)
    assert get_argv(Path("/work/c-get.json")) == (sys.executable, "-I", str(program), "/work/c-get.json")


def test_each_sop_class_is_offered_in_every_transfer_syntax_that_it_may_have() -> None:
    (step,) = steps(["1.1", "1.2", "1.3"], {"1.1": CT, "1.2": SR, "1.3": SR}, [])
    offered = {str(sop): [str(one) for one in syntaxes] for sop, syntaxes in step["classes"]}
    assert (offered.keys(), step["instances"]) == ({CT, SR}, None)
    assert set(offered[SR]) == {f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".2", ".1.99")}
    assert {uid.JPEG2000Lossless, uid.RLELossless, uid.MPEG4HP41, "1.2.840.10008.1.2.4.110"} <= set(offered[CT])
    assert not any(syntax.startswith(("1.2.840.10008.1.2.7.", "1.2.840.10008.1.2.4.204")) for syntax in offered[CT])
    assert len(offered[CT]) == len(set(offered[CT]))


def test_explicit_vr_is_the_first_that_is_offered_for_an_archive_may_send_all_in_that() -> None:
    (step,) = steps(["1.1", "1.2"], {"1.1": CT, "1.2": SR}, [])
    assert {next(iter(syntaxes)) for _, syntaxes in step["classes"]} == {uid.ExplicitVRLittleEndian}


def test_what_nobody_knows_may_hold_anything() -> None:
    (step,) = steps(["1.1", "1.2"], {"1.1": PRIVATE, "1.2": CT}, [])
    syntaxes = dict(step["classes"])
    assert list(syntaxes[PRIVATE]) == list(syntaxes[CT])


def test_more_than_an_association_has_contexts_for_are_several_and_each_brings_its_own() -> None:
    images = [one for one, name in uid.UID_dictionary.items() if "Image Storage" in name[0] and one.count(".") > 6][:5]
    uids = {f"1.{number}": sop for number, sop in enumerate([*images, SR])}
    found = steps(list(uids), uids, [])
    assert len(found) > 1
    assert all(contexts_of(step) <= get.MOST for step in found)
    assert sorted(instance for step in found for instance in step["instances"]) == sorted(uids)
    for step in found:
        assert {uids[instance] for instance in step["instances"]} == set(classes_of(step))


def test_where_the_list_tells_no_classes_those_of_the_modalities_come_first_and_then_all() -> None:
    found = steps(["1.1", "1.2"], {}, ["ECG", "MR"])
    first, offered = classes_of(found[0]), [sop for step in found for sop in classes_of(step)]
    assert {ECG, MR} <= set(first[:6])
    assert len(offered) == len(set(offered)) > 150
    assert {CT, SR, uid.EncapsulatedPDFStorage, uid.VideoEndoscopicImageStorage} <= set(offered)
    assert all(contexts_of(step) <= get.MOST and step["instances"] is None for step in found)


def test_a_class_that_the_list_tells_of_some_comes_before_all_others() -> None:
    assert classes_of(steps(["1.1", "1.2"], {"1.1": PRIVATE, "1.2": ""}, ["CT"])[0])[:2] == [PRIVATE, CT]


def test_a_modality_that_nobody_knows_is_no_fault() -> None:
    assert len(steps(["1.1"], {}, ["XX"])) == len(steps(["1.1"], {}, []))


def test_what_the_program_was_killed_in_the_midst_of_is_no_event() -> None:
    log = "\n".join([*map(json.dumps, (ASKED, response(0xFF00, 3))), "Traceback", "17", '{"status": 652'])
    assert events(log) == [ASKED, response(0xFF00, 3), {}]


@pytest.mark.parametrize(
    ("told", "count"),
    [
        ([], None),
        ([ASKED], None),
        ([ASKED, response(0xFF00, 3, 1, 1, 0)], 5),
        ([ASKED, response(0xFF00, 3, 1), response(0xFF00, 9, 9)], 4),
        ([ASKED, response(0, completed=4)], None),
        ([ASKED, {"status": 0xFF00, "completed": 1}], None),
    ],
)
def test_the_first_response_says_how_many_there_are(told: Told, count: int | None) -> None:
    assert announced(told) == count


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ([], None),
        ([{"refused": "unreachable", "why": "x"}], Failure.UNREACHABLE),
        ([{"refused": "busy", "why": "x"}], Failure.BUSY),
        ([{"refused": "rejected", "why": "x"}], Failure.REJECTED),
        ([{"refused": "no context", "why": "x"}], Failure.NO_CONTEXT),
        ([ASKED, response(0, 0, 2), {"refused": "busy", "why": "x"}], None),
    ],
)
def test_an_association_that_is_not_taken_is_told_from_one_that_broke(told: Told, why: Failure | None) -> None:
    assert failure(told) == why


@pytest.mark.parametrize(
    ("refused", "kind", "said"),
    [
        ("unreachable", PacsUnreachable, "No association with the PACS .*: x"),
        ("busy", PacsRejected, "is busy: .*took no other in 10 s"),
        ("rejected", PacsRejected, "refused the association: x. Check the AE titles"),
        ("no context", PacsRejected, "takes no C-GET. .*set pacs.retrieve: move"),
    ],
)
def test_without_an_association_the_error_says_why(refused: str, kind: type[Exception], said: str, pacs: Peer) -> None:
    with pytest.raises(kind, match=said):
        get_result(pacs, [{"refused": refused, "why": "x"}])


def test_a_limit_that_is_reached_for_good_has_nothing_to_do_with_ae_titles(pacs: Peer) -> None:
    with pytest.raises(PacsRejected, match=r"as many associations as it takes\. Try again later"):
        get_result(pacs, [{"refused": "rejected", "why": get.LIMIT}])


FAILED = "The PACS ABPACS at pacs.example:11112 ended the C-GET with status A702 (no room). Its own log tells why."


@pytest.mark.parametrize(
    ("told", "result"),
    [
        ([], MoveResult(Ending.LOST)),
        ([ASKED], MoveResult(Ending.LOST)),
        ([ASKED, response(0xFF00, 1, 1), response(0, completed=2)], MoveResult(Ending.SUCCESS, 2)),
        ([ASKED, response(0xFF00, 0, 1, 0, 1), response(0)], MoveResult(Ending.SUCCESS, 1, warning=1)),
        (
            [ASKED, response(0xFF00, 1, 1), response(0xB000, 0, 1, 1, failed_uids=["1.5"])],
            MoveResult(Ending.WARNING, 1, 1, 0, frozenset({"1.5"}), "status B000"),
        ),
        ([ASKED, response(0xA702, comment="no room")], MoveResult(Ending.FAILURE, explanation=FAILED)),
        (
            [ASKED, response(0xFE00, 2, 1)],
            MoveResult(Ending.LOST, 1, explanation="status FE00, though nothing was cancelled", remaining=2),
        ),
        (
            [ASKED, response(0xFF00, 2, 1), {"lost": "it hung up"}],
            MoveResult(Ending.LOST, 1, explanation="it hung up", remaining=2),
        ),
        ([ASKED, response(0xFF00, 2, 1)], MoveResult(Ending.LOST, 1, explanation="the C-GET did not end", remaining=2)),
        ([ASKED, {"lost": "it hung up"}], MoveResult(Ending.LOST, explanation="it hung up")),
    ],
)
def test_what_was_told_says_how_it_ended(told: Told, result: MoveResult, pacs: Peer) -> None:
    assert get_result(pacs, told) == result


def ended(pacs: Peer, *gets: Iterable[dict[str, Any]]) -> MoveResult:
    return get_result(pacs, [one for told in gets for one in told])


WHOLE = [ASKED, response(0xB000, 0, 3, 2, failed_uids=["1.4", "1.5"])]


@pytest.mark.parametrize(
    ("later", "ending", "completed", "failed"),
    [
        ([[OF_IMAGES, response(0, 0, 2)]], Ending.SUCCESS, 5, 0),
        ([[OF_IMAGES, response(0, 0, 1)]], Ending.WARNING, 4, 1),
        ([[OF_IMAGES, response(0xB000, 0, 1, 1)], [OF_IMAGES, response(0, 0, 1)]], Ending.SUCCESS, 5, 0),
        ([[OF_IMAGES, response(0xA702)]], Ending.WARNING, 3, 2),
        ([[OF_IMAGES, {"lost": "it hung up"}]], Ending.WARNING, 3, 2),
    ],
)
def test_what_the_first_association_did_not_bring_and_a_later_one_did_has_not_failed(
    later: Sequence[Told], ending: Ending, completed: int, failed: int, pacs: Peer
) -> None:
    """Of the whole study, it counts all that there is, and so does evidence for a cut list."""
    result = ended(pacs, WHOLE, *later)
    assert (result.ending, result.completed, result.failed) == (ending, completed, failed)
    assert bool(result.explanation) == (ending is not Ending.SUCCESS)


def test_associations_that_each_bring_their_own_are_added(pacs: Peer) -> None:
    result = ended(pacs, [OF_IMAGES, response(0, 0, 3)], [OF_IMAGES, response(0xB000, 0, 1, 1, failed_uids=["1.5"])])
    assert result == MoveResult(Ending.WARNING, 4, 1, 0, frozenset({"1.5"}), "status B000")


def test_one_of_these_that_broke_is_what_all_come_to(pacs: Peer) -> None:
    result = ended(pacs, [OF_IMAGES, response(0xFF00, 2, 1), {"lost": "it hung up"}], [OF_IMAGES, response(0, 0, 3)])
    assert (result.ending, result.completed, result.explanation) == (Ending.LOST, 4, "it hung up")


def test_what_could_not_be_kept_is_told_with_its_reason() -> None:
    told = [ASKED, {"instance": "1.5", "why": "No space left on device"}, response(0xB000, 0, 0, 1)]
    assert unkept(told) == ["No space left on device"]
