"""The commands of `mkiso` as an administrator types them."""

import fcntl
import json
import os
import pty
import re
import signal
import stat
import struct
import subprocess
import termios
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from mkiso.commands import cli
from tests.integration.conftest import Site
from tests.support import preloaded
from tests.support.archive import running_archive
from tests.support.destination import running_destination
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
    done = mkiso(*words, *(("--config", config_file) if words[0] == "iso" else ()), cwd=tmp_path)
    assert (done.returncode, said in done.stderr.decode()) == (status, True), done.stderr
    assert list(tmp_path.glob("x.iso*")) == []


def test_a_wrong_configuration_stops_every_command_with_the_keys_path(tmp_path: Path) -> None:
    file = written(tmp_path, {"pacs": {"prot": 11112}, "retrieve": {"move_timeout": "long"}})
    for command in (("serve",), ("check",), ("jobs",), ("sweep",), ("iso", "A", "-o", "-")):
        done = mkiso(*command, "--config", file)
        assert done.returncode == 2
        assert b"pacs.prot: unknown key; did you mean port?" in done.stderr
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


def test_jobs_shows_the_ledger_as_a_table_and_as_json(site: Site, tmp_path: Path) -> None:
    with running_destination(free_ports(1)[0]) as to:
        peer = {"host": "127.0.0.1", "port": to.port, "ae_title": "DESTINATION"}
        config_file = written(tmp_path, site.settings(destinations={"relay": peer}))
        mkiso("iso", "SR.001", "-o", "-", "--config", config_file)
        mkiso("relay", "CT.001", "--to", "relay", "--config", config_file)
        mkiso("iso", "NONE.001", "-o", "-", "--config", config_file)
    told = json.loads(mkiso("jobs", "--json", "--config", config_file).stdout)["jobs"]
    states = [(job["accessions"], job["state"]) for job in told]
    assert states == [(["NONE.001"], "failed"), (["CT.001"], "done"), (["SR.001"], "done")]
    header, none, relayed, done = mkiso("jobs", "--config", config_file).stdout.decode().splitlines()
    assert header.split()[:7] == ["CREATED", "ID", "STATE", "KIND", "RECEIVED", "SENT", "BYTES"]
    assert none.endswith("accession_not_found")
    assert all(job["id"] in line for job, line in zip(told, (none, relayed, done), strict=True))
    assert told[1]["destination"] in relayed
    assert relayed.split()[4:6] == ["{0}/{0}".format(told[1]["expected"])] * 2
    assert told[2]["patient_name"] in done


def test_jobs_shows_only_what_was_asked_for(config_file: Path) -> None:
    for accession in ("SR.001", "NONE.001"):
        mkiso("iso", accession, "-o", "-", "--config", config_file)
    for options in (("--state", "done"), ("--accession", "SR.001"), ("--limit", "1", "--state", "done")):
        told = json.loads(mkiso("jobs", "--json", *options, "--config", config_file).stdout)["jobs"]
        assert [job["accessions"] for job in told] == [["SR.001"]]
    assert mkiso("jobs", "--state", "dnoe", "--config", config_file).returncode == 2


def test_jobs_shows_one_job(config_file: Path) -> None:
    mkiso("iso", "SR.001", "-o", "-", "--config", config_file)
    (job,) = json.loads(mkiso("jobs", "--json", "--config", config_file).stdout)["jobs"]
    assert json.loads(mkiso("jobs", job["id"].upper(), "--json", "--config", config_file).stdout) == job
    lines = mkiso("jobs", job["id"], "--config", config_file).stdout.decode().splitlines()
    assert [line.split()[0] for line in lines] == [*job]
    assert "patient_name  " + job["patient_name"] in lines


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("123e4567-e89b-12d3-a456-426614174000",), 1, b"job not found"),
        (("cancel", "123e4567-e89b-12d3-a456-426614174000"), 1, b"job not found"),
        (("cancel",), 2, b"cancel ID to stop it"),
        (("stop", "123e4567-e89b-12d3-a456-426614174000"), 2, b"cancel ID to stop it"),
    ],
)
def test_a_job_that_is_not_there_is_told(words: tuple[str, ...], status: int, said: bytes, config_file: Path) -> None:
    done = mkiso("jobs", *words, "--config", config_file)
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr


def test_jobs_cancel_stops_a_job_of_another_process(tmp_path: Path) -> None:
    port, receiver = free_ports(2)
    ct_study(tmp_path / "held", RICHARD, "SLOW.001", count=100)
    file = written(tmp_path, settings(tmp_path, port, {"RECEIVER": receiver}))
    with running_archive(port, {"RECEIVER": receiver}, tmp_path / "held", "slow", delay=0.5):
        argv = (MKISO, "iso", "SLOW.001", "-o", tmp_path / "x.iso", "--config", file)
        process = preloaded.start(argv, stderr=subprocess.PIPE, env=environment())
        wait_until(lambda: any(tmp_path.glob("work/dicomdir_*/received/*")), 20, str)
        (job,) = json.loads(mkiso("jobs", "--json", "--config", file).stdout)["jobs"]
        told = mkiso("jobs", "cancel", job["id"], "--config", file)
        assert (told.returncode, told.stdout) == (0, b"job %s was told to stop\n" % job["id"].encode())
        assert b"job cancelled" in process.communicate(timeout=20)[1]
        assert process.returncode == 1
    again = mkiso("jobs", "cancel", job["id"], "--config", file)
    assert (again.returncode, again.stdout) == (0, b"job %s was over already: cancelled\n" % job["id"].encode())


