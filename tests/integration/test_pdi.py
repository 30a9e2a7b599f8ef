"""Discs with the layout pdi as the service makes them: whole, verified, and nothing left of one that is given up."""

import re
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from playwright.sync_api import Browser
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from mkiso.config import LayoutName, parse
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from mkiso.process import OWNER
from mkiso.verify.verify import verify
from mkiso.waiting import Cancellation
from tests.integration.conftest import Site
from tests.support.archive import running_archive
from tests.support.browser import accessibility_violations, watched_page
from tests.support.dicomdirs import walked
from tests.support.ports import free_ports
from tests.support.pydicom_files import of_one_patient
from tests.support.service import Service, config, instances_of, instances_on, read_disc, running_service
from tests.support.studies import hostile_study, mixed_study, private_study
from tests.support.tools import BROKEN, HANGING, ROOT, dcmtk_with, wait_until

SINGLE = ("CT.001", "US.001", "SR.001", "PDF.001", "JPG.001", "LATIN.001", "UTF8.001", "GB.001", "IR87.001", "TWO.001")
SEVERAL = "/mkiso_multiple.php?accession_number=CT.001,MR.001"
PDI = {"layout": "pdi", "institution": "RS Test", "contact": "radiology@example.org"}


@pytest.fixture(scope="module")
def service(site_of_module: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("pdi")
    (directory / "viewer" / "docs").mkdir(parents=True)
    (directory / "viewer" / "viewer.exe").write_bytes(b"MZ\x00viewer")
    media = {**PDI, "viewer_dir": str(directory / "viewer")}
    with running_service(directory, free_ports(1)[0], site_of_module.settings(media=media)) as running:
        yield running


def failures(disc: Path) -> list[str]:
    return [f"{check.name}: {check.found}" for check in verify(disc) if not check.ok]


def fetched(service: Service, url: str, file: Path) -> Path:
    answer = service.get(url)
    assert answer.status_code == 200, answer.text
    file.write_bytes(answer.content)
    return file


@pytest.mark.parametrize("accession", SINGLE)
def test_a_disc_of_every_study_holds_its_instances_and_passes_every_check(
    accession: str, service: Service, site: Site, tmp_path: Path
) -> None:
    job = str(uuid.uuid4())
    iso = fetched(service, f"/mkiso.php?accession_number={accession}&job={job}", tmp_path / "disc.iso")
    disc = read_disc(iso, tmp_path / "disc")
    assert failures(iso) == []
    assert instances_on(disc) == instances_of(site.pacs.of(accession))
    assert disc["viewer.exe"].read_bytes() == b"MZ\x00viewer"
    assert {"README.TXT", "INDEX.HTM", "PHONE.HTM", "ihe_pdi/index.htm"} <= disc.keys()
    told = service.get(f"/api/jobs/{job}").json()
    assert (told["layout"], told["not_indexed"], told["medium"]) == ("pdi", 0, "CD")


def test_a_structured_report_is_on_the_disc_and_on_a_page_of_it(service: Service, site: Site, tmp_path: Path) -> None:
    disc = read_disc(fetched(service, "/mkiso.php?accession_number=SR.001", tmp_path / "disc.iso"), tmp_path / "disc")
    assert instances_on(disc) == instances_of(site.pacs.of("SR.001"))
    pages = [file.read_text() for path, file in disc.items() if path.startswith("ihe_pdi/")]
    assert "A synthetic finding." in "".join(pages)
    assert "A synthetic finding." in disc["PHONE.HTM"].read_text()


def test_a_zip_has_the_same_tree_and_passes_every_check(service: Service, tmp_path: Path) -> None:
    archive = fetched(service, f"{SEVERAL}&format=zip", tmp_path / "disc.zip")
    assert failures(archive) == []
    unpacked = read_disc(archive, tmp_path / "unpacked")
    assert failures(tmp_path / "unpacked") == []
    assert unpacked.keys() == read_disc(fetched(service, SEVERAL, tmp_path / "disc.iso"), tmp_path / "disc").keys()


def test_a_viewer_reads_the_disc_forward(service: Service, tmp_path: Path) -> None:
    iso = fetched(service, SEVERAL, tmp_path / "disc.iso")
    listed = subprocess.run(("/usr/bin/isoinfo", "-l", "-i", iso), capture_output=True, text=True, check=True).stdout
    extents = {}
    for folder, entries in re.findall(r"Directory listing of (\S+)\n(.*?)(?:\n\n|\Z)", listed, re.DOTALL):
        for extent, name in re.findall(r"^-.*\[\s*(\d+) \d+\]\s+(\S+?)\.?;1", entries, re.MULTILINE):
            extents[f"{folder}{name}".strip("/")] = int(extent)
    files = [line[-1] for line in walked(read_disc(iso, tmp_path / "disc")["DICOMDIR"])]
    assert [extents[file] for file in files] == sorted(extents[file] for file in files)


@dataclass(frozen=True)
class Made:
    iso: Path
    disc: dict[str, Path]
    job: dict[str, Any]


def made_from(studies: Path, accession: str, directory: Path, **media: Any) -> Made:
    """A disc of what an archive holds in a directory."""
    port, receiver = free_ports(2)
    settings = config(directory, port, {"RECEIVER": receiver}, media={**PDI, **media})
    with running_archive(port, {"RECEIVER": receiver}, studies):
        installation = Installation(settings)
        order = Order((accession,), "test", "pdi")
        iso = directory / "disc.iso"
        iso.write_bytes(b"".join(make_disc(installation, order, Cancellation())))
        job = installation.ledger.job(order.job_id)
        installation.ledger.close()
    return Made(iso, read_disc(iso, directory / "disc"), job)


def test_what_a_dicomdir_cannot_name_is_on_the_disc_and_named(tmp_path: Path) -> None:
    study = mixed_study(tmp_path / "held")
    made = made_from(tmp_path / "held", "MIXED.001", tmp_path, volume_id="Müller's")
    aside = [path for path in made.disc if path.startswith("OTHER/")]
    assert instances_on(made.disc) == instances_of([study])
    assert failures(made.iso) == []
    assert made.job["not_indexed"] == len(aside) == 1
    readme = made.disc["README.TXT"].read_bytes().decode("ascii")
    assert f"  {aside[0]}  " in readme
    assert "File-set ID: M_LLER_S\r\n" in readme


def test_a_disc_of_nothing_that_a_dicomdir_can_name_holds_it_all_the_same(tmp_path: Path) -> None:
    study = private_study(tmp_path / "held")
    made = made_from(tmp_path / "held", study.accession, tmp_path)
    assert failures(made.iso) == []
    assert instances_on(made.disc) == instances_of([study])
    assert made.job["not_indexed"] == len(study.files)


@pytest.mark.parametrize("layout", ["pdi", "legacy"])
def test_a_disc_for_old_readers_holds_the_same_instances_decompressed(
    layout: LayoutName, site: Site, tmp_path: Path
) -> None:
    installation = Installation(parse(site.settings(media={**PDI, "layout": layout, "uncompressed": True})))
    order, iso = Order(("JPG.001",), "test", layout), tmp_path / "disc.iso"
    iso.write_bytes(b"".join(make_disc(installation, order, Cancellation())))
    installation.ledger.close()
    (study,) = site.pacs.of("JPG.001")
    disc = read_disc(iso, tmp_path / "disc")
    files = [file for path, file in disc.items() if path.startswith(("IMAGES/", "DICOMDIR/"))]
    assert {dcmread(file).SOPInstanceUID for file in files} == study.sop_instance_uids
    for file in files:
        plain = dcmread(file)
        assert plain.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert len(plain.PixelData) == plain.Rows * plain.Columns * plain.BitsAllocated // 8
    if layout == "pdi":
        assert failures(iso) == []
        told = disc["README.TXT"].read_text()
        assert "DICOM profile: STD-GEN-CD\n" in told
        assert f"decompressed for older programs: {len(files)}." in told


def test_the_hospital_s_logo_is_on_the_disc(site: Site, browser: Browser, tmp_path: Path) -> None:
    logo = ROOT / "tests" / "fixtures" / "logo.png"
    installation = Installation(parse(site.settings(media=PDI, server={"logo_file": str(logo)})))
    iso = tmp_path / "disc.iso"
    iso.write_bytes(b"".join(make_disc(installation, Order(("US.001",), "test", "pdi"), Cancellation())))
    installation.ledger.close()
    disc = read_disc(iso, tmp_path / "disc")
    assert failures(iso) == []
    assert disc["ihe_pdi/logo.png"].read_bytes() == logo.read_bytes()
    with watched_page(browser) as watched:
        watched.open(disc["INDEX.HTM"])
        assert watched.page.locator("header img").count() == 1
        assert (watched.faults, watched.pictures_not_loaded()) == ([], [])


@pytest.mark.filterwarnings("ignore")
def test_a_disc_of_pydicoms_own_files_holds_each_and_passes_every_check(tmp_path: Path) -> None:
    files = of_one_patient(tmp_path / "held", "PYDICOM.1")
    assert len(files) > 120
    made = made_from(tmp_path / "held", "PYDICOM.1", tmp_path)
    assert failures(made.iso) == []
    assert instances_on(made.disc).keys() == {file.stem for file in files}
    assert made.job["not_indexed"] == sum(path.startswith("OTHER/") for path in made.disc)


@pytest.mark.filterwarnings("ignore")
def test_hostile_texts_are_texts_in_a_browser(browser: Browser, tmp_path: Path) -> None:
    study = hostile_study(tmp_path / "held")
    made = made_from(tmp_path / "held", study.accession, tmp_path)
    assert failures(made.iso) == []
    pages = [file for path, file in made.disc.items() if path.lower().endswith(".htm")]
    assert len(pages) == 6  # two overviews, one for phones, two series, a report
    for file in pages:
        with watched_page(browser) as watched:
            watched.open(file)
            assert "<script>alert(2)</script>" in watched.page.inner_text("body")
            assert (watched.faults, watched.pictures_not_loaded()) == ([], [])
        assert accessibility_violations(browser, [file])[file.name] == []


def test_no_picture_costs_a_disc(site: Site, tmp_path: Path) -> None:
    tools = dcmtk_with(tmp_path / "tools", "dcmj2pnm", BROKEN)
    installation = Installation(parse(site.settings(media=PDI, tools=tools)))
    iso = tmp_path / "disc.iso"
    iso.write_bytes(b"".join(make_disc(installation, Order(("CT.001",), "test", "pdi"), Cancellation())))
    installation.ledger.close()
    disc = read_disc(iso, tmp_path / "disc")
    assert failures(iso) == []
    assert instances_on(disc) == instances_of(site.pacs.of("CT.001"))
    assert not [path for path in disc if path.endswith(".jpg")]


@dataclass
class Hanging:
    """A service whose pictures never come, and a request for a disc that waits for them."""

    service: Service
    directory: Path
    job_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def ask(self) -> threading.Thread:
        thread = threading.Thread(target=self._ask)
        thread.start()
        wait_until(lambda: len(self.children()) == 2, 20, lambda: f"{self.children()}")
        return thread

    def _ask(self) -> None:
        with suppress(requests.RequestException):
            self.answer = self.service.get(f"/mkiso.php?accession_number=CT.001&job={self.job_id}")

    def children(self) -> list[str]:
        """The programs that work for a job of this service, by their command lines."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(OWNER, "").startswith(str(self.directory / "work")):
                    found.append(" ".join(process.cmdline()))
        return found

    def assert_nothing_is_left(self) -> None:
        def left() -> list[str]:
            return [*self.children(), *map(str, (self.directory / "work").glob("dicomdir_*"))]

        wait_until(lambda: not left(), 10, lambda: f"left: {left()}")


@pytest.fixture
def hanging(site: Site, tmp_path: Path) -> Iterator[Hanging]:
    tools = dcmtk_with(tmp_path / "tools", "dcmj2pnm", HANGING)
    with running_service(tmp_path, free_ports(1)[0], site.settings(media=PDI, tools=tools)) as service:
        yield Hanging(service, tmp_path)


def test_a_cancel_while_pictures_are_made_leaves_nothing_behind(hanging: Hanging) -> None:
    thread = hanging.ask()
    assert requests.post(f"{hanging.service.url}/api/jobs/{hanging.job_id}/cancel", timeout=10).ok
    thread.join()
    assert (hanging.answer.status_code, hanging.answer.json()["code"]) == (410, "cancelled")
    hanging.assert_nothing_is_left()


def test_a_client_that_leaves_while_pictures_are_made_leaves_nothing_behind(hanging: Hanging) -> None:
    url = f"{hanging.service.url}/mkiso.php?accession_number=CT.001&job={hanging.job_id}"
    with subprocess.Popen(("/usr/bin/curl", "-s", url), stdout=subprocess.DEVNULL) as client:
        wait_until(lambda: len(hanging.children()) == 2, 20, lambda: f"{hanging.children()}")
        client.kill()
    hanging.assert_nothing_is_left()


def test_what_a_killed_worker_left_while_pictures_were_made_is_cleared_away(hanging: Hanging) -> None:
    thread = hanging.ask()
    for worker in hanging.service.workers():
        worker.send_signal(signal.SIGKILL)
    thread.join()
    hanging.assert_nothing_is_left()
