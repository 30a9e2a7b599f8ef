"""The operator's pages as Flask answers them: look up, make, send, watch, cancel."""

import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

from mkiso.errors import Busy, PacsUnreachable
from mkiso.installation import Installation
from mkiso.ledger.experience import Kind, Sizes
from mkiso.ledger.ledger import Ledger
from mkiso.retrieve.search import PatientQuery, SearchResult
from mkiso.retrieve.studies import Patient, Series, Study
from mkiso.web.found import LookedUp, bytes_an_image, ticked
from mkiso.workspace import job_directory
from tests.unit.test_web import BROWSER, DOWNLOADS, ID, ISO, Jobs, client, installation, ledger, record, service

__all__ = ("client", "installation", "service")  # fixtures
OTHER = "123e4567-e89b-12d3-a456-426614174001"
JSON = {"Accept": "application/json"}
SCRIPT = "<script>alert(1)</script>"


def study(accession: str, patient_id: str = "P1", name: str = "DOE^JOHN", **more: Any) -> Study:
    uid = f"1.{sum(map(ord, accession + patient_id))}"
    fields = {"instances": {"1.5": "1.4", "1.6": "1.4", "1.7": "1.8"}, "birth_date": "19620817"} | more
    return Study(accession, uid, patient_id, "", name, "20240301", "Head", ("CT", "SR"), **fields)


@pytest.fixture
def held(installation: Jobs) -> Jobs:
    installation.held = {
        "A": [study("A")],
        "B": [study("B")],
        "C": [study("C", "P2", "ROE^JANE")],
        "S": [study("S"), study("S", "P2", "ROE^JANE")],
        "X": [study("X", "P3", SCRIPT)],
    }
    return installation


@pytest.fixture
def running(client: FlaskClient) -> Iterator[str]:
    """A job that is under way as long as the test."""
    with job_directory(client.application.extensions["mkiso"][0].config.storage.work_dir, ID):
        record(client, ID, "A", "B", patient_id="P1", patient_name="JOHN DOE", state="retrieving", expected=5)
        ledger(client).update(ID, received=2, bytes=2000)
        yield ID


def location(answer: Any) -> tuple[str, dict[str, list[str]]]:
    """The path and the parameters that a browser is sent to."""
    assert answer.status_code == 303
    url = urlsplit(answer.headers["Location"])
    return url.path, parse_qs(url.query)


def test_a_filtered_history_says_how_its_filter_is_cleared(client: FlaskClient) -> None:
    answer = client.get("/history?patient=DOE", headers=BROWSER)
    assert '<a href="/history">Clear the filter</a>' in answer.text


@pytest.mark.parametrize("url", ["/", "/history", "/relays", "/nothing", f"/jobs/{ID}"])
def test_a_page_loads_nothing_from_elsewhere_and_runs_nothing_inline(url: str, client: FlaskClient) -> None:
    answer = client.get(url, headers=BROWSER)
    rules = dict(one.strip().split(" ", 1) for one in answer.headers["Content-Security-Policy"].split(";"))
    assert rules.pop("default-src") == rules.pop("base-uri") == "'none'"
    assert set(rules.values()) == {"'self'"}
    assert {*rules} == {
        *("script-src", "style-src", "img-src", "connect-src", "frame-src", "form-action", "frame-ancestors"),
    }
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert all(word not in answer.text for word in ("<style", " style=", "onclick", "http://", "https://", "/api/"))
    assert answer.text.count("<script") == answer.text.count("<script src=")


def test_what_a_page_needs_may_be_kept_by_the_browser(client: FlaskClient) -> None:
    page = client.get("/", headers=BROWSER).text
    for url in ("mkiso.css", "start.js", "status.js", "icon.svg"):
        (named,) = {part for part in page.split('"') if f"/static/{url}?v=" in part}
        answer = client.get(named)
        assert answer.status_code == 200
        assert "max-age=86400" in answer.headers["Cache-Control"]


