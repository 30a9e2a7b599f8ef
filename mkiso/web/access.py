"""Who asks, and whether it is a request at all: tokens, the requester, and what every URL refuses."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote_to_bytes

from flask import current_app, request
from gunicorn.http.errors import ParseException

from mkiso.errors import BadRequest, InvalidAccession, Unauthorized
from mkiso.installation import Installation

USER = "mkiso.user"  # of a token, in the WSGI environ


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
    request.environ[USER] = matching[0]


def require_text() -> None:
    """Before each request: read all of it, for which the client has a limit; BadRequest where it is no UTF-8.

    Where that is an accession number, it is InvalidAccession.
    """
    try:
        body = request.get_data()
    except ParseException:
        raise BadRequest("The request's body is not as HTTP has it.") from None
    form = body if request.mimetype == "application/x-www-form-urlencoded" else b""
    for parameter in (request.query_string + b"&" + form).split(b"&"):
        try:
            unquote_to_bytes(parameter).decode()
        except UnicodeDecodeError:
            if parameter.startswith(b"accession_number"):
                raise InvalidAccession("An accession number consists of printable ASCII characters.") from None
            raise BadRequest("The request's parameters are no UTF-8.") from None


def requester() -> str:
    """Who sent the request that is being answered."""
    return asker(request.environ)


def asker(environ: Mapping[str, Any]) -> str:
    """`USER@ADDRESS` or `ADDRESS`; what a proxy forwards counts only from loopback or the unix socket."""
    address, user = _unmapped(environ.get("REMOTE_ADDR") or ""), environ.get(USER)
    if _is_our_proxy(address):
        forwarded = environ.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip()
        address = _plain(forwarded) or address or "local"
        user = user or _plain(environ.get("HTTP_X_FORWARDED_USER", ""))
    return f"{user}@{address}" if user else address


def _unmapped(address: str) -> str:
    """A socket that takes both families tells an IPv4 address as ::ffff:ADDRESS (RFC 4291 2.5.5.2)."""
    mapped = getattr(ip_address(address), "ipv4_mapped", None) if address else None
    return str(mapped or address)


def _is_our_proxy(address: str) -> bool:
    return not address or ip_address(address).is_loopback


def _plain(text: str) -> str:
    return "".join(character for character in text[:128] if character.isprintable())
