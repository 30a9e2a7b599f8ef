"""storescp: the receiver of a C-MOVE's sub-operations (PS3.4 B.2.2).

`--fork` keeps a connection that is held open, or a second association, from stalling the first; `+B`
writes what came bit for bit; `+xa -pm` takes every transfer syntax and private SOP classes; `+uf` gives each
file a name of its own, so that nothing that came is overwritten. With `+tls` it takes TLS 1.2 and later alone (BCP 195,
PS3.15 B.9), and only from peers with a certificate of the CA; `-pw` keeps it from asking for a passphrase.

By `storescp.cfg` its log counts the bytes of every data set. That is the proof of a transfer, and the only one: a child
that is killed leaves its file under its final name, and where the disk is full, it may answer Success and
have lost the last bytes, which it writes as it closes the file.

A TLS receiver's files are looked at here, too: are they there, private, made for each other, in date? Nothing that a
file holds is told but dates, so that a key cannot show. The dates of a certificate come from a handshake in memory,
which proves at once that the key belongs to it and that a server may show it.
"""

from __future__ import annotations

import os
import re
import ssl
from collections import Counter, defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mkiso.config import Receiver, Tls
from mkiso.dcmtk.association import LARGEST_PDU, whole_seconds

STORESCP = "storescp"
LOGGING = Path(__file__).with_name("storescp.cfg")
# What nobody but the owner may do with it: reading a key is for its group too, as Debian's ssl-cert has it.
FORBIDDEN = {"key_file": 0o037, "cert_file": 0o022, "ca_file": 0o022}
NO_CHECK_TIME = 0x200000  # OpenSSL's X509_V_FLAG_NO_CHECK_TIME: the dates of what is out of date are wanted, too
IDLE_LIMIT = 600
ASSOCIATION_LIMIT = "30"  # s from the connection to its request, as DCMTK has it: a busy archive takes some
PIECE = 1 << 20
SMALL = 1 << 10  # bytes of a fragment; a line of the log for each, and for as many as a peer likes
NO_NUMBER = (0, 0, 0)
CANNOT_WRITE = "Cannot write to file"
SPEAKER = re.compile(r" \[[0-9]+\]$", re.M)
TRANSFER = re.compile(
    rb"^(?:I: Received Store Request.*|I: Association (?P<associated>Acknowledged).*"
    rb"|E: Store SCP Failed: (?:[0-9a-f]{4}:[0-9a-f]{4} )?(?P<failed>.*)"
    rb"|T: DIMSE receiveDataSetInFile: (?P<bytes>[0-9]+) bytes read \(last: (?:(?P<last>YES)|NO)\))"
    rb" \[(?P<child>[0-9]+)\]$",
    re.M,
)
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


@dataclass(frozen=True)
class Period:
    """When a certificate may be used."""

    begin: datetime
    end: datetime

    def fault(self, now: datetime) -> str | None:
        if now > self.end:
            return f"expired on {self.end:%Y-%m-%d}"
        return f"is not valid before {self.begin:%Y-%m-%d}" if now < self.begin else None


class _Unusable(Exception):
    """A file of `receivers[].tls` cannot be used: its key, and why."""


def unusable(tls: Tls) -> dict[str, str]:
    """Which of the files no receiver can use, by the key in the configuration, and why."""
    wrong = {key: why for key, file in tls if (why := _unreadable(file))}
    if not wrong:
        try:
            _trusting("ca_file", tls.ca_file)
            _trusting("cert_file", tls.cert_file)
            _showing(tls)
        except _Unusable as error:
            key, why = error.args
            return {key: why}
    return wrong


def faults(tls: Tls) -> dict[str, str]:
    """What keeps a receiver from using the files, or its peers from taking its certificate, by the key."""
    if wrong := unusable(tls):
        return wrong
    try:
        lives = periods(tls)
    except ssl.SSLError as error:
        return {"cert_file": f"is refused by peers ({getattr(error, 'verify_message', error.reason)})"}
    now = datetime.now(UTC)
    return {key: why for key, life in lives.items() if (why := life.fault(now))}


def too_open(tls: Tls) -> dict[str, str]:
    """Which of the files others may read or write, though they should not, by the key in the configuration."""
    modes = {key: _mode(file) for key, file in tls}
    return {key: f"is open to others (mode {mode:04o})" for key, mode in modes.items() if mode & FORBIDDEN[key]}


def periods(tls: Tls) -> dict[str, Period]:
    """When the certificate, and the last of the CA's, may be used; only of files that can be used.

    Raises SSLError where a peer that trusts the certificate would refuse it all the same.
    """
    lives = {"cert_file": _period(_handshake(_trusting("cert_file", tls.cert_file), _showing(tls)))}
    if trusted := _trusting("ca_file", tls.ca_file).get_ca_certs():
        lives["ca_file"] = max(map(_period, trusted), key=lambda life: life.end)
    return lives


def _unreadable(file: Path) -> str | None:
    try:
        if not file.is_file():
            return "is no file" if file.exists() else "is missing"
        file.open("rb").close()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def _mode(file: Path) -> int:
    try:
        return file.stat().st_mode & 0o777
    except OSError:
        return 0


