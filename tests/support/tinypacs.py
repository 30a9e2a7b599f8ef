"""tiny-pacs, an archive in Python by other hands, whose list of a study's instances has one UID again and again."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.tools import LOCALHOST, listening

AE_TITLE = "TINY_PACS"


@contextmanager
def running_tinypacs(directory: Path, port: int, destinations: Mapping[str, int]) -> Iterator[int]:
    """The archive, all in memory, which can move to these AE titles on 127.0.0.1; its port."""
    directory.mkdir()
    file = directory / "tinypacs.json"
    file.write_text(json.dumps(_configuration(port, destinations)))
    argv = (sys.executable, "-m", "tiny_pacs", "run", "--config", file)
    with listening(argv, port, directory / "log"):
        yield port


def _configuration(port: int, destinations: Mapping[str, int]) -> dict[str, object]:
    devices = {title: {"aet": title, "address": LOCALHOST, "port": to} for title, to in destinations.items()}
    return {
        "ae": {"ae_title": AE_TITLE, "port": port, "dump_ds": False},
        "components": {
            "Database": {"on": True},
            "Devices": {"on": True, "auto_add": False, "devices": devices},
            "PACS": {"on": True},
            "InMemoryStorage": {"on": True},
        },
    }
