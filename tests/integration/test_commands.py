"""The commands of `mkiso` as an administrator types them."""

import json
import os
import pty
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.conftest import Site
from tests.support.archive import running_archive
from tests.support.ports import free_ports
from tests.support.service import MKISO, instances_of, instances_on, mkiso, read_disc, settings
from tests.support.studies import RICHARD, ct_study
from tests.support.tools import environment, run, wait_until


@pytest.fixture
def config_file(site: Site, tmp_path: Path) -> Path:
    peers = {
        name: {"host": "127.0.0.1", "port": site.pacs.port, "ae_title": "ABPACS"} for name in ("relay", "cd_publisher")
    }
    return written(tmp_path, site.settings(destinations=peers))


def written(directory: Path, configuration: dict[str, Any]) -> Path:
    file = directory / "mkiso.yaml"
    file.write_text(yaml.safe_dump(configuration))
    return file


def test_iso_writes_a_disc_to_a_file(config_file: Path, site: Site, tmp_path: Path) -> None:
    iso = tmp_path / "out.iso"
    done = mkiso("iso", "--config", config_file, "CT.001", "MR.001", "-o", iso)
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr == b"%d bytes written, for a CD\n" % iso.stat().st_size
    disc = read_disc(iso, tmp_path / "disc")
    assert instances_on(disc) == instances_of([*site.pacs.of("CT.001"), *site.pacs.of("MR.001")])


def test_iso_writes_a_disc_to_standard_output(config_file: Path, site: Site, tmp_path: Path) -> None:
    done = mkiso("iso", "SR.001", "-o", "-", "--config", config_file)
    assert done.returncode == 0
    assert instances_on(read_disc(done.stdout, tmp_path / "disc")) == instances_of(site.pacs.of("SR.001"))


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("iso", "NONE.001", "-o", "x.iso"), 1, "accession_number not found"),
        (("iso", "A*", "-o", "x.iso"), 2, "invalid accession_number"),
        (("iso", "-o", "x.iso"), 2, "Missing argument"),
        (("iso", "CT.001"), 2, "Missing option"),
        (("iso", "CT.001", "-o", "/nowhere/x.iso"), 2, "/nowhere/x.iso"),
        (("fly",), 2, "No such command"),
    ],
)
def test_a_command_that_fails_says_why_and_leaves_no_file(
    words: tuple[str, ...], status: int, said: str, config_file: Path, tmp_path: Path
) -> None:
    argv = (MKISO, *words, *(("--config", config_file) if words[0] == "iso" else ()))
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, check=False, env=environment())
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
    assert list(tmp_path.glob("x.iso*")) == []


def test_a_wrong_configuration_stops_every_command_with_the_keys_path(tmp_path: Path) -> None:
    file = written(tmp_path, {"pacs": {"prot": 11112}, "retrieve": {"move_timeout": "long"}})
    for command in (("serve",), ("check",), ("jobs",), ("sweep",), ("iso", "A", "-o", "-")):
        done = mkiso(*command, "--config", file)
        assert done.returncode == 2
        assert b"pacs.prot: unknown key" in done.stderr
        assert b"retrieve.move_timeout: expected" in done.stderr


def test_check_passes_where_everything_is_there(config_file: Path) -> None:
    done = mkiso("check", "--config", config_file)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.decode().splitlines()
    assert all(line.startswith("ok") for line in lines)
    for name in (
        "storescp",
        "genisoimage",
        "storage.work_dir",
        "storage.ledger",
        "receiver CDRECORD",
        "pacs",
        "destination relay",
    ):
        assert any(f"  {name}: " in line for line in lines), name


def test_check_names_what_is_missing(site: Site, tmp_path: Path) -> None:
    nobody = free_ports(1)[0]
    peers = {name: {"ae_title": "X", "host": "127.0.0.1", "port": nobody} for name in ("relay", "cd_publisher")}
    viewer = {"viewer_dir": str(tmp_path / "no-viewer")}
    file = written(tmp_path, site.settings(destinations=peers, media=viewer, tools={"dcmtk_dir": str(tmp_path)}))
    done = mkiso("check", "--config", file)
    assert done.returncode == 1
    failed = {line.split()[1] for line in done.stdout.decode().splitlines() if line.startswith("FAIL")}
    assert {"findscu:", "storescp:", "media.viewer_dir:", "pacs:", "destination"} <= failed


