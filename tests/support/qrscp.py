"""pynetdicom's own archive, an application of that library."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.tools import LOCALHOST, listening

AE_TITLE = "QRSCP"
_CONFIGURATION = """\
[DEFAULT]
ae_title: {ae_title}
port: {port}
max_pdu: 0
acse_timeout: 30
dimse_timeout: 30
network_timeout: 30
bind_address: {address}
instance_location: {directory}/instances
database_location: {directory}/instances.sqlite
log_identifier: False
"""


@contextmanager
def running_qrscp(directory: Path, port: int, destinations: Mapping[str, int]) -> Iterator[int]:
    """The archive, which can move to these AE titles on 127.0.0.1; its port."""
    directory.mkdir()
    file = directory / "qrscp.ini"
    written = _CONFIGURATION.format(ae_title=AE_TITLE, port=port, address=LOCALHOST, directory=directory)
    file.write_text(
        written + "".join(f"[{title}]\naddress: {LOCALHOST}\nport: {to}\n" for title, to in destinations.items())
    )
    with listening((sys.executable, "-m", "pynetdicom", "qrscp", "-c", file), port, directory / "log"):
        yield port
