"""Who is on the disc: names from the archive, from databases and from an HTTP service; one patient a disc; tokens."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import create_engine, text

from mkiso import errors
from mkiso.config import parse
from mkiso.dicom.datasets import display_name, page_name
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from mkiso.patients import patient_source
from mkiso.waiting import Cancellation
from tests.integration.conftest import Site
from tests.integration.test_orthanc import before_orthanc
from tests.support.destination import running_destination
from tests.support.mariadb import HIS, MEDREC, MariaDB, running_mariadb
from tests.support.orthanc import running_orthanc
from tests.support.patient_api import TOKEN, running_api, self_signed
from tests.support.ports import free_ports
from tests.support.service import Service, file_name, instances_of, instances_on, mkiso, read_disc, running_service
from tests.support.studies import standard_studies
from tests.support.tools import ROOT, wait_until

FAILURES = ("FAILS", "SLOW", "CLOSED", "HTML", "BROKEN", "FIELD", "NULL", "LOGIN", "SURROGATE")
ENDLESS = ("TRICKLE", "DRIP", "CONTINUE")
HOSTILE = "x' OR '1'='1"


def nothing() -> None:
    """What is asked all the while, and never objects."""


def source(**patients: Any) -> Any:
    return patient_source(parse({"patients": patients}).patients)


def file_name_of(site: Site, **patients: Any) -> str:
    """The name of the disc of CT.001 with this patient source."""
    installation = Installation(site.config(patients=patients))
    with closing(installation.ledger):
        disc = make_disc(installation, Order(("CT.001",), "test"), Cancellation())
        disc.close()
    return disc.file_name


@contextmanager
def filled_mariadb(directory: Path) -> Iterator[MariaDB]:
    with running_mariadb(directory / "mariadb", free_ports(1)[0]) as server:
        server.execute(
            f"INSERT INTO {HIS}.pacs_result_series VALUES ('CT.001', 'M1', 'R1'), ('LOST.001', 'M9', 'R9')",
            f"INSERT INTO {MEDREC}.medrec VALUES ('M1', 'Müller, Jörg')",
        )
        yield server


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    with filled_mariadb(tmp_path_factory.mktemp("database")) as server:
        yield server


class TestDatabase:
    """MariaDB with the notes' two queries."""

    def sql(self, mariadb: MariaDB, timeout: float = 5) -> dict[str, Any]:
        """The example's queries, on this server."""
        example = (ROOT / "etc" / "mkiso.yaml").read_text()
        first, second = re.findall(r"query: (SELECT .*)", example)
        steps = [{"url": mariadb.url(HIS), "query": first}, {"url": mariadb.url(MEDREC), "query": second}]
        return {"source": "sql", "sql": {"timeout": timeout, "steps": steps}}

    def test_the_notes_two_queries_give_the_name(self, mariadb: MariaDB, site: Site) -> None:
        assert source(**self.sql(mariadb)).name_of("CT.001", nothing) == "Müller, Jörg"
        assert file_name_of(site, **self.sql(mariadb)) == "MullerJorg-CT001.iso"

    @pytest.mark.parametrize("accession", ["NONE.001", "LOST.001", HOSTILE])
    def test_no_row_means_not_found_and_changes_nothing(self, accession: str, mariadb: MariaDB) -> None:
        before = mariadb.execute(f"SELECT * FROM {HIS}.pacs_result_series")
        with pytest.raises(errors.AccessionNotFound):
            source(**self.sql(mariadb)).name_of(accession, nothing)
        assert mariadb.execute(f"SELECT * FROM {HIS}.pacs_result_series") == before

    def test_an_unknown_patient_is_told_before_the_pacs_is_asked(self, mariadb: MariaDB, tmp_path: Path) -> None:
        nobody, receiver = free_ports(2)
        storage = {"work_dir": str(tmp_path / "work"), "ledger": f"sqlite:///{tmp_path}/ledger.db", "min_free": 0}
        receivers = [{"ae_title": "R", "port": receiver}]
        settings = {"pacs": {"port": nobody}, "storage": storage, "receivers": receivers}
        installation = Installation(parse(settings | {"patients": self.sql(mariadb)}))
        with pytest.raises(errors.AccessionNotFound), closing(installation.ledger):
            make_disc(installation, Order(("NONE.001", "CT.001"), "test"), Cancellation())

    def test_a_server_that_was_restarted_between_two_requests_is_found_again(self, tmp_path: Path) -> None:
        with filled_mariadb(tmp_path) as mariadb:
            names = source(**self.sql(mariadb))
            assert names.name_of("CT.001", nothing) == "Müller, Jörg"
            mariadb.kill()
            with pytest.raises(errors.PatientDbUnavailable) as caught:
                names.name_of("CT.001", nothing)
            assert str(mariadb.port) not in caught.value.detail
            mariadb.start()
            assert names.name_of("CT.001", nothing) == "Müller, Jörg"

    def test_a_query_that_takes_too_long_is_given_up(self, mariadb: MariaDB) -> None:
        steps = [{"url": mariadb.url(HIS), "query": "SELECT SLEEP(30) AS patient_name"}]
        with pytest.raises(errors.PatientDbUnavailable):
            source(source="sql", sql={"timeout": 0.5, "steps": steps}).name_of("CT.001", nothing)

    def test_a_wrong_password_is_never_told(self, mariadb: MariaDB, tmp_path: Path, site: Site) -> None:
        url = tmp_path / "url"
        url.write_text(mariadb.url(HIS).replace("root@", "his:invented-password@") + "\n")
        steps = [{"url": f"file:{url}", "query": "SELECT 1 AS patient_name"}]
        settings = site.settings(patients={"source": "sql", "sql": {"steps": steps}})
        with running_service(tmp_path, free_ports(1)[0], settings) as service:
            answer = service.get("/mkiso.php?accession_number=CT.001")
            assert (answer.status_code, answer.json()["code"]) == (502, "patient_db_unavailable")
            assert "invented-password" not in answer.text + service.log.read_text()


