"""What another site's page may not do: it may open a window here, or download a disc, and nothing else.

A browser says whose page asks, and for what (Fetch Metadata, `Origin`); a program says nothing, and is let through.
Where another site's own name leads here (DNS rebinding), to a browser its page is ours: the Host tells.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from flask import request

from mkiso.addresses import host_name, is_loopback
from mkiso.config import Server
from mkiso.errors import BadRequest, Forbidden
from mkiso.web.answers import installation

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
FROM_HERE = ("same-origin", "none")
WINDOW = ("document",)
DOWNLOAD = ("document", "iframe", "frame")  # a hospital's page may have its disc in a frame that nobody sees
ANY_NAME = ("health.healthz", "health.readyz", "metrics.metrics", "static", "pages.logo")  # no patient, no change
AUTHORITY = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
DETAIL = "Another site's page asked for this. Open it in a window of its own, or from mkiso's own pages."


def refuse_foreign_names() -> None:
    """Before each request: raise Forbidden where it is for another site's name, BadRequest where that is none.

    What shows no patient and changes nothing is let through.
    """
    if None in _asked_names(request.environ):
        raise BadRequest("The header Host, or the URL, has no name of a host. Ask by the name that leads here.")
    if request.endpoint not in ANY_NAME and not is_for_us(request.environ, installation().config.server):
        raise Forbidden("mkiso is not known by this name. The administrator names it in server.hosts.")


def is_for_us(environ: Mapping[str, Any], server: Server) -> bool:
    """Whether a request is for a name of loopback or of `server.hosts`; whom a proxy asks at a socket, it knows."""
    known = server.bind.startswith("unix:")
    return all(name and (known or is_loopback(name) or name in server.hosts) for name in _asked_names(environ))


def refuse_foreign_posts() -> None:
    """Before each request: raise Forbidden for one that changes something and comes from another site's page."""
    if request.method in SAFE_METHODS:
        return
    if request.headers.get("Sec-Fetch-Site") not in (None, *FROM_HERE) or not _is_own_origin():
        raise Forbidden(DETAIL)


def refuse_embedding(kinds: Collection[str] = WINDOW) -> None:
    """Before what starts something: raise Forbidden where another site's page loads it other than as one of `kinds`.

    A browser's guess at what a person opens next is nobody's wish, from whatever page.
    """
    headers = request.headers
    kind, site = headers.get("Sec-Fetch-Dest"), headers.get("Sec-Fetch-Site")
    is_guess = "prefetch" in headers.get("Sec-Purpose", headers.get("Purpose", ""))
    says_nothing = kind is None and site is None
    if is_guess or not (says_nothing or kind in kinds or site in FROM_HERE):
        raise Forbidden(DETAIL)


def _asked_names(environ: Mapping[str, Any]) -> list[str | None]:
    """Whom a request is for: its Host, which a program may leave out, and its absolute URL's (RFC 9112 3.2.2).

    None stands for what is no name.
    """
    absolute = ABSOLUTE.match(environ.get("RAW_URI", ""))
    given = (environ.get("HTTP_HOST"), absolute and absolute[1])
    found = [AUTHORITY.fullmatch(one) for one in given if one is not None]
    return [host_name(one[1]) if one else None for one in found]


def _is_own_origin() -> bool:
    origin = request.headers.get("Origin")
    return origin is None or _host(origin.rpartition("//")[2]) == _host(request.headers.get("Host", ""))


def _host(name: str) -> str:
    """Without the port that its scheme has anyway, of which a proxy in front may not tell."""
    return name.lower().removesuffix(":80").removesuffix(":443")
