"""The URLs that run a job: those of the PHP scripts, as the hospital's pages open them, and the API's.

A disc is the answer once its first bytes are there; what fails behind them breaks the connection. A relay that a
browser asks for runs in a thread of its own, and the page of its job tells how it goes.

A password comes in the form of a POST, and goes no further than into its order.
"""

from __future__ import annotations

import errno
import logging
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any, cast, get_args

from flask import Blueprint, Response, current_app, g, jsonify, make_response, render_template, request, url_for
from werkzeug.exceptions import MethodNotAllowed

from mkiso.config import LayoutName
from mkiso.dicom.datasets import display_name
from mkiso.disc.product import Format
from mkiso.errors import BadRequest, Cancelled
from mkiso.job import Order, Relayed, make_disc, relay
from mkiso.log import log_once
from mkiso.process import Take
from mkiso.waiting import LEFT, Cancellation, start
from mkiso.web.answers import (
    FRAME,
    Asked,
    argument,
    asked_for,
    choice,
    choose_job_id,
    live_jobs,
    prefers_page,
    see_other,
)
from mkiso.web.guards import DOWNLOAD, WINDOW, installation, refuse_embedding, requester
from mkiso.web.live import TAKEN, Client, break_connection

URLS = (  # the path; the parameter, and whether it takes a list; where a relay goes, or None for a disc
    ("/mkiso.php", "accession_number", False, None),
    ("/mkiso_multiple.php", "accession_number", True, None),
    ("/mkiso2.php", "accession_number", False, "relay"),
    ("/send_rimage_multiple.php", "accession_number", True, "cd_publisher"),
    ("/api/iso/download", "accession_number", False, None),
    ("/api/iso/download-multiple", "accession_numbers", True, None),
    ("/api/iso/print", "accession_number", False, "cd_publisher"),
    ("/api/iso/print-multiple", "accession_numbers", True, "cd_publisher"),
)
FILE_COOKIE = "mkiso_file"  # by which the page of a job knows that this browser has its file, and the file's name
METHODS = ("GET", "POST")
PLAIN_METHODS = ("GET", "HEAD", "OPTIONS")
# All that the form of a POST may say of a disc without a password.
OF_ACCESSIONS = ("accession_number", "accession_numbers", "study_uids", "series_uids")
OF_A_DISC = frozenset((*OF_ACCESSIONS, "layout", "format", "job", "page", "protect"))
NOT_BY_POST = "A POST says in a form which disc it wants; the field password makes it a ZIP that opens with that alone."
log = logging.getLogger("mkiso.web")
blueprint = Blueprint("orders", __name__)


def disc_or_relay(parameter: str, several: bool, destination: str | None) -> Response:
    refuse_embedding(WINDOW if destination else DOWNLOAD)
    if request.method == "POST" and not destination and not _is_form_of_a_disc():
        raise MethodNotAllowed(PLAIN_METHODS, NOT_BY_POST)
    choose_job_id()
    asked = asked_for(parameter, several)
    if destination is not None:
        return relay_answer(asked, destination)
    order = disc_order(*asked, single=not several and not asked.study_uids and len(asked.accessions) == 1)
    page = choice("page", ("0", "1", FRAME), "")
    if page == "1" and prefers_page() and order.password is None:
        return disc_page(order)
    return begun(order) if not page and opens_page() else disc_answer(order)


for number, (path, *defaults) in enumerate(URLS):
    blueprint.add_url_rule(
        path,
        f"order{number}",  # an endpoint each: one of the same would be redirected to the other
        disc_or_relay,
        methods=METHODS,
        defaults=dict(zip(("parameter", "several", "destination"), defaults, strict=True)),
    )


def _is_form_of_a_disc() -> bool:
    """Whether a POST has a password, or asks in its form for a disc without one, and for nothing else.

    The name of a password misspelt, everybody could open the disc.
    """
    return argument("password") is not None or (
        bool(request.form) and not request.files and OF_A_DISC.issuperset(request.form)
    )


@blueprint.route("/api/iso/relay", methods=METHODS)
def relay_to_destination() -> Response:
    refuse_embedding()
    choose_job_id()
    destination = argument("destination")
    return relay_answer(asked_for(), "relay" if destination is None else destination)


def opens_page() -> bool:
    """Whether a person opened a `.php` URL in a window, where `server.php_page` gives people the job's page.

    A frame has the file as ever. A browser tells which it is over https alone.
    """
    is_window = request.headers.get("Sec-Fetch-Dest", WINDOW[0]) in WINDOW
    is_for_people = installation().config.server.php_page and request.path.endswith(".php")
    return is_for_people and is_window and request.method == "GET" and prefers_page()


