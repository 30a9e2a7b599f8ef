"""What programs ask for: studies, the ledger, and how the service is.

The URLs of `/api/` tell of jobs and studies; `/healthz` whether the process lives, `/readyz` whether a job could end
well now, and `/metrics`, for Prometheus, this host's figures as the ledger and the host have them at that moment.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from flask import Blueprint, Response, jsonify, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import mkiso
from mkiso.accession import parse_one, parse_uids
from mkiso.checks import RELAYS, Check, is_taking
from mkiso.errors import BadRequest, DiskFull, LedgerUnavailable
from mkiso.installation import Installation
from mkiso.ledger.relays import OPEN
from mkiso.ledger.schema import ledger_time
from mkiso.retrieve.receiver import taken
from mkiso.retrieve.search import PatientQuery
from mkiso.retrieve.studies import Study, count_patients
from mkiso.web.answers import (
    accession_list,
    argument,
    known_job_id,
    limit,
    live_jobs,
    require_state,
    required_uids,
)
from mkiso.web.guards import installation, requester

PATIENCE = 10.0
# What an outsider is told of a check: neither paths nor addresses. The log and `mkiso check` tell the cause.
RUNS = ("runs", "does not run")
WORDS = {
    "storage.work_dir": ("can be written", "cannot be written"),
    "storage.min_free": ("is free", "less is free"),
    "storage.ledger": ("answers", "does not answer"),
    "media.viewer_dir": ("can be put onto discs", "is away, or in the way"),
    "server.logo_file": ("is there", "is away: the pages go without it"),
    "pacs": ("answers a C-ECHO", "does not answer a C-ECHO"),
    RELAYS: ("go out", "some need a person, or a destination is away or held"),
}
TLS = ("can be used", "cannot be used")  # a receiver's files
DISPENSABLE = ("server.logo_file", RELAYS)
UNKNOWN = {"name": "checks", "ok": False, "found": "none has ended yet"}
OLDEST_CHECKS = 300.0  # one scrape begins the look that the next one tells
blueprint = Blueprint("api", __name__)


@blueprint.get("/api/studies")
def studies() -> Response:
    """Studies by number or UID, with the instances that the archive lists; or by patient, as it counts them itself."""
    asked = _asked()
    if request.method == "HEAD":
        return jsonify()
    query_id = str(uuid.uuid4())
    with live_jobs().watching(query_id, request.environ.get("gunicorn.socket")) as cancellation:
        if isinstance(asked, PatientQuery):
            result = installation().search(asked, cancellation, query_id)
            cut = {"cut": True} if result.is_cut else {}
            return jsonify(studies=result.public(), patients=count_patients(result.studies), **cut)
        look_up, names = asked
        found = look_up(names, cancellation, query_id)
    return jsonify(studies=[study.public() for study in found], patients=count_patients(found))


def _asked() -> PatientQuery | tuple[Callable[..., list[Study]], tuple[str, ...]]:
    """What is known of the patient, or how to look up which numbers or UIDs. Raises BadRequest."""
    service, known = installation(), {one: argument(one) for one in PatientQuery.PARAMETERS}
    study_uids = parse_uids(argument("study_uids"), "study_uids", service.config.retrieve.max_accessions)
    ways = any(known.values()), bool(study_uids), argument("accession_numbers") is not None
    if sum(ways) > 1:
        raise BadRequest("Ask by accession_numbers, by study_uids, or by what is known of the patient: by one of them.")
    if ways[0]:
        return PatientQuery.of(known)
    if study_uids:
        return service.look_up_studies, study_uids
    return service.studies, accession_list("accession_numbers")


@blueprint.get("/api/series")
def series() -> Response:
    """The series of studies, study by study."""
    study_uids = required_uids("study_uids", installation().config.retrieve.max_accessions)
    if request.method == "HEAD":
        return jsonify()
    query_id = str(uuid.uuid4())
    with live_jobs().watching(query_id, request.environ.get("gunicorn.socket")) as cancellation:
        found = installation().counted_series(study_uids, cancellation, query_id)
    return jsonify(series=[one.public() for one in found])


@blueprint.get("/api/jobs")
def jobs() -> Response:
    accession, state = argument("accession_number"), argument("state")
    accession = None if accession is None else parse_one(accession)
    require_state(state)
    found = installation().ledger.list_jobs(accession=accession, state=state, since=_since(), limit=limit())
    return jsonify(jobs=found)


@blueprint.get("/api/jobs/<job_id>")
def job(job_id: str) -> Response:
    return jsonify(installation().ledger.job(known_job_id(job_id)))


@blueprint.post("/api/jobs/<job_id>/cancel")
def cancel(job_id: str) -> Response:
    return jsonify(installation().ledger.request_cancel(known_job_id(job_id), requester()))


def _since() -> str | None:
    text = argument("since")
    if text is None:
        return None
    try:
        since = datetime.fromisoformat(text.replace(" ", "+"))  # a + in a URL arrives as a space
        return ledger_time((since if since.tzinfo else since.replace(tzinfo=UTC)).astimezone(UTC))
    except (ValueError, OverflowError):
        raise BadRequest("since is a time such as 2026-01-31T08:00:00Z (RFC 3339).") from None


@blueprint.get("/healthz")
def healthz() -> Response:
    return jsonify(status="ok")


@blueprint.get("/readyz")
def readyz() -> tuple[Response, int]:
    """Checks that are 10 s old at most; who asks while none are known waits as long."""
    found = installation().readiness.awaited(PATIENCE)
    if found is None:
        return jsonify(ready=False, checks=[UNKNOWN]), 503
    ready = all(check.ok for check in found if check.name not in DISPENSABLE)
    return jsonify(ready=ready, checks=[_public(check) for check in found]), 200 if ready else 503


def _public(check: Check) -> dict[str, str | bool]:
    good, bad = WORDS.get(check.name, TLS if check.name.startswith("receiver ") else RUNS)
    return {"name": check.name, "ok": check.ok, "found": good if check.ok else bad}


@blueprint.get("/metrics")
def metrics() -> Response:
    """What cannot be read now is left out: `mkiso_check_ok` tells why."""
    registry = CollectorRegistry()
    registry.register(Figures(installation()))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class Figures(Collector):
    def __init__(self, service: Installation) -> None:
        self._service = service

    def describe(self) -> tuple[()]:
        """Nothing is read to be registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        for families in (_of_program, _of_jobs, _of_relays, _of_receivers, _of_disk, _of_checks):
            yield from _readable(families, self._service)


