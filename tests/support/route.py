"""The way from an archive to a destination: relays, and what the ledger says of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from mkiso import errors
from mkiso.config import parse
from mkiso.installation import Installation
from mkiso.job import Order, Relayed, relay
from mkiso.waiting import Cancellation
from tests.support.ports import free_ports
from tests.support.service import settings
from tests.support.studies import Study


class Route:
    """An installation between an archive and a destination on a port of its own."""

    def __init__(self, directory: Path, archive: int, receiver: int, studies: dict[str, Study]) -> None:
        (self.port,) = free_ports(1)
        self.studies = studies
        self.settings = settings(directory, archive, {"RECEIVER": receiver}, relay={"confirm_timeout": 2})
        self._ledger = self.settings["storage"]["ledger"]

    def send(
        self, accession: str, name: str = "relay", cancellation: Cancellation | None = None, **destination: Any
    ) -> Relayed:
        with self.installation(name, **destination) as installation:
            return relay(installation, Order((accession,), "test"), name, cancellation or Cancellation())

    @contextmanager
    def installation(self, name: str = "relay", **destination: Any) -> Iterator[Installation]:
        """With a destination of this name; `job` is its last afterwards."""
        peer = {"ae_title": "DESTINATION", "host": "127.0.0.1", "port": self.port, "timeout": 2, **destination}
        self.settings["destinations"] = {name: peer}
        installation = Installation(parse(self.settings))
        try:
            yield installation
        finally:
            self.job = installation.ledger.list_jobs(limit=1)[0]
            installation.ledger.close()

    def refusal(self, kind: type[errors.MkisoError], accession: str, **options: Any) -> errors.MkisoError:
        with pytest.raises(kind) as caught:
            self.send(accession, **options)
        assert (self.job["state"], self.job["error"]["code"]) == ("failed", kind.code)
        assert caught.value.fields["destination"] == f"127.0.0.1:{self.port}" == self.job["destination"]
        return caught.value

    def outcomes(self) -> list[str]:
        """What the ledger says became of each instance of the last job."""
        query = "SELECT outcome FROM instances WHERE job_id = :job ORDER BY outcome"
        return [outcome for (outcome,) in self.read(query, job=self.job["id"])]

    def read(self, query: str, **values: str) -> list[Any]:
        """Rows of the ledger."""
        engine = create_engine(self._ledger)
        try:
            with engine.connect() as connection:
                return [tuple(row) for row in connection.execute(text(query), values)]
        finally:
            engine.dispose()
