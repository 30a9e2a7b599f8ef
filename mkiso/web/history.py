"""What was given to whom: the history's page, its filters, and the same as CSV."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, jsonify, make_response, render_template, request

from mkiso.accession import parse_one
from mkiso.errors import BadRequest
from mkiso.ledger.history import Filters, Mark, mark_of
from mkiso.ledger.ledger import STATES
from mkiso.ledger.schema import ledger_time
from mkiso.web import following
from mkiso.web.answers import UUID, argument, choice, page_texts, prefers_json, require_state
from mkiso.web.guards import installation, refuse_embedding

PAGE = 50
FIELDS = ("accession_number", "patient", "requester", "state", "from", "to")
# What is searched costs the database time by its words.
MOST_WORDS, LONGEST = 8, 256
MARK = re.compile(rf"([0-9T:.Z-]{{10,32}}),({UUID.pattern})", re.I)
COLLECTED = {
    "collected_at": "at",
    "collected_by": "by",
    "relation": "relation",
    "given_by": "given_by",
    "collected_note": "note",
}
COLUMNS = (
    *("created_at", "finished_at", "id", "kind", "state", "error", "patient_id", "patient_name", "accessions"),
    *("studies", "requester", "destination", "layout", "format", "medium", "expected", "received", "files_sent"),
    *("files_failed", "bytes", "series", "encrypted"),
    *COLLECTED,
)
# A cell that begins with one of these is calculated, in full width too; spaces before it count for nothing, nor does
# a quote that was meant to be text. Where the list separator is a semicolon (Indonesian, German), a spreadsheet begins
# a cell behind each one in a text, and a row behind each line: quotes count for it only where a cell begins with them.
CALCULATED = re.compile(r"""^(?=[\t\r\n])|(?:^|(?<=[;|\t\r\n]))(?=(?:"|[^\S\t\r\n])*[=+\-@\uff1d\uff0b\uff0d\uff20])""")
LINES_AT_ONCE = 200
blueprint = Blueprint("history", __name__)
blueprint.before_request(refuse_embedding)


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


@blueprint.app_template_filter("stopped")
def stopped(job: Mapping[str, Any]) -> str:
    """By whom or by what a job was stopped; empty where that is not known."""
    (key, who), t = following.stopped(job), page_texts()["history"]
    return t[key].format(who=who) if key in t else ""


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
    text = given.get("patient", "")
    words = tuple(re.findall(r"[^\s^=,]+", text) or text.split())  # "DOE^JOHN" and "Doe, John", too
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
    lines = csv_lines(map(_row, itertools.chain(first, jobs) if first else iter(())))
    response = Response(_in_chunks(lines), mimetype="text/csv")
    response.headers["Content-Disposition"] = 'attachment; filename="history.csv"'
    return response


def _in_chunks(lines: Iterator[str]) -> Iterator[bytes]:
    yield b"\xef\xbb\xbf"  # without it a spreadsheet takes UTF-8 for something else
    while some := "".join(itertools.islice(lines, LINES_AT_ONCE)):
        yield some.encode()


def csv_lines(jobs: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A line of column names, and one for each row that has them."""
    yield _line(COLUMNS)
    for job in jobs:
        yield _line([_cell(job[name]) for name in COLUMNS])


def _row(job: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a JOB: the number of the series of a part, and the entry that is valid of who collected it."""
    last = job["collected"][-1] if job["collected"] else {}
    collected = {column: last.get(key) for column, key in COLLECTED.items()}
    return {**job, **collected, "series": job["series"] and len(job["series"])}


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        value = json.dumps(value)
    elif isinstance(value, Mapping):
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