def _trusting(key: str, file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VerifyFlags(ssl.VERIFY_X509_PARTIAL_CHAIN | NO_CHECK_TIME)
    try:
        context.load_verify_locations(file)
    except ssl.SSLError:
        raise _Unusable(key, "holds no certificate (PEM)") from None
    return context


def _showing(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.cert_file, tls.key_file, password="")
    except ssl.SSLError as error:
        raise _Unusable("key_file", _mismatch(error)) from None
    return context


def _mismatch(error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "does not belong to the certificate of cert_file"
    if error.reason:
        return f"and cert_file cannot be used ({error.reason.replace('_', ' ').lower()})"
    return "holds no private key (PEM, without a passphrase)"


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> Mapping[str, object]:
    """The server's certificate as the client sees it."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    calling, called = client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)
    for side in (calling, called, calling):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return calling.getpeercert() or {}


def _period(certificate: Mapping[str, object]) -> Period:
    begin, end = (ssl.cert_time_to_seconds(str(certificate[name])) for name in ("notBefore", "notAfter"))
    return Period(datetime.fromtimestamp(begin, UTC), datetime.fromtimestamp(end, UTC))


def receive_argv(receiver: Receiver, dcmtk_dir: Path, directory: Path, stall_timeout: float) -> tuple[str, ...]:
    return (
        *(str(dcmtk_dir / STORESCP), "-lc", str(LOGGING), "--fork"),
        *(_tls_argv(receiver.tls) if receiver.tls else ()),
        *("-aet", receiver.ae_title, "+xa", "-pm", "+B", "-pdu", LARGEST_PDU, "+uf"),
        *("-ta", ASSOCIATION_LIMIT, "-ts", whole_seconds(max(IDLE_LIMIT, 2 * stall_timeout))),
        *("-od", str(directory), str(receiver.port)),
    )


def _tls_argv(tls: Tls) -> tuple[str, ...]:
    own, ca = (str(tls.key_file), str(tls.cert_file)), str(tls.ca_file)
    return ("+tls", *own, "-pw", "+cf", ca, "-rc", "+py")


class Transfers:
    """Which files storescp has received whole: it has counted as many bytes to a last fragment as the file holds.

    `failed` is what it wrote of the others, whose files it has removed; `associated` are its processes whose peers have
    got an association, and `small` tells of how many fragments these made next to nothing.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self.read = 0  # bytes of the log
        self._coming: Counter[int] = Counter()  # bytes of the data set that each child receives now
        self._ended: dict[int, Counter[int]] = defaultdict(Counter)  # and of those whose files are not known yet
        self._whole: dict[str, int] = {}
        self.associated: set[int] = set()
        self.small: Counter[int] = Counter()
        self.failed: list[str] = []

    def read_on(self) -> None:
        """Take in what the log has got since; whatever file is asked about has to be seen before that."""
        with self._log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(self.read)
            while self.read < end and (piece := log.read(PIECE)):
                lines = piece[: piece.rfind(b"\n") + 1]
                if not lines:
                    break
                for match in TRANSFER.finditer(lines):
                    self._take(match)
                self.read += len(lines)
                log.seek(self.read)

    def begin_anew(self) -> None:
        """Empty the log, all of which has been read; nobody may write to it meanwhile."""
        os.truncate(self._log, 0)
        self.read = 0

    def may_be_whole(self, name: str) -> bool:
        """Whether it is worth to look at a file: its child has ended a transfer of which the file is not known yet."""
        return name in self._whole or bool(self._ended.get(file_number(name)[0]))

    def is_whole(self, name: str, data_set: int) -> bool:
        """Whether this is all that came of a file with so many bytes of data set.

        A child's files are to be asked about in the order of `file_number`.
        """
        ended = self._ended.get(file_number(name)[0])
        if name not in self._whole and ended and ended[data_set]:
            ended[data_set] -= 1
            if not ended[data_set]:
                del ended[data_set]  # so that the child has ended none that is not known
            self._whole[name] = data_set
        return self._whole.get(name) == data_set

    def forget_children(self, children: Set[int]) -> None:
        """Their numbers may become others'."""
        self.associated -= children
        for child in children:
            del self.small[child]

    def forget(self, name: str) -> None:
        """A file that is gone is not asked about again."""
        self._whole.pop(name, None)

    def _take(self, match: re.Match[bytes]) -> None:
        child = int(match["child"])
        if match["associated"]:
            self.associated.add(child)
        elif match["bytes"] is None:
            self._coming[child] = 0
        else:
            self._coming[child] += int(match["bytes"])
            self.small[child] += int(match["bytes"]) < SMALL
        if match["failed"] is not None:
            self.failed.append(match["failed"].decode(errors="replace"))
        elif match["last"]:
            self._ended[child][self._coming[child]] += 1


def file_number(name: str) -> tuple[int, ...]:
    """Of a file's name (`+uf`: MODALITY.UID) the child, the second, and the child's count, which are the UID's last."""
    numbers = name.split(".")[-len(NO_NUMBER) :]
    return tuple(map(int, numbers)) if name.count(".") > 1 and all(map(str.isdecimal, numbers)) else NO_NUMBER


def without_speakers(log: str) -> str:
    """The log as `-v` writes it."""
    return SPEAKER.sub("", log)


def failed_handshakes(log: str) -> str:
    """The TLS handshakes that came to nothing, as a sentence; empty where there is none."""
    counted = Counter(HANDSHAKE.findall(log))
    whys = [f"{_meaning(error)} ({error}, {count} of them)" for error, count in counted.items()]
    return f"TLS handshakes with the receiver failed: {'; '.join(whys)}." if whys else ""


def _meaning(tls_error: str) -> str:
    return next((meaning for sign, meaning in MEANINGS.items() if sign in tls_error), "for a reason of OpenSSL's")


def out_of_space(failure: str) -> bool:
    """Whether storescp failed for want of space, of which it answers A700 (PS3.4 B.2.3)."""
    return CANNOT_WRITE in failure


def why_cut(failure: str) -> str:
    """Why storescp did not get, or keep, an instance, in plain words."""
    return "the disk was full" if out_of_space(failure) else f"the connection was cut ({failure})"
