"""Whether the process lives, and whether a job could end well now.

What Prometheus reads: this host's figures, all from the ledger and the host as they are at that moment.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator

from flask import Blueprint, Response, jsonify
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import mkiso
from mkiso.checks import Check
from mkiso.errors import DiskFull, LedgerUnavailable
from mkiso.installation import Installation
from mkiso.retrieve.receiver import taken
from mkiso.web.guards import installation

PATIENCE = 10.0
# What an outsider is told: neither paths nor addresses. The log and `mkiso check` tell the cause.
RUNS = ("runs", "does not run")
WORDS = {
    "storage.work_dir": ("can be written", "cannot be written"),
    "storage.min_free": ("is free", "less is free"),
    "storage.ledger": ("answers", "does not answer"),
    "media.viewer_dir": ("can be put onto discs", "is away, or in the way"),
    "server.logo_file": ("is there", "is away: the pages go without it"),
    "pacs": ("answers a C-ECHO", "does not answer a C-ECHO"),
}
TLS = ("can be used", "cannot be used")  # a receiver's files
DISPENSABLE = ("server.logo_file",)
UNKNOWN = {"name": "checks", "ok": False, "found": "none has ended yet"}
OLDEST_CHECKS = 300.0  # one scrape begins the look that the next one tells
blueprint = Blueprint("monitor", __name__)


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
    return jsonify(ready=ready, checks=[_told(check) for check in found]), 200 if ready else 503


def _told(check: Check) -> dict[str, str | bool]:
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

    def describe(self) -> Iterable[Metric]:
        """Nothing is read to be registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        for families in (_of_program, _of_jobs, _of_receivers, _of_disk, _of_checks):
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


def _of_receivers(service: Installation) -> Iterator[Metric]:
    config = service.config
    busy = taken(config.storage.work_dir, config.receivers)
    receivers = GaugeMetricFamily("mkiso_receivers", "Receivers, by whether a job has them.", labels=("state",))
    receivers.add_metric(("busy",), busy)
    receivers.add_metric(("free",), len(config.receivers) - busy)
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