def disc_order(
    accessions: tuple[str, ...],
    study_uids: tuple[str, ...] = (),
    series_uids: tuple[str, ...] = (),
    single: bool = False,
) -> Order:
    """A disc as the request wants it. Raises BadRequest."""
    layout = cast(LayoutName, choice("layout", get_args(LayoutName), installation().config.media.layout))
    chosen = cast(Format, choice("format", get_args(Format), "iso"))
    wanted = (accessions, requester(), layout, chosen, single, g.job_id, study_uids, series_uids)
    return Order(*wanted, password=argument("password"))


def wants_protection() -> bool:
    """Whether a disc with a password is asked for, with it or before it is known."""
    return choice("protect", ("0", "1"), "0") == "1" or argument("password") is not None


def disc_answer(order: Order) -> Response:
    """Run the job, and answer with the ISO or ZIP once its first bytes are there. HEAD moves nothing.

    The job is watched until the connection is done with the disc: its last bytes may wait for their reader.
    """
    if wants_protection() and order.password is None:
        raise BadRequest("protect=1 asks for a ZIP with a password. Send that as the field password of a form by POST.")
    if request.method == "HEAD":
        return _disc_response(iter(()), order.format, order.file_name("") if order.single else None)
    client: Client | None = request.environ.get("gunicorn.socket")
    with ExitStack() as held:
        cancellation = held.enter_context(live_jobs().watching(order.job_id, client))
        disc = make_disc(installation(), order, cancellation)
        held.callback(disc.close)
        if client is not None and client.takes_pipes:
            disc.take = _taking(client, cancellation, request.environ)
        chunks = iter(disc)
        first = next(chunks)  # what fails before it has a status of its own
        if client is not None:
            client.patience = installation().config.server.send_timeout
            cancellation.on_cancel(partial(break_connection, client))
        response = _disc_response(_streamed(first, chunks, client), order.format, disc.file_name)
        response.content_length = disc.size
        if argument("page") == FRAME:
            page = url_for("pages.job", job_id=order.job_id)
            response.set_cookie(FILE_COOKIE, disc.file_name, path=page, httponly=True, samesite="Lax")
        response.call_on_close(held.pop_all().close)
    return response


def _taking(client: Client, cancellation: Cancellation, environ: dict[str, Any]) -> Take:
    """How the client is given a disc's bytes past gunicorn, which has told it the headers and the first of them."""

    def take(pipe: int, most: int) -> int:
        try:
            taken = client.take(pipe, most)
        except OSError as error:
            cancellation.checkpoint()
            raise Cancelled(LEFT) from error
        environ[TAKEN] = environ.get(TAKEN, 0) + taken
        return taken

    return take


def _streamed(first: bytes, chunks: Iterator[bytes], client: Client | None) -> Iterator[bytes]:
    """The disc's bytes. What fails between them breaks the connection, for no status can tell it any more."""
    yield first
    try:
        for chunk in chunks:  # noqa: UP028  (`yield from` would close them when this is thrown away)
            yield chunk
    except Exception as error:  # the boundary
        if not isinstance(error, Cancelled):
            log_once(log, "a disc broke off", error)
        if client is not None:
            break_connection(client)
        raise BrokenPipeError(errno.EPIPE, "the disc broke off") from error


def _disc_response(body: Iterator[bytes], chosen: Format, file_name: str | None) -> Response:
    """File names are ASCII by their rules, so that RFC 6266's `filename*` has nothing to add."""
    response = Response(body, mimetype="application/zip" if chosen == "zip" else "application/octet-stream")
    quoted = f'; filename="{file_name}"' if file_name else ""
    response.headers["Content-Disposition"] = f"attachment{quoted}"
    return response


def disc_page(order: Order) -> Response:
    """Send the browser to the page that starts the download. What that starts stands in its URL, with the job's id."""
    if wants_protection() and order.format != "zip":
        raise BadRequest("Only a ZIP can have a password. Ask for format=zip, too, or leave protect=1 out.")
    lists = {
        "accession_numbers": order.accessions,
        "study_uids": order.study_uids,
        "series_uids": order.series_uids,
        "single": "1" if order.single else "",
        "protect": "1" if wants_protection() else "",
    }
    parameters = {name: ",".join(values) for name, values in lists.items() if values}
    return see_other("pages.job", job_id=order.job_id, format=order.format, layout=order.layout, **parameters)


