"""What the URLs have in common: parameters, errors as JSON or as a page, and the words of the pages.

Pages speak the language of who reads them, with times, dates and sizes as people write them.
"""

from __future__ import annotations

import functools
import logging
import re
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple, cast

from flask import Flask, Response, current_app, g, jsonify, make_response, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException

from mkiso.accession import parse_list, parse_one, parse_uids, without_surroundings
from mkiso.dicom.datasets import page_name, readable_date
from mkiso.errors import BadRequest, Busy, ConfigurationError, Internal, JobNotFound, MkisoError, Stopping, Unauthorized
from mkiso.installation import Status
from mkiso.ledger.ledger import STATES
from mkiso.ledger.record import as_mkiso_error
from mkiso.log import log_once
from mkiso.texts import Texts, texts
from mkiso.web.following import destination_at, shown_name
from mkiso.web.guards import installation, person
from mkiso.web.live import LiveJobs

log = logging.getLogger("mkiso.web")
RETRY_AFTER = 30
FRAME = "frame"
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "same-origin",
    "Vary": "Accept, Accept-Language, Cookie",
}
# What may be over, or put right, when the same is asked for once more.
MAY_WORK_AGAIN = {
    *("accession_not_found", "study_not_found", "series_not_found", "no_dicom_data", "incomplete", "busy", "stopping"),
    *("pacs_unreachable", "pacs_rejected", "pacs_timeout", "destination_unreachable", "relay_failed", "disk_full"),
    *("patient_api_unavailable", "patient_db_unavailable", "ledger_unavailable", "receiver_unavailable", "internal"),
    *("conflicting_instances", "cancelled", "not_confirmed"),
}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)
LANGUAGES = {"en": "English", "id": "Bahasa Indonesia"}  # as each calls itself
LANGUAGE = "mkiso_language"  # the cookie of who chose one
MOST_SERIES = 100  # of one request: a URL, of which servers take 8 kB, has room for them and for 20 studies
MOST_LISTED = 1000
UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


def register(app: Flask) -> None:
    """Answer every error from one place, mark every answer, and give the pages their words."""
    app.register_error_handler(MkisoError, error_answer)
    for unexpected in (Internal, ConfigurationError, Exception):
        app.register_error_handler(unexpected, _unexpected)
    app.register_error_handler(HTTPException, _http_error)
    app.after_request(_mark)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    filters = (local_time, size, duration, page_name, destination_name, destination_title)
    app.jinja_env.filters.update({one.__name__: one for one in filters}, date=readable_date, who=shown_name)
    app.jinja_env.globals["static_url"] = _static_url
    app.context_processor(_known_to_every_page)


def live_jobs() -> LiveJobs:
    return cast(LiveJobs, current_app.extensions["mkiso"][1])


def argument(name: str) -> str | None:
    """A parameter of the query, or of a POST's form. Raises BadRequest where it is given more than once."""
    values = request.values.getlist(name)
    if len(values) > 1:
        raise BadRequest(f"The parameter {name} is given {len(values)} times. Give it once.")
    return values[0] if values else None


def accession_list(name: str) -> tuple[str, ...]:
    """The accession numbers of a parameter that takes several; raises as `parse_list` does."""
    return parse_list(without_surroundings(argument(name)), installation().config.retrieve.max_accessions, name)


class Asked(NamedTuple):
    """Of what a job is to be, as a request names it: accession numbers, studies, and series of these."""

    accessions: tuple[str, ...]
    study_uids: tuple[str, ...]
    series_uids: tuple[str, ...]


def asked_for(parameter: str = "accession_numbers", several: bool = True) -> Asked:
    """What the request asks for, which may do without the accession numbers where it has UIDs.

    Raises MissingAccession where it has nothing, BadRequest, and as `parse_list` and `parse_one` do.
    """
    if all(argument(f"accession_number{end}") is not None for end in ("", "s")):
        raise BadRequest("Give accession_number or accession_numbers, not both.")
    most = {"study_uids": installation().config.retrieve.max_accessions, "series_uids": MOST_SERIES}
    uids = {name: uid_list(name, limit) for name, limit in most.items()}
    if argument(parameter) is None and any(uids.values()):
        return Asked((), **uids)
    return Asked(accession_list(parameter) if several else (parse_one(argument(parameter)),), **uids)