def test_a_page_has_the_hospitals_name_and_logo(service: Callable[..., Flask], tmp_path: Path) -> None:
    (tmp_path / "logo.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    ours = service(title="RS <Harapan>", logo_file=str(tmp_path / "logo.svg"), helpdesk="IT: 1234").test_client()
    page = ours.get("/nothing", headers=BROWSER).text
    assert "RS &lt;Harapan&gt;" in page
    assert 'src="/logo"' in page
    assert "IT: 1234" in page
    assert ours.get("/logo").mimetype == "image/svg+xml"


def test_without_a_logo_there_is_none(client: FlaskClient) -> None:
    assert "/logo" not in client.get("/", headers=BROWSER).text
    assert client.get("/logo").status_code == 404


def test_the_state_of_the_service_stands_on_every_page(client: FlaskClient) -> None:
    for url in ("/", "/history", "/nothing"):
        page = client.get(url, headers=BROWSER).text
        assert all(text in page for text in ("PACS reachable", "Receivers busy: 1 of 2", "Waiting: 3", "40 GB"))
    assert client.get("/", headers=JSON).json["status"]["known"]


@pytest.mark.parametrize(
    "text", ["A B", "A,B", "A\nB\r\n", "\tA\tB ", "A, B,", ",A,,B", "A B A", "A;B", "A; B.", "A.\n\tB."]
)
def test_a_pasted_list_is_looked_up_however_it_is_separated(text: str, client: FlaskClient, held: Jobs) -> None:
    answer = client.get("/", query_string={"accession_numbers": text}, headers=BROWSER)
    assert answer.status_code == 200
    assert held.asked == [("A", "B")]
    for shown in ("JOHN DOE", "1962-08-17", "2024-03-01", "Head", "CT, SR", "P1", "Make disc", "Send to cd_publisher"):
        assert shown in answer.text


@pytest.mark.parametrize(
    "query", ["accession_number=A", "accession_numbers=A", "accession_number=A&accession_numbers="]
)
def test_the_hospitals_own_page_opens_what_it_wants_looked_up(query: str, client: FlaskClient, held: Jobs) -> None:
    assert "JOHN DOE" in client.get(f"/?{query}", headers=BROWSER).text
    assert held.asked == [("A",)]


def test_nothing_is_looked_up_before_somebody_asks(client: FlaskClient, held: Jobs) -> None:
    client.get("/", headers=BROWSER)
    client.head("/?accession_numbers=A", headers=BROWSER)
    assert held.asked == []


@pytest.mark.usefixtures("held")
def test_an_unknown_number_is_said_where_it_stands(client: FlaskClient) -> None:
    page = client.get("/?accession_numbers=A+NONE", headers=BROWSER).text
    assert "The PACS knows no study with this number" in page
    assert "Make disc" not in page
    assert 'href="/?accession_numbers=A"' in page


@pytest.mark.usefixtures("held")
def test_several_patients_are_said_and_each_can_be_chosen(client: FlaskClient) -> None:
    page = client.get("/?accession_numbers=A+C+B", headers=BROWSER).text
    assert "belong to different patients" in page
    assert "Make disc" not in page
    assert 'href="/?accession_numbers=A+B"' in page or 'href="/?accession_numbers=A%20B"' in page
    assert 'href="/?accession_numbers=C"' in page


def test_a_number_of_two_patients_is_nobodys_alone(held: Jobs) -> None:
    found = LookedUp({"S": held.held["S"], "A": held.held["A"]})
    assert [(one.patient_id, one.own) for one in found.patients()] == [("P1", ("A",)), ("P2", ())]
    (mine, theirs), (other,) = held.held["S"], held.held["A"]
    assert [one.studies for one in found.patients()] == [(mine.study_uid, other.study_uid), (theirs.study_uid,)]
    assert found.several_patients
    assert not LookedUp(found.studies, allow_mixed=True).several_patients


def test_a_study_of_two_patients_names_both_and_is_nobodys_alone(held: Jobs) -> None:
    (one,) = held.held["A"]
    shared = replace(one, others=(Patient("P9", name="DOE^JANE"),))
    found = LookedUp({"A": [shared], "B": [one]})
    assert found.several_patients
    assert [(one.patient_id, one.name, one.own) for one in found.patients()] == [
        ("P1", "JOHN DOE", ()),
        ("P9", "JANE DOE", ()),
    ]


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("", 400, "No accession number was given"),
        (" ,\t", 400, "No accession number was given"),
        ("A*", 400, "This is not an accession number"),
        ("A B* C", 400, "Check this entry: B*"),
        ("A B C D", 400, "too many accession numbers"),
        ("A B C D D", 400, "These are 4 numbers, and 3 are allowed"),
        (SCRIPT, 200, "&lt;script&gt;"),
    ],
)
@pytest.mark.usefixtures("held")
def test_what_is_no_list_is_said_beside_the_field(text: str, status: int, said: str, client: FlaskClient) -> None:
    answer = client.get("/", query_string={"accession_numbers": text}, headers=BROWSER)
    assert (answer.status_code, said in answer.text, "<textarea" in answer.text) == (status, True, True)
    assert SCRIPT not in answer.text


