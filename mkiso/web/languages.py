"""The language that somebody chooses for the pages, where it is not the browser's own."""

from __future__ import annotations

import re
from http import HTTPStatus

from flask import Blueprint, Response, make_response, redirect, request

from mkiso.errors import BadRequest
from mkiso.web.answers import LANGUAGE, LANGUAGES, UUID, argument
from mkiso.web.guards import ABSOLUTE

A_YEAR = 365 * 24 * 60 * 60
# Nothing else is led back to: no other site, and nothing that starts something.
PAGE = re.compile(rf"/(history|relays(/{UUID.pattern})?|jobs/{UUID.pattern}(/[a-z]+)?)?(\?[!-~]*)?", re.I)
blueprint = Blueprint("languages", __name__)


@blueprint.post("/language")
def choose() -> Response:
    """Keep the language in a cookie, and go back to the page. Raises BadRequest."""
    chosen, back = argument("language"), argument("back") or _page_before()
    if chosen not in LANGUAGES:
        raise BadRequest(f"language is {' or '.join(LANGUAGES)}.")
    if not PAGE.fullmatch(back):
        raise BadRequest("back is a page of mkiso, such as /history.")
    response = make_response(redirect(back, HTTPStatus.SEE_OTHER))
    is_secure = request.headers.get("X-Forwarded-Proto", request.scheme) == "https"
    response.set_cookie(LANGUAGE, chosen, A_YEAR, secure=is_secure, httponly=True, samesite="Lax")
    return response


def _page_before() -> str:
    """The page of ours that the browser says it comes from, which it tells pages of the same site; else the first."""
    page = ABSOLUTE.sub("", request.referrer or "", count=1)
    return page if PAGE.fullmatch(page) else "/"
