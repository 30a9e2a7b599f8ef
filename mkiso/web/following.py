"""A job as its page follows it: how far it is, what it makes, and how it could be started again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from mkiso.config import Destination
from mkiso.job import Order
from mkiso.ledger.tables import PUBLIC, UNFINISHED

PHASES = {
    "iso": ("querying", "queued", "retrieving", "verifying", "mastering"),
    "relay": ("querying", "queued", "retrieving", "verifying", "sending"),
}


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