def test_an_archive_that_is_away_is_said_beside_the_field(client: FlaskClient, held: Jobs) -> None:
    held.fails = PacsUnreachable("No TCP connection.")
    answer = client.get("/?accession_numbers=A", headers=BROWSER)
    assert answer.status_code == 502
    assert all(text in answer.text for text in ("The PACS does not answer", "Try again in a few minutes", "<textarea"))
    again = answer.text.partition('<form method="get" action="/">')[2].partition("</form>")[0]
    assert 'name="accession_numbers" value="A"' in again
    assert "Try again</button>" in again


@pytest.fixture
def searched(installation: Jobs, monkeypatch: pytest.MonkeyPatch) -> list[PatientQuery]:
    """What is asked for by patient; the archive finds two studies of one, with more behind them, and one of another."""
    assert installation
    asked: list[PatientQuery] = []
    found = [study("A", counted=7), study("B", counted=1), study("C", "P2", "ROE^JANE", counted=None)]

    def search(_self: Installation, query: PatientQuery, *_rest: object) -> SearchResult:
        asked.append(query)
        return SearchResult([] if query.name == "nobody" else found, query.name == "Do")

    monkeypatch.setattr(Installation, "search", search)
    return asked


def test_a_patient_is_searched_and_nothing_is_ticked(client: FlaskClient, searched: list[PatientQuery]) -> None:
    page = client.get("/?patient_name=doe&birth_date=1962-08-17&modality=ct&from=&patient_id=", headers=BROWSER).text
    assert searched == [PatientQuery(name="doe", birth_date="19620817", modality="CT")]
    assert page.count('name="study_uids"') == 3
    assert "checked data-images" not in page
    assert 'data-images="7"' in page
    assert 'data-images=""' in page
    assert "There are more than" not in page
    assert 'value="1962-08-17"' in page


def test_a_search_that_was_cut_says_so_and_one_that_finds_nobody_too(
    client: FlaskClient, searched: list[PatientQuery]
) -> None:
    assert "There are more than these 3 studies" in client.get("/?patient_name=Do&patient_id=1", headers=BROWSER).text
    assert "The PACS has no study like this" in client.get("/?patient_name=nobody", headers=BROWSER).text
    assert len(searched) == 2


def test_todays_studies_are_those_of_today(client: FlaskClient, searched: list[PatientQuery]) -> None:
    page = client.get("/", headers=BROWSER).text
    (url,) = [part for part in page.split('"') if part.startswith("/?") and part.endswith("modality=MR")]
    page = client.get(url.replace("&amp;", "&"), headers=BROWSER).text
    today = f"{date.today():%Y%m%d}"
    assert searched == [PatientQuery(since=today, until=today, modality="MR")]
    assert '<option value="MR" selected>' in page


