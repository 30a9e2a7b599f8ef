"""What a C-MOVE's counts and arrivals say of the archive's list, and whose the instances are."""

from dataclasses import replace
from pathlib import Path

import pytest

from mkiso.dcmtk.movescu import Ending, MoveResult
from mkiso.dicom.instances import Instance, Key
from mkiso.errors import SeveralPatients, WrongPatient
from mkiso.retrieve.inbox import Evidence, Said, evidence_against, require_patient
from mkiso.retrieve.studies import Patient, Study
from tests.unit.test_studies import study

ASKED = {"1.2"}
LISTED = {"1.5.1": "1.4", "1.5.2": "1.4", "1.5.3": "1.4"}


def came(*uids: str, study_uid: str = "1.2", series_uid: str = "1.4") -> dict[Key, list[Instance]]:
    """One file for each UID."""
    found: dict[Key, list[Instance]] = {}
    for sop in uids:
        found.setdefault((study_uid, sop), []).append(
            Instance(Path(sop), sop, "1.9", series_uid, study_uid, "1.2.840.10008.1.2", 1, (1, 1))
        )
    return found


def of_study(result: MoveResult) -> list[Said]:
    """The C-MOVE of the whole study that is listed."""
    return [Said(None, LISTED.keys(), result)]


def ended(completed: int, failed: int = 0, warning: int = 0, *uids: str) -> MoveResult:
    return MoveResult(Ending.WARNING, completed, failed, warning, frozenset(uids))


@pytest.mark.parametrize(
    ("arrived", "outcome"),
    [
        (came(*LISTED), ended(3)),
        (came(*LISTED), ended(0)),
        (came(*LISTED), ended(2, 1, 0, "1.5.3")),
        (came(*LISTED), ended(0, 0, 3)),
        (came(*LISTED, *LISTED), ended(6)),
        (came(*LISTED) | came("1.8", study_uid="1.3"), ended(4)),
        ({}, ended(3)),
    ],
    ids=["counted", "not counted", "failed and came", "warnings", "each twice", "a foreign one", "not there yet"],
)
def test_what_list_and_arrivals_explain_is_no_evidence(arrived: dict[Key, list[Instance]], outcome: MoveResult) -> None:
    assert not evidence_against(study(instances=LISTED), ASKED, arrived, of_study(outcome))


@pytest.mark.parametrize(
    ("arrived", "outcome", "uncounted"),
    [
        (came(*LISTED), ended(4), 1),
        (came(*LISTED), ended(3, 1), 1),
        (came(*LISTED), ended(3, 0, 2), 2),
        (came(*LISTED), ended(0, 0, 0, "1.5.9"), 1),
        (came(*LISTED) | came("1.8", study_uid="1.3"), ended(3, 1), 1),
        (came("1.5.1", "1.5.1", "1.5.2", "1.5.3"), ended(5), 1),
    ],
    ids=["completed", "failed", "warnings", "named as failed", "failed beside a stranger's", "beyond a second copy"],
)
def test_what_they_do_not_explain_is_counted(
    arrived: dict[Key, list[Instance]], outcome: MoveResult, uncounted: int
) -> None:
    assert evidence_against(study(instances=LISTED), ASKED, arrived, of_study(outcome)) == Evidence(
        frozenset(), uncounted
    )


def test_what_came_of_other_studies_and_is_gone_explains_no_more_than_was_completed() -> None:
    asked, arrived = study(instances=LISTED), came(*LISTED)
    assert not evidence_against(asked, ASKED, arrived, of_study(ended(5)), foreign=2)
    assert evidence_against(asked, ASKED, arrived, of_study(ended(3, 1)), foreign=2).uncounted == 1


OF_TWO = {"1.5.1": "1.4", "1.5.2": "1.4", "1.6.1": "1.7", "1.6.2": "1.7"}
BOTH = came("1.5.1", "1.5.2") | came("1.6.1", "1.6.2", series_uid="1.7")


def of_series(first: MoveResult, second: MoveResult) -> list[Said]:
    return [Said("1.4", {"1.5.1", "1.5.2"}, first), Said("1.7", {"1.6.1", "1.6.2"}, second)]


@pytest.mark.parametrize(
    ("arrived", "first", "second", "uncounted"),
    [
        (BOTH, ended(2), ended(2), 0),
        (BOTH, ended(3), ended(2), 1),
        (BOTH, ended(3), ended(0), 1),
        (BOTH, ended(2, 0, 0, "1.5.9"), ended(2), 1),
        (BOTH, ended(2, 0, 0, "1.6.1"), ended(2), 0),
        (came("1.5.1", "1.5.2", "1.5.1", "1.5.2") | came("1.6.1", "1.6.2", series_uid="1.7"), ended(2), ended(4), 0),
        (BOTH | came("1.8.1", series_uid="1.8"), ended(3), ended(2), 0),
    ],
    ids=[
        "counted",
        "one more",
        "one more, and the other was not counted",
        "named as failed",
        "failed and came",
        "of the other a second time",
        "of a third",
    ],
)
def test_each_series_explains_what_its_own_c_move_counts(
    arrived: dict[Key, list[Instance]], first: MoveResult, second: MoveResult, uncounted: int
) -> None:
    """What came of one, and was not counted there, is no reason for what another counts."""
    found = evidence_against(study(instances=OF_TWO), ASKED, arrived, of_series(first, second))
    assert found.uncounted == uncounted


def test_what_came_and_is_not_listed_is_named() -> None:
    arrived = came(*LISTED, "1.5.4") | came("1.5.5", series_uid="1.7")
    assert evidence_against(study(instances=LISTED), ASKED, arrived, of_study(ended(5))).unlisted == {"1.5.4", "1.5.5"}
    chosen, said = study(instances=LISTED, series_uid="1.4"), Said("1.4", LISTED.keys(), ended(5))
    assert evidence_against(chosen, ASKED, arrived, [said]) == Evidence(frozenset({"1.5.4"}), 0)


def of_patients(*ids: str) -> dict[Key, list[Instance]]:
    """The listed instances, each of one of these patients."""
    arrivals = came(*LISTED)
    return {key: [replace(arrivals[key][0], patient_id=one)] for key, one in zip(arrivals, ids, strict=True)}


def never(_study: Study) -> Study:
    raise AssertionError("the archive is asked without need")


def of_jane_too(one: Study) -> Study:
    return replace(one, others=(Patient("JANE"),))


@pytest.mark.parametrize("verify", [True, False])
def test_instances_of_the_patient_of_the_answer_are_no_reason_to_ask_for_others(verify: bool) -> None:
    require_patient([study(instances=LISTED)], of_patients("P", "P", "P"), verify, never)
    require_patient([study(instances=LISTED, patient_id="")], of_patients("Q", "Q", "Q"), verify, never)


def test_an_older_patient_id_is_refused_with_the_setting_that_takes_it() -> None:
    with pytest.raises(WrongPatient, match="verify_patient"):
        require_patient([study(instances=LISTED)], of_patients("OLD", "OLD", "OLD"), True, lambda one: one)
    require_patient([study(instances=LISTED)], of_patients("OLD", "OLD", "OLD"), False, lambda one: one)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("asked", ["P", ""])
def test_where_the_archive_itself_names_two_patients_no_setting_is_advised(asked: str, verify: bool) -> None:
    with pytest.raises(SeveralPatients) as refused:
        require_patient([study(instances=LISTED, patient_id=asked)], of_patients("P", "JANE", "P"), verify, of_jane_too)
    assert refused.value.fields == {"patients": 2}
    assert "verify_patient" not in refused.value.detail
