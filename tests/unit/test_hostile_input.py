"""No accession number reaches a program's arguments, SQL, a URL, a path or a header but as what it is."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from mkiso.accession import REFUSED, parse_one
from mkiso.config import parse
from mkiso.dcmtk.association import Peer
from mkiso.dcmtk.findscu import Finder, find_argv
from mkiso.errors import AccessionNotFound, MkisoError
from mkiso.job import Order
from mkiso.patients import ApiNames, SqlNames, patient_source

PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in REFUSED)
accepted = st.text(PLAIN, min_size=1, max_size=64).map(lambda given: given.strip(" ")).filter(bool)
PACS = Peer("ABPACS", "127.0.0.1", 104, "CDRECORD", 10)


def nothing() -> None:
    """What is asked all the while, and never objects."""


@given(accepted)
def test_an_accession_number_is_one_value_of_one_key_in_the_arguments(accession: str) -> None:
    class Told(Finder):
        def _ask(self, keys: tuple[str, ...], output: tuple[str, ...]) -> int:
            argv = find_argv(self.dcmtk_dir, self.pacs, self.timeout, keys, output)
            at = argv.index(f"AccessionNumber={accession}")
            assert argv[at - 1] == "-k"
            without = find_argv(self.dcmtk_dir, self.pacs, self.timeout, ("x",) * len(keys), output)
            assert len(argv) == len(without)
            return 0

    assert Told(Path("/usr/bin"), PACS, 1, Path("/nowhere")).studies(accession) == []


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> SqlNames:
    url = f"sqlite:///{tmp_path_factory.mktemp('sql')}/patients.db"
    with create_engine(url).begin() as connection:
        connection.execute(text("CREATE TABLE patients (accession TEXT, name TEXT)"))
        connection.execute(text("INSERT INTO patients VALUES ('MR.001', 'DOE^JANE')"))
    query = "SELECT name AS patient_name FROM patients WHERE accession = :accession_number"
    source = patient_source(
        parse({"patients": {"source": "sql", "sql": {"steps": [{"url": url, "query": query}]}}}).patients
    )
    assert isinstance(source, SqlNames)
    return source


@given(accession=accepted.filter(lambda accession: accession != "MR.001"))
def test_an_accession_number_is_a_bound_value_in_sql(accession: str, names: SqlNames) -> None:
    with pytest.raises(AccessionNotFound):
        names.name_of(accession, nothing)
    assert names.name_of("MR.001", nothing) == "DOE^JANE"


@given(accepted)
def test_an_accession_number_is_one_parameter_of_the_patient_apis_url(accession: str) -> None:
    asked = []

    class Told(ApiNames):
        def _get(self, url: str, _checkpoint: object) -> tuple[int, object]:
            asked.append(url)
            return 200, {"patient_name": "DOE^JANE"}

    api = {"url": "https://his.example/patients?accession={accession_number}&site=1"}
    Told(parse({"patients": {"source": "api", "api": api}}).patients.api).name_of(accession, nothing)
    url = urlsplit(asked[0])
    assert (url.scheme, url.netloc, url.path, url.fragment) == ("https", "his.example", "/patients", "")
    assert parse_qs(url.query) == {"accession": [accession], "site": ["1"]}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text())
def test_what_is_accepted_fits_a_quoted_file_name_of_a_header(given_text: str) -> None:
    try:
        accession = parse_one(given_text)
    except MkisoError:
        return
    name = Order((accession,), "test", single=True).file_name("")
    assert name.isascii()
    assert name.isprintable()
    assert not set(name) & set('"\\\r\n')
