"""Every way a request can fail: the contract's table of codes, HTTP statuses, exit statuses and texts as classes.

`error` is the table's fixed text; `detail` says what happened in this case and what to do about it; `fields` are the
further fields of the answer.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self


class MkisoError(Exception):
    """Base of all errors that a person can meet; raised as it stands it is an internal error."""

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    error: str = "internal error"

    def __init__(self, detail: str, *, error: str | None = None, **fields: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fields = fields
        if error is not None:
            self.error = error

    def __str__(self) -> str:
        return f"{self.error}: {self.detail}"

    def with_detail(self, detail: str) -> Self:
        """The same error of the same place, its notes too, with another detail."""
        other = type(self)(detail, error=self.error, **self.fields).with_traceback(self.__traceback__)
        for note in getattr(self, "__notes__", ()):
            other.add_note(note)
        return other

    def answer_fields(self, job_id: str | None) -> dict[str, Any]:
        """The fields of an answer."""
        return {"error": self.error, "code": self.code, "detail": self.detail, "job_id": job_id, **self.fields}


class ConfigurationError(MkisoError):
    """The configuration cannot be used; the service does not start."""

    code, exit_code, error = "configuration", 2, "configuration error"


class BadRequest(MkisoError):
    code, http_status, exit_code, error = "bad_request", 400, 2, "bad request"


class MissingAccession(BadRequest):
    code, error = "missing_accession", "missing accession_number"


class EmptyAccession(BadRequest):
    code, error = "empty_accession", "empty accession_number in list"


class InvalidAccession(BadRequest):
    code, error = "invalid_accession", "invalid accession_number"


class TooManyAccessions(BadRequest):
    code, error = "too_many_accessions", "too many accession_numbers"


class Unauthorized(MkisoError):
    code, http_status, error = "unauthorized", 401, "unauthorized"


class Forbidden(MkisoError):
    code, http_status, error = "forbidden", 403, "forbidden"


class AccessionNotFound(MkisoError):
    code, http_status, error = "accession_not_found", 404, "accession_number not found"


class StudyNotFound(MkisoError):
    code, http_status, error = "study_not_found", 404, "study not found"


class SeriesNotFound(MkisoError):
    code, http_status, error = "series_not_found", 404, "series not found"


class SeveralPatients(MkisoError):
    code, http_status = "several_patients", 409
    error = "accession_numbers belong to different patients"


class JobNotFound(MkisoError):
    code, http_status, error = "job_not_found", 404, "job not found"


class JobExists(MkisoError):
    code, http_status, error = "job_exists", 409, "job already exists"


class RelayNotFound(MkisoError):
    code, http_status, error = "relay_not_found", 404, "relay not found"


class PacsUnreachable(MkisoError):
    code, http_status, error = "pacs_unreachable", 502, "PACS unreachable"


class PacsRejected(MkisoError):
    code, http_status, error = "pacs_rejected", 502, "PACS rejected the request"


class PacsTimeout(MkisoError):
    code, http_status, error = "pacs_timeout", 504, "PACS timed out"


class NoDicomData(MkisoError):
    code, http_status, error = "no_dicom_data", 502, "no DICOM data for accession_number"


class Incomplete(MkisoError):
    code, http_status, error = "incomplete", 502, "incomplete retrieval"


class WrongPatient(MkisoError):
    code, http_status, error = "wrong_patient", 502, "instances of another patient"


class ConflictingInstances(MkisoError):
    code, http_status = "conflicting_instances", 502
    error = "an instance arrived twice, differing"


class DestinationUnreachable(MkisoError):
    code, http_status, error = "destination_unreachable", 502, "destination unreachable"


class RelayFailed(MkisoError):
    code, http_status, error = "relay_failed", 502, "DICOM relay failed"


class NotConfirmed(RelayFailed):
    code, error = "not_confirmed", "destination did not confirm"


class PatientApiUnavailable(MkisoError):
    code, http_status, error = "patient_api_unavailable", 502, "patient API unavailable"


class PatientDbUnavailable(MkisoError):
    code, http_status, error = "patient_db_unavailable", 502, "patient database unavailable"


class Busy(MkisoError):
    code, http_status, error = "busy", 503, "all receivers are busy"


class LedgerUnavailable(MkisoError):
    code, http_status, error = "ledger_unavailable", 503, "ledger unavailable"


class Stopping(MkisoError):
    code, http_status, error = "stopping", 503, "service is stopping"


class ReceiverUnavailable(MkisoError):
    code, http_status, error = "receiver_unavailable", 503, "receiver could not start"


class NotConfigured(MkisoError):
    code, http_status, exit_code, error = "not_configured", 501, 2, "not configured"


class DiscTooLarge(MkisoError):
    code, http_status, error = "disc_too_large", 413, "disc too large"


class DiskFull(MkisoError):
    code, http_status, error = "disk_full", 507, "not enough disk space"


class Cancelled(MkisoError):
    code, http_status, error = "cancelled", 410, "job cancelled"


class Internal(MkisoError):
    """Anything else: its detail names the job, and nothing of the host."""
