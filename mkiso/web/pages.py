"""The page of a job: how it goes, what it came to, what it handed out, and who collected that."""

from __future__ import annotations

import shlex
from typing import Any, cast

from flask import Blueprint, Response, current_app, g, jsonify, make_response, render_template, request, send_file

from mkiso.errors import BadRequest, JobNotFound
from mkiso.password import LONGEST, SHORTEST, suggested
from mkiso.web.answers import argument, asked_for, known_job_id, prefers_json, see_other
from mkiso.web.following import FollowedJob, FollowedJobs, JobView, download_url, not_started, stopped
from mkiso.web.guards import installation, refuse_embedding, requester
from mkiso.web.orders import FILE_COOKIE, disc_order, wants_protection
from mkiso.web.receipt import FIELDS, RELATIONS, contents_of, faults, sheet_of

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
    if not found:
        followed = _about_to_start()
        if wants_protection():
            return _ask_for_password(followed)
        return _page(followed, download=download_url(followed.job, request.args))
    return _page(FollowedJob(*found[g.job_id]))


@blueprint.post("/jobs/<job_id>/cancel")
def cancel(job_id: str) -> Response:
    installation().ledger.request_cancel(known_job_id(job_id), requester())
    return see_other("pages.job", job_id=g.job_id)


@blueprint.post("/jobs/<job_id>/collected")
def collected(job_id: str) -> Response:
    """Write down who collected what the job made; what is written down already stays beside it."""
    followed = _known_job(job_id)
    if followed.job["state"] != "done":
        raise BadRequest("This job is not done, so there is nothing of it that somebody could have collected.")
    given = {name: " ".join((argument(name) or "").split()) for name in FIELDS}
    if wrong := faults(given):
        if prefers_json():
            raise BadRequest(f"Say who collected it: {', '.join(wrong)} cannot be taken.")
        return _page(followed, 400, given=given, wrong=wrong)
    installation().ledger.collect(g.job_id, **given, requester=requester())
    return see_other("pages.job", job_id=g.job_id, _anchor="collected")


@blueprint.get("/jobs/<job_id>/sheet")
def sheet(job_id: str) -> Response:
    """What is printed for a job that is done: a cover sheet, and what goes on the outside of a disc."""
    followed = _known_job(job_id)
    if followed.job["state"] != "done":
        return see_other("pages.job", job_id=g.job_id)
    rows = installation().ledger.history.handed_out(g.job_id)
    shown = sheet_of(followed.job, rows)
    return make_response(render_template("sheet.html", view=_view(followed), contents=contents_of(rows), sheet=shown))


@blueprint.get("/logo")
def logo() -> Response:
    file = installation().config.server.logo_file
    if file is None or not file.is_file():
        raise JobNotFound("The configuration has no server.logo_file, or it is not there.", error="not found")
    return send_file(file, max_age=3600)


def _followed_jobs() -> FollowedJobs:
    return cast(FollowedJobs, current_app.extensions["mkiso"][2])


def _ask_for_password(followed: FollowedJob) -> Response:
    """The page that asks for a ZIP's password, and then follows the job; loaded again it has no word of it."""
    return make_response(
        render_template(
            "protect.html",
            view=_view(followed),
            download="about:blank",  # what loads in the frame is the form's answer
            action=download_url(followed.job, request.args),
            suggested=suggested(),
            shortest=SHORTEST,
            longest=LONGEST,
        )
    )


def _known_job(job_id: str) -> FollowedJob:
    """The job as the ledger has it now. Raises JobNotFound."""
    if not (found := installation().ledger.history.jobs([known_job_id(job_id)])):
        raise JobNotFound("The ledger has no job of that id.")
    return FollowedJob(*found[g.job_id])


def _about_to_start() -> FollowedJob:
    """The job that the page's URL is about to start. Raises JobNotFound where it says nothing of one."""
    if not any(argument(name) for name in ("accession_numbers", "study_uids", "series_uids")):
        raise JobNotFound("The ledger has no job of that id.")
    return FollowedJob(not_started(disc_order(*asked_for())), None)


def _view(followed: FollowedJob) -> JobView:
    return JobView(followed.job, followed.place, installation().config.destinations)


def _page(followed: FollowedJob, status: int = 200, **more: Any) -> Response:
    """The page of a job; `download` is the URL of the disc where the page itself is to start it."""
    view = _view(followed)
    page = render_template("job.html", view=view, **_handed_out(view), **more)
    return make_response(page, status)


def _handed_out(view: JobView) -> dict[str, Any]:
    """What the page shows of what an ended job handed out, and to whom."""
    job = view.job
    if not job["finished_at"]:
        return {}
    beyond, history = argument("beyond") or "", installation().ledger.history
    found = history.instances(job["id"], beyond, MOST_INSTANCES + 1)
    file_name = request.cookies.get(FILE_COOKIE)
    more = found[MOST_INSTANCES - 1]["sop_instance_uid"] if len(found) > MOST_INSTANCES else None
    return {
        "stopped": stopped(job),
        "again": view.again(history.asked(job["id"])),
        "instances": found[:MOST_INSTANCES],
        "next": more,
        "beyond": beyond,
        "contents": contents_of(history.handed_out(job["id"])),
        "relations": RELATIONS,
        "file_name": file_name,
        "in_a_shell": shlex.quote(file_name or f"FILE.{job['format']}"),
    }
