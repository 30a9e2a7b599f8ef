"""What every request must meet before it is answered: who asks, from where, and whether it is a request at all.

Another site's page may open a window here, or download a disc, and nothing else. A browser says whose page asks, and
for what (Fetch Metadata, `Origin`); a program says nothing, and is let through. Where another site's own name leads
here (DNS rebinding), to a browser its page is ours: the Host tells.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection, Mapping
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from flask import current_app, request

from mkiso.addresses import host_name, is_loopback
from mkiso.config import Server
from mkiso.errors import BadRequest, Forbidden, InvalidAccession, Unauthorized
from mkiso.installation import Installation

USER = "mkiso.user"  # of a token, in the WSGI environ
# What a proxy tells of who asks, and all that it may hold: it goes into the ledger, the log and the pages.
FORWARDED = {
    "HTTP_X_FORWARDED_USER": re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_ .@+-]{0,126}[A-Za-z0-9_.@+-])?"),
    "HTTP_X_FORWARDED_FOR": re.compile(r"[A-Za-z0-9_.:\[\], -]{1,512}"),
}
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")  # of a pasted list's white space none
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
FROM_HERE = ("same-origin", "none")
WINDOW = ("document",)
DOWNLOAD = ("document", "iframe", "frame")  # a hospital's page may have its disc in a frame that nobody sees
ANY_NAME = ("api.healthz", "api.readyz", "api.metrics", "static", "pages.logo")  # no patient, no change
AUTHORITY = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
DETAIL = "Another site's page asked for this. Open it in a window of its own, or from mkiso's own pages."


def installation() -> Installation:
    return cast(Installation, current_app.extensions["mkiso"][0])


def refuse_odd_forwarding() -> None:
    """Before each request: raise BadRequest where a proxy's header has what no user's name and no address has."""
    for key in FORWARDED:
        if request.environ.get(key) and not _forwarded(request.environ, key):
            name = key.removeprefix("HTTP_").replace("_", "-").title()
            raise BadRequest(f"The header {name} has other than letters of ASCII, digits and what joins them.")


def require_token() -> None:
    """Before each request: raise Unauthorized for `/api/*` without a known token, where tokens are set.

    Instead nginx may have checked a password: that it is nginx who says so is sure at our socket alone. As it asks
    for none where it sees a token, one that nobody knows is refused where none are set, too.
    """
    if not request.path.startswith("/api/"):
        return
    tokens = installation().config.server.api_tokens
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    is_bearer, at_socket = scheme.lower() == "bearer", not request.environ.get("REMOTE_ADDR")
    if not is_bearer and (not tokens or (at_socket and _forwarded(request.environ, "HTTP_X_FORWARDED_USER"))):
        return
    matching = [
        known.name
        for known in tokens
        if hmac.compare_digest(known.token.get_secret_value().encode(), given.strip().encode())
    ]
    if not (is_bearer and matching):
        raise Unauthorized("Send the header Authorization: Bearer TOKEN with a token of server.api_tokens.")
    request.environ[USER] = matching[0]


def require_text() -> None:
    """Before each request: read all of it, for which the client has a limit.

    Raises BadRequest where it is no text in UTF-8, InvalidAccession where that is an accession number.
    """
    body = request.get_data()
    form = body if request.mimetype == "application/x-www-form-urlencoded" else b""
    parameters = map(unquote_to_bytes, (request.query_string + b"&" + form).split(b"&"))
    fields = (f"{name}={value}".encode() for name, value in request.form.items(multi=True))
    for parameter in (*parameters, *fields):
        if not is_text(parameter):
            if parameter.startswith(b"accession_number"):
                raise InvalidAccession("An accession number consists of printable ASCII characters.")
            raise BadRequest("The request's parameters are no text in UTF-8.")
    if CONTROL.search(request.environ["PATH_INFO"].encode("latin-1")):
        raise BadRequest("The URL's path has control characters.")


def refuse_passwords_in_queries() -> None:
    """Before each request: raise BadRequest for a URL with a password. Browsers, proxies and their logs keep URLs."""
    if any(name.strip().lower() == "password" for name in request.args):
        raise BadRequest(
            "A password is never part of a URL, which browsers and proxies keep. Choose another one, and send it as a"
            " field of a form by POST."
        )


def is_text(text: bytes) -> bool:
    """Whether it is UTF-8, and has no NUL and no other control character but white space."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return not CONTROL.search(text)


def requester() -> str:
    """Who sent the request that is being answered."""
    return requester_in(request.environ)


def person() -> str | None:
    """The name of whoever sent it, that a password or a token stands for; None where nobody's was asked for."""
    return requester().rpartition("@")[0] or None


def requester_in(environ: Mapping[str, Any]) -> str:
    """`USER@ADDRESS` or `ADDRESS`; what a proxy forwards counts only from loopback or the unix socket."""
    address, user = host_name(environ.get("REMOTE_ADDR") or ""), environ.get(USER)
    if not address or is_loopback(address):
        forwarded = _forwarded(environ, "HTTP_X_FORWARDED_FOR").rpartition(",")[2].strip()
        address = forwarded or address or "local"
        user = user or _forwarded(environ, "HTTP_X_FORWARDED_USER")
    return f"{user}@{address}" if user else address


def _forwarded(environ: Mapping[str, Any], key: str) -> str:
    """What a proxy's header says, where it has nothing odd."""
    value: str = environ.get(key, "")
    return value if FORWARDED[key].fullmatch(value) else ""


def refuse_foreign_names() -> None:
    """Before each request: raise Forbidden where it is for another site's name, BadRequest where that is none.

    What shows no patient and changes nothing is let through.
    """
    if None in _hosts_of(request.environ):
        raise BadRequest("The header Host, or the URL, has no name of a host. Ask by the name that leads here.")
    if request.endpoint not in ANY_NAME and not is_for_us(request.environ, installation().config.server):
        raise Forbidden("mkiso is not known by this name. The administrator names it in server.hosts.")


def is_for_us(environ: Mapping[str, Any], server: Server) -> bool:
    """Whether a request is for a name of loopback or of `server.hosts`; whom a proxy asks at a socket, it knows."""
    known = server.bind.startswith("unix:")
    return all(name and (known or is_loopback(name) or name in server.hosts) for name in _hosts_of(environ))


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


def _hosts_of(environ: Mapping[str, Any]) -> list[str | None]:
    """The hosts that a request is for: of its Host, which a program may leave out, and its URL (RFC 9112 3.2.2).

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


BEFORE_EACH_REQUEST = (
    refuse_foreign_names,
    refuse_odd_forwarding,
    require_token,
    require_text,
    refuse_passwords_in_queries,
    refuse_foreign_posts,
)
