"""What every URL answers with: a disc, or an error as JSON or as a page.

A disc as an answer: its first bytes are there, and what fails behind them breaks the connection.

A relay that nobody's request waits for: the page of its job tells how it goes.
"""

from __future__ import annotations

import errno
import logging
import re
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from http import HTTPStatus
from typing import Any, cast, get_args

from flask import (
    Flask,
    Response,
    current_app,
    g,
    jsonify,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from werkzeug.exceptions import HTTPException

from mkiso.accession import parse_list
from mkiso.config import LayoutName
from mkiso.dicom.datasets import display_name
from mkiso.disc.product import Format
from mkiso.errors import (
    BadRequest,
    Busy,
    Cancelled,
    ConfigurationError,
    Internal,
    JobNotFound,
    MkisoError,
    Stopping,
    Unauthorized,
)
from mkiso.exhaustion import start
from mkiso.installation import Installation
from mkiso.job import Disc, Order, Relayed, make_disc, relay
from mkiso.ledger.record import as_mkiso_error
from mkiso.log import log_once
from mkiso.web.connection import Client, break_connection
from mkiso.web.guards import installation, requester
from mkiso.web.live import LiveJobs

log = logging.getLogger("mkiso.web")
RETRY_AFTER = 30
FRAME = "frame"
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "same-origin",
    "Vary": "Accept, Accept-Language",
}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)


class DiscStream:
    """Raises what goes wrong before there is a first byte to send; it has a status of its own.

    `ended` is called when the connection is done with the disc: later than the job, whose last
    bytes may wait for their reader.
    """

    def __init__(self, disc: Disc, client: socket.socket | None, ended: Callable[[], None]) -> None:
        self._disc, self._client, self._ended = disc, client, ended
        self._chunks = iter(disc)
        try:
            self._first = next(self._chunks)
        except BaseException:
            disc.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        yield self._first
        try:
            for chunk in self._chunks:  # noqa: UP028  (`yield from` would close them when this is thrown away)
                yield chunk
        except Exception as error:  # the boundary: no server can tell it any more
            if not isinstance(error, Cancelled):
                log_once(log, "a disc broke off", error)
            if self._client is not None:
                break_connection(self._client)
            raise BrokenPipeError(errno.EPIPE, "the disc broke off") from error

    def close(self) -> None:
        try:
            self._disc.close()
        finally:
            self._ended()


def start_relay(installation: Installation, live: LiveJobs, order: Order, destination: str) -> None:
    """Begin the relay in a thread; returns when the job is in the ledger, or raises what failed before.

    The thread is no daemon: a stopping worker waits for it, as long as its jobs may take then.
    """
    begun: Future[None] = Future()
    cancellation = live.start(order.job_id, client=None)

    def run() -> None:
        try:
            relay(installation, order, destination, cancellation, lambda: begun.set_result(None))
        except BaseException as error:  # the boundary: whoever watches the job reads it in the ledger
            if not begun.done():
                begun.set_exception(error)
        finally:
            live.stop(order.job_id)

    try:
        start(threading.Thread(target=run, name="relay"), cancellation.checkpoint)
    except BaseException:
        live.stop(order.job_id)
        raise
    begun.result()


def live_jobs() -> LiveJobs:
    return cast(LiveJobs, current_app.extensions["mkiso"][1])


def argument(name: str) -> str | None:
    """A parameter of the query, or of a POST's form; BadRequest where it is given more than once."""
    values = request.values.getlist(name)
    if len(values) > 1:
        raise BadRequest(f"The parameter {name} is given {len(values)} times. Give it once.")
    return values[0] if values else None


def accession_list(name: str) -> tuple[str, ...]:
    """The accession numbers of a parameter that takes several."""
    return parse_list(argument(name), installation().config.retrieve.max_accessions, name)


def chosen_job_id() -> str:
    """The job id that the caller chose with `job=`, or a new one; from here on every answer carries it."""
    g.job_id = str(uuid.uuid4())
    if (text := argument("job")) is not None:
        if not UUID.fullmatch(text):
            raise BadRequest("job is a UUID, such as 123e4567-e89b-12d3-a456-426614174000.")
        g.job_id = text.lower()
    return cast(str, g.job_id)


def known_job_id(text: str) -> str:
    """The job id in a URL's path; JobNotFound where it is none. From here on every answer carries it."""
    if not UUID.fullmatch(text):
        raise JobNotFound("A job's id is a UUID, and this is none.")
    g.job_id = text.lower()
    return cast(str, g.job_id)


def ordered(accessions: tuple[str, ...], single: bool = False) -> Order:
    """A disc as the request wants it; BadRequest."""
    layout = cast(LayoutName, choice("layout", get_args(LayoutName), installation().config.media.layout))
    chosen = cast(Format, choice("format", get_args(Format), "iso"))
    return Order(accessions, requester(), layout, chosen, single, g.job_id)


