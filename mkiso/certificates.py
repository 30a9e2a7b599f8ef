"""The files of a TLS receiver: are they there, private, made for each other, in date?

Nothing that a file holds is told but dates, so that a key cannot show. The dates of a certificate come from a
handshake in memory, which proves at once that the key belongs to it and that a server may show it.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mkiso.config import Tls

# What nobody but the owner may do with it: reading a key is for its group too, as Debian's ssl-cert has it.
FORBIDDEN = {"key_file": 0o037, "cert_file": 0o022, "ca_file": 0o022}
NO_CHECK_TIME = 0x200000  # OpenSSL's X509_V_FLAG_NO_CHECK_TIME: the dates of what is out of date are wanted, too


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
    if unreadable := {key: why for key, file in tls if (why := _unreadable(file))}:
        return unreadable
    try:
        _trusting("ca_file", tls.ca_file)
        _trusting("cert_file", tls.cert_file)
        _showing(tls)
    except _Unusable as wrong:
        key, why = wrong.args
        return {key: why}
    return {}


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