def test_the_person_who_typed_a_command_is_its_requester(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setenv("LOGNAME", "mkiso")
    mkiso("iso", "NONE.001", "-o", "-", "--config", config_file)
    monkeypatch.setenv("SUDO_USER", "anna")
    mkiso("iso", "NONE.001", "-o", "-", "--config", config_file)
    mkiso("relay", "NONE.001", "--to", "relay", "--config", config_file)
    told = json.loads(mkiso("jobs", "--json", "--config", config_file).stdout)["jobs"]
    assert [job["requester"] for job in told] == ["anna@mkiso-relay", "anna@mkiso-iso", "mkiso@mkiso-iso"]


def on_a_terminal(*words: object, columns: int = 100, stream: str = "stderr") -> tuple[int, str]:
    """The status of a command, and what it showed where `stream` is a terminal."""
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT if stream == "stdout" else None}
    process = subprocess.Popen((MKISO, *words), env=environment(), **(streams | {stream: terminal}))
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(master, 4096):
            shown += chunk
    except OSError:  # the terminal's other end is closed
        pass
    os.close(master)
    return process.wait(), shown.decode()


SHOWN = {
    100: (r"retrieving: .*\d+/30 \[.*<\d\d:\d\d, .* instances/s\]", r"writing: .*/\d+(\.\d+)?M \[.*<.*, .*B/s\]"),
    50: (r"retrieving \d+% \d\d:\d\d .* instances/s", r"writing \d+% .*B/s"),
    24: (r"retrieving \d+%", r"writing \d+%"),
}


@pytest.mark.parametrize("columns", SHOWN)
def test_a_terminal_shows_how_far_it_is_how_long_still_and_how_fast(columns: int, tmp_path: Path) -> None:
    port, receiver = free_ports(2)
    ct_study(tmp_path / "held", RICHARD, "SLOW.001", count=30, side=512)
    file, iso = written(tmp_path, settings(tmp_path, port, {"RECEIVER": receiver})), tmp_path / "x.iso"
    with running_archive(port, {"RECEIVER": receiver}, tmp_path / "held", "slow", delay=0.05):
        status, shown = on_a_terminal("iso", "SLOW.001", "-o", iso, "--config", file, columns=columns)
    *drawn, last = [line for line in re.split(r"[\r\n]+", shown) if line.strip()]
    assert (status, last) == (0, f"{iso.stat().st_size} bytes written, for a CD")
    assert [line for line in drawn if len(line) > columns] == []
    for wanted in SHOWN[columns]:
        assert any(re.match(wanted, line) for line in drawn), drawn


def test_a_disc_is_not_written_to_a_terminal(config_file: Path) -> None:
    for to in ("-", "/dev/stdout"):
        status, shown = on_a_terminal("iso", "CT.001", "-o", to, "--config", config_file, stream="stdout")
        assert (status, "is a terminal" in shown) == (2, True), shown
    assert json.loads(mkiso("jobs", "--json", "--config", config_file).stdout)["jobs"] == []


def test_an_existing_file_is_replaced_only_by_force(config_file: Path, site: Site, tmp_path: Path) -> None:
    iso = tmp_path / "x.iso"
    iso.write_bytes(b"precious")
    refused = mkiso("iso", "SR.001", "-o", iso, "--config", config_file)
    assert (refused.returncode, b"--force" in refused.stderr) == (2, True)
    assert iso.read_bytes() == b"precious"
    assert json.loads(mkiso("jobs", "--json", "--config", config_file).stdout)["jobs"] == []
    assert mkiso("iso", "SR.001", "-o", iso, "--force", "--config", config_file).returncode == 0
    assert instances_on(read_disc(iso, tmp_path / "disc")) == instances_of(site.pacs.of("SR.001"))


def test_the_help_tells_where_the_configuration_is_found() -> None:
    told = " ".join(mkiso("iso", "--help").stdout.decode().split())
    assert "default: $MKISO_CONFIG, else /etc/mkiso/mkiso.yaml, else the checkout's etc/mkiso.yaml" in told


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
    assert [*tmp_path.glob("x.iso"), *tmp_path.glob(".*")] == []


@pytest.mark.parametrize("flag", [os.O_TMPFILE, 0], ids=["a file needs no name", "a file has a name always"])
def test_a_disc_has_its_name_when_it_is_whole(flag: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", flag)
    iso = tmp_path / "x.iso"
    with cli.written(str(iso), force=False) as write:
        write(b"whole")
        assert not iso.exists()
    with suppress(KeyboardInterrupt), cli.written(str(iso), force=True) as write:
        write(b"half")
        assert iso.read_bytes() == b"whole"
        raise KeyboardInterrupt
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x.iso", b"whole")]
    assert stat.S_IMODE(iso.stat().st_mode) == 0o600


def test_two_commands_with_one_output_leave_one_whole_disc(config_file: Path, site: Site, tmp_path: Path) -> None:
    iso = tmp_path / "same.iso"
    words = ("-o", iso, "--force", "--config", config_file)
    commands = [(MKISO, "iso", accession, *words) for accession in ("BENCH.200", "CT.001")]
    running = [preloaded.start(command, env=environment()) for command in commands]
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
