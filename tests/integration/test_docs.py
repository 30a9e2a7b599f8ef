"""docs/pacs.md: what it prints for an archive and for mkiso fits, and `mkiso check` says what it tells."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from mkiso.cancellation import Cancellation
from mkiso.commands.check import checks
from mkiso.commands.trial import trial
from mkiso.config import Config, parse
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from tests.support import dcmqrscp
from tests.support.archive import running_archive
from tests.support.orthanc import running_orthanc
from tests.support.pages import block, page
from tests.support.ports import free_ports
from tests.support.service import instances_of, instances_on, read_disc, settings
from tests.support.studies import RICHARD, Study, ct_study
from tests.support.tools import LOCALHOST, listening

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