def _readable(families: Callable[[Installation], Iterator[Metric]], service: Installation) -> list[Metric]:
    try:
        return list(families(service))
    except (LedgerUnavailable, DiskFull, OSError):
        return []


def _of_program(_service: Installation) -> Iterator[Metric]:
    build = GaugeMetricFamily("mkiso_build_info", "The program that runs; always 1.", labels=("version",))
    build.add_metric((mkiso.__version__,), 1)
    yield build


def _of_jobs(service: Installation) -> Iterator[Metric]:
    service.config.storage.work_dir.stat()  # without it no job is this host's: counters that are left out do not fall
    totals, running = service.ledger.totals(), service.ledger.running()
    ended = CounterMetricFamily(
        "mkiso_jobs", "Jobs that have ended, by the error's code where there was one.", labels=("kind", "state", "code")
    )
    for labels, count in sorted(totals.jobs.items()):
        ended.add_metric(labels, count)
    phases = CounterMetricFamily("mkiso_phase_seconds", "Seconds that ended jobs spent in a phase.", labels=("phase",))
    for phase, seconds in sorted(totals.seconds.items()):
        phases.add_metric((phase,), seconds)
    yield ended
    yield GaugeMetricFamily("mkiso_jobs_running", "Jobs under way, waiting ones too.", running)
    yield phases
    yield CounterMetricFamily("mkiso_instances", "Instances that ended jobs retrieved.", totals.instances)
    yield CounterMetricFamily("mkiso_handed_out_bytes", "Bytes of finished discs and relays.", totals.handed_out)


def _of_relays(service: Installation) -> Iterator[Metric]:
    """Those of all hosts that share the ledger."""
    by, moment = ("destination",), datetime.now(UTC)
    relays = GaugeMetricFamily("mkiso_relays", "Queued relays that are not over.", labels=("destination", "state"))
    oldest = GaugeMetricFamily("mkiso_relays_oldest_seconds", "Since when the oldest one waits.", labels=by)
    following = GaugeMetricFamily("mkiso_relays_next_seconds", "Until the next one is tried.", labels=by)
    is_open = GaugeMetricFamily("mkiso_relay_queue_open", "0 where a destination is paused or away.", labels=by)
    for queue in service.ledger.relays.queues(service.config.destinations):
        name = queue["destination"]
        for state in OPEN:
            relays.add_metric((name, state), queue[state])
        is_open.add_metric((name,), is_taking(queue))
        if queue["oldest"]:
            oldest.add_metric((name,), max(0, (moment - datetime.fromisoformat(queue["oldest"])).total_seconds()))
            following.add_metric((name,), max(0, (datetime.fromisoformat(queue["next_at"]) - moment).total_seconds()))
    yield from (relays, oldest, following, is_open)


def _of_receivers(service: Installation) -> Iterator[Metric]:
    config = service.config
    busy = taken(config.storage.work_dir, config.move_destinations)
    receivers = GaugeMetricFamily("mkiso_receivers", "Receivers, by whether a job has them.", labels=("state",))
    receivers.add_metric(("busy",), busy)
    receivers.add_metric(("free",), len(config.move_destinations) - busy)
    yield receivers


def _of_disk(service: Installation) -> Iterator[Metric]:
    free = shutil.disk_usage(service.config.storage.work_dir).free
    yield GaugeMetricFamily("mkiso_work_dir_free_bytes", "Free bytes of the disk of storage.work_dir.", free)


def _of_checks(service: Installation) -> Iterator[Metric]:
    checks = GaugeMetricFamily(
        "mkiso_check_ok", "Whether a check of /readyz passed when it was last made.", labels=("check",)
    )
    for check in service.readiness.known(OLDEST_CHECKS) or ():
        checks.add_metric((check.name,), check.ok)
    yield checks