def uid_list(name: str, limit: int) -> tuple[str, ...]:
    """The UIDs of a parameter, none where it is not given. Raises BadRequest where it is, and has none."""
    text = argument(name)
    if text is not None and not text.strip():
        raise BadRequest(f"{name} is empty. Give UIDs with commas, or leave it out.")
    return parse_uids(text, name, limit)


def required_uids(name: str, limit: int) -> tuple[str, ...]:
    """The UIDs of a parameter that has to be there. Raises BadRequest."""
    if uids := parse_uids(argument(name), name, limit):
        return uids
    raise BadRequest(f"Give UIDs as {name}, several with commas.", error=f"missing {name}")


def choose_job_id() -> str:
    """The job id that the caller chose with `job=`, or a new one; from here on every answer carries it."""
    g.job_id = str(uuid.uuid4())
    if (text := argument("job")) is not None:
        if not UUID.fullmatch(text):
            raise BadRequest("job is a UUID, such as 123e4567-e89b-12d3-a456-426614174000.")
        g.job_id = text.lower()
    return cast(str, g.job_id)


def known_job_id(text: str) -> str:
    """The job id in a URL's path; from here on every answer carries it. Raises JobNotFound where it is none."""
    if not UUID.fullmatch(text):
        raise JobNotFound("A job's id is a UUID, and this is none.")
    g.job_id = text.lower()
    return cast(str, g.job_id)


def choice(name: str, values: tuple[str, ...], default: str) -> str:
    """A parameter that is one of a few words. Raises BadRequest."""
    value = argument(name)
    if value is not None and value not in values:
        raise BadRequest(f"{name} is {' or '.join(values)}.")
    return default if value is None else value


def require_state(state: str | None, states: Sequence[str] = STATES) -> None:
    """Raise BadRequest for what is given, and is none of the states: those of a job, where no others are given."""
    if state is not None and state not in states:
        raise BadRequest(f"state is one of {', '.join(states)}.")


def limit() -> int:
    """How many of a list are wanted. Raises BadRequest."""
    text = argument("limit") or "100"
    if not (re.fullmatch(r"[0-9]{1,9}", text) and 1 <= int(text) <= MOST_LISTED):
        raise BadRequest(f"limit is a number from 1 to {MOST_LISTED}.")
    return int(text)


def prefers_page() -> bool:
    """Whether a person's browser asks, rather than a program."""
    accepted = request.accept_mimetypes
    return accepted["text/html"] > accepted["application/json"]


def prefers_json() -> bool:
    """Whether a page's own data is asked for, rather than the page."""
    accepted = request.accept_mimetypes
    return accepted["application/json"] > accepted["text/html"]


def see_other(endpoint: str, **values: Any) -> Response:
    """Send the browser on, which then does not ask for this URL again."""
    return cast(Response, redirect(url_for(endpoint, **values), HTTPStatus.SEE_OTHER))