@pytest.mark.parametrize(
    ("query", "said", "field"),
    [
        ("patient_name=mu", "Give at least three letters", "patient_name"),
        ("patient_name=&patient_id=", "Give at least three letters", "patient_name"),
        ("patient_name=mull*", "holds none of * ? \\ (found *)", None),
        ("birth_date=17.8.62", "birth_date is a day such as", None),
        ("patient_name=doe&accession_numbers=A", "Ask for a patient, or for accession numbers", None),
        ("study_uids=A", "study_uids is a list of UIDs", None),
    ],
)
def test_what_cannot_be_searched_is_said_at_its_field(
    query: str, said: str, field: str | None, client: FlaskClient, searched: list[PatientQuery]
) -> None:
    answer = client.get(f"/?{query}", headers=BROWSER)
    assert (answer.status_code, searched) == (400, [])
    assert said in answer.text
    assert (f'id="{field}"' in answer.text.partition('aria-invalid="true"')[0]) == (field is not None)


def test_the_series_of_a_study_are_asked_for_when_it_is_opened(
    client: FlaskClient, held: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Series("1.4", "1", "CT", "Thorax", 2, "1.3"), Series("1.8", "2", "SR", SCRIPT, 1, "1.3")]
    asked: list[list[str]] = []

    def series_of(_self: Installation, study_uids: Sequence[str], *_rest: object) -> dict[str, list[Series]]:
        asked.append(list(study_uids))
        return dict.fromkeys(study_uids, found)

    monkeypatch.setattr(Installation, "series_of", series_of)
    monkeypatch.setattr(Installation, "look_up_studies", lambda *_: held.held["A"])
    client.get("/?accession_numbers=A", headers=BROWSER)
    assert asked == []
    page = client.get("/series?study_uids=1.3", headers=BROWSER).text
    assert 'value="1.3,1.4,1.8"' in page
    assert all(text in page for text in ("1 · CT · Thorax", "2 images", "1 image<"))
    assert SCRIPT not in page
    uid = held.held["A"][0].study_uid
    whole = client.get(f"/?study_uids={uid}&open=1", headers=BROWSER).text
    assert whole.count('name="series_uids"') == 2
    assert asked == [["1.3"], [uid]]
    assert client.get("/series", headers=BROWSER).status_code == 400


@pytest.mark.parametrize(
    ("studies", "series", "opened", "wanted"),
    [
        ("1 2", "", (), ("A B", "", "")),
        ("1", "", (), ("", "1", "")),
        ("1 2 3", "", (), ("", "1 2 3", "")),
        ("1 2", "1.1 1.2", ("1 1.1 1.2",), ("A B", "", "")),
        ("1 2", "1.2", ("1 1.1 1.2",), ("", "1 2", "1.2")),
        ("2", "1.2", ("1 1.1 1.2",), ("", "2 1", "1.2")),
        ("1 2", "", ("1 1.1 1.2",), ("", "2", "")),
        ("1", "2.1", ("1", "2 2.1"), ("A B", "", "")),
        ("", "", ("1 1.1",), ("", "", "")),
    ],
)
def test_what_is_ticked_is_what_is_asked_for(studies: str, series: str, opened: Any, wanted: tuple[str, ...]) -> None:
    shown = [tuple(one.split()) for one in opened]
    asked = ticked(("A", "B"), ["1", "2"], studies.split(), series.split(), shown)
    assert tuple(" ".join(one) for one in asked) == wanted


def test_the_size_of_an_image_is_told_where_it_is_known_and_never_by_a_report() -> None:
    sizes = Sizes({"CT": Kind(10, 5000), "PT": Kind(10, 1000), "SR": Kind(1, 9000)})
    for modalities, each in ((("CT",), 500), (("CT", "SR"), 500), (("PT", "CT"), 500), (("SR",), 9000)):
        assert bytes_an_image(sizes, modalities) == each
    for unknown in ((), ("MR",), ("CT", "MR")):
        assert bytes_an_image(sizes, unknown) is None


@pytest.mark.usefixtures("held")
def test_a_name_is_text_wherever_it_is_shown(client: FlaskClient) -> None:
    record(client, ID, "X", patient_id=SCRIPT, patient_name=SCRIPT, finished_at="2026-01-01T00:00:00.000000Z")
    ledger(client).update(ID, state="done")
    for url in ("/?accession_numbers=X", "/history", f"/jobs/{ID}"):
        page = client.get(url, headers=BROWSER).text
        assert "&lt;script&gt;alert(1)" in page
        assert SCRIPT not in page


