"""Who asks, and whether it is a request at all: tokens, the requester, and what every URL refuses."""

from __future__ import annotations

import hmac
from ipaddress import ip_address
from urllib.parse import unquote_to_bytes

from flask import current_app, g, request
from gunicorn.http.errors import ParseException

from mkiso.errors import BadRequest, Unauthorized
from mkiso.installation import Installation


def require_token() -> None:
    """Before each request: raise Unauthorized for `/api/*` without a known token, where tokens are set."""
    installation: Installation = current_app.extensions["mkiso"][0]
    tokens = installation.config.server.api_tokens
    if not tokens or not request.path.startswith("/api/"):
        return
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    matching = [
        known.name
        for known in tokens
        if hmac.compare_digest(known.token.get_secret_value().encode(), given.strip().encode())
    ]
    if scheme.lower() != "bearer" or not matching:
        raise Unauthorized("Send the header Authorization: Bearer TOKEN with a token of server.api_tokens.")
    g.user = matching[0]


def require_text() -> None:
    """Before each request: read all of it, for which the client has a limit; BadRequest where it is no UTF-8."""
    try:
        body = request.get_data()
        form = body if request.mimetype == "application/x-www-form-urlencoded" else b""
        unquote_to_bytes(request.query_string + b"&" + form).decode()
    except (UnicodeDecodeError, ParseException):
        raise BadRequest("The request's parameters are no UTF-8, or its body is not as HTTP has it.") from None


def requester() -> str:
    """`USER@ADDRESS` or `ADDRESS`; what a proxy forwards counts only from loopback or the unix socket."""
    address, user = request.remote_addr or "", g.get("user")
    if _is_our_proxy(address):
        forwarded = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
        address = _plain(forwarded) or address or "local"
        user = user or _plain(request.headers.get("X-Forwarded-User", ""))
    return f"{user}@{address}" if user else address


def _is_our_proxy(address: str) -> bool:
    return not address or ip_address(address).is_loopback


def _plain(text: str) -> str:
    return "".join(character for character in text[:128] if character.isprintable())
