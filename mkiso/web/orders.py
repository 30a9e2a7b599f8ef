"""The URLs that run a job: those of the PHP scripts, as the hospital's pages open them, and the API's."""

from __future__ import annotations

from flask import Blueprint, Response

from mkiso.accession import parse_one
from mkiso.web.answers import (
    FRAME,
    accession_list,
    argument,
    choice,
    chosen_job_id,
    disc,
    disc_page,
    ordered,
    prefers_page,
    relayed,
)
from mkiso.web.guards import DOWNLOAD, WINDOW, refuse_embedding

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
RELAYING = ("GET", "POST")
blueprint = Blueprint("orders", __name__)


def order(parameter: str, several: bool, destination: str | None) -> Response:
    refuse_embedding(WINDOW if destination else DOWNLOAD)
    chosen_job_id()
    accessions = accession_list(parameter) if several else (parse_one(argument(parameter)),)
    if destination is not None:
        return relayed(accessions, destination)
    wanted, page = ordered(accessions, single=not several), choice("page", ("0", "1", FRAME), "0")
    return disc_page(wanted) if page == "1" and prefers_page() else disc(wanted)


for number, (path, *defaults) in enumerate(URLS):
    blueprint.add_url_rule(
        path,
        f"order{number}",  # an endpoint each: one of the same would be redirected to the other
        order,
        methods=("GET",) if defaults[-1] is None else RELAYING,
        defaults=dict(zip(("parameter", "several", "destination"), defaults, strict=True)),
    )


@blueprint.route("/api/iso/relay", methods=RELAYING)
def relay() -> Response:
    refuse_embedding()
    chosen_job_id()
    destination = argument("destination")
    return relayed(accession_list("accession_numbers"), "relay" if destination is None else destination)