def test_a_disc_is_made_by_the_page_that_the_form_leads_to(client: FlaskClient, installation: Jobs) -> None:
    form = {"accession_numbers": "A,B", "format": "zip", "layout": "legacy"}
    path, start = location(client.post("/jobs", data=form, headers=BROWSER))
    job_id = path.removeprefix("/jobs/")
    assert str(uuid.UUID(job_id)) == job_id
    assert start == {"accession_numbers": ["A,B"], "format": ["zip"], "layout": ["legacy"]}
    assert installation.orders == []
    page = client.get(path, query_string={name: one[0] for name, one in start.items()}, headers=BROWSER).text
    framed = page.partition('id="download"')[2].partition('data-url="')[2].partition('"')[0].replace("&amp;", "&")
    assert client.get(framed, headers=BROWSER).data == ISO
    (made,) = installation.orders
    assert (made.job_id, made.accessions, made.format, made.layout) == (job_id, ("A", "B"), "zip", "legacy")


def test_a_page_that_was_loaded_again_starts_nothing(client: FlaskClient, running: str) -> None:
    page = client.get(f"/jobs/{running}?accession_numbers=A,B", headers=BROWSER)
    assert page.status_code == 200
    assert "<iframe" not in page.text
    assert 'data-url="/mkiso' not in page.text


@pytest.mark.parametrize("url", DOWNLOADS)
def test_a_disc_has_a_page_for_who_wants_one(url: str, client: FlaskClient, installation: Jobs) -> None:
    path, start = location(client.get(f"{url}&page=1&job={ID}&format=zip", headers=BROWSER))
    assert path == f"/jobs/{ID}"
    page = client.get(path, query_string={name: one[0] for name, one in start.items()}, headers=BROWSER).text
    single = "multiple" not in url
    assert ("/mkiso.php?" in page, "/mkiso_multiple.php?" in page) == (single, not single)
    assert installation.orders == []


@pytest.mark.parametrize(("headers", "query"), [({}, "&page=1"), (BROWSER, ""), (BROWSER, "&page=0")])
def test_else_it_is_the_file(headers: dict[str, str], query: str, client: FlaskClient) -> None:
    assert client.get(DOWNLOADS[0] + query, headers=headers).data == ISO


def test_a_page_that_makes_no_sense_is_refused_before_it_is_shown(client: FlaskClient) -> None:
    for query in ("page=2", "page=1&format=tar", "page=1&job=17", "page=1&accession_number=B"):
        assert client.get(f"{DOWNLOADS[0]}&{query}", headers=BROWSER).status_code == 400


def test_a_form_sends_to_a_destination(client: FlaskClient, installation: Jobs) -> None:
    form = {"accession_numbers": "A,B", "destination": "cd_publisher"}
    path, _ = location(client.post("/jobs", data=form, headers=BROWSER))
    (relay,) = ledger(client).relays.page(("waiting",))
    assert (relay["destination"], relay["accessions"], installation.orders) == ("cd_publisher", ["A", "B"], [])
    assert path == f"/relays/{relay['id']}"


def test_the_same_that_waits_already_asks_first(client: FlaskClient) -> None:
    form = {"accession_numbers": "A,B", "destination": "cd_publisher"}
    path, _ = location(client.post("/jobs", data=form, headers=BROWSER))
    asked = client.post("/jobs", data=form | {"accession_numbers": "B,A"}, headers=BROWSER)
    assert (asked.status_code, f'<a class="button" href="{path}">' in asked.text) == (200, True)
    assert "Start anyway" in asked.text
    for other in ({"accession_numbers": "A"}, {"destination": "relay"}, {"series_uids": "1.5"}, {"again": "1"}):
        assert location(client.post("/jobs", data=form | other, headers=BROWSER))[0] != path


