"""Certificate authorities and certificates of the tests' own, made by openssl when they are needed."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAST = ("20200101000000Z", "20200201000000Z")
CA = """
[ca]
default_ca = own
[own]
database = {directory}/index.txt
new_certs_dir = {directory}
serial = {directory}/serial
default_md = sha256
default_days = 30
policy = names
copy_extensions = copy
unique_subject = no
[names]
commonName = supplied
"""


@dataclass(frozen=True)
class Pair:
    """A certificate with its key, and the CA that made it."""

    key: Path
    certificate: Path
    ca: Path

    def tls(self, trusted: Path | None = None) -> dict[str, str]:
        """As `receivers[].tls` has it; it trusts its own CA, unless another is given."""
        return {"key_file": str(self.key), "cert_file": str(self.certificate), "ca_file": str(trusted or self.ca)}


class Authority:
    """A certificate authority with a directory of its own."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self.key, self.certificate = directory / "ca.key", directory / "ca.pem"
        made = ("-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", self.key, "-out", self.certificate)
        openssl("req", *made, "-days", "30", "-subj", f"/CN={directory.name}")
        (directory / "index.txt").touch()
        (directory / "serial").write_text("1000")
        self._settings = directory / "ca.conf"
        self._settings.write_text(CA.format(directory=directory))

    def pair(
        self, name: str, *, host: str = "localhost", valid: Sequence[str] = (), usage: str = "serverAuth,clientAuth"
    ) -> Pair:
        """A certificate for that host, valid from now, or between the two dates; its key is the owner's alone."""
        key, request, made = (self._directory / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        extensions = ("-addext", f"subjectAltName=DNS:{host}", "-addext", f"extendedKeyUsage={usage}")
        wanted = ("-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request)
        openssl("req", *wanted, "-subj", f"/CN={name}", *extensions)
        key.chmod(0o600)
        dates = ("-startdate", valid[0], "-enddate", valid[1]) if valid else ()
        signer = ("-batch", "-notext", "-config", self._settings, "-cert", self.certificate, "-keyfile", self.key)
        openssl("ca", *signer, "-in", request, "-out", made, *dates)
        return Pair(key, made, self.certificate)


def openssl(*words: str | Path) -> None:
    subprocess.run(("/usr/bin/openssl", *words), check=True, capture_output=True, timeout=60)