def error_answer(raised: MkisoError) -> Response:
    fields = raised.answer_fields(g.get("job_id"))
    page = {"fields": raised.fields, "may_work_again": MAY_WORK_AGAIN}
    body = render_template("error.html", **fields, **page) if prefers_page() else jsonify(fields)
    response = make_response(body, HTTPStatus.OK if _is_framed() else raised.http_status)
    if isinstance(raised, Busy | Stopping):
        response.headers["Retry-After"] = str(RETRY_AFTER)
    if isinstance(raised, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _is_framed() -> bool:
    """Whether a job's page loads its disc in its frame: it reads there, or in the ledger, what went wrong.

    A status of failure would stand in the browser's console for each disc that somebody cancelled. Whoever else
    asks so has it: a browser tells by its own word that it is our page's frame.
    """
    by = [request.headers.get(f"Sec-Fetch-{name}") for name in ("Dest", "Site")]
    return request.args.get("page") == FRAME and by == ["iframe", "same-origin"] and prefers_page()


def _http_error(raised: HTTPException) -> Response:
    status = raised.code or 500
    if status < 400:  # noqa: PLR2004  (a redirect)
        return cast(Response, raised.get_response())
    response = error_answer(BadRequest(raised.description or raised.name, error=raised.name.lower()))
    response.status_code = status
    response.headers.extend((name, value) for name, value in raised.get_headers() if name == "Allow")
    return response


def _unexpected(raised: Exception) -> Response:
    log_once(log, "request failed", raised, job=g.get("job_id"), path=request.path)
    return error_answer(as_mkiso_error(raised, g.get("job_id", "(none)")))


def _mark(response: Response) -> Response:
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    if response.mimetype == "text/html":
        response.headers.extend(PAGE_HEADERS)
    if job_id := g.get("job_id"):
        response.headers["X-Job-Id"] = job_id
    return response


def language() -> str:
    """The language that somebody chose here, or that the browser asks for, of those that there are."""
    chosen = request.cookies.get(LANGUAGE)
    if chosen in LANGUAGES:
        return chosen
    return request.accept_languages.best_match(LANGUAGES) or next(iter(LANGUAGES))


def page_texts() -> Texts:
    """The texts of that language."""
    return texts(language())


def local_time(text: str | None) -> str:
    """A time of the ledger, which has UTC, as a clock on the wall shows it here."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M") if text else ""


def size(count: int) -> str:
    """Bytes, with one decimal where that says something."""
    name, unit = next((one for one in UNITS if count >= one[1]), UNITS[-1])
    return f"{_decimal(count / unit)} {name}"


def duration(seconds: float) -> str:
    """As on a stop-watch."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes else f"{_decimal(seconds)} s"


def _decimal(number: float) -> str:
    text = f"{number:.1f}" if number < 10 else f"{number:.0f}"  # noqa: PLR2004
    return text.replace(".", ",") if language() == "id" else text


def destination_name(address: str | None) -> str:
    """HOST:PORT by the title or name that the configuration has for it now, where it has one."""
    name = destination_at(installation().config.destinations, address)
    return destination_title(name) if name else address or ""


def destination_title(name: str) -> str:
    """What people read for a destination: the title that the configuration has for it, else its name."""
    known = installation().config.destinations.get(name)
    return (known and known.title) or name


def service_status() -> dict[str, Any]:
    """How the service is, in words; `known` is false while that is being looked at."""
    status, t = installation().status.known(), page_texts()["web"]
    if status is None:
        return {"known": False, "lines": [{"text": t["being_checked"], "good": True}]}
    lines = [
        {"text": t["pacs_ok" if status.pacs else "pacs_away"], "good": status.pacs},
        *_receivers(t, status),
        {"text": t["queue"].format(count=status.waiting), "good": True},
        {"text": t["free_disk"].format(size=size(status.free)), "good": True},
    ]
    return {"known": True, "lines": lines}


def _receivers(t: Mapping[str, str], status: Status) -> Iterator[dict[str, Any]]:
    """A line for those that there are."""
    if status.receivers:
        yield {"text": t["receivers_busy"].format(busy=status.busy, all=status.receivers), "good": True}


def _known_to_every_page() -> dict[str, Any]:
    known = page_texts()
    return {
        "t": known["web"],
        "states": known["states"],
        "phases": known["phases"],
        "errors": known["errors"],
        "remedies": known["remedies"],
        "texts": known,
        "language": language(),
        "languages": LANGUAGES,
        "person": person(),
        "config": installation().config,
        "status": service_status(),
    }


def _static_url(name: str) -> str:
    """With what it holds in its URL, so that a browser may keep it, and never shows an old one."""
    return url_for("static", filename=name, v=_version_of(Path(current_app.static_folder or "", name)))


@functools.cache
def _version_of(file: Path) -> str:
    return f"{zlib.crc32(file.read_bytes()):08x}"
