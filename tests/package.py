"""`make test-package`: the Debian package's life in a bare chroot, from apt-get install to purge; then what tests need.

Debian and the dependencies come from the mirror of this host; from then on the chroot has no network but loopback.
Mounts, processes and the network are of namespaces that end with this program, whatever becomes of it.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.support.chroot import Chroot, in_namespaces, leave_the_network
from tests.support.pages import block
from tests.support.programs import packages, start_each
from tests.support.service import instances_of, instances_on, read_disc
from tests.support.testpacs import RunningPacs, running_testpacs
from tests.support.tools import ROOT, wait_until

STARTED = time.monotonic()
CONFIGURATION = "/etc/mkiso/mkiso.yaml"
DISC = "/mkiso.php?accession_number=CT.001"
DOWNLOAD, RELAY = "/iso/download?accession_number=SR.001", "/mkiso2.php?accession_number=SR.001"
INSTALL = ("apt-get", "install", "-y", "-qq")
ELSEWHERE = ("/proc", "/sys", "/dev", "/packages", "/var/cache/apt", "/var/lib/apt")


def said(what: str) -> None:
    print(f"ok  {time.monotonic() - STARTED:3.0f} s  {what}", flush=True)


def newer(deb: Path, directory: Path) -> Path:
    """The same package with a higher version."""
    tree, bumped = directory / "newer", directory / f"newer-{deb.name}"
    subprocess.run(("dpkg-deb", "--raw-extract", deb, tree), check=True)
    control = tree / "DEBIAN" / "control"
    control.write_text(control.read_text().replace("\nArchitecture:", "+newer\nArchitecture:"))
    subprocess.run(
        ("dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, bumped), check=True, capture_output=True
    )
    return bumped


def fetch(chroot: Chroot, output: Path, *options: str) -> subprocess.Popen[bytes]:
    """A disc, as nginx asks for it."""
    socket = chroot.path("/run/mkiso/mkiso.sock")
    argv = ("curl", "-sS", "--fail", *options, "--unix-socket", socket, "-o", output, f"http://mkiso{DISC}")
    return subprocess.Popen(argv)


def check_disc(iso: Path, pacs: RunningPacs, accession: str) -> None:
    on_disc = instances_on(read_disc(iso, iso.with_suffix(".read")))
    assert on_disc == instances_of(pacs.of(accession)), f"{len(on_disc)} instances on {iso}"


def do(chroot: Chroot, what: str) -> str:
    """The commands of docs/operations.md in its block of this name, as they stand."""
    return chroot.run("sh", "-ec", block("operations", f"sh {what}"))


def check_installation(chroot: Chroot, deb: Path) -> None:
    told = chroot.run(*INSTALL, f"/packages/{deb.name}")
    assert is_running(chroot), told[-3000:]
    completed = chroot.run("env", "COMP_WORDS=mkiso swe", "COMP_CWORD=1", "_MKISO_COMPLETE=bash_complete", "mkiso")
    assert completed == "plain,sweep\n", completed
    told = chroot.run("stat", "-c", "%A %U:%G", CONFIGURATION, "/var/lib/mkiso", "/var/cache/mkiso", "/run/mkiso")
    modes = "-rw-r----- root:mkiso", *["drwx------ mkiso:www-data"] * 2, "drwxr-x--- mkiso:www-data"
    assert told.splitlines() == list(modes), told
    for file in ("/usr/share/man/man1/mkiso.1.gz", "/usr/share/bash-completion/completions/mkiso"):
        assert chroot.path(file).is_file(), file
    pages = Path("/usr/share/doc/mkiso")
    for page in {"operations.md", *re.findall(r"\]\((\w+\.md)", chroot.path(f"{pages}/operations.md").read_text())}:
        text = chroot.path(f"{pages}/{page}").read_text()
        for file in (*re.findall(r"\]\((\w+\.md)", text), *re.findall(r"/usr/share/[\w./-]+\w", text)):
            assert chroot.path(str(pages / file)).exists(), (page, file)
    said(f"{chroot.run('mkiso', '--version').strip()} is installed, and serves as its unit says")


def check_discs(chroot: Chroot, pacs: RunningPacs, directory: Path) -> None:
    told = do(chroot, "check")
    assert "FAIL" not in told, told
    assert fetch(chroot, directory / "disc.iso").wait() == 0
    check_disc(directory / "disc.iso", pacs, "CT.001")
    chroot.run("mkiso", "iso", "MR.001", "-o", "/var/cache/mkiso/disc.iso", user="mkiso")
    check_disc(chroot.path("/var/cache/mkiso/disc.iso"), pacs, "MR.001")
    said("mkiso check, a disc from the service and one from the command, each instance as it was stored")


def check_every_study(chroot: Chroot, pacs: RunningPacs) -> None:
    """A disc of each accession number that the test PACS holds, refused where it is of two patients."""
    accessions = dict.fromkeys(study.accession for study in pacs.studies)
    for accession in accessions:
        disc = f"/var/cache/mkiso/{accession}.iso"
        if len({study.patient_id for study in pacs.of(accession)}) > 1:
            assert "different patients" in chroot.failure("mkiso", "iso", accession, "-o", disc, user="mkiso")
        else:
            chroot.run("mkiso", "iso", accession, "-o", disc, user="mkiso")
            check_disc(chroot.path(disc), pacs, accession)
            chroot.run("mkiso", "verify", disc, user="mkiso")
    said(f"a disc of every study ({', '.join(accessions)}), verified; none of two patients")


def check_nginx(chroot: Chroot, directory: Path) -> None:
    do(chroot, "nginx")
    chroot.run("sed", "-i", "s/^deny all;/allow 127.0.0.1;\\n&/", "/etc/nginx/mkiso-access.conf")
    chroot.run("nginx", "-t")
    chroot.run("nginx")
    body = directory / "nginx.html"
    curl = ("curl", "-sS", "--insecure", "-w", "%{http_code}", "-o", body, "--connect-to", "mkiso::127.0.0.1:")
    answers = {"http://127.0.0.1/": "200", f"http://mkiso{DISC}": "301", "https://mkiso/api/jobs": "200"}
    for url, status in answers.items():
        told = subprocess.run((*curl, url), capture_output=True, text=True, check=True).stdout
        assert told == status, (url, told, body.read_text())
    assert '"accessions":["CT.001"]' in body.read_text(), body.read_text()
    said("nginx: mkiso's site beside Debian's own, with TLS")
    check_doors(chroot)
    chroot.run("nginx", "-s", "stop")


def check_doors(chroot: Chroot) -> None:
    """Who is told to mkiso, and who comes in, as the installed site is opened further and further."""
    before = jobs(chroot)
    assert asked("/healthz", "-u", f"dr.chief\r\n\r\nGET {RELAY} HTTP/1.1:x") == (200, "")
    assert asked(f"/api{DOWNLOAD}", "-u", "dr.chief:anything") == (200, "")
    (job,) = [job for job in jobs(chroot) if job not in before]
    assert (job["kind"], job["requester"]) == ("iso", "127.0.0.1"), job
    said("nginx: a user's name that nobody checked is not told, and is no request")
    access, htpasswd = "/etc/nginx/mkiso-access.conf", "/etc/nginx/mkiso.htpasswd"
    chroot.write(htpasswd, "dr.chief:{PLAIN}right\n")
    chroot.run("sed", "-i", "s/^# auth_basic/auth_basic/", access)
    with configured(chroot, "  api_tokens: [{name: his, token: s3cr3t}]\n"):
        before_reload = psutil.Process(int(chroot.path("/run/nginx.pid").read_text())).children()
        chroot.run("nginx", "-s", "reload")
        wait_until(lambda: not any(worker.is_running() for worker in before_reload), 10, str)
        password, token = ("-u", "dr.chief:right"), ("-H", "Authorization: Bearer s3cr3t")
        wrong = ("-H", "Authorization: Bearer wrong")
        for path, options, status in (
            ("/api/jobs", (), 401),
            ("/api/jobs", wrong, 401),
            ("/history", token, 401),
            ("/history", password, 200),
            (f"/api{DOWNLOAD}", token, 200),
            (f"/api{DOWNLOAD}", password, 200),
        ):
            assert asked(path, *options) == (status, "unauthorized" if status == 401 else ""), (path, options)
    signed = {job["requester"] for job in jobs(chroot)}
    assert {"his@127.0.0.1", "dr.chief@127.0.0.1"} <= signed, signed
    assert " dr.chief [" in chroot.path("/var/log/nginx/access.log").read_text()
    with configured(chroot):
        assert asked("/api/jobs", *token) == (401, "unauthorized")
    said("nginx: with passwords, and the API by a password or a token that mkiso knows")
    with configured(chroot, "  hosts: [radiology]\n", bind="127.0.0.1:8080"):
        for host, status, code in (
            ("localhost", 200, ""),
            ("Radiology:1", 200, ""),
            ("evil.example", 403, "forbidden"),
        ):
            assert asked("/api/jobs", "-H", f"Host: {host}", site="http://127.0.0.1:8080") == (status, code), host
    said("at a TCP address: loopback's names and those of the configuration, and no other site's")


def asked(path: str, *options: str, site: str = "https://127.0.0.1") -> tuple[int, str]:
    """The status of an answer, and the code where it is an error in JSON."""
    argv = ("curl", "-sS", "--insecure", "-w", "\\n%{http_code}", *options, f"{site}{path}")
    *body, status = subprocess.run(argv, capture_output=True, check=True).stdout.split(b"\n")
    error = re.match(rb'{"error":[^{}]*"code": ?"(\w+)"', b"".join(body))
    return int(status), error[1].decode() if error else ""


@contextmanager
def configured(chroot: Chroot, more: str = "", bind: str = "") -> Iterator[None]:
    """The service with more in its last section, `server`, and perhaps at another address, for a while."""
    configuration = chroot.path(CONFIGURATION)
    kept = configuration.read_text()
    try:
        text = re.sub(r"bind: \S+", f"bind: {bind}", kept) if bind else kept
        configuration.write_text(text + more)
        chroot.run("systemctl", "restart", "mkiso")
        yield
    finally:
        configuration.write_text(kept)
        chroot.run("systemctl", "restart", "mkiso")


def check_backup(chroot: Chroot) -> None:
    """Copied while the service runs; what came later is gone when the copy is back."""
    before = jobs(chroot)
    do(chroot, "backup")
    chroot.run("mkiso", "iso", "MR.001", "-o", "/dev/null", user="mkiso")
    assert len(jobs(chroot)) == len(before) + 1
    do(chroot, "restore")
    assert is_running(chroot)
    assert jobs(chroot) == before
    said("the ledger is copied while the service runs, and restored")


def check_upgrade(chroot: Chroot, deb: Path, pacs: RunningPacs, directory: Path) -> None:
    """A newer version while a disc is being fetched, whose configuration is the hospital's by now."""
    configuration = chroot.path(CONFIGURATION)
    configuration.write_text(configuration.read_text() + "\nmedia: {institution: RSUD}\n")
    before, disc = configuration.read_bytes(), directory / "drained.iso"
    service = chroot.path("/run/systemctl/pid").read_text()
    told = chroot.path("/run/systemctl/log").read_text
    log_before = len(told())
    rate = (directory / "disc.iso").stat().st_size // 12  # bytes a second
    with fetch(chroot, disc, "--limit-rate", str(rate)) as running:
        wait_until(lambda: disc.exists() and disc.stat().st_size > 0, 60, str)
        running.send_signal(signal.SIGSTOP)  # until the upgrade has come to the service, however long apt-get takes
        try:
            with ThreadPoolExecutor() as pool:
                upgrade = pool.submit(chroot.run, *INSTALL, f"/packages/{deb.name}")
                wait_until(lambda: "stopping graceful" in told()[log_before:] or upgrade.done(), 120, told)
                running.send_signal(signal.SIGCONT)
                upgrade.result()
        finally:
            running.send_signal(signal.SIGCONT)
    assert running.returncode == 0, running.returncode
    assert "job ended" in told()[log_before:].partition("stopping\n")[2], told()
    check_disc(disc, pacs, "CT.001")
    assert chroot.path("/run/systemctl/pid").read_text() != service
    assert configuration.read_bytes() == before
    mode = chroot.run("stat", "-c", "%A %U:%G", CONFIGURATION)
    assert mode.strip() == "-rw-r----- root:mkiso", mode
    assert fetch(chroot, disc).wait() == 0
    failed = [job["error"]["code"] for job in jobs(chroot) if job["state"] != "done"]
    assert failed == ["several_patients"], failed  # of check_every_study
    said("an upgrade lets the disc that is being fetched drain, and keeps configuration and ledger")


