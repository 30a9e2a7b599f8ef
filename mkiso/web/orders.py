"""The URLs that run a job: those of the PHP scripts, as the hospital's pages open them, and the API's.

A disc is the answer once its first bytes are there; what fails behind them breaks the connection. A relay that a
browser asks for runs in a thread of its own, and the page of its job tells how it goes.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from typing import Any, cast, get_args

from flask import Blueprint, Response, g, jsonify, request, url_for

from mkiso.accession import parse_one
from mkiso.config import LayoutName
from mkiso.dicom.datasets import display_name
from mkiso.disc.product import Format
from mkiso.errors import Cancelled
from mkiso.job import Order, Relayed, make_disc, relay
from mkiso.log import log_once
from mkiso.waiting import start
from mkiso.web.answers import (
    FRAME,
    accession_list,
    argument,
    choice,
    choose_job_id,
    live_jobs,
    prefers_page,
    see_other,
)
from mkiso.web.guards import DOWNLOAD, WINDOW, installation, refuse_embedding, requester
from mkiso.web.live import Client, break_connection

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
RELAYING = ("GET", "POST")
log = logging.getLogger("mkiso.web")
blueprint = Blueprint("orders", __name__)


def disc_or_relay(parameter: str, several: bool, destination: str | None) -> Response:
    refuse_embedding(WINDOW if destination else DOWNLOAD)
    choose_job_id()
    accessions = accession_list(parameter) if several else (parse_one(argument(parameter)),)
    if destination is not None:
        return relay_answer(accessions, destination)
    order, page = disc_order(accessions, single=not several), choice("page", ("0", "1", FRAME), "0")
    return disc_page(order) if page == "1" and prefers_page() else disc_answer(order)


for number, (path, *defaults) in enumerate(URLS):
    blueprint.add_url_rule(
        path,
        f"order{number}",  # an endpoint each: one of the same would be redirected to the other
        disc_or_relay,
        methods=("GET",) if defaults[-1] is None else RELAYING,
        defaults=dict(zip(("parameter", "several", "destination"), defaults, strict=True)),
    )


@blueprint.route("/api/iso/relay", methods=RELAYING)
def relay_to_destination() -> Response:
    refuse_embedding()
    choose_job_id()
    destination = argument("destination")
    return relay_answer(accession_list("accession_numbers"), "relay" if destination is None else destination)


def disc_order(accessions: tuple[str, ...], single: bool = False) -> Order:
    """A disc as the request wants it. Raises BadRequest."""
    layout = cast(LayoutName, choice("layout", get_args(LayoutName), installation().config.media.layout))
    chosen = cast(Format, choice("format", get_args(Format), "iso"))
    return Order(accessions, requester(), layout, chosen, single, g.job_id)


def disc_answer(order: Order) -> Response:
    """Run the job, and answer with the ISO or ZIP once its first bytes are there. HEAD moves nothing.

    The job is watched until the connection is done with the disc: its last bytes may wait for their reader.
    """
    if request.method == "HEAD":
        return _disc_response(iter(()), order.format, order.file_name("") if order.single else None)
    client: Client | None = request.environ.get("gunicorn.socket")
    with ExitStack() as held:
        cancellation = held.enter_context(live_jobs().watching(order.job_id, client))
        disc = make_disc(installation(), order, cancellation)
        held.callback(disc.close)
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
    parameters = {"accession_numbers": ",".join(order.accessions), "format": order.format, "layout": order.layout}
    if order.single:
        parameters["single"] = "1"
    return see_other("pages.job", job_id=order.job_id, **parameters)


def relay_answer(accessions: tuple[str, ...], destination: str) -> Response:
    """Run the relay to its end, also where nobody waits for it any more, and tell what arrived. HEAD moves nothing.

    A browser is sent to the job's page at once, whose reloading sends nothing again.
    """
    installation().config.destination(destination)
    order = Order(accessions, requester(), job_id=g.job_id)
    if request.method == "HEAD":
        return jsonify()
    if prefers_page():
        return relay_page(order, destination)
    with live_jobs().watching(order.job_id) as cancellation:
        return _relay_result(order, relay(installation(), order, destination, cancellation))


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
            relay(service, order, destination, cancellation, lambda: begun.set_result(None))
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
    return see_other("pages.job", job_id=order.job_id)