def test_the_same_set_while_it_runs_asks_first(client: FlaskClient, installation: Jobs, running: str) -> None:
    for form in ({"accession_numbers": "B,A", "format": "zip"}, {"accession_numbers": "A,B", "destination": "relay"}):
        asked = client.post("/jobs", data=form, headers=BROWSER)
        assert (asked.status_code, installation.orders, ledger(client).relays.page(("waiting",))) == (200, [], [])
        assert f"/jobs/{running}" in asked.text
        assert "Start anyway" in asked.text
        assert client.post("/jobs", data=form | {"again": "1"}, headers=BROWSER).status_code == 303
        installation.orders.clear()
    assert client.post("/jobs", data={"accession_numbers": "A"}, headers=BROWSER).status_code == 303


def test_ticks_are_sent_as_they_are(client: FlaskClient) -> None:
    page = {"offered": "1.1,1.2", "looked_up": "A,B", "destination": "relay"}
    forms = (
        {"study_uids": ["1.1", "1.2"]},
        {"study_uids": ["1.2"]},
        {"study_uids": ["1.1", "1.2"], "series_uids": ["1.1.2"], "opened": ["1.1,1.1.1,1.1.2"]},
    )
    for form in forms:
        location(client.post("/jobs", data={**page, **form}, headers=BROWSER))
    relays = ledger(client).relays.page(("waiting",))
    asked = [(one["accessions"], one["study_uids"], one["series"]) for one in relays]
    assert asked == [(["A", "B"], [], []), ([], ["1.2"], []), ([], ["1.1", "1.2"], ["1.1.2"])]


def test_a_part_that_runs_already_asks_first(client: FlaskClient, installation: Jobs) -> None:
    with job_directory(client.application.extensions["mkiso"][0].config.storage.work_dir, ID):
        ledger(client).open_job(ID, "iso", (), requester="x", study_uids=("1.1",), series_uids=("1.1.2",))
        form = {"study_uids": "1.1", "series_uids": "1.1.2", "destination": "relay"}
        page = client.post("/jobs", data=form, headers=BROWSER).text
        assert installation.orders == []
        assert "started this at" in page
        form_again = page.partition('action="/jobs"')[2]
        again = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form_again))
        assert again == form | {"again": "1"}
        location(client.post("/jobs", data=form | {"series_uids": "1.1.3"}, headers=BROWSER))


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"offered": "1.1", "looked_up": "A"},
        {"offered": "1.1", "study_uids": "1.1,x"},
        {"offered": "1.1", "study_uids": [f"1.{number}" for number in range(30)]},
        {"accession_numbers": "A", "destination": "moon"},
        {"accession_numbers": "A", "format": "tar"},
        {"accession_numbers": "A*"},
    ],
)
def test_a_form_that_makes_no_sense_starts_nothing(
    form: dict[str, Any], client: FlaskClient, installation: Jobs
) -> None:
    assert client.post("/jobs", data=form, headers=BROWSER).status_code == 400
    assert installation.orders == []


def test_a_jobs_page_has_its_job_for_programs(client: FlaskClient, running: str) -> None:
    answer = client.get(f"/jobs/{running.upper()}", headers=JSON)
    assert answer.json == client.get(f"/api/jobs/{running}").json
    assert (answer.json["received"], answer.headers["X-Job-Id"]) == (2, running)


def test_a_jobs_page_shows_how_far_it_is(client: FlaskClient, running: str) -> None:
    for headers in (BROWSER, {}):
        page = client.get(f"/jobs/{running}", headers=headers).text
        for text in ("Disc for JOHN DOE", "Images: 2 of 5", 'max="5" value="2"', "2.0 kB so far", "Cancel"):
            assert text in page


def test_a_job_that_is_about_to_start_can_be_followed_already(client: FlaskClient) -> None:
    answer = client.get(f"/jobs/{ID}?accession_numbers=A,B&format=zip", headers=JSON)
    assert (answer.json["state"], answer.json["created_at"], answer.json["format"]) == ("queued", None, "zip")
    assert client.get(f"/jobs/{ID}", headers=JSON).status_code == 404
    assert client.get(f"/jobs/{ID}", headers=BROWSER).status_code == 404
    assert client.get("/jobs/17?accession_numbers=A", headers=JSON).status_code == 404


