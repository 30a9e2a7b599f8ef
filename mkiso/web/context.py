"""What every page knows: its texts, whose service it is, and how that is."""

from __future__ import annotations

import functools
import zlib
from pathlib import Path
from typing import Any

from flask import Flask, current_app, url_for

import mkiso
from mkiso.names import page_name
from mkiso.status import Status
from mkiso.web.answers import installation
from mkiso.web.following import names_at
from mkiso.web.words import FILTERS, language, said, size


def register(app: Flask) -> None:
    app.jinja_env.filters.update(FILTERS)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters["page_name"] = page_name
    app.jinja_env.filters["destination_name"] = destination_name
    app.jinja_env.globals["static_url"] = _static_url
    app.context_processor(_known_to_every_page)


def destination_name(address: str | None) -> str:
    """HOST:PORT by the name that the configuration has for it now, where it has one."""
    return next(names_at(installation().config.destinations, address), address or "")


def status_told() -> dict[str, Any]:
    """How the service is, in words; `known` is false while that is being looked at."""
    status = installation().status.known()
    return {"known": status is not None, "lines": _lines(status)}


@functools.cache
def _version_of(file: Path) -> str:
    return f"{zlib.crc32(file.read_bytes()):08x}"


def _static_url(name: str) -> str:
    """With what it holds in its URL, so that a browser may keep it, and never shows an old one."""
    return url_for("static", filename=name, v=_version_of(Path(current_app.static_folder or "", name)))


def _lines(status: Status | None) -> list[dict[str, Any]]:
    t = said()["web"]
    if status is None:
        return [{"text": t["being_checked"], "good": True}]
    return [
        {"text": t["pacs_ok" if status.pacs else "pacs_away"], "good": status.pacs},
        {"text": t["receivers_busy"].format(busy=status.busy, all=status.receivers), "good": True},
        {"text": t["queue"].format(count=status.waiting), "good": True},
        {"text": t["free_disk"].format(size=size(status.free)), "good": True},
    ]


def _known_to_every_page() -> dict[str, Any]:
    texts = said()
    return {
        "t": texts["web"],
        "states": texts["states"],
        "phases": texts["phases"],
        "errors": texts["errors"],
        "remedies": texts["remedies"],
        "language": language(),
        "config": installation().config,
        "status": status_told(),
        "version": mkiso.__version__,
    }
