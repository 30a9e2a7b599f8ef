"""Whether the process lives, and whether a job could end well now."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from mkiso.checks import Check
from mkiso.web.answers import installation

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
blueprint = Blueprint("health", __name__)


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
