"""Files stored at an archive by C-STORE, as they are."""

from collections.abc import Iterable
from pathlib import Path
from unittest.mock import patch

from pynetdicom import AE, _config, build_context, evt

from tests.support.holdings import Instance, read
from tests.support.moves import SUCCESS, send_at_once
from tests.support.tools import LOCALHOST


def store(port: int, called: str, files: Iterable[Path]) -> list[Path]:
    """Store each file on an association of its own, in its own transfer syntax; those that the archive took."""
    # pynetdicom would encode the data sets anew.
    with patch.object(_config, "STORE_SEND_CHUNKED_DATASET", True):
        return [file for file in files if _is_taken(port, called, read(file))]


def _is_taken(port: int, called: str, instance: Instance) -> bool:
    association = AE("TESTS").associate(
        LOCALHOST,
        port,
        [build_context(instance.sop_class, instance.transfer_syntax)],
        ae_title=called,
        evt_handlers=[(evt.EVT_CONN_OPEN, send_at_once)],
    )
    try:
        return bool(association.accepted_contexts) and association.send_c_store(instance.path).get("Status") == SUCCESS
    finally:
        association.release()