def test_sqlite_serves_as_a_patient_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/patients.db"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE patients (accession TEXT, name TEXT)"))
        connection.execute(text("INSERT INTO patients VALUES ('CT.001', 'DOE^JANE'), ('EMPTY.001', NULL)"))
    engine.dispose()
    steps = [{"url": url, "query": "SELECT name AS patient_name FROM patients WHERE accession = :accession_number"}]
    names = source(source="sql", sql={"steps": steps})
    assert names.name_of("CT.001", nothing) == "DOE^JANE"
    assert names.name_of("EMPTY.001", nothing) == ""
    with pytest.raises(errors.AccessionNotFound):
        names.name_of(HOSTILE, nothing)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("SELECT 1 AS other", "no step's row has a column patient_name"),
        ("SELECT :unknown AS patient_name", "no step's row has a column unknown"),
        ("SELECT * FROM nowhere", "OperationalError"),
    ],
)
def test_a_query_that_does_not_give_the_name_is_told(query: str, why: str) -> None:
    with pytest.raises(errors.PatientDbUnavailable, match=why):
        source(source="sql", sql={"steps": [{"url": "sqlite://", "query": query}]}).name_of("CT.001", nothing)


@pytest.mark.parametrize("url", ["nonsense", "oracle://x/y", "mysql+nodriver://x/y"])
def test_a_database_url_that_cannot_be_used_stops_the_start(url: str) -> None:
    with pytest.raises(errors.ConfigurationError):
        source(source="sql", sql={"steps": [{"url": url, "query": "SELECT 1"}]})


def api(port: int, scheme: str = "http", **options: Any) -> dict[str, Any]:
    url = f"{scheme}://127.0.0.1:{port}/patients?accession={{accession_number}}"
    fields = {"url": url, "name_field": "data.patient.0.name", "headers": {"Authorization": TOKEN}, "timeout": 1}
    return {"source": "api", "api": {**fields, **options}}


