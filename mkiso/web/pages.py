"""The operator's pages: look up, make, watch, and look back. They need no token, and never call `/api/`."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, cast
from urllib.parse import urlencode

from flask import (
    Blueprint,
    Response,
    current_app,
    g,
    jsonify,
    make_response,
    render_template,
    request,
    send_file,
)

from mkiso.accession import parse_list, parse_one
from mkiso.dicom.datasets import page_name
from mkiso.errors import BadRequest, JobNotFound, MkisoError
from mkiso.job import Order
from mkiso.ledger.history import Filters, Mark, mark_of
from mkiso.ledger.ledger import STATES
from mkiso.ledger.schema import ledger_time
from mkiso.retrieve.studies import Study, by_patient, count_patients
from mkiso.web.answers import (
    UUID,
    accession_list,
    argument,
    choice,
    choose_job_id,
    known_job_id,
    live_jobs,
    prefers_json,
    require_state,
    see_other,
    service_status,
)
from mkiso.web.following import FollowedJob, FollowedJobs, JobView, download_url, not_started
from mkiso.web.guards import installation, refuse_embedding, requester
from mkiso.web.orders import disc_order, disc_page, relay_page

RECENT = timedelta(hours=1)
MOST_RECENT = 50
MOST_INSTANCES = 100
PAGE = 50
FIELDS = ("accession_number", "patient", "requester", "state", "from", "to")
# What is searched costs the database time by its words.
MOST_WORDS, LONGEST = 8, 256
MARK = re.compile(rf"([0-9T:.Z-]{{10,32}}),({UUID.pattern})", re.I)
COLUMNS = (
    *("created_at", "finished_at", "id", "kind", "state", "error", "patient_id", "patient_name", "accessions"),
    *("studies", "requester", "destination", "layout", "format", "medium", "expected", "received", "files_sent"),
    *("files_failed", "bytes"),
)
# A cell that begins with one of these is calculated, in full width too; spaces before it count for nothing, nor does
# a quote that was meant to be text. Where the list separator is a semicolon (Indonesian, German), a spreadsheet begins
# a cell behind each one in a text, and a row behind each line: quotes count for it only where a cell begins with them.
CALCULATED = re.compile(r"""^(?=[\t\r\n])|(?:^|(?<=[;|\t\r\n]))(?=(?:"|[^\S\t\r\n])*[=+\-@\uff1d\uff0b\uff0d\uff20])""")
LINES_AT_ONCE = 200
blueprint = Blueprint("pages", __name__)
blueprint.before_request(refuse_embedding)


@blueprint.get("/")
def start() -> Response:
    if prefers_json():
        return jsonify(status=service_status(), jobs=_recent())
    given, found, failed = argument("accession_numbers"), None, None
    try:
        accessions = pasted(given) if given is not None else ()
        if accessions and request.method == "GET":
            found = look_up(accessions)
    except MkisoError as error:
        failed = error
    page = render_template("start.html", given=given, found=found, failed=failed, recent=_recent(), me=requester())
    return make_response(page, failed.http_status if failed else 200)


@blueprint.post("/jobs")
def make() -> Response:
    """Start what a form of ours asks for; where it is under way already, ask first."""
    choose_job_id()
    accessions, destination = accession_list("accession_numbers"), argument("destination")
    order = disc_order(accessions) if destination is None else Order(accessions, requester(), job_id=g.job_id)
    if destination is not None:
        installation().config.destination(destination)
    running = installation().ledger.history.running(accessions)
    if running and argument("again") is None:
        return make_response(render_template("again.html", running=running, order=order, destination=destination))
    return disc_page(order) if destination is None else relay_page(order, destination)


@blueprint.get("/jobs/<job_id>")
def job(job_id: str) -> Response:
    """The JOB, or its page, which starts the download itself where its URL says what to make and nothing does yet."""
    known_job_id(job_id)
    if prefers_json():
        try:
            followed = _followed_jobs().job(g.job_id)
        except JobNotFound:
            followed = _about_to_start()
        response = jsonify(followed.job)
        response.headers.update(followed.headers())
        return response
    found = installation().ledger.history.jobs([g.job_id])
    followed = FollowedJob(*found[g.job_id]) if found else _about_to_start()
    view = JobView(followed.job, followed.place, installation().config.destinations)
    download = None if found else download_url(followed.job, request.args)
    page = render_template("job.html", view=view, download=download, **_handed_out(followed.job))
    return make_response(page)


@blueprint.post("/jobs/<job_id>/cancel")
def cancel(job_id: str) -> Response:
    installation().ledger.request_cancel(known_job_id(job_id))
    return see_other("pages.job", job_id=g.job_id)


@blueprint.get("/logo")
def logo() -> Response:
    file = installation().config.server.logo_file
    if file is None or not file.is_file():
        raise JobNotFound("The configuration has no server.logo_file, or it is not there.", error="not found")
    return send_file(file, max_age=3600)


def _followed_jobs() -> FollowedJobs:
    return cast(FollowedJobs, current_app.extensions["mkiso"][2])


def _about_to_start() -> FollowedJob:
    """The job that the page's URL is about to start. Raises JobNotFound where it says nothing of one."""
    if argument("accession_numbers") is None:
        raise JobNotFound("The ledger has no job of that id.")
    return FollowedJob(not_started(disc_order(accession_list("accession_numbers"))), None)


def _recent() -> list[dict[str, Any]]:
    """The last hour's jobs of everybody."""
    since = ledger_time(datetime.now(UTC) - RECENT)
    return installation().ledger.list_jobs(since=since, limit=MOST_RECENT)


def _handed_out(job: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of the instances that an ended job handed out."""
    if not job["finished_at"]:
        return {"instances": [], "next": None}
    beyond = argument("beyond") or ""
    found = installation().ledger.history.instances(job["id"], beyond, MOST_INSTANCES + 1)
    more = found[MOST_INSTANCES - 1]["sop_instance_uid"] if len(found) > MOST_INSTANCES else None
    return {"instances": found[:MOST_INSTANCES], "next": more, "beyond": beyond}


@dataclass(frozen=True)
class PatientRow:
    """Whose studies were found, and the accession numbers that are this patient's alone."""

    patient_id: str
    name: str
    own: tuple[str, ...]


@dataclass(frozen=True)
class LookedUp:
    """The studies by accession number; none for a number that the archive does not know."""

    studies: Mapping[str, list[Study]]
    allow_mixed: bool = False

    @property
    def known(self) -> list[str]:
        return [number for number, studies in self.studies.items() if studies]

    @property
    def has_unknown(self) -> bool:
        return len(self.known) < len(self.studies)

    @property
    def several_patients(self) -> bool:
        return not self.allow_mixed and count_patients(self._all()) > 1

    @property
    def can_start(self) -> bool:
        return bool(self.known) and not (self.has_unknown or self.several_patients)

    def patients(self) -> list[PatientRow]:
        """In the order of the list. A number whose studies the archive gives to several is nobody's own."""
        groups = by_patient(self._all())
        owners = {one: [patient for patient, theirs in groups if self._has(one, theirs)] for one in self.known}
        return [
            PatientRow(
                patient.patient_id,
                page_name(patient.name),
                tuple(number for number, found in owners.items() if found == [patient]),
            )
            for patient, _ in groups
        ]

    def _has(self, accession: str, studies: list[Study]) -> bool:
        uids = {study.study_uid for study in studies}
        return any(study.study_uid in uids for study in self.studies[accession])

    def _all(self) -> list[Study]:
        return [study for studies in self.studies.values() for study in studies]


def pasted(text: str) -> tuple[str, ...]:
    """The accession numbers of a list as people paste it: between spaces, lines, tabs or commas."""
    return parse_list(",".join(re.findall(r"[^\s,]+", text)), installation().config.retrieve.max_accessions)


def look_up(accessions: tuple[str, ...]) -> LookedUp:
    """Ask the archive; a query counts among the jobs, and ends with the connection of who asked."""
    query_id = choose_job_id()
    with live_jobs().watching(query_id, request.environ.get("gunicorn.socket")) as cancellation:
        studies = installation().look_up(accessions, cancellation, query_id)
    return LookedUp(studies, installation().config.patients.allow_mixed)


@blueprint.get("/history")
def history() -> Response:
    given = {name: text for name in FIELDS if (text := _field(name))}
    filters, beyond = _filters(given), _mark()
    if _wants_csv():
        return _csv(filters)
    found = installation().ledger.history.page(filters, beyond, PAGE + 1)
    jobs, older = found[:PAGE], ",".join(mark_of(found[PAGE - 1])) if len(found) > PAGE else None
    if prefers_json():
        return jsonify(jobs=jobs, older=older)
    query = urlencode(given)
    page = {"jobs": jobs, "older": older, "is_first": beyond is None, "given": given, "query": query}
    return make_response(render_template("history.html", all_states=STATES, **page))


def _field(name: str) -> str:
    """What a field of the form holds, without the spaces around. Raises BadRequest."""
    text = (argument(name) or "").strip()
    if len(text) > LONGEST:
        raise BadRequest(f"{name} has {len(text)} characters, and may have {LONGEST}. Give a part of it.")
    return text


def _filters(given: dict[str, str]) -> Filters:
    """What the form's fields mean. Raises InvalidAccession, BadRequest."""
    accession, state = given.get("accession_number"), given.get("state")
    require_state(state)
    words = tuple(given.get("patient", "").split())
    if len(words) > MOST_WORDS:
        raise BadRequest(f"patient has {len(words)} words, and may have {MOST_WORDS}. Give the ones that tell most.")
    return Filters(
        accession=None if accession is None else parse_one(accession),
        patient=words,
        requester=given.get("requester"),
        state=state,
        since=_midnight("from", given.get("from"), 0),
        until=_midnight("to", given.get("to"), 1),
    )


def _midnight(name: str, text: str | None, days: int) -> str | None:
    """The first moment of a day here, or of one so many days later, as the ledger has it. Raises BadRequest."""
    if text is None:
        return None
    try:
        day = date.fromisoformat(text) + timedelta(days)
        return ledger_time(datetime.fromtimestamp(datetime.combine(day, time()).timestamp(), tz=UTC))
    except (ValueError, OverflowError, OSError):
        raise BadRequest(f"{name} is a day such as 2026-01-31.") from None


def _mark() -> Mark | None:
    """Where the page before this one ended. Raises BadRequest."""
    text = argument("before")
    if text is None:
        return None
    mark = MARK.fullmatch(text)
    if not mark:
        raise BadRequest("before is what the link to the older jobs says.")
    return Mark(mark[1], mark[2])


def _wants_csv() -> bool:
    accepted = request.accept_mimetypes
    prefers_csv = accepted["text/csv"] > max(accepted["text/html"], accepted["application/json"])
    return choice("format", ("csv", "html"), "csv" if prefers_csv else "html") == "csv"


def _csv(filters: Filters) -> Response:
    """The jobs as they are read; the first ones before there is a status to answer with."""
    jobs = installation().ledger.history.all(filters)
    first = list(itertools.islice(jobs, 1)) if request.method == "GET" else []
    lines = csv_lines(itertools.chain(first, jobs) if first else iter(()))
    response = Response(_in_chunks(lines), mimetype="text/csv")
    response.headers["Content-Disposition"] = 'attachment; filename="history.csv"'
    return response


def _in_chunks(lines: Iterator[str]) -> Iterator[bytes]:
    yield b"\xef\xbb\xbf"  # without it a spreadsheet takes UTF-8 for something else
    while some := "".join(itertools.islice(lines, LINES_AT_ONCE)):
        yield some.encode()


def csv_lines(jobs: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A line of column names, and one for each JOB."""
    yield _line(COLUMNS)
    for job in jobs:
        yield _line([_cell(job, name) for name in COLUMNS])


def _cell(job: Mapping[str, Any], name: str) -> str:
    value = job[name]
    if isinstance(value, Mapping):
        value = value["code"]
    elif isinstance(value, list):
        value = ",".join(map(str, value))
    return harmless("" if value is None else str(value))


def harmless(text: str) -> str:
    """The text with an apostrophe wherever a spreadsheet would begin to calculate."""
    return CALCULATED.sub("'", text)


def _line(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerow(cells)
    return text.getvalue()
