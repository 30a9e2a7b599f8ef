"""The URLs of the PHP scripts, as the hospital's pages open them."""

from __future__ import annotations

from flask import Blueprint, Response

from mkiso.accession import parse_list, parse_one
from mkiso.web.answers import argument, chosen_job_id, disc, installation, relayed

blueprint = Blueprint("legacy", __name__)


@blueprint.get("/mkiso.php")
def mkiso() -> Response:
    chosen_job_id()
    return disc((parse_one(argument("accession_number")),), single=True)


@blueprint.get("/mkiso_multiple.php")
def mkiso_multiple() -> Response:
    chosen_job_id()
    limit = installation().config.retrieve.max_accessions
    return disc(parse_list(argument("accession_number"), limit, "accession_number"))


@blueprint.route("/mkiso2.php", methods=["GET", "POST"])
def mkiso2() -> Response:
    chosen_job_id()
    return relayed((parse_one(argument("accession_number")),), "relay")


@blueprint.route("/send_rimage_multiple.php", methods=["GET", "POST"])
def send_rimage_multiple() -> Response:
    chosen_job_id()
    limit = installation().config.retrieve.max_accessions
    return relayed(parse_list(argument("accession_number"), limit, "accession_number"), "cd_publisher")