def disc(order: Order) -> Response:
    """Run the job, and answer with the ISO or ZIP once its first bytes are there. HEAD moves nothing."""
    if request.method == "HEAD":
        return _disc_headers(Response(iter(())), order.format, order.file_name("") if order.single else None)
    client: Client | None = request.environ.get("gunicorn.socket")
    live, config = live_jobs(), installation().config
    cancellation = live.start(order.job_id, client)
    try:
        made = make_disc(installation(), order, cancellation)
        stream = DiscStream(made, client, ended=lambda: live.stop(order.job_id))
    except BaseException:
        live.stop(order.job_id)
        raise
    if client is not None:
        client.patience = config.server.send_timeout
        cancellation.on_cancel(lambda: break_connection(client))
    response = Response(cast(Any, stream), direct_passthrough=True)
    response.content_length = made.size
    return _disc_headers(response, order.format, made.file_name)


def relayed(accessions: tuple[str, ...], destination: str) -> Response:
    """Run the relay to its end, also where nobody waits for it any more, and tell what arrived. HEAD moves nothing.

    A browser is sent to the job's page at once, whose reloading sends nothing again.
    """
    installation().config.destination(destination)
    order = Order(accessions, requester(), job_id=g.job_id)
    if request.method == "HEAD":
        return jsonify()
    if prefers_page():
        return relay_page(order, destination)
    cancellation = live_jobs().start(order.job_id, client=None)
    try:
        return _relay_answer(order, relay(installation(), order, destination, cancellation))
    finally:
        live_jobs().stop(order.job_id)


def relay_page(order: Order, destination: str) -> Response:
    """Begin the relay, and send the browser to its page."""
    start_relay(installation(), live_jobs(), order, destination)
    return see_other("pages.job", job_id=order.job_id)


def disc_page(order: Order) -> Response:
    """Send the browser to the page that starts the download. What that starts stands in its URL, with the job's id."""
    start = {"accession_numbers": ",".join(order.accessions), "format": order.format, "layout": order.layout}
    named = {"single": "1"} if order.single else {}
    return see_other("pages.job", job_id=order.job_id, **start, **named)


def see_other(endpoint: str, **values: Any) -> Response:
    return cast(Response, redirect(url_for(endpoint, **values), HTTPStatus.SEE_OTHER))


def _relay_answer(order: Order, done: Relayed) -> Response:
    told: dict[str, Any] = {
        "status": "ok",
        "job_id": order.job_id,
        "accessions_sent": list(order.accessions),
        "patient_name": display_name(done.patient_name),
        "destination": done.destination,
        "files_sent": done.delivery.sent,
    }
    if done.delivery.warnings:
        told["warnings"] = done.delivery.warnings
    return jsonify(told)


def choice(name: str, values: tuple[str, ...], default: str) -> str:
    """A parameter that is one of a few words; BadRequest."""
    value = argument(name)
    if value is not None and value not in values:
        raise BadRequest(f"{name} is {' or '.join(values)}.")
    return default if value is None else value


def _disc_headers(response: Response, chosen: Format, file_name: str | None) -> Response:
    """File names are ASCII by their rules, so that RFC 6266's `filename*` has nothing to add."""
    response.mimetype = "application/zip" if chosen == "zip" else "application/octet-stream"
    quoted = f'; filename="{file_name}"' if file_name else ""
    response.headers["Content-Disposition"] = f"attachment{quoted}"
    return response


def register(app: Flask) -> None:
    """Answer every error from one place, and mark every answer."""
    app.register_error_handler(MkisoError, error)
    for unexpected in (Internal, ConfigurationError, Exception):
        app.register_error_handler(unexpected, _unexpected)
    app.register_error_handler(HTTPException, _http_error)
    app.after_request(_mark)


def prefers_page() -> bool:
    """Whether a person's browser asks, rather than a program."""
    accepted = request.accept_mimetypes
    return accepted["text/html"] > accepted["application/json"]


def prefers_json() -> bool:
    """Whether a page's own data is asked for, rather than the page."""
    accepted = request.accept_mimetypes
    return accepted["application/json"] > accepted["text/html"]


def error(raised: MkisoError) -> Response:
    told = raised.answer(g.get("job_id"))
    body = render_template("error.html", **told, fields=raised.fields) if prefers_page() else jsonify(told)
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
    told = BadRequest(raised.description or raised.name, error=raised.name.lower())
    response = error(told)
    response.status_code = status
    response.headers.extend((name, value) for name, value in raised.get_headers() if name == "Allow")
    return response


def _unexpected(raised: Exception) -> Response:
    told = as_mkiso_error(raised, g.get("job_id", "(none)"))
    log_once(log, "request failed", raised, job=g.get("job_id"), path=request.path)
    return error(told)


def _mark(response: Response) -> Response:
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    if response.mimetype == "text/html":
        response.headers.extend(PAGE_HEADERS)
    if job_id := g.get("job_id"):
        response.headers["X-Job-Id"] = job_id
    return response