class TestApi:
    def test_the_name_is_taken_from_a_dotted_path_of_the_answer(self, site: Site) -> None:
        (port,) = free_ports(1)
        with running_api(port):
            assert source(**api(port)).name_of("CT.001", nothing) == "Søren Ångström"
            assert file_name_of(site, **api(port)) == "SorenAngstrom-CT001.iso"

    def test_an_accession_number_is_put_in_url_encoded(self) -> None:
        (port,) = free_ports(1)
        with running_api(port) as server:
            for accession in ("A&accession=B", "A/../B", "A#B%41", HOSTILE):
                with pytest.raises(errors.AccessionNotFound):
                    source(**api(port)).name_of(accession, nothing)
            assert server.asked == ["A&accession=B", "A/../B", "A#B%41", HOSTILE]

    def test_not_found_is_not_found(self) -> None:
        (port,) = free_ports(1)
        with running_api(port), pytest.raises(errors.AccessionNotFound) as caught:
            source(**api(port)).name_of("NONE.001", nothing)
        assert caught.value.fields["accession"] == "NONE.001"

    @pytest.mark.parametrize(
        "accession",
        [f"{kind}.001" for kind in (*FAILURES, *ENDLESS)],
    )
    def test_any_other_failure_is_unavailable(self, accession: str) -> None:
        (port,) = free_ports(1)
        with running_api(port), pytest.raises(errors.PatientApiUnavailable):
            source(**api(port)).name_of(accession, nothing)

    @pytest.mark.parametrize("kind", ["SLOW", *ENDLESS])
    def test_a_cancel_gets_through_while_the_api_is_asked(self, kind: str, site: Site) -> None:
        (port,) = free_ports(1)
        cancellation = Cancellation()
        installation = Installation(site.config(patients=api(port, timeout=3600)))
        with running_api(port) as server, closing(installation.ledger), ThreadPoolExecutor(1) as pool:
            made = pool.submit(make_disc, installation, Order((f"{kind}.001",), "test"), cancellation)
            wait_until(lambda: bool(server.asked), 20, str)
            cancellation.cancel("enough")
            with pytest.raises(errors.Cancelled):
                made.result(30)
            if kind in ENDLESS:
                wait_until(server.left.is_set, 20, str)

    def test_a_connection_that_fails_is_tried_once_more(self) -> None:
        (port,) = free_ports(1)
        with running_api(port) as server:
            assert source(**api(port)).name_of("ONCE.001", nothing) == "Søren Ångström"
            with pytest.raises(errors.PatientApiUnavailable):
                source(**api(port)).name_of("CLOSED.001", nothing)
            assert server.asked == ["ONCE.001"] * 2 + ["CLOSED.001"] * 2

    def test_nobody_there_or_no_token_is_unavailable_without_the_token_in_the_text(self) -> None:
        (port,) = free_ports(1)
        with pytest.raises(errors.PatientApiUnavailable) as caught:
            source(**api(port)).name_of("CT.001", nothing)
        with running_api(port), pytest.raises(errors.PatientApiUnavailable):
            source(**api(port, headers={"Authorization": "Bearer other"})).name_of("CT.001", nothing)
        assert TOKEN not in str(caught.value)

    def test_a_certificate_counts_only_with_its_ca(self, tmp_path: Path) -> None:
        (port,) = free_ports(1)
        certificate = self_signed(tmp_path)
        with running_api(port, certificate):
            with pytest.raises(errors.PatientApiUnavailable):
                source(**api(port, "https")).name_of("CT.001", nothing)
            trusted = api(port, "https", ca_file=f"{certificate}.crt")
            assert source(**trusted).name_of("CT.001", nothing) == "Søren Ångström"

    def test_check_tells_whether_the_patient_source_answers(self, site: Site, tmp_path: Path) -> None:
        (port,) = free_ports(1)
        file = tmp_path / "mkiso.yaml"
        file.write_text(yaml.safe_dump(site.settings(patients=api(port))))
        assert "FAIL  patients.source" in mkiso("check", "--config", file).stdout.decode()
        with running_api(port):
            assert "ok    patients.source: api answers" in mkiso("check", "--config", file).stdout.decode()


