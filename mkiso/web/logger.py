"""gunicorn's words as events, and a line for each request."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from gunicorn import glogging

from mkiso.web.access import asker
from mkiso.web.polls import is_poll

log = logging.getLogger("mkiso.web")


class Logger(glogging.Logger):
    def setup(self, cfg: Any) -> None:
        """gunicorn's warnings and errors go where all events go; the rest of what it says the service says itself."""
        self.cfg = cfg
        self.error_log.setLevel(logging.WARNING)
        self.error_log.propagate = True

    def access(self, resp: Any, req: Any, environ: Mapping[str, Any], request_time: timedelta) -> None:
        """A request when its answer's last byte was handed to the system, or its client had left.

        The path is as it was sent, percent-encoded; the query is left out.
        """
        if is_poll(environ) and resp.status_code == HTTPStatus.OK:  # once a second for each page
            return
        fields = {
            "method": req.method,
            "path": req.path,
            "status": resp.status_code,
            "seconds": round(request_time.total_seconds(), 3),
            "bytes": resp.sent,
            "job": dict(resp.headers).get("X-Job-Id"),
            "requester": asker(environ),
        }
        log.info("request", extra={"fields": fields})
