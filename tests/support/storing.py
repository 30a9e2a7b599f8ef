"""Files stored at an archive by C-STORE, as they are."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from unittest.mock import patch

from pynetdicom import AE, _config, build_context, evt

from tests.support.holdings import Instance, read
from tests.support.moves import SUCCESS, send_at_once
from tests.support.tools import LOCALHOST


def store(port: int, called: str, files: Iterable[Path]) -> list[Path]:
    """Store each file in its own transfer syntax, an association for each kind; those that the archive took."""
    kinds = defaultdict(list)
    for instance in map(read, files):
        kinds[instance.sop_class, instance.transfer_syntax].append(instance)
    # pynetdicom would encode the data sets anew.
    with patch.object(_config, "STORE_SEND_CHUNKED_DATASET", True):
        return [file for instances in kinds.values() for file in _taken(port, called, instances)]


def _taken(port: int, called: str, instances: list[Instance]) -> list[Path]:
    """Of one SOP class and transfer syntax, because some archives accept one of each association."""
    association = AE("TESTS").associate(
        LOCALHOST,
        port,
        [build_context(instances[0].sop_class, instances[0].transfer_syntax)],
        ae_title=called,
        evt_handlers=[(evt.EVT_CONN_OPEN, send_at_once)],
    )
    if not association.is_established:
        return []
    try:
        return [one.path for one in instances if association.send_c_store(one.path).get("Status") == SUCCESS]
    finally:
        association.release()
