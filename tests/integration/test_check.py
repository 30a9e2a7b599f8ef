"""`mkiso check`: everything is looked at whatever fails, and what fails says where, whose, why, and what to do."""

import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.integration.conftest import Site
from tests.support import preloaded
from tests.support.archive import running_archive
from tests.support.ports import free_ports
from tests.support.service import MKISO, mkiso, running_service, settings
from tests.support.studies import RICHARD, ct_study, mixed_study, several_series
from tests.support.tools import environment, run, wait_until

NOBODY = 65534


def written(directory: Path, configuration: dict[str, Any]) -> Path:
    file = directory / "mkiso.yaml"
    file.write_text(yaml.safe_dump(configuration))
    return file


def checked(file: Path, *words: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit status, and by name of each check `ok` or `FAIL` and what was found."""
    done = mkiso("check", "--config", file, *words)
    return done.returncode, by_name(done.stdout.decode())


def by_name(output: str) -> dict[str, tuple[str, str]]:
    lines = [re.fullmatch(r"(ok|FAIL) +([^:]+): (.*)", line) for line in output.splitlines()]
    return {line[2]: (line[1], line[3]) for line in lines if line}


@pytest.fixture
def http() -> dict[str, str]:
    return {"bind": f"127.0.0.1:{free_ports(1)[0]}"}


def test_check_names_what_is_missing_and_goes_through_everything(
    site: Site, http: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    nobody = free_ports(1)[0]
    peers = {name: {"ae_title": "X", "host": "127.0.0.1", "port": nobody} for name in ("relay", "cd_publisher")}
    configuration = site.settings(
        destinations=peers,
        media={"viewer_dir": str(tmp_path / "no-viewer"), "uncompressed": True},
        tools={"dcmtk_dir": str(tmp_path)},
        storage={"work_dir": str(tmp_path / "file" / "work"), "ledger": f"sqlite:///{tmp_path}/file/ledger.db"},
        patients={"source": "sql", "sql": {"steps": [{"url": "nodb://x", "query": "SELECT 1"}]}},
        server=http,
    )
    status, found = checked(written(tmp_path, configuration))
    assert status == 1
    failed = {name for name, (state, _) in found.items() if state == "FAIL"}
    assert failed >= {
        *("findscu", "storescp", "media.viewer_dir", "storage.work_dir", "storage.ledger", "patients.source"),
        *("dcmdjpeg", "dcmdjpls", "dcmdrle", "dcmconv"),
        *("pacs", "destination relay", "destination cd_publisher"),
    }
    assert {name for name, (state, _) in found.items() if state == "ok"} >= {
        *("genisoimage", "storage.min_free", "receiver CDRECORD", "server.bind"),
    }
    assert found["storescp"][1] == f"{tmp_path}/storescp is not there. Install it, or set tools.dcmtk_dir."
    assert f"{tmp_path}/file is no directory" in found["storage.ledger"][1]


# As another user, who cannot read what root's own Python has not imported by then.
AS_NOBODY = f"""
import os
import platform
import mkiso.web.server
from mkiso.commands.cli import main
os.setgroups([])
os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
main()
"""


def test_check_tells_whose_a_place_is_and_what_to_do(site: Site) -> None:
    """As the service's user where its directories were never made, and its ports are root's."""
    with tempfile.TemporaryDirectory() as name:
        roots = Path(name)
        roots.chmod(0o755)
        places = {"work_dir": f"{roots}/work", "ledger": f"sqlite:///{roots}/ledger/ledger.db"}
        low = {"receivers": [{"ae_title": "LOW", "port": 104}], "server": {"bind": "127.0.0.1:80"}}
        file = written(roots, site.settings(storage=places) | low)
        argv = (sys.executable, "-c", AS_NOBODY, "check", "--config", str(file))
        done = subprocess.run(argv, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    whose = f"{roots} belongs to root (mode 0755), and this is nobody, who may not write there."
    for key, path in (("storage.work_dir", roots / "work"), ("storage.ledger", roots / "ledger")):
        do = f"As root: install -d -o nobody -m 0700 {path}."
        assert f"FAIL  {key}: {path} is not there, and {whose} {do}" in lines
    if Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text().strip() == "1024":
        low_ports = [line for line in lines if "CAP_NET_BIND_SERVICE" in line]
        assert [line.split(":")[0] for line in low_ports] == ["FAIL  receiver LOW", "FAIL  server.bind"]


# A host of its own, with another's view of names, whose DNS server never answers.
ALONE = """
ip link set lo up && cd "$1" && shift
for file in hosts resolv.conf nsswitch.conf; do mount --bind $file /etc/$file || exit; done
exec "$@"
"""
SILENT_DNS = """
import socket, subprocess, sys
dns = socket.socket(type=socket.SOCK_DGRAM)
dns.bind(("127.0.0.1", 53))
sys.exit(subprocess.run(sys.argv[1:]).returncode)
"""


@pytest.mark.parametrize(("line", "state"), [("", "FAIL"), (f"127.0.1.1 {platform.node()}\n", "ok")])
def test_check_tells_of_a_host_that_asks_others_for_its_own_name(
    line: str, state: str, site: Site, http: dict[str, str], tmp_path: Path
) -> None:
    file = written(tmp_path, site.settings(server=http))
    (tmp_path / "hosts").write_text(f"127.0.0.1 localhost\n{line}")
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    (tmp_path / "nsswitch.conf").write_text("hosts: files dns\n")
    alone = ("unshare", "--net", "--mount", "sh", "-c", ALONE, "sh", tmp_path, sys.executable, "-c", SILENT_DNS)
    was, found = by_name(run((*alone, MKISO, "check", "--config", file)).stdout)["host name"]
    assert was == state
    assert (f"Add the line `127.0.1.1 {platform.node()}` to /etc/hosts." in found) == (state == "FAIL")


def test_check_takes_no_ledger_of_another_user_for_its_own(site: Site, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    places = {"work_dir": str(tmp_path / "work"), "ledger": f"sqlite:///{theirs}/ledger.db"}
    _, found = checked(written(tmp_path, site.settings(storage=places)))
    assert found["storage.ledger"][0] == "FAIL"
    assert "Run as nobody" in found["storage.ledger"][1]
    assert list(theirs.iterdir()) == []


def test_check_looks_at_the_logo(site: Site, tmp_path: Path) -> None:
    logo = tmp_path / "logo.png"
    file = written(tmp_path, site.settings(server={"logo_file": str(logo)}))
    assert checked(file)[1]["server.logo_file"][0] == "FAIL"
    logo.touch()
    assert checked(file)[1]["server.logo_file"] == ("ok", str(logo))


def test_check_looks_at_the_disk_against_min_free(site: Site, tmp_path: Path) -> None:
    places = {"work_dir": str(tmp_path / "work"), "ledger": f"sqlite:///{tmp_path}/ledger.db", "min_free": "900TB"}
    _, found = checked(written(tmp_path, site.settings(storage=places)))
    assert found["storage.min_free"][0] == "FAIL"
    assert str(tmp_path) in found["storage.min_free"][1]


def test_an_address_of_the_service_is_free_ours_or_taken(site: Site, tmp_path: Path) -> None:
    port, other = free_ports(2)
    with running_service(tmp_path, port, site.settings()) as service:
        assert checked(service.config_file)[1]["server.bind"] == ("ok", f"a mkiso serves at 127.0.0.1:{port}")
    assert checked(service.config_file)[1]["server.bind"] == ("ok", f"127.0.0.1:{port} is free")
    with closing(socket.create_server(("127.0.0.1", other))):
        _, found = checked(written(tmp_path, site.settings(server={"bind": f"127.0.0.1:{other}"})))
    assert found["server.bind"][0] == "FAIL"
    assert f"127.0.0.1:{other} is taken" in found["server.bind"][1]


def test_an_address_that_other_hosts_reach_has_a_name_for_them(site: Site, tmp_path: Path) -> None:
    server = {"bind": f"0.0.0.0:{free_ports(1)[0]}"}
    ok, found = checked(written(tmp_path, site.settings(server=server)))[1]["server.bind"]
    assert (ok, "server.hosts has no name" in found) == ("ok", True)


def test_a_socket_of_the_service_needs_its_directory(site: Site, tmp_path: Path) -> None:
    for name, state in (("absent/mkiso.sock", "FAIL"), ("mkiso.sock", "ok"), ("mkiso.yaml", "FAIL")):
        _, found = checked(written(tmp_path, site.settings(server={"bind": f"unix:{tmp_path}/{name}"})))
        assert found["server.bind"][0] == state, found["server.bind"]
    assert not (tmp_path / "mkiso.sock").exists()


def rows(file: Path) -> list[Any]:
    return json.loads(mkiso("jobs", "--json", "--config", file).stdout)["jobs"]


def test_a_trial_does_everything_and_leaves_nothing(site: Site, http: dict[str, str], tmp_path: Path) -> None:
    peer = {"host": "127.0.0.1", "port": site.pacs.port, "ae_title": "ABPACS"}
    file = written(tmp_path, site.settings(destinations={"relay": peer}, server=http, media={"layout": "pdi"}))
    status, found = checked(file, "--accession", "TWO.001")
    assert status == 0, found
    for name in ("patient source", "query", "lists", "move", "disc", "end"):
        assert found[f"trial {name}"][0] == "ok"
    assert found["destination relay"][0] == "ok"
    assert "dcmdjpeg" not in found  # without media.uncompressed no disc needs it
    assert re.search(r"studies: \d+, series: \d+, instances: \d+, of \S", found["trial query"][1])
    assert re.search(r"^\d+ bytes .* layout pdi, for a CD$", found["trial disc"][1])
    assert rows(file) == []
    assert list(tmp_path.glob("work/dicomdir_*")) == []


def test_a_trial_moves_the_largest_series_alone(http: dict[str, str], tmp_path: Path) -> None:
    port, receiver = free_ports(2)
    study = mixed_study(tmp_path / "held")
    file = written(tmp_path, settings(tmp_path, port, {"RECEIVER": receiver}, destinations={}, server=http))
    with running_archive(port, {"RECEIVER": receiver}, tmp_path / "held"):
        done = mkiso("check", "--config", file, "--accession", "MIXED.001")
    assert (done.returncode, done.stderr) == (0, b""), done.stdout  # nothing came that was not asked for
    assert f"series: 4, instances: {len(study.files)}, of " in done.stdout.decode()
    assert re.search(rf"trial move: .* instances: {len(study.files) - 3}$", done.stdout.decode(), re.M)


@pytest.mark.parametrize(
    ("behaviour", "step", "told"),
    [("cut-whole-studies", "trial lists", "3 instances more than at once"), ("cut", "trial move", "Its list is cut")],
)
def test_a_trial_tells_of_an_archive_that_cuts_its_lists(
    behaviour: str, step: str, told: str, http: dict[str, str], tmp_path: Path
) -> None:
    port, receiver = free_ports(2)
    ct_study(tmp_path / "held", RICHARD, "SIX.001", count=6)
    file = written(tmp_path, settings(tmp_path, port, {"RECEIVER": receiver}, destinations={}, server=http))
    with running_archive(port, {"RECEIVER": receiver}, tmp_path / "held", behaviour, n=3):
        status, found = checked(file, "--accession", "SIX.001")
    assert (status, next(name for name, (state, _) in found.items() if state == "FAIL")) == (1, step)
    assert told in found[step][1]


def test_how_many_c_moves_at_once_serve_best_is_measured(http: dict[str, str], tmp_path: Path) -> None:
    port, receiver = free_ports(2)
    several_series(tmp_path / "held", RICHARD, "SERIES.001", series=4, count=25)
    ct_study(tmp_path / "held", RICHARD, "SMALL.001")
    file = written(tmp_path, settings(tmp_path, port, {"RECEIVER": receiver}, destinations={}, server=http))
    with running_archive(port, {"RECEIVER": receiver}, tmp_path / "held"):
        status, found = checked(file, "--accession", "SERIES.001", "--measure")
        failed, small = checked(file, "--accession", "SMALL.001", "--measure")
    assert status == 0, found
    rate = r"instances: 100 in [0-9.]+ s, [0-9]+ a second, [0-9.]+[kM]?B/s"
    assert all(re.fullmatch(rate, found[f"measure {which}"][1]) for which in ("first", "1", "2", "4", "8")), found
    assert re.fullmatch(r"pacs\.parallel_moves: [1248] \(it is 4\)", found["measure best"][1])
    assert (failed, small["measure first"][0], "measure 1" in small) == (1, "FAIL", False)
    assert list(tmp_path.glob("work/dicomdir_*")) == []
    assert mkiso("check", "--config", file, "--measure").returncode == 2


def test_a_trial_that_fails_says_where_and_tries_the_rest(site: Site, http: dict[str, str], tmp_path: Path) -> None:
    file = written(tmp_path, site.settings(server=http))
    status, found = checked(file, "--accession", "NONE.001")
    assert status == 1
    assert found["trial patient source"][0] == "ok"
    assert "knows no study" in found["trial query"][1]
    assert found["trial move"] == ("FAIL", "not tried, for the query found nothing")
    assert found["trial disc"][0] == "FAIL"
    assert found["trial end"][0] == "ok"
    assert mkiso("check", "--config", file, "--accession", "A*").returncode == 2


def test_a_trial_tells_a_receiver_that_the_archive_does_not_know(
    site: Site, http: dict[str, str], tmp_path: Path
) -> None:
    unknown = {"receivers": [{"ae_title": "UNKNOWN", "port": free_ports(1)[0]}]}
    status, found = checked(written(tmp_path, site.settings(server=http) | unknown), "--accession", "CT.001")
    assert (status, found["trial query"][0], found["trial move"][0]) == (1, "ok", "FAIL")
    assert "UNKNOWN" in found["trial move"][1]


def test_a_trial_that_is_stopped_leaves_nothing(http: dict[str, str], tmp_path: Path) -> None:
    port, receiver = free_ports(2)
    ct_study(tmp_path / "held", RICHARD, "SLOW.001", count=30)
    file = written(tmp_path, settings(tmp_path, port, {"RECEIVER": receiver}, server=http))
    with running_archive(port, {"RECEIVER": receiver}, tmp_path / "held", "slow", delay=0.2):
        argv = (MKISO, "check", "--config", file, "--accession", "SLOW.001")
        process = preloaded.start(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
        wait_until(lambda: any(tmp_path.glob("work/dicomdir_*/received/*")), 30, str)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 130
    assert list(tmp_path.glob("work/dicomdir_*")) == []
    living = [one for one in children if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert living == []