def check_removal(chroot: Chroot) -> None:
    own, site = "/etc/nginx/sites-available/own", "/etc/nginx/sites-enabled/mkiso"
    chroot.run("cp", "/usr/share/mkiso/nginx/mkiso.conf", own)
    chroot.run("ln", "-sf", own, site)
    chroot.run("apt-get", "remove", "-y", "-qq", "mkiso")
    assert not is_running(chroot)
    left = named_mkiso(chroot)
    assert not [path for path in left if path.startswith(("/usr", "/lib", "/run", "/etc/nginx/sites"))], left
    assert {CONFIGURATION, "/var/lib/mkiso/ledger.db"} <= left, left
    said("remove stops it, and keeps configuration and ledger")


def check_purge(chroot: Chroot) -> None:
    owner = chroot.run("id", "-u", "mkiso").strip()
    chroot.run("apt-get", "purge", "-y", "-qq", "mkiso")
    owned = chroot.run("find", "/", "-xdev", "-uid", owner, "-not", "-path", "/proc/*")
    assert (named_mkiso(chroot), owned) == (set(), ""), (named_mkiso(chroot), owned)
    for file in ("/etc/passwd", "/etc/group"):
        assert "mkiso" not in chroot.path(file).read_text(), file
    chroot.run("nginx", "-t")
    said("purge leaves nothing, and an nginx that starts")


