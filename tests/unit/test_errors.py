import pytest

from mkiso import errors
from mkiso.errors import MkisoError

# The contract's error table: status, code, error.
TABLE = (
    (400, "missing_accession", "missing accession_number"),
    (400, "empty_accession", "empty accession_number in list"),
    (400, "invalid_accession", "invalid accession_number"),
    (400, "too_many_accessions", "too many accession_numbers"),
    (400, "bad_request", "bad request"),
    (401, "unauthorized", "unauthorized"),
    (403, "forbidden", "forbidden"),
    (404, "accession_not_found", "accession_number not found"),
    (404, "study_not_found", "study not found"),
    (404, "series_not_found", "series not found"),
    (409, "several_patients", "accession_numbers belong to different patients"),
    (404, "job_not_found", "job not found"),
    (404, "relay_not_found", "relay not found"),
    (409, "job_exists", "job already exists"),
    (502, "pacs_unreachable", "PACS unreachable"),
    (502, "pacs_rejected", "PACS rejected the request"),
    (502, "no_dicom_data", "no DICOM data for accession_number"),
    (502, "incomplete", "incomplete retrieval"),
    (502, "wrong_patient", "instances of another patient"),
    (502, "conflicting_instances", "an instance arrived twice, differing"),
    (501, "not_configured", "not configured"),
    (502, "destination_unreachable", "destination unreachable"),
    (502, "relay_failed", "DICOM relay failed"),
    (502, "not_confirmed", "destination did not confirm"),
    (502, "patient_api_unavailable", "patient API unavailable"),
    (502, "patient_db_unavailable", "patient database unavailable"),
    (503, "busy", "all receivers are busy"),
    (503, "ledger_unavailable", "ledger unavailable"),
    (503, "stopping", "service is stopping"),
    (503, "receiver_unavailable", "receiver could not start"),
    (504, "pacs_timeout", "PACS timed out"),
    (413, "disc_too_large", "disc too large"),
    (507, "disk_full", "not enough disk space"),
    (410, "cancelled", "job cancelled"),
    (500, "internal", "internal error"),
)
CLASSES = {one.code: one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, MkisoError)}


@pytest.mark.parametrize(("status", "code", "error"), TABLE)
def test_an_error_has_the_status_and_the_text_of_its_code(status: int, code: str, error: str) -> None:
    raised = CLASSES[code]("What happened.")
    assert (raised.http_status, raised.code, raised.error) == (status, code, error)


def test_no_code_is_unknown_to_the_contract() -> None:
    assert set(CLASSES) - {code for _, code, _ in TABLE} == {"configuration"}


@pytest.mark.parametrize("code", sorted(CLASSES))
def test_a_command_ends_with_2_for_usage_and_configuration_and_else_with_1(code: str) -> None:
    usage = (
        "configuration",
        "not_configured",
        "bad_request",
        "missing_accession",
        "empty_accession",
        "invalid_accession",
    )
    assert CLASSES[code].exit_code == (2 if code in (*usage, "too_many_accessions") else 1)


def test_one_failure_may_have_a_text_of_its_own() -> None:
    raised = errors.DestinationUnreachable("It is off.", error="CD Publisher unreachable", destination="cd")
    assert str(raised) == "CD Publisher unreachable: It is off."
    assert raised.fields == {"destination": "cd"}
    assert errors.DestinationUnreachable("It is off.").error == "destination unreachable"


def test_an_error_with_another_detail_is_the_same_in_all_else() -> None:
    error = errors.DestinationUnreachable("It is away.", error="CD Publisher unreachable", tried=2)
    error.add_note("of the host")
    told = error.with_detail("It is away. Ask later.")
    assert (type(told), told.error, told.detail) == (type(error), error.error, "It is away. Ask later.")
    assert (told.fields, told.__notes__) == ({"tried": 2}, ["of the host"])
    assert error.detail == "It is away."
