"""How pages say things: in the language of who reads them, with times, dates and sizes as people write them.

A job as its page follows it: how far it is, what it makes, and how it could be started again.

What every page knows: its texts, whose service it is, and how that is.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from flask import Flask, current_app, request, url_for

import mkiso
from mkiso.config import Destination
from mkiso.dicom.datasets import page_name, readable_date
from mkiso.installation import Status
from mkiso.job import Order
from mkiso.ledger.schema import PUBLIC, UNFINISHED
from mkiso.texts import Texts, texts
from mkiso.web.guards import installation

LANGUAGES = ("en", "id")
UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))
PHASES = {
    "iso": ("querying", "queued", "retrieving", "verifying", "mastering"),
    "relay": ("querying", "queued", "retrieving", "verifying", "sending"),
}


def language() -> str:
    """The language that the browser asks for, of those that there are."""
    return request.accept_languages.best_match(LANGUAGES) or LANGUAGES[0]


def said() -> Texts:
    """The texts of that language."""
    return texts(language())


def local_time(text: str | None) -> str:
    """A time of the ledger, which has UTC, as a clock on the wall shows it here."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M") if text else ""


def size(count: int) -> str:
    """Bytes, with one decimal where that says something."""
    name, unit = next((one for one in UNITS if count >= one[1]), UNITS[-1])
    return f"{_decimal(count / unit)} {name}"


def duration(seconds: float) -> str:
    """As on a stop-watch."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes else f"{_decimal(seconds)} s"


def _decimal(number: float) -> str:
    text = f"{number:.1f}" if number < 10 else f"{number:.0f}"  # noqa: PLR2004
    return text.replace(".", ",") if language() == "id" else text


FILTERS: dict[str, Any] = {"local_time": local_time, "date": readable_date, "size": size, "duration": duration}


@dataclass(frozen=True)
class Followed:
    """A JOB, and what a page says of it beside that."""

    job: Mapping[str, Any]
    place: int | None
    destinations: Mapping[str, Destination]

    @property
    def is_under_way(self) -> bool:
        return self.job["state"] in UNFINISHED

    @property
    def phases(self) -> tuple[str, ...]:
        return PHASES[self.job["kind"]]

    @property
    def phase(self) -> str:
        """The state as the page shows it: who is not looked up yet does not wait for a receiver."""
        state: str = self.job["state"]
        return "querying" if state == "queued" and self.job["patient_id"] is None else state

    @property
    def moved(self) -> int:
        """How many instances are where the phase takes them."""
        count: int = self.job["files_sent"] if self.job["state"] == "sending" else self.job["received"]
        return count

    @property
    def patient(self) -> str:
        name: str | None = self.job["patient_name"]
        return name or ""

    @property
    def seconds(self) -> float:
        return float(sum(self.job["seconds"].values()))

    def again(self) -> dict[str, str] | None:
        """The fields of a form that starts the same once more; None where its destination is configured no more."""
        fields = {"accession_numbers": ",".join(self.job["accessions"])}
        if self.job["kind"] == "iso":
            return fields | {"format": self.job["format"] or "iso", "layout": self.job["layout"] or "legacy"}
        name = next(names_at(self.destinations, self.job["destination"]), None)
        return None if name is None else fields | {"destination": name}


def names_at(destinations: Mapping[str, Destination], address: str | None) -> Iterator[str]:
    """The names of the destinations at HOST:PORT."""
    yield from (name for name, to in destinations.items() if f"{to.host}:{to.port}" == address)


def planned(order: Order) -> dict[str, Any]:
    """The JOB of a disc that is about to be started."""
    nothing = {column.name: None for column in PUBLIC}
    counts = dict.fromkeys(("received", "bytes", "files_sent", "files_failed"), 0)
    told = {"id": order.job_id, "kind": "iso", "state": "queued", "accessions": list(order.accessions)}
    of_disc = {"layout": order.layout, "format": order.format, "requester": order.requester}
    return nothing | counts | {"studies": [], "seconds": {}} | told | of_disc


def download_url(job: Mapping[str, Any], start: Mapping[str, str]) -> str:
    """The disc's own URL, with the id of the job that it is to be, for a frame of the job's page."""
    path = "/mkiso.php" if "single" in start and len(job["accessions"]) == 1 else "/mkiso_multiple.php"
    chosen = {"format": job["format"], "layout": job["layout"], "job": job["id"], "page": "frame"}
    return f"{path}?{urlencode({'accession_number': ','.join(job['accessions'])} | chosen)}"


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
