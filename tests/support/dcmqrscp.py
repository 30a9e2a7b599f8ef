"""The configuration of DCMTK's dcmqrscp as the test PACS, and its start."""

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.support.tools import LOCALHOST, start_listener

AE_TITLE = "ABPACS"
_CONFIGURATION = """\
NetworkTCPPort  = {port}
MaxPDUSize      = 131072
MaxAssociations = 64
HostTable BEGIN
{hosts}
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
{ae_title} {area} RW (1000, 16384mb) ANY
AETable END
"""
# dcmqrscp sends all instances of a SOP class in the one transfer syntax that was accepted for it.
_SENT = (
    r"CTImageStorage\Uncompressed",
    r"MRImageStorage\Uncompressed",
    r"UltrasoundImageStorage\Uncompressed",
    r"UltrasoundMultiframeImageStorage\Uncompressed",
    r"BasicTextSRStorage\Uncompressed",
    r"EncapsulatedPDFStorage\Uncompressed",
    r"SecondaryCaptureImageStorage\Lossless",
)
_SERVICES = (
    r"VerificationSOPClass\Uncompressed",
    r"FINDStudyRootQueryRetrieveInformationModel\Uncompressed",
    r"MOVEStudyRootQueryRetrieveInformationModel\Uncompressed",
    r"FINDPatientRootQueryRetrieveInformationModel\Uncompressed",
    r"MOVEPatientRootQueryRetrieveInformationModel\Uncompressed",
)
_PROFILES = r"""
[[TransferSyntaxes]]
[Uncompressed]
TransferSyntax1 = LittleEndianExplicit
TransferSyntax2 = LittleEndianImplicit
[Lossless]
TransferSyntax1 = JPEGLossless:Non-hierarchical-1stOrderPrediction
[[PresentationContexts]]
[Received]
{received}
[Sent]
{sent}
[[Profiles]]
[In]
PresentationContexts = Received
[Out]
PresentationContexts = Sent
"""


def _contexts(contexts: Iterable[str]) -> str:
    return "\n".join(f"PresentationContext{n} = {text}" for n, text in enumerate(contexts, start=1))


def _hosts(ae_titles: Mapping[str, int]) -> str:
    pairs = enumerate(ae_titles.items(), start=1)
    return "\n".join(f"destination{n} = ({title}, {LOCALHOST}, {port})" for n, (title, port) in pairs)


def configure(
    directory: Path, port: int, ae_titles: Mapping[str, int], *, gets: bool = False
) -> tuple[str | Path, ...]:
    """Writes the configuration and an empty storage area into `directory`; the argv that uses them.

    By profiles it sends nothing to who asks by C-GET: it has to be one of its own, as it is where none are named.
    """
    area = directory / "archive"
    area.mkdir(parents=True)
    configuration, profiles = directory / "dcmqrscp.cfg", directory / "profiles.cfg"
    configuration.write_text(_CONFIGURATION.format(port=port, hosts=_hosts(ae_titles), ae_title=AE_TITLE, area=area))
    profiles.write_text(_PROFILES.format(received=_contexts(_SERVICES + _SENT), sent=_contexts(_SENT)))
    argv = ("/usr/bin/dcmqrscp", "-v", "-c", configuration)
    return argv if gets else (*argv, "-xf", profiles, "In", "Out")


def index(directory: Path, files: Iterable[Path]) -> None:
    """Enters the files, where they are, into the storage area's index."""
    argv = ["/usr/bin/dcmqridx", str(directory / "archive"), *map(str, files)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode or done.stderr:
        raise RuntimeError(f"dcmqridx could not index the studies (status {done.returncode}): {done.stderr}")


def start(argv: Iterable[str | Path], directory: Path, port: int) -> subprocess.Popen[bytes]:
    """Starts dcmqrscp and returns once it listens; RuntimeError, with its log, where it does not."""
    return start_listener(tuple(argv), port, directory / "dcmqrscp.log")
