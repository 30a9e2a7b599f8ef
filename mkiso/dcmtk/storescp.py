"""storescp: the receiver of a C-MOVE's sub-operations (PS3.4 B.2.2).

`--fork` keeps a connection that is held open, or a second association, from stalling the first; `+B`
writes what came bit for bit; `+xa -pm` takes every transfer syntax and private SOP classes; `+uf` gives each
file a name of its own, so that nothing that came is overwritten. With `+tls` it takes TLS 1.2 and later alone (BCP 195,
PS3.15 B.9), and only from peers with a certificate of the CA; `-pw` keeps it from asking for a passphrase.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from mkiso.config import Receiver, Tls
from mkiso.dcmtk.association import whole_seconds

IDLE_LIMIT = 600
OUT_OF_SPACE = "Cannot write to file"
HANDSHAKE = re.compile(r"^E: Receiving Association failed: [0-9a-f:]+ TLS error: (.*\S)", re.M)
MEANINGS = {
    "wrong version number": "the peer does not speak TLS",
    "http request": "the peer does not speak DICOM",
    "peer did not return a certificate": "the peer has no certificate",
    "certificate verify failed": "the peer's certificate is out of date, or not of the CA in receivers[].tls.ca_file",
    "alert unknown ca": "the peer does not trust the CA of receivers[].tls.cert_file",
    "alert certificate expired": "the peer says that receivers[].tls.cert_file has expired",
    "alert bad certificate": "the peer does not take receivers[].tls.cert_file",
    "unsupported protocol": "the peer knows only TLS that is too old",
    "no shared cipher": "the peer knows no cipher suite that is safe",
}


def receive_argv(receiver: Receiver, dcmtk_dir: Path, directory: Path, stall_timeout: float) -> tuple[str, ...]:
    return (
        str(dcmtk_dir / "storescp"),
        "-v",
        "--fork",
        *(_tls_argv(receiver.tls) if receiver.tls else ()),
        "-aet",
        receiver.ae_title,
        "+xa",
        "-pm",
        "+B",
        "-pdu",
        "131072",
        "+uf",
        "-ta",
        "5",
        "-ts",
        whole_seconds(max(IDLE_LIMIT, 2 * stall_timeout)),
        "-od",
        str(directory),
        str(receiver.port),
    )


def _tls_argv(tls: Tls) -> tuple[str, ...]:
    own, ca = (str(tls.key_file), str(tls.cert_file)), str(tls.ca_file)
    return ("+tls", *own, "-pw", "+cf", ca, "-rc", "+py")


def failed_handshakes(log: str) -> str:
    """The TLS handshakes that came to nothing, as a sentence; empty where there is none."""
    counted = Counter(HANDSHAKE.findall(log))
    told = [f"{_meaning(said)} ({said}, {count} of them)" for said, count in counted.items()]
    return f"TLS handshakes with the receiver failed: {'; '.join(told)}." if told else ""


def _meaning(said: str) -> str:
    return next((meaning for sign, meaning in MEANINGS.items() if sign in said), "for a reason of OpenSSL's")


def ran_out_of_space(line: str) -> bool:
    """Whether it tells here that it refused an instance for want of space (A700, PS3.4 B.2.3)."""
    return OUT_OF_SPACE in line
