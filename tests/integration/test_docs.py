"""docs/pacs.md: what it prints for an archive and for mkiso fits, and `mkiso check` says what it tells.

docs/operations.md: root follows no link of the user mkiso's.
"""

import json
import os
import pwd
import re
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from mkiso.commands.check import checks, trial
from mkiso.config import Config, parse
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from mkiso.waiting import Cancellation
from tests.support import dcmqrscp
from tests.support.archive import running_archive
from tests.support.orthanc import running_orthanc
from tests.support.pages import block, page
from tests.support.ports import free_ports
from tests.support.service import instances_of, instances_on, read_disc, settings
from tests.support.studies import RICHARD, Study, ct_study
from tests.support.tools import LOCALHOST, ROOT, listening

PACS, HOST, ELSEWHERE = "10.1.2.3", "10.1.2.5", "127.0.0.9"
PORTS = ("11112", "10104", "10105")
ACCESSION = "CT.030"
TOLD = re.findall(r"^\| `((?:trial|pacs).*?)` \|", page("pacs"), re.M)


@dataclass
class House:
    """The page's PACSs and mkiso with ports of this machine, in a directory; `host` is mkiso's as a PACS knows it."""

    directory: Path
    study: Study
    host: str = LOCALHOST
    ports: dict[str, str] = field(default_factory=lambda: dict(zip(PORTS, map(str, free_ports(3)), strict=True)))

    def printed(self, words: str) -> str:
        text = block("pacs", words)
        for shown, own in {PACS: LOCALHOST, HOST: self.host, **self.ports}.items():
            text = re.sub(rf"\b{re.escape(shown)}\b", own, text)
        return text

    @contextmanager
    def orthanc(self, changes: dict[str, Any]) -> Iterator[None]:
        printed = json.loads(self.printed("json orthanc"))
        modalities = changes.pop("modality", {})
        printed["DicomModalities"]["mkiso"] |= modalities
        ports = (printed["DicomPort"], free_ports(1)[0])
        with running_orthanc(self.directory / "pacs", ports, {}, **printed | changes) as running:
            running.put(self.study.files)
            yield

    @contextmanager
    def dcmqrscp(self, _changes: dict[str, Any]) -> Iterator[None]:
        area, file = self.directory / "archive", self.directory / "dcmqrscp.cfg"
        area.mkdir()
        file.write_text(self.printed("ini dcmqrscp").replace("/var/lib/dcmqrscp", str(area)))
        dcmqrscp.index(self.directory, self.study.files)
        with listening(("/usr/bin/dcmqrscp", "-dhl", "-c", file), int(self.ports["11112"]), self.directory / "log"):
            yield

    @contextmanager
    def cutting(self, _changes: dict[str, Any]) -> Iterator[None]:
        """An archive that cuts its lists and says so to nobody; no page has one."""
        to = {one["ae_title"]: one["port"] for one in self.receivers()}
        port, held = int(self.ports["11112"]), self.study.files[0].parent
        with running_archive(port, to, held, "cut-whole-studies", n=10):
            yield

    def running(self, archive: str, **changes: Any) -> AbstractContextManager[None]:
        return {"orthanc": self.orthanc, "dcmqrscp": self.dcmqrscp, "cutting": self.cutting}[archive](changes)

    def receivers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = yaml.safe_load(self.printed("yaml mkiso"))["receivers"]
        return found

    def configuration(self, receivers: Sequence[dict[str, Any]], **changes: Any) -> Config:
        printed = yaml.safe_load(self.printed("yaml mkiso"))
        made = settings(self.directory, 0, {}, retrieve=printed["retrieve"] | {"settle_timeout": 1} | changes)
        own = {"destinations": {}, "server": {"bind": f"{LOCALHOST}:{free_ports(1)[0]}"}}
        return parse(made | own | {"pacs": printed["pacs"], "receivers": list(receivers)})


def failures(config: Config, accession: str = ACCESSION) -> list[str]:
    """What `mkiso check --accession` finds wrong."""
    return [f"{one.name}: {one.found}" for one in (*checks(config), *trial(config, accession)) if not one.ok]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return ct_study(tmp_path_factory.mktemp("held"), RICHARD, ACCESSION, count=30)


