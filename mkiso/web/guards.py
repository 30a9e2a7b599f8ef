"""What another site's page may not do: it may open a window here, or download a disc, and nothing else.

A browser says whose page asks, and for what (Fetch Metadata, `Origin`); a program says nothing, and is let through.
"""

from __future__ import annotations

from collections.abc import Collection

from flask import request

from mkiso.errors import Forbidden

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
FROM_HERE = ("same-origin", "none")
WINDOW = ("document",)
DOWNLOAD = ("document", "iframe", "frame")  # a hospital's page may have its disc in a frame that nobody sees
DETAIL = "Another site's page asked for this. Open it in a window of its own, or from mkiso's own pages."


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


def _is_own_origin() -> bool:
    origin = request.headers.get("Origin")
    return origin is None or _host(origin.rpartition("//")[2]) == _host(request.host)


def _host(name: str) -> str:
    """Without the port that its scheme has anyway, of which a proxy in front may not tell."""
    return name.lower().removesuffix(":80").removesuffix(":443")
