"""The page of a job: how it goes, what it came to, and what it handed out."""

from __future__ import annotations

from typing import Any, cast

from flask import Blueprint, Response, current_app, g, jsonify, make_response, render_template, request, send_file

from mkiso.errors import JobNotFound
from mkiso.web.answers import argument, asked_for, known_job_id, prefers_json, see_other
from mkiso.web.following import FollowedJob, FollowedJobs, JobView, download_url, not_started
from mkiso.web.guards import installation, refuse_embedding, requester
from mkiso.web.orders import disc_order

MOST_INSTANCES = 100
blueprint = Blueprint("pages", __name__)
blueprint.before_request(refuse_embedding)


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
    installation().ledger.request_cancel(known_job_id(job_id), requester())
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
    if not any(argument(name) for name in ("accession_numbers", "study_uids", "series_uids")):
        raise JobNotFound("The ledger has no job of that id.")
    return FollowedJob(not_started(disc_order(*asked_for())), None)


def _handed_out(job: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of the instances that an ended job handed out."""
    if not job["finished_at"]:
        return {"instances": [], "next": None}
    beyond = argument("beyond") or ""
    found = installation().ledger.history.instances(job["id"], beyond, MOST_INSTANCES + 1)
    more = found[MOST_INSTANCES - 1]["sop_instance_uid"] if len(found) > MOST_INSTANCES else None
    return {"instances": found[:MOST_INSTANCES], "next": more, "beyond": beyond}
