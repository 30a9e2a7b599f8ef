"""PixelMed, a toolkit in Java by other hands: its archive, and its import of a disc by the DICOMDIR."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.tools import LOCALHOST, Finished, listening, run

AE_TITLE = "PIXELMED"
# The jar names those that it needs. Little memory, the compiler that starts soonest, multicast DNS on loopback alone.
_JAVA = (
    "java",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    "-Dnet.mdns.interface=127.0.0.1",
    "-classpath",
    "/usr/share/java/pixelmed.jar",
)


@contextmanager
def running_pixelmed(directory: Path, ports: tuple[int, int], destinations: Mapping[str, int]) -> Iterator[int]:
    """The archive on a DICOM port and an HTTP port, which can move to these AE titles on 127.0.0.1; its DICOM port."""
    (directory / "images").mkdir(parents=True)
    file = directory / "pixelmed.properties"
    file.write_text("".join(f"{key}={value}\n" for key, value in _properties(directory, ports, destinations).items()))
    argv = (*_JAVA, "com.pixelmed.server.DicomAndWebStorageServer", file)
    with listening(argv, ports[0], directory / "log"):
        yield ports[0]


def _properties(directory: Path, ports: tuple[int, int], destinations: Mapping[str, int]) -> dict[str, object]:
    port, http = ports
    remote = {
        f"Dicom.RemoteAEs.{title}.{key}": value
        for title, to in destinations.items()
        for key, value in (
            ("CalledAETitle", title),
            ("HostNameOrIPAddress", LOCALHOST),
            ("Port", to),
            ("QueryModel", "STUDYROOT"),
            ("PrimaryDeviceType", "WSD"),
        )
    }
    return {
        "Application.DatabaseFileName": directory / "database",
        "Application.SavedImagesFolderName": directory / "images",
        "Dicom.ListeningPort": port,
        "Dicom.CalledAETitle": AE_TITLE,
        "Dicom.CallingAETitle": AE_TITLE,
        "Dicom.PrimaryDeviceType": "ARCHIVE",
        "Dicom.RemoteAEs": " ".join(destinations),
        "WebServer.ListeningPort": http,
        "WebServer.RootURL": f"http://{LOCALHOST}:{http}/",
        "WebServer.RequestTypesHandled": "WADO",
        **remote,
    }


def import_disc(directory: Path, port: int, called: str) -> Finished:
    """Stores what a disc's DICOMDIR names, instance by instance, at an AE title on 127.0.0.1."""
    return run((*_JAVA, "com.pixelmed.network.NetworkMediaImporter", LOCALHOST, str(port), called, AE_TITLE, directory))