def test_jobs_shows_the_ledger_as_a_table_and_as_json(config_file: Path) -> None:
    mkiso("iso", "SR.001", "-o", "-", "--config", config_file)
    mkiso("iso", "NONE.001", "-o", "-", "--config", config_file)
    told = json.loads(mkiso("jobs", "--json", "--config", config_file).stdout)["jobs"]
    assert [(job["accessions"], job["state"]) for job in told] == [(["NONE.001"], "failed"), (["SR.001"], "done")]
    table = mkiso("jobs", "--config", config_file).stdout.decode().splitlines()
    assert table[0].split() == ["CREATED", "STATE", "KIND", "INSTANCES", "BYTES", "ACCESSIONS", "REQUESTER"]
    assert "accession_not_found" in table[1]
    assert "SR.001" in table[2]


def test_a_terminal_shows_a_progress_bar(config_file: Path, tmp_path: Path) -> None:
    master, terminal = pty.openpty()
    argv = (MKISO, "iso", "CT.001", "-o", tmp_path / "x.iso", "--config", config_file)
    process = subprocess.Popen(argv, stderr=terminal, env=environment())
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(master, 4096):
            shown += chunk
    except OSError:  # the terminal's other end is closed
        pass
    os.close(master)
    assert process.wait() == 0
    size = (tmp_path / "x.iso").stat().st_size
    assert f"{size}/{size} bytes".encode() in shown


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_a_command_that_is_stopped_is_cleared_away(number: int, status: int, tmp_path: Path) -> None:
    port, receiver = free_ports(2)
    ct_study(tmp_path / "held", RICHARD, "SLOW.001", count=30)
    file = written(tmp_path, settings(tmp_path, port, {"RECEIVER": receiver}))
    work = tmp_path / "work"
    with running_archive(port, {"RECEIVER": receiver}, tmp_path / "held", "slow", delay=0.2):
        argv = (MKISO, "iso", "SLOW.001", "-o", tmp_path / "x.iso", "--config", file)
        process = subprocess.Popen(argv, stderr=subprocess.DEVNULL, env=environment())
        wait_until(lambda: any(work.glob("dicomdir_*/received/*")), 20, str)
        process.send_signal(number)
        assert process.wait(timeout=20) == status
        if number == signal.SIGKILL:
            swept = mkiso("sweep", "--config", file)
            assert b"cleared away after job" in swept.stdout
        assert list(work.glob("dicomdir_*")) == []
        assert mkiso("sweep", "--config", file).stdout == b"nothing to clear away\n"
    assert not (tmp_path / "x.iso").exists()


def test_two_commands_with_one_output_leave_one_whole_disc(config_file: Path, site: Site, tmp_path: Path) -> None:
    iso = tmp_path / "same.iso"
    commands = [(MKISO, "iso", accession, "-o", iso, "--config", config_file) for accession in ("BENCH.200", "CT.001")]
    running = [subprocess.Popen(command, env=environment()) for command in commands]
    assert [one.wait(60) for one in running] == [0, 0]
    found = instances_on(read_disc(iso, tmp_path / "disc"))
    assert found in (instances_of(site.pacs.of("BENCH.200")), instances_of(site.pacs.of("CT.001")))
    assert [path.name for path in tmp_path.glob("*same.iso*")] == ["same.iso"]


def test_a_device_is_written_to_and_stays_one(config_file: Path, tmp_path: Path) -> None:
    device = tmp_path / "null"
    os.mknod(device, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    assert mkiso("iso", "SR.001", "-o", device, "--config", config_file).returncode == 0
    assert device.is_char_device()


def test_an_output_that_is_full_fails_the_command_and_is_blamed(config_file: Path) -> None:
    done = mkiso("iso", "CT.001", "-o", "/dev/full", "--config", config_file)
    assert (done.returncode, b"/dev/full cannot be written: No space left" in done.stderr) == (1, True)


def test_an_installed_package_has_the_console_script() -> None:
    script = MKISO.parent.parent / ".venv" / "bin" / "mkiso"
    assert "Usage" in run((script, "--help")).stdout