@pytest.fixture(scope="module")
def guarded(pacs: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("guarded")
    secret = directory / "token"
    secret.write_text("invented-secret\n")
    tokens = [{"name": "his", "token": f"file:{secret}"}, {"name": "ris", "token": "another-invented"}]
    (port,) = free_ports(1)
    server = {"bind": f"127.0.0.1:{port}", "api_tokens": tokens}
    with running_service(directory, port, Site(directory, pacs).settings(server=server)) as service:
        yield service


@pytest.mark.parametrize(
    "header", [None, "invented-secret", "Bearer wrong", "Basic invented-secret", "Bearer ", "Bearer é"]
)
def test_the_api_is_closed_without_a_token(header: str | None, guarded: Service) -> None:
    headers = {"Authorization": header.encode()} if header else {}
    for path in (
        "/api/jobs",
        "/api/iso/download?accession_number=CT.001",
        "/api/studies?accession_numbers=CT.001",
        "/api/x",
    ):
        answer = guarded.get(path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_the_php_urls_and_health_need_no_token(guarded: Service) -> None:
    assert guarded.get("/mkiso.php?accession_number=SR.001").status_code == 200
    assert guarded.get("/healthz").status_code == 200


def test_the_tokens_name_is_the_requester_and_the_token_is_nowhere(guarded: Service) -> None:
    headers = {"Authorization": "Bearer invented-secret"}
    assert guarded.get("/api/iso/download?accession_number=SR.001", headers=headers).status_code == 200
    jobs = guarded.get("/api/jobs?limit=1", headers=headers)
    assert jobs.json()["jobs"][0]["requester"] == "his@127.0.0.1"
    assert "invented" not in jobs.text + guarded.log.read_text()


NAMES = {
    "CT.001": ("JOHN DOE", "JOHN DOE", "DOEJOHN"),
    "LATIN.001": ("JÖRG MÜLLER", "JÖRG MÜLLER", "MULLERJORG"),
    "UTF8.001": ("TARO YAMADA", "TARO YAMADA (山田 太郎)", "YAMADATARO"),
    "GB.001": ("XIAODONG WANG", "XIAODONG WANG (王 小东)", "WANGXIAODONG"),
    "IR87.001": ("Tarou Yamada", "Tarou Yamada (山田 太郎)", "YamadaTarou"),
}


@pytest.fixture(scope="module")
def relaying(pacs: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("relaying")
    port, http = free_ports(2)
    peers = {"relay": {"ae_title": "DESTINATION", "host": "127.0.0.1", "port": port}}
    settings = Site(directory, pacs).settings(destinations=peers)
    with running_destination(port), running_service(directory, http, settings) as service:
        yield service


@pytest.mark.parametrize("accession", NAMES)
def test_names_of_every_character_set_come_out_right(accession: str, relaying: Service) -> None:
    read, shown, in_file = NAMES[accession]
    told = relaying.get(f"/api/studies?accession_numbers={accession}").json()
    assert told["studies"][0]["patient_name"] == read
    answer = relaying.get(f"/mkiso_multiple.php?accession_number={accession}")
    assert file_name(answer) == f"{in_file}-{accession.replace('.', '')}.iso"
    assert relaying.get(f"/api/jobs/{answer.headers['X-Job-Id']}").json()["patient_name"] == read
    assert relaying.get(f"/mkiso2.php?accession_number={accession}").json()["patient_name"] == read
    assert shown in relaying.get(f"/?accession_numbers={accession}", headers={"Accept": "text/html"}).text


@pytest.mark.parametrize("encoding", ["Utf8", "Latin1"])
def test_names_come_right_from_orthanc_as_far_as_its_encoding_goes(encoding: str, tmp_path: Path) -> None:
    port, http, receiver = free_ports(3)
    held = [study for study in standard_studies(tmp_path / "held") if study.accession in NAMES]
    settings = before_orthanc(tmp_path, port, receiver)
    with running_orthanc(tmp_path / "pacs", (port, http), {"RECEIVER": receiver}, DefaultEncoding=encoding) as orthanc:
        for study in held:
            orthanc.put(study.files)
        installation = Installation(parse(settings))
        names = {
            study.accession: installation.studies([study.accession], Cancellation(), "query")[0].patient_name
            for study in held
        }
        installation.ledger.close()
    for accession, (read, shown, _) in NAMES.items():
        assert display_name(names[accession]) == read
        assert page_name(names[accession]) == (shown if encoding == "Utf8" else read)


def test_an_accession_number_that_two_patients_share_moves_nothing(site: Site, tmp_path: Path) -> None:
    installation = Installation(site.config())
    with pytest.raises(errors.SeveralPatients) as caught:
        make_disc(installation, Order(("SHARED.001",), "test"), Cancellation())
    assert caught.value.fields["patients"] == 2
    assert "retrieving" not in installation.ledger.list_jobs()[0]["seconds"]
    installation.ledger.close()
    mixed = Installation(site.config(patients={"allow_mixed": True}))
    disc = make_disc(mixed, Order(("SHARED.001",), "test"), Cancellation())
    found = instances_on(read_disc(b"".join(disc), tmp_path / "disc"))
    assert found == instances_of(site.pacs.of("SHARED.001"))
    mixed.ledger.close()