def jobs(chroot: Chroot) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads(chroot.run("mkiso", "jobs", "--json", user="mkiso"))["jobs"]
    return told


def is_running(chroot: Chroot) -> bool:
    return (
        subprocess.run(("chroot", chroot.root, "systemctl", "is-active", "mkiso.service"), check=False).returncode == 0
    )


def named_mkiso(chroot: Chroot) -> set[str]:
    pruned = [word for path in ELSEWHERE for word in ("-path", path, "-prune", "-o")]
    found = chroot.run("find", "/", "-xdev", *pruned, "-regex", r".*/mkiso\([./].*\)?", "-print")
    return set(found.splitlines())


def live(directory: Path) -> None:
    """In namespaces of mounts and processes: all of it, the chroot being at `root`."""
    deb = max((ROOT / "build").glob("mkiso_*.deb"), key=lambda deb: deb.stat().st_mtime)
    chroot = Chroot(directory / "root")
    chroot.bootstrap()
    chroot.path("/packages").mkdir()
    older, later = (Path(shutil.copy(one, chroot.path("/packages"))) for one in (deb, newer(deb, directory)))
    chroot.run("apt-get", "update", "-qq")
    chroot.run("apt-get", "install", "-y", "-qq", "--download-only", f"/packages/{older.name}")
    chroot.run(*INSTALL, "--no-install-recommends", "--download-only", *packages())
    said("a bare Debian, and the packages that mkiso and its tests depend on")
    leave_the_network()
    chroot.put_systemctl(ROOT / "etc" / "systemd" / "mkiso.service")
    check_installation(chroot, older)
    with running_testpacs(directory / "pacs", 11112, {"CDRECORD": 10104}) as pacs:
        check_discs(chroot, pacs, directory)
        check_every_study(chroot, pacs)
        check_nginx(chroot, directory)
        check_backup(chroot)
        check_upgrade(chroot, later, pacs, directory)
    check_removal(chroot)
    check_purge(chroot)
    chroot.run(*INSTALL, "--no-install-recommends", *packages())
    start_each(chroot)
    said(f"what make test needs is installed, and starts: {', '.join(packages())}")


def main() -> int:
    status = in_namespaces("tests.package", live)
    print(f"package test {'FAILED' if status else 'passed'} in {time.monotonic() - STARTED:.0f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())