def test_the_place_in_the_queue_is_told(client: FlaskClient) -> None:
    work_dir = client.application.extensions["mkiso"][0].config.storage.work_dir
    with job_directory(work_dir, ID), job_directory(work_dir, OTHER):
        for job_id, created in ((ID, "2026-01-01"), (OTHER, "2026-01-02")):
            record(client, job_id, "A", patient_id="P1", created_at=f"{created}T00:00:00.000000Z")
        assert client.get(f"/jobs/{OTHER}", headers=JSON).headers["X-Queue-Place"] == "2"
        assert "Place in the queue: 2" in client.get(f"/jobs/{OTHER}", headers=BROWSER).text
        ledger(client).update(ID, state="retrieving")
        time.sleep(0.6)
        assert client.get(f"/jobs/{OTHER}", headers=JSON).headers["X-Queue-Place"] == "1"
        assert client.get(f"/jobs/{ID}", headers=JSON).headers["X-Queue-Place"] == ""


def test_progress_is_never_older_than_a_second(client: FlaskClient, running: str) -> None:
    client.get(f"/jobs/{running}", headers=JSON)
    ledger(client).update(running, received=4)
    time.sleep(0.6)
    assert client.get(f"/jobs/{running}", headers=JSON).json["received"] == 4


def test_a_page_cancels_its_job(client: FlaskClient, running: str) -> None:
    answer = client.post(f"/jobs/{running}/cancel", headers=BROWSER)
    assert location(answer)[0] == f"/jobs/{running}"
    assert ledger(client).cancel_requested([running]).keys() == {running}
    assert client.post(f"/jobs/{OTHER}/cancel", headers=BROWSER).status_code == 404


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"state": "done", "received": 5, "bytes": 10**9, "medium": "DVD"}, ("The disc is complete", "It needs a DVD")),
        ({"state": "done", "received": 5, "bytes": 10**11}, ("larger than any disc",)),
        ({"state": "cancelled", "error": {"code": "cancelled", "detail": "On request."}}, ("Stopped", "Try again")),
        (
            {"state": "failed", "error": {"code": "incomplete", "detail": "1.5 is missing."}},
            ("Some images did not arrive", "ask radiology to check", "1.5 is missing.", "Try again"),
        ),
        ({"state": "failed", "error": {"code": "of_tomorrow", "detail": "x"}}, ("Something went wrong",)),
    ],
)
def test_an_ended_job_says_what_came_of_it(fields: dict[str, Any], said: tuple[str, ...], client: FlaskClient) -> None:
    record(client, ID, "A", layout="legacy", format="iso", finished_at="2026-01-01T00:00:00.000000Z")
    ledger(client).update(ID, **fields)
    page = client.get(f"/jobs/{ID}", headers=BROWSER).text
    assert [text for text in said if text not in page] == []
    assert "job.js" not in page


def test_a_relay_says_what_arrived_and_where(client: FlaskClient) -> None:
    end = {"finished_at": "2026-01-01T00:00:00.000000Z", "state": "done", "files_sent": 4}
    ledger(client).open_job(ID, "relay", ("A",), requester="x", destination="172.16.0.120:104", **end)
    page = client.get(f"/jobs/{ID}", headers=BROWSER).text
    assert "Everything was sent" in page
    assert "172.16.0.120:104 confirmed all 4 images" in page


def test_a_jobs_page_lists_every_instance_handed_out(client: FlaskClient) -> None:
    record(client, ID, "A", state="done", finished_at="2026-01-01T00:00:00.000000Z")
    common = {"sop_class_uid": "1", "series_uid": "1.4", "study_uid": "1.3", "transfer_syntax": "1.2", "bytes": 5}
    rows = [common | {"sop_instance_uid": f"1.5.{n:03}", "outcome": "on disc"} for n in range(250)]
    ledger(client).hand_out(ID, rows)
    seen: list[str] = []
    url: str | None = f"/jobs/{ID}"
    while url:
        page = client.get(url, headers=BROWSER).text
        seen += [part[:7] for part in page.split('class="uid">')[1:] if part.startswith("1.5.")]
        url = next((part for part in page.partition("<main")[2].split('"') if f"/jobs/{ID}?beyond=" in part), None)
    assert seen == [row["sop_instance_uid"] for row in rows]