@pytest.fixture(scope="module")
def houses(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, House]]:
    """Each archive as the page has it."""
    with ExitStack() as running:
        made = {name: House(tmp_path_factory.mktemp(name), study) for name in ("orthanc", "dcmqrscp")}
        for name, house in made.items():
            running.enter_context(house.running(name))
        yield made


@pytest.mark.parametrize("archive", ["orthanc", "dcmqrscp"])
def test_an_archive_as_the_page_configures_it_serves_each_receiver(
    archive: str, houses: dict[str, House], study: Study, tmp_path: Path
) -> None:
    house = houses[archive]
    assert failures(house.configuration(house.receivers())) == []
    for one in house.receivers():
        installation = Installation(house.configuration([one]))
        disc = b"".join(make_disc(installation, Order((ACCESSION,), "test"), Cancellation()))
        installation.ledger.close()
        assert instances_on(read_disc(disc, tmp_path / one["ae_title"])) == instances_of([study])


@dataclass(frozen=True)
class Wrong:
    """A mistake, here or there, and the row of the page's last table that tells it."""

    archive: str
    row: int
    accession: str = ACCESSION
    calling: str = "CDRECORD"
    receiver: str = "CDRECORD"
    other_port: bool = False

    def found(self, house: House) -> None:
        port = free_ports(1)[0] if self.other_port else house.receivers()[0]["port"]
        receivers = [{"ae_title": self.receiver, "port": port}]
        told = failures(house.configuration(receivers, calling_ae_title=self.calling), self.accession)
        line = ".*".join(re.escape(part.strip()) for part in TOLD[self.row].split("…"))
        assert any(re.match(line, one) for one in told), (TOLD[self.row], told)


HERE = (
    Wrong("dcmqrscp", 0, calling="NOBODY"),
    Wrong("orthanc", 1, calling="NOBODY"),
    Wrong("dcmqrscp", 2, accession="NONE.001"),
    Wrong("dcmqrscp", 3, receiver="UNKNOWN"),
    Wrong("orthanc", 4, receiver="UNKNOWN"),
    Wrong("orthanc", 4, other_port=True),
    Wrong("dcmqrscp", 5, other_port=True),
)
THERE: tuple[tuple[Wrong, dict[str, Any]], ...] = (
    (Wrong("dcmqrscp", 0), {"host": ELSEWHERE}),
    (Wrong("orthanc", 1), {"host": ELSEWHERE}),
    (Wrong("orthanc", 6), {"modality": {"AllowMove": False}}),
    (Wrong("orthanc", 7, other_port=True), {"SynchronousCMove": False}),
    (Wrong("cutting", 8), {}),
)


def test_each_row_of_the_page_is_tried() -> None:
    assert {one.row for one in (*HERE, *(wrong for wrong, _ in THERE))} == set(range(len(TOLD)))


@pytest.mark.parametrize("wrong", HERE, ids=lambda one: f"{one.archive}-{one.row}")
def test_check_says_of_a_mistake_here_what_the_page_tells(wrong: Wrong, houses: dict[str, House]) -> None:
    wrong.found(houses[wrong.archive])


@pytest.mark.parametrize(("wrong", "changes"), THERE, ids=[f"{one.archive}-{one.row}" for one, _ in THERE])
def test_check_says_of_a_mistake_in_the_pacs_what_the_page_tells(
    wrong: Wrong, changes: dict[str, Any], study: Study, tmp_path: Path
) -> None:
    house = House(tmp_path, study, changes.get("host", LOCALHOST))
    with house.running(wrong.archive, **{key: value for key, value in changes.items() if key != "host"}):
        wrong.found(house)


def test_orthanc_with_a_limit_below_a_series_serves_nothing_of_it(study: Study, tmp_path: Path) -> None:
    house = House(tmp_path, study)
    with house.running("orthanc", LimitFindInstances=10):
        told = failures(house.configuration(house.receivers()))
    assert "MatchingTerminatedDueToCancelRequest" in told[0]


