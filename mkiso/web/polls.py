"""The pages that follow jobs, asking again: answered from what was just read, without the rest of the application."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from mkiso.config import Server
from mkiso.ledger.glance import Glance, Seen
from mkiso.web.access import is_text
from mkiso.web.guards import is_for_us

Application = Any  # a WSGI application
PREFIX = "/jobs/"
COMMON = [
    ("Content-Type", "application/json"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Vary", "Accept"),
]


class Polls:
    """Before an application: a hundred open pages ask as often a second, for what few jobs have to tell.

    What is not known already, and whatever is no poll of a page of ours, is the application's.
    """

    def __init__(self, application: Application, glance: Glance, server: Server) -> None:
        self._application, self._glance, self._server = application, glance, server

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        query = unquote_to_bytes(environ["QUERY_STRING"])
        is_ours = is_poll(environ) and is_for_us(environ, self._server) and is_text(query)
        seen = self._glance.recent(environ["PATH_INFO"].removeprefix(PREFIX)) if is_ours else None
        if seen is None:
            return self._application(environ, start_response)  # type: ignore[no-any-return]
        body = json.dumps(seen.job, ensure_ascii=False, separators=(",", ":")).encode()
        start_response("200 OK", [*COMMON, *told_beside(seen).items(), ("Content-Length", str(len(body)))])
        return [body]


def told_beside(seen: Seen) -> dict[str, str]:
    """What the page wants to know that is not the JOB's."""
    return {"X-Job-Id": seen.job["id"], "X-Queue-Place": str(seen.place or "")}


def is_poll(environ: Mapping[str, Any]) -> bool:
    """Whether a page of ours asks how a job is."""
    return (
        environ["REQUEST_METHOD"] == "GET"
        and environ["PATH_INFO"].startswith(PREFIX)
        and environ.get("HTTP_ACCEPT") == "application/json"
        and environ.get("HTTP_SEC_FETCH_SITE", "same-origin") == "same-origin"
    )
