"""What `make test` needs of Debian: a program of each package, and how it is started without doing anything."""

import subprocess
from pathlib import Path

from tests.support import firefox
from tests.support.allowance import has_room_for_a_browser
from tests.support.browser import ARGUMENTS, DEBIANS, SHELL
from tests.support.chroot import Chroot
from tests.support.tools import ROOT

POSTGRES = "exec /usr/lib/postgresql/*/bin/postgres --version"
PIXELMED = (
    "java -classpath /usr/share/java/pixelmed.jar com.pixelmed.network.NetworkMediaImporter 2>&1 | grep -q Argument"
)
# Of the wheel, with its own Node.js; the package's Python is Debian's, which has no playwright.
DRIVER = next((ROOT / ".venv").glob("lib/python3*/site-packages/playwright/driver"), Path("playwright/driver"))
PAGE = """\
require(process.argv[1] + "/package").chromium.launch(JSON.parse(process.argv[2])).then(async browser => {
    const page = await browser.newPage()
    await page.setContent("<p>shown</p>")
    console.log(await page.innerText("p"))
    await browser.close()
})"""
STARTED: dict[str, tuple[str, ...]] = {
    "chromium": (DEBIANS, "--version"),
    "chromium-headless-shell": (SHELL, "--version"),
    "curl": ("curl", "--version"),
    "default-jre-headless": ("java", "-version"),
    "dcmtk": ("dcmqrscp", "--version"),
    "dicom3tools": ("dciodvfy", "-version"),
    "firefox-esr": (firefox.DEBIANS, "--version"),
    "genisoimage": ("genisoimage", "-version"),
    "iproute2": ("ip", "-V"),
    "libarchive-tools": ("bsdtar", "--version"),
    "libatomic1": (f"{DRIVER}/node", "--version"),
    "libgdcm-tools": ("gdcmconv", "--version"),
    "libpixelmed-java": ("sh", "-c", PIXELMED),
    "mariadb-server": ("mariadbd", "--version"),
    "nftables": ("nft", "--version"),
    "nginx-light": ("nginx", "-v"),
    "npm": ("npm", "--version"),
    "openssl": ("openssl", "version"),
    "orthanc": ("Orthanc", "--version"),
    "p7zip-full": ("7z", "i"),
    "poppler-utils": ("pdftoppm", "-v"),
    "postgresql": ("sh", "-c", POSTGRES),
    "python3-venv": ("python3", "-m", "venv", "/tmp/venv"),
    "stunnel4": ("stunnel4", "-version"),
    "systemd": ("systemd-analyze", "--version"),
    "unzip": ("unzip", "-v"),
}


def packages() -> list[str]:
    """Those that the Makefile has installed before the tests run, on a host that has none of them."""
    argv = ("make", "--silent", "JAVA=", "NPM=", "--eval", "told:;@echo $(TEST_SYSTEM)", "told")
    told = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    if unknown := set(told) - STARTED.keys():
        raise RuntimeError(f"tests/support/programs.py does not say how a program of these is started: {unknown}")
    return told


def start_each(chroot: Chroot) -> None:
    """RuntimeError, with what it said, where one does not start in this chroot, whose packages are installed."""
    chroot.bind(DRIVER)
    shows_pages = has_room_for_a_browser()
    for package in packages():
        if shows_pages or package not in ("chromium", "chromium-headless-shell", "firefox-esr"):
            chroot.run(*STARTED[package])
    if not shows_pages:
        print("      Chromium and Firefox were installed and not started: this host bounds the addresses of a process")
        return
    for program in (DEBIANS, SHELL):
        launch = f'{{"executablePath": "{program}", "args": {list(ARGUMENTS)}}}'.replace("'", '"')
        told = chroot.run(f"{DRIVER}/node", "-e", PAGE, str(DRIVER), launch)
        if told != "shown\n":
            raise RuntimeError(f"a page in {program}, by playwright's driver, says: {told}")