OWN = re.compile(r"/var/(?:lib|cache)/mkiso")
COMMANDS = [
    line
    for file in sorted((ROOT / "docs").glob("*.md"))
    for commands in re.findall(r"^```sh.*?\n(.*?)^```$", file.read_text(), re.M | re.S)
    for line in commands.splitlines()
    if OWN.search(line)
]


@pytest.mark.parametrize("line", COMMANDS)
def test_what_the_user_mkiso_owns_is_touched_by_nobody_else(line: str) -> None:
    assert line.startswith("runuser -u mkiso -- ")
    assert not re.search(rf"[<>]\s*{OWN.pattern}", line)  # the shell is root's


def test_a_packages_scripts_look_at_nothing_below_what_the_user_mkiso_owns() -> None:
    for name in ("postinst", "prerm", "postrm"):
        text = (ROOT / "packaging" / name).read_text()
        assert not re.search(rf"{OWN.pattern}/|(chown|chmod|cp|mv)\b.*{OWN.pattern}", text), name


@dataclass(frozen=True)
class Place:
    """/var/lib/mkiso elsewhere, of a user who is not root, and a file that only root may read."""

    lib: Path
    secret: Path

    def does(self, words: str) -> bool:
        """Run a block of docs/operations.md; whether it came to its end."""
        text = OWN.sub(str(self.lib), block("operations", words)).replace("-u mkiso", "-u nobody")
        path = f"{self.lib.parent}:{os.environ['PATH']}"
        return subprocess.run(("sh", "-ec", text), env={"PATH": path}, cwd="/", check=False, timeout=60).returncode == 0


@pytest.fixture
def own_place() -> Iterator[Place]:
    """Not in a directory of pytest's, which nobody else may enter."""
    above = Path(tempfile.mkdtemp(prefix="place-"))
    place = Place(above / "lib", above / "secret")
    try:
        place.lib.mkdir()
        place.secret.write_text("of root alone")
        place.secret.chmod(0)
        programs = {"systemctl": ""}
        if os.geteuid() == 0:
            above.chmod(0o755)
            os.chown(place.lib, pwd.getpwnam("nobody").pw_uid, -1)
        else:
            programs["runuser"] = 'shift 3; exec "$@"'
        for name, text in programs.items():
            (above / name).write_text(f"#!/bin/sh\n{text}\n")
            (above / name).chmod(0o755)
        yield place
    finally:
        shutil.rmtree(above)


def test_the_ledger_is_copied_and_restored_by_the_user_whose_it_is(own_place: Place) -> None:
    ledger = own_place.lib / "ledger.db"
    with sqlite3.connect(ledger) as connection:
        connection.execute("CREATE TABLE jobs (id)")
    connection.close()
    if os.geteuid() == 0:
        os.chown(ledger, own_place.lib.stat().st_uid, -1)
    assert own_place.does("sh backup")
    whole = (own_place.lib / "copy.db").read_bytes()
    ledger.write_bytes(b"torn")
    assert own_place.does("sh restore")
    assert (ledger.read_bytes(), ledger.stat().st_mode & 0o777) == (whole, 0o600)
    assert ledger.stat().st_uid == own_place.lib.stat().st_uid


def test_no_restore_follows_a_link_to_what_is_roots(own_place: Place) -> None:
    ledger = own_place.lib / "ledger.db"
    ledger.write_bytes(b"as it was")
    (own_place.lib / "copy.db").symlink_to(own_place.secret)
    (own_place.lib / "ledger.db-wal").write_bytes(b"beside it")
    assert not own_place.does("sh restore")
    assert ledger.read_bytes() == b"as it was"
    assert (own_place.lib / "ledger.db-wal").exists()


def test_no_restore_writes_where_a_link_leads(own_place: Place) -> None:
    elsewhere = own_place.lib.parent / "elsewhere"
    elsewhere.mkdir()
    (own_place.lib / "copy.db").write_bytes(b"a copy")
    (own_place.lib / "copy.db").chmod(0o644)
    for name in ("ledger.db", "ledger.new"):
        (own_place.lib / name).symlink_to(elsewhere)
    own_place.does("sh restore")
    assert list(elsewhere.iterdir()) == []