def test_the_last_hours_jobs_of_everybody_stand_below(client: FlaskClient, running: str) -> None:
    record(client, OTHER, "OLD", created_at="2026-01-01T00:00:00.000000Z")
    page = client.get("/", headers=BROWSER).text
    assert f"/jobs/{running}" in page
    assert f"/jobs/{OTHER}" not in page
    assert [job["id"] for job in client.get("/", headers=JSON).json["jobs"]] == [running]


def test_a_hundred_pages_that_follow_everybodys_jobs_read_the_ledger_once(
    client: FlaskClient, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = ledger(client).list_jobs
    asked: list[object] = []
    monkeypatch.setattr(Ledger, "list_jobs", lambda _self, **which: asked.append(which) or read(**which))
    told = [[job["id"] for job in client.get("/", headers=JSON).json["jobs"]] for _ in range(5)]
    assert (told, len(asked)) == ([[running]] * 5, 1)


def test_a_framed_download_tells_its_failure_without_one_for_the_console(
    client: FlaskClient, installation: Jobs
) -> None:
    installation.fails = Busy("All are busy.")
    url, frame = f"{DOWNLOADS[0]}&job={ID}&page=frame", {"Sec-Fetch-Dest": "iframe", "Sec-Fetch-Site": "same-origin"}
    framed = client.get(url, headers={**BROWSER, **frame})
    assert (framed.status_code, "Everything is busy" in framed.text) == (200, True)
    assert client.get(url, headers=frame).status_code == 503
    assert client.get(url.removesuffix("&page=frame"), headers={**BROWSER, **frame}).status_code == 503
    for site in ("same-site", "cross-site", "none", ""):
        assert client.get(url, headers={**BROWSER, **frame, "Sec-Fetch-Site": site}).status_code in (403, 503)
    for dest in ("document", "frame", "empty", "image", ""):
        assert client.get(url, headers={**BROWSER, **frame, "Sec-Fetch-Dest": dest}).status_code in (403, 503)
    assert client.get(url, headers=BROWSER).status_code == 503


def test_a_page_in_indonesian(client: FlaskClient, running: str) -> None:
    headers = BROWSER | {"Accept-Language": "id-ID,id;q=0.9,en;q=0.8"}
    for url, text in (("/", "Cari pemeriksaan"), ("/history", "Siapa menerima apa"), (f"/jobs/{running}", "Batalkan")):
        page = client.get(url, headers=headers).text
        assert text in page
        assert '<html lang="id">' in page


@pytest.mark.parametrize("url", ["/", "/?accession_numbers=A", "/history", f"/jobs/{ID}?accession_numbers=A"])
@pytest.mark.usefixtures("held")
def test_another_sites_page_frames_no_page(url: str, client: FlaskClient) -> None:
    headers = BROWSER | {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "iframe"}
    assert client.get(url, headers=headers).status_code == 403
    assert client.get(url, headers=headers | {"Sec-Fetch-Dest": "document"}).status_code == 200


@pytest.mark.parametrize("path", ["/jobs", f"/jobs/{ID}/cancel"])
def test_another_sites_form_starts_and_cancels_nothing(
    path: str, client: FlaskClient, installation: Jobs, running: str
) -> None:
    form = {"accession_numbers": "C", "destination": "relay"}
    answer = client.post(path, data=form, headers=BROWSER | {"Origin": "http://elsewhere.example"})
    assert (answer.status_code, installation.orders) == (403, [])
    assert ledger(client).cancel_requested([running]) == {}


def test_the_pages_need_no_token(service: Callable[..., Flask], running: str) -> None:
    guarded = service(api_tokens=[{"name": "his", "token": "s3cr3t"}]).test_client()
    for url in ("/", "/history", f"/jobs/{running}", "/static/mkiso.css"):
        assert guarded.get(url, headers=BROWSER).status_code == 200