def begun(order: Order, destination: str | None = None) -> Response:
    """Start what a person asks for, and send the browser to its page; where the same waits or runs already, ask first.

    A disc that was asked for twice, and has not begun, is one: both windows have its page, and the ledger lets the
    download of one of them begin.
    """
    is_first = argument("again") is None
    if is_first and destination is None and argument("job") is None:
        order = replace(order, job_id=_next_id(order))
        g.job_id = order.job_id
    ledger, asked = installation().ledger, (order.accessions, order.study_uids, order.series_uids)
    running = ledger.history.running(*asked)
    same = ledger.relays.same(destination, asked) if destination else []
    if (running or same) and is_first:
        found = {"running": [job for job in running if not (same and job["relay_id"])], "same": same}
        return make_response(render_template("again.html", **found, order=order, destination=destination))
    return disc_page(order) if destination is None else queued(order, destination)


def _next_id(order: Order) -> str:
    """The id of this order's next job, the same for whoever asks for that: of a chain the first that no job has yet."""
    uids, kind = (order.study_uids, order.series_uids), (order.format, order.layout, argument("protect"))
    wanted = repr((order.accessions, *uids, *kind, order.single))
    job_id = uuid.uuid5(uuid.NAMESPACE_OID, wanted)
    while installation().ledger.history.jobs([str(job_id)]):
        job_id = uuid.uuid5(job_id, wanted)
    return str(job_id)


def relay_answer(asked: Asked, destination: str) -> Response:
    """Run the relay to its end, also where nobody waits for it any more, and tell what arrived. HEAD moves nothing.

    A browser is sent to the job's page at once, whose reloading sends nothing again.
    """
    installation().config.destination(destination)
    accessions, studies, series = asked
    password = argument("password")  # an order that may have none refuses it
    order = Order(accessions, requester(), job_id=g.job_id, study_uids=studies, series_uids=series, password=password)
    if request.method == "HEAD":
        return jsonify()
    if wants_queue():
        return queued(order, destination)
    if prefers_page():
        return relay_page(order, destination)
    with live_jobs().watching(order.job_id) as cancellation:
        return _relay_result(order, relay(installation(), order, destination, cancellation))


def wants_queue() -> bool:
    """Whether a relay is to be tried until it has arrived, and nobody waits for it."""
    return choice("queue", ("0", "1"), "0") == "1" or installation().config.relay.queue == "always"


def queued(order: Order, destination: str) -> Response:
    """Have the relay sent in its turn; its id is the order's. A browser is sent to its page."""
    g.job_id = None  # its attempts are jobs, of ids of their own
    asked = (order.accessions, order.study_uids, order.series_uids)
    installation().queue_relay(order.job_id, destination, order.requester, asked)
    current_app.extensions["mkiso.pickup"].wake()
    if prefers_page():
        return see_other("relays.relay", relay_id=order.job_id)
    answer = jsonify(status="queued", relay_id=order.job_id)
    answer.status_code = HTTPStatus.ACCEPTED
    answer.location = url_for("relays.relay", relay_id=order.job_id)
    return answer


def _relay_result(order: Order, relayed: Relayed) -> Response:
    result: dict[str, Any] = {
        "status": "ok",
        "job_id": order.job_id,
        "accessions_sent": list(order.accessions),
        "patient_name": display_name(relayed.patient_name),
        "destination": relayed.destination,
        "files_sent": relayed.delivery.sent,
    }
    if relayed.delivery.warnings:
        result["warnings"] = relayed.delivery.warnings
    return jsonify(result)


def relay_page(order: Order, destination: str) -> Response:
    """Begin the relay in a thread, and send the browser to its page when the job is in the ledger.

    Raises what failed before that. The thread is no daemon: a stopping worker waits for it, as long as its jobs may
    take then.
    """
    service, live = installation(), live_jobs()
    begun: Future[None] = Future()
    cancellation = live.start(order.job_id)

    def run() -> None:
        try:
            try:
                relay(service, order, destination, cancellation, lambda: begun.set_result(None))
            finally:  # before anybody is told, who may ask for the same id again
                live.stop(order.job_id)
        except BaseException as error:  # the boundary: whoever watches the job reads it in the ledger
            if not begun.done():
                begun.set_exception(error)

    try:
        start(threading.Thread(target=run, name="relay"), cancellation.checkpoint)
    except BaseException:
        live.stop(order.job_id)
        raise
    begun.result()
    return see_other("pages.job", job_id=order.job_id)
