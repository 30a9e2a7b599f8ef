import json
import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest
from flask import Flask
from flask.testing import FlaskClient

from mkiso.config import parse
from mkiso.dcmtk.sending import Outcome, StoreResult
from mkiso.errors import AccessionNotFound, Busy, ConfigurationError, Incomplete, Internal, JobExists
from mkiso.installation import Cached, Installation, Status
from mkiso.job import Order, Relayed
from mkiso.ledger.record import JobRecord
from mkiso.relay import Delivery
from mkiso.retrieve.studies import Study
from mkiso.waiting import Cancellation
from mkiso.web import create_app, orders
from mkiso.workspace import job_directory
from tests.unit.test_errors import CLASSES, TABLE

ID = "123e4567-e89b-12d3-a456-426614174000"
FORM = "application/x-www-form-urlencoded"
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
ISO = b"an ISO image"
DOWNLOADS = (
    "/mkiso.php?accession_number=MR.001",
    "/mkiso_multiple.php?accession_number=MR.001,CT.002",
    "/api/iso/download?accession_number=MR.001",
    "/api/iso/download-multiple?accession_numbers=MR.001,CT.002",
)
RELAYS = {
    "/mkiso2.php?accession_number=MR.001": (("MR.001",), "relay"),
    "/send_rimage_multiple.php?accession_number=MR.001,CT.002": (("MR.001", "CT.002"), "cd_publisher"),
    "/api/iso/relay?accession_numbers=MR.001,CT.002": (("MR.001", "CT.002"), "relay"),
    "/api/iso/relay?accession_numbers=MR.001&destination=cd_publisher": (("MR.001",), "cd_publisher"),
    "/api/iso/print?accession_number=MR.001": (("MR.001",), "cd_publisher"),
    "/api/iso/print-multiple?accession_numbers=MR.001,CT.002": (("MR.001", "CT.002"), "cd_publisher"),
}
STUDIES = "/api/studies?accession_numbers=MR.001,CT.002"


@dataclass
class Made:
    """A disc without genisoimage."""

    file_name: str
    size: int = len(ISO)
    closed: bool = False
    breaks: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        if self.breaks:
            raise self.breaks
        yield ISO[:5]
        yield ISO[5:]

    def close(self) -> None:
        self.closed = True


@dataclass
class Jobs:
    """What the installation was asked for, and how it answers."""

    fails: BaseException | None = None
    breaks: BaseException | None = None
    orders: list[Order] = field(default_factory=list)
    discs: list[Made] = field(default_factory=list)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    destinations: list[str] = field(default_factory=list)
    held: dict[str, list[Study]] = field(default_factory=dict)

    def relay(
        self,
        _installation: Installation,
        order: Order,
        destination: str,
        _cancellation: Cancellation,
        opened: Callable[[], None] = lambda: None,
    ) -> Relayed:
        self.orders.append(order)
        self.destinations.append(destination)
        if self.fails:
            raise self.fails
        opened()
        arrived = {"1.5": StoreResult(Outcome.ACKNOWLEDGED), "1.6": StoreResult(Outcome.ACKNOWLEDGED)}
        return Relayed("JOHN DOE", "172.16.0.120:104", Delivery(arrived))

    def make_disc(self, _installation: Installation, order: Order, _cancellation: Cancellation) -> Made:
        self.orders.append(order)
        if self.fails:
            raise self.fails
        self.discs.append(Made(order.file_name("DOE^JOHN"), breaks=self.breaks))
        return self.discs[-1]

    def look_up(
        self, accessions: tuple[str, ...], _cancellation: Cancellation, _query_id: str
    ) -> dict[str, list[Study]]:
        self.asked.append(accessions)
        if self.fails:
            raise self.fails
        return {one: self.held.get(one, []) for one in accessions}

    def studies(self, accessions: tuple[str, ...], _cancellation: Cancellation, _query_id: str) -> list[Study]:
        self.asked.append(accessions)
        return [
            Study(one, f"1.{number}", f"P{number}", "", "DOE^JOHN", "20240301", "Head", ("CT",), {"1.5": "1.4"})
            for number, one in enumerate(accessions)
        ]


@pytest.fixture
def installation(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    jobs = Jobs()
    monkeypatch.setattr(orders, "make_disc", jobs.make_disc)
    monkeypatch.setattr(orders, "relay", jobs.relay)
    monkeypatch.setattr(Installation, "studies", lambda _self, *asked: jobs.studies(*asked))
    monkeypatch.setattr(Installation, "look_up", lambda _self, *asked: jobs.look_up(*asked))
    monkeypatch.setattr(Cached, "known", lambda _self: Status(True, 1, 2, 3, 40 * 10**9))
    return jobs


@contextmanager
def application(directory: Path, **server: Any) -> Iterator[Flask]:
    """One with these settings of the server; its ledger is in the directory."""
    storage = {"work_dir": f"{directory}/w", "ledger": f"sqlite:///{directory}/jobs.db"}
    peer = {"ae_title": "ANY-SCP", "host": "127.0.0.1", "port": 9}
    sections = {"storage": storage, "server": server, "retrieve": {"max_accessions": 3}}
    app = create_app(parse(sections | {"destinations": {"relay": peer, "cd_publisher": peer}}))
    yield app
    app.extensions["mkiso"][0].ledger.close()


@pytest.fixture
def service(tmp_path: Path, installation: Jobs) -> Iterator[Callable[..., Flask]]:
    """An application with these settings of the server."""
    assert installation
    with ExitStack() as opened:
        yield lambda **server: opened.enter_context(application(tmp_path, **server))


@pytest.fixture
def client(service: Callable[..., Flask]) -> FlaskClient:
    return service().test_client()


def ledger(client: FlaskClient) -> Any:
    return client.application.extensions["mkiso"][0].ledger


def record(client: FlaskClient, job_id: str, *accessions: str, **fields: Any) -> None:
    ledger(client).open_job(job_id, "iso", accessions, requester="x", **fields)


def test_an_iso_is_answered_with_its_exact_headers(client: FlaskClient, installation: Jobs) -> None:
    answer = client.get(f"{DOWNLOADS[1]}&job={ID}")
    headers = {name: answer.headers[name] for name in ("Content-Type", "Content-Length", "Cache-Control", "X-Job-Id")}
    assert (answer.status_code, answer.data) == (200, ISO)
    assert headers == {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(ISO)),
        "Cache-Control": "no-store",
        "X-Job-Id": ID,
    }
    assert answer.headers["Content-Disposition"] == 'attachment; filename="DOEJOHN-MR001CT002.iso"'
    answer.close()
    assert installation.discs[0].closed


@pytest.mark.parametrize(
    ("url", "accessions", "file_name"),
    [
        (DOWNLOADS[0], ("MR.001",), "MR.001.iso"),
        (DOWNLOADS[1], ("MR.001", "CT.002"), "DOEJOHN-MR001CT002.iso"),
        (DOWNLOADS[2], ("MR.001",), "MR.001.iso"),
        (DOWNLOADS[3], ("MR.001", "CT.002"), "DOEJOHN-MR001CT002.iso"),
        ("/mkiso_multiple.php?accession_number=%20A%20,B,A", ("A", "B"), "DOEJOHN-AB.iso"),
        ("/mkiso.php?accession_number=A;B'/C", ("A;B'/C",), "A;B'/C.iso"),
    ],
)
def test_a_url_orders_a_disc_of_its_numbers(
    url: str, accessions: tuple[str, ...], file_name: str, client: FlaskClient, installation: Jobs
) -> None:
    answer = client.get(url)
    assert installation.orders[0].accessions == accessions
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{file_name}"'
    assert answer.headers["X-Job-Id"] == installation.orders[0].job_id == str(uuid.UUID(installation.orders[0].job_id))


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("url", RELAYS)
def test_a_relay_goes_to_its_destination(url: str, method: str, client: FlaskClient, installation: Jobs) -> None:
    answer = client.open(url, method=method)
    accessions, destination = RELAYS[url]
    assert (installation.orders[0].accessions, installation.destinations) == (accessions, [destination])
    assert answer.status_code == 200
    assert answer.json == {
        "status": "ok",
        "job_id": answer.headers["X-Job-Id"],
        "accessions_sent": list(accessions),
        "patient_name": "JOHN DOE",
        "destination": "172.16.0.120:104",
        "files_sent": 2,
    }


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("url", RELAYS)
def test_a_browser_is_sent_to_the_page_of_the_relay(
    url: str, method: str, client: FlaskClient, installation: Jobs
) -> None:
    answer = client.open(f"{url}&job={ID}", method=method, headers=BROWSER)
    assert (answer.status_code, answer.headers["Location"], answer.headers["X-Job-Id"]) == (303, f"/jobs/{ID}", ID)
    assert (installation.orders[0].accessions, installation.destinations) == (RELAYS[url][0], [RELAYS[url][1]])


def page_url(answer: Any) -> tuple[str, dict[str, list[str]]]:
    """The page of a job that a browser is sent to: its path, and what it is to make."""
    assert answer.status_code == 303
    path, _, query = answer.headers["Location"].partition("?")
    assert path == f"/jobs/{answer.headers['X-Job-Id']}"
    return path, parse_qs(query)


@pytest.mark.parametrize("url", DOWNLOADS)
def test_a_window_has_the_jobs_page_where_the_hospital_wants_that(
    url: str, service: Callable[..., Flask], installation: Jobs
) -> None:
    client, is_php = service(php_page=True).test_client(), ".php" in url
    for headers in (BROWSER, {**BROWSER, "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "cross-site"}):
        assert client.get(url, headers=headers).status_code == (303 if is_php else 200)
    made = len(installation.orders)
    for headers in ({}, {"Accept": "*/*"}, {**BROWSER, "Sec-Fetch-Dest": "iframe", "Sec-Fetch-Site": "same-site"}):
        assert client.get(url, headers=headers).data == ISO
    assert client.get(f"{url}&page=0", headers=BROWSER).data == ISO
    assert client.head(url, headers=BROWSER).status_code == 200
    assert len(installation.orders) == made + 4


def test_a_window_that_is_opened_twice_is_led_to_one_page_until_that_job_was_there(
    service: Callable[..., Flask], installation: Jobs
) -> None:
    client = service(php_page=True).test_client()
    url = "/mkiso_multiple.php?accession_number=MR.001,CT.002&series_uids=1.5&format=zip"
    path, wanted = page_url(client.get(url, headers=BROWSER))
    expected = {"accession_numbers": "MR.001,CT.002", "series_uids": "1.5", "format": "zip", "layout": "pdi"}
    assert wanted == {name: [text] for name, text in expected.items()}
    assert page_url(client.get(url, headers=BROWSER))[0] == path
    assert page_url(client.get(f"{url}&layout=legacy", headers=BROWSER))[0] != path
    assert page_url(client.get(f"{url}&job={ID}", headers=BROWSER))[0] == f"/jobs/{ID}"
    record(client, path.rpartition("/")[2], "MR.001", state="done", finished_at="2026-01-01T00:00:00.000000Z")
    assert page_url(client.get(url, headers=BROWSER))[0] != path
    assert installation.orders == []


def test_a_window_is_asked_first_where_the_same_runs_already(service: Callable[..., Flask]) -> None:
    client = service(php_page=True).test_client()
    with job_directory(client.application.extensions["mkiso"][0].config.storage.work_dir, ID):
        record(client, ID, "MR.001", state="retrieving")
        asked = client.get(DOWNLOADS[0], headers=BROWSER)
        assert (asked.status_code, "The same studies are being worked on" in asked.text) == (200, True)
        assert f"/jobs/{ID}" in asked.text
        again = client.post("/jobs", data={"accession_numbers": "MR.001", "again": "1"}, headers=BROWSER)
        assert page_url(again)[0] != f"/jobs/{ID}"
        assert client.get(DOWNLOADS[0]).data == ISO


def test_a_browsers_guess_opens_no_page_either(service: Callable[..., Flask]) -> None:
    client = service(php_page=True).test_client()
    guess = {**BROWSER, "Sec-Purpose": "prefetch;prerender", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none"}
    assert client.get(DOWNLOADS[0], headers=guess).status_code == 403


@pytest.mark.parametrize("raised", [Busy("All are busy."), JobExists("There is one."), ValueError("/w/received")])
def test_what_keeps_a_relay_from_its_page_is_told_at_once(
    raised: Exception, client: FlaskClient, installation: Jobs
) -> None:
    installation.fails = raised
    answer = client.get(next(iter(RELAYS)), headers=BROWSER)
    assert (answer.status_code, answer.mimetype) == (getattr(raised, "http_status", 500), "text/html")
    assert "/w/received" not in answer.text
    assert client.application.extensions["mkiso"][1]._snapshot() == []


@pytest.mark.parametrize("url", [*DOWNLOADS, *RELAYS, STUDIES])
def test_head_moves_nothing_and_answers_headers_only(url: str, client: FlaskClient, installation: Jobs) -> None:
    answer = client.head(url)
    assert (answer.status_code, answer.data, installation.orders, installation.asked) == (200, b"", [], [])
    assert ledger(client).list_jobs() == []


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=X", "text/plain"])
@pytest.mark.parametrize("url", ["/mkiso2.php", f"/api/jobs/{ID}/cancel", "/nothing"])
def test_a_body_above_64_kb_is_too_large(url: str, kind: str, client: FlaskClient, installation: Jobs) -> None:
    answer = client.post(url, data=b"accession_number=" + b"A" * 65536, content_type=kind)
    assert (answer.status_code, answer.json["code"], installation.orders) == (413, "bad_request", [])
    assert client.post("/healthz", data=b"x" * 65536, content_type=kind).status_code == 405


def test_a_form_has_at_most_100_fields(client: FlaskClient, installation: Jobs) -> None:
    fields = {"accession_number": "MR.001"} | {f"field{number}": "x" for number in range(100)}
    answer = client.post("/mkiso2.php", data=fields, content_type="multipart/form-data")
    assert (answer.status_code, answer.json["code"], installation.orders) == (413, "bad_request", [])


def test_a_form_may_hold_the_parameters_of_a_relay(client: FlaskClient, installation: Jobs) -> None:
    assert client.post("/mkiso2.php", data={"accession_number": "MR.001"}).status_code == 200
    assert client.post("/mkiso2.php", data=b"accession_number=%FF", content_type=FORM).status_code == 400
    assert [order.accessions for order in installation.orders] == [("MR.001",)]


def test_more_jobs_than_may_run_are_told_to_come_again(service: Callable[..., Flask]) -> None:
    client = service(threads=8).test_client()
    held = [client.get(url, buffered=False) for url in DOWNLOADS]
    for url in (DOWNLOADS[0], next(iter(RELAYS)), STUDIES):
        refused = client.get(url)
        assert (refused.status_code, refused.json["code"]) == (503, "busy")
        assert int(refused.headers["Retry-After"]) > 0
    assert client.get("/api/jobs").status_code == client.head(DOWNLOADS[0]).status_code == 200
    for one in held:
        one.close()
    assert client.get(STUDIES).status_code == 200


def test_what_fails_before_the_first_bytes_has_a_status(client: FlaskClient, installation: Jobs) -> None:
    installation.breaks = Internal("genisoimage said no.")
    answer = client.get(f"{DOWNLOADS[0]}&job={ID}")
    assert (answer.status_code, answer.json["code"], answer.json["job_id"]) == (500, "internal", ID)
    assert "attachment" not in str(answer.headers)
    assert client.application.extensions["mkiso"][1]._snapshot() == []
    assert installation.discs[0].closed


def test_head_tells_what_is_wrong_with_a_request_too(client: FlaskClient) -> None:
    answer = client.head("/mkiso.php")
    assert (answer.status_code, answer.data) == (400, b"")


@pytest.mark.parametrize(
    ("url", "code", "error"),
    [
        ("/mkiso.php", "missing_accession", "missing accession_number"),
        ("/mkiso_multiple.php?accession_number=", "missing_accession", "missing accession_number"),
        ("/api/iso/download?accession_number=%20", "missing_accession", "missing accession_number"),
        ("/api/iso/download-multiple", "missing_accession", "missing accession_numbers"),
        ("/api/studies?accession_number=A", "missing_accession", "missing accession_numbers"),
        ("/mkiso.php?accession_number=A,B", "invalid_accession", "invalid accession_number"),
        ("/mkiso2.php?accession_number=A,B", "invalid_accession", "invalid accession_number"),
        ("/send_rimage_multiple.php", "missing_accession", "missing accession_number"),
        ("/api/iso/relay", "missing_accession", "missing accession_numbers"),
        ("/api/iso/print", "missing_accession", "missing accession_number"),
        ("/api/iso/print-multiple", "missing_accession", "missing accession_numbers"),
        ("/api/iso/relay?accession_numbers=A&destination=nowhere", "bad_request", "bad request"),
        ("/api/iso/relay?accession_numbers=A&destination=", "bad_request", "bad request"),
        ("/mkiso.php?accession_number=*", "invalid_accession", "invalid accession_number"),
        ("/api/iso/download?accession_number=A%5CB", "invalid_accession", "invalid accession_number"),
        ("/api/iso/download-multiple?accession_numbers=A,%C3%9C", "invalid_accession", "invalid accession_number"),
        ("/mkiso_multiple.php?accession_number=A,,B", "empty_accession", "empty accession_number in list"),
        ("/mkiso_multiple.php?accession_number=A,B,C,D", "too_many_accessions", "too many accession_numbers"),
        (f"{STUDIES},C,D", "too_many_accessions", "too many accession_numbers"),
        (f"{DOWNLOADS[0]}&accession_number=B", "bad_request", "bad request"),
        (f"{DOWNLOADS[0]}&layout=dvd", "bad_request", "bad request"),
        ("/mkiso.php?accession_number=%FF", "invalid_accession", "invalid accession_number"),
        ("/mkiso.php?accession_number=A%C3", "invalid_accession", "invalid accession_number"),
        ("/api/iso/relay?accession_numbers=A&destination=%ED%A0%80", "bad_request", "bad request"),
        (f"{STUDIES}&%FE=1", "bad_request", "bad request"),
        (f"{DOWNLOADS[0]}&layout=", "bad_request", "bad request"),
        *((f"{url}&format={one}", "bad_request", "bad request") for url in DOWNLOADS for one in ("tar", "ZIP", "")),
        (f"{DOWNLOADS[0]}&format=zip&format=zip", "bad_request", "bad request"),
        *(
            (f"{url}{mark}{given}", "bad_request", "bad request")
            for url, mark in [
                ("/mkiso.php", "?"),
                ("/api/iso/relay", "?"),
                *((one, "&") for one in (*DOWNLOADS, *RELAYS)),
            ]
            for given in ("study_uids=", "series_uids=%20", "study_uids=1.2,x", "series_uids=1.2,,1.3")
        ),
        (f"{DOWNLOADS[0]}&study_uids=1.1,1.2,1.3,1.4", "bad_request", "bad request"),
        (f"{DOWNLOADS[0]}&series_uids={','.join(f'1.{n}' for n in range(101))}", "bad_request", "bad request"),
        (f"{DOWNLOADS[0]}&accession_numbers=MR.001", "bad_request", "bad request"),
        ("/api/iso/relay?accession_numbers=A&accession_number=A", "bad_request", "bad request"),
        ("/mkiso.php?accession_number=&study_uids=1.2", "missing_accession", "missing accession_number"),
        (f"{DOWNLOADS[0]}&job=", "bad_request", "bad request"),
        (f"{DOWNLOADS[0]}&job=17", "bad_request", "bad request"),
        (f"{DOWNLOADS[0]}&job=../../{ID}", "bad_request", "bad request"),
        (f"{DOWNLOADS[0]}&job=%7B{ID}%7D", "bad_request", "bad request"),
        (f"{DOWNLOADS[0]}&job={ID.replace('-', '')}", "bad_request", "bad request"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    url: str, code: str, error: str, client: FlaskClient, installation: Jobs
) -> None:
    answer = client.get(url)
    assert (answer.status_code, answer.json["code"], answer.json["error"]) == (400, code, error)
    assert (installation.orders, installation.asked) == ([], [])


@pytest.mark.parametrize("url", [*DOWNLOADS, *RELAYS])
def test_a_job_may_be_of_studies_and_series_beside_the_numbers_or_instead(
    url: str, client: FlaskClient, installation: Jobs
) -> None:
    path, _, numbers = url.partition("?")
    uids = "study_uids=1.2, 1.3 ,1.2&series_uids=1.2.1"
    destination = "&destination=relay" if "destination" in numbers else ""
    for query in (f"{numbers}&{uids}", f"{uids}{destination}", f"series_uids=1.2.1{destination}"):
        assert client.get(f"{path}?{query}").status_code == 200
    both, without, series = installation.orders
    assert both.accessions
    assert (without.accessions, series.accessions, series.study_uids) == ((), (), ())
    assert both.study_uids == without.study_uids == ("1.2", "1.3")
    assert both.series_uids == without.series_uids == series.series_uids == ("1.2.1",)
    assert not any(one.single for one in installation.orders)


@pytest.mark.parametrize(("given", "ordered"), [("", "pdi"), ("&layout=pdi", "pdi"), ("&layout=legacy", "legacy")])
def test_a_caller_may_choose_the_layout(given: str, ordered: str, client: FlaskClient, installation: Jobs) -> None:
    client.get(DOWNLOADS[0] + given)
    assert installation.orders[0].layout == ordered


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("url", DOWNLOADS)
def test_a_caller_may_choose_the_format(url: str, method: str, client: FlaskClient, installation: Jobs) -> None:
    for given, mimetype in (("", "octet-stream"), ("&format=iso", "octet-stream"), ("&format=zip", "zip")):
        answer = client.open(url + given, method=method)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, f"application/{mimetype}")
        ending = given.removeprefix("&format=") or "iso"
        told = answer.headers["Content-Disposition"]
        assert f'.{ending}"' in told or (method, told) == ("HEAD", "attachment")
    assert [order.format for order in installation.orders] == ([] if method == "HEAD" else ["iso", "iso", "zip"])


@pytest.mark.parametrize("url", [DOWNLOADS[0], next(iter(RELAYS))])
@pytest.mark.parametrize(("status", "code", "error"), TABLE)
def test_a_failure_is_answered_with_its_status_code_and_text(
    status: int, code: str, error: str, url: str, client: FlaskClient, installation: Jobs
) -> None:
    installation.fails = CLASSES[code]("What happened.")
    answer = client.get(f"{url}&job={ID}")
    assert (answer.status_code, answer.mimetype, answer.headers["X-Job-Id"]) == (status, "application/json", ID)
    detail = f"What happened. This was job {ID}." if code == "internal" else "What happened."
    assert answer.json == {"error": error, "code": code, "detail": detail, "job_id": ID}
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_failure_has_its_further_fields(client: FlaskClient, installation: Jobs) -> None:
    installation.fails = Incomplete("Two are missing.", expected=5, received=3, failed=2)
    answer = client.get(DOWNLOADS[0])
    assert {name: answer.json[name] for name in ("expected", "received", "failed")} == {
        "expected": 5,
        "received": 3,
        "failed": 2,
    }


def test_busy_says_when_to_come_again(client: FlaskClient, installation: Jobs) -> None:
    installation.fails = Busy("All are busy.")
    assert int(client.get(DOWNLOADS[0]).headers["Retry-After"]) > 0


@pytest.mark.parametrize("raised", [ValueError("/w/received"), OSError(13, "denied", "/w/received"), KeyError("x")])
def test_what_was_not_foreseen_is_internal_names_the_job_and_shows_nothing_of_the_host(
    raised: Exception, client: FlaskClient, installation: Jobs
) -> None:
    installation.fails = raised
    answer = client.get(f"{DOWNLOADS[0]}&job={ID}")
    assert (answer.status_code, answer.json["code"], answer.json["error"]) == (500, "internal", "internal error")
    assert ID in answer.json["detail"]
    assert "/w" not in answer.text


def test_a_configuration_that_cannot_be_used_any_more_is_internal_and_shows_no_path(
    client: FlaskClient, installation: Jobs
) -> None:
    installation.fails = ConfigurationError("storage.work_dir: /srv/mkiso is open to other users.")
    answer = client.get(DOWNLOADS[0])
    assert (answer.status_code, answer.json["code"]) == (500, "internal")
    assert "/srv" not in answer.text


@pytest.mark.parametrize("url", [DOWNLOADS[0], next(iter(RELAYS))])
@pytest.mark.parametrize("kind", [ValueError, Internal])
@pytest.mark.parametrize("recorded", [True, False])
def test_an_internal_error_is_logged_once(
    recorded: bool,
    kind: type[Exception],
    url: str,
    client: FlaskClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(installation: Installation, order: Order, *_more: object) -> None:
        if not recorded:
            raise kind("It broke.")
        with JobRecord(installation.writer, order.job_id, Cancellation()) as opened:
            opened.open("iso", ("MR.001",), requester="x")
            raise kind("It broke.")

    monkeypatch.setattr(orders, "make_disc", fail)
    monkeypatch.setattr(orders, "relay", fail)
    assert client.get(url).status_code == 500
    (logged,) = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert logged.exc_info[0] is kind


@pytest.mark.parametrize(
    ("accept", "mimetype"),
    [
        (BROWSER["Accept"], "text/html"),
        ("text/html", "text/html"),
        ("*/*", "application/json"),
        ("", "application/json"),
        ("application/json", "application/json"),
        ("application/json, text/html;q=0.5", "application/json"),
    ],
)
def test_a_browser_has_a_page_and_a_program_has_json(accept: str, mimetype: str, client: FlaskClient) -> None:
    answer = client.get("/mkiso.php", headers={"Accept": accept})
    assert (answer.status_code, answer.mimetype) == (400, mimetype)


def test_a_page_tells_what_the_json_tells_and_takes_no_markup(client: FlaskClient, installation: Jobs) -> None:
    installation.fails = AccessionNotFound("No study with <b>A</b>.", accession="<i>A</i>")
    answer = client.get(f"{DOWNLOADS[0]}&job={ID}", headers=BROWSER)
    assert answer.status_code == 404
    assert "No study with &lt;b&gt;A&lt;/b&gt;." in answer.text
    assert "&lt;i&gt;A&lt;/i&gt;" in answer.text
    assert ID in answer.text
    assert "not found" in answer.text


@pytest.mark.parametrize(("method", "url", "status"), [("GET", "/nothing", 404), ("POST", "/mkiso.php", 405)])
def test_a_url_that_is_not_there_is_an_error_as_any_other(
    method: str, url: str, status: int, client: FlaskClient
) -> None:
    answer = client.open(url, method=method)
    assert (answer.status_code, answer.json["code"]) == (status, "bad_request")
    assert client.open(url, method=method, headers=BROWSER).mimetype == "text/html"


def test_a_method_that_is_not_allowed_says_which_are(client: FlaskClient) -> None:
    assert "GET" in client.post("/mkiso.php").headers["Allow"]


@pytest.mark.parametrize("url", [DOWNLOADS[1], DOWNLOADS[3]])
def test_a_list_in_a_url_may_have_been_pasted(url: str, client: FlaskClient, installation: Jobs) -> None:
    path, _, numbers = url.partition("=")
    client.get(f"{path}=%20;{numbers}.,%20")
    assert [order.accessions for order in installation.orders] == [("MR.001", "CT.002")]


def test_a_job_that_was_chosen_in_capitals_can_be_watched(client: FlaskClient, installation: Jobs) -> None:
    client.get(f"{DOWNLOADS[0]}&job={ID.upper()}")
    record(client, installation.orders[0].job_id, "MR.001")
    assert client.get(f"/api/jobs/{ID.upper()}").status_code == 200


def test_an_id_that_is_taken_leaves_the_job_that_has_it_alone(client: FlaskClient, installation: Jobs) -> None:
    live = client.application.extensions["mkiso"][1]
    running = live.start(ID, None)
    installation.fails = JobExists("There is one.")
    assert client.get(f"{DOWNLOADS[0]}&job={ID}").status_code == 409
    live.cancel_all()
    live.stop(ID)
    assert running.reason is not None


def test_a_job_is_watched_no_longer_than_it_runs(client: FlaskClient, installation: Jobs) -> None:
    live = client.application.extensions["mkiso"][1]
    client.get(DOWNLOADS[0]).close()
    installation.fails = Busy("All are busy.")
    for url in (DOWNLOADS[0], *RELAYS):
        client.get(url)
    assert live._snapshot() == []


def test_studies_are_answered_as_the_contract_says(client: FlaskClient, installation: Jobs) -> None:
    answer = client.get(STUDIES)
    assert installation.asked == [("MR.001", "CT.002")]
    assert (answer.json["patients"], [one["accession_number"] for one in answer.json["studies"]]) == (
        2,
        ["MR.001", "CT.002"],
    )


def test_one_job_is_answered_as_the_ledger_has_it(client: FlaskClient) -> None:
    record(client, ID, "MR.001", patient_name="山田 太郎")
    answer = client.get(f"/api/jobs/{ID}")
    assert answer.json == json.loads(json.dumps(ledger(client).job(ID)))
    assert "山田" in answer.text


@pytest.mark.parametrize("job_id", [ID, "17", "a%0Ab", "a%0D%0AX-Header:%20b", "%E5%B1%B1"])
@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_a_job_that_is_not_there_is_not_found(job_id: str, accept: str, client: FlaskClient) -> None:
    answer = client.get(f"/api/jobs/{job_id}", headers={"Accept": accept})
    assert (answer.status_code, answer.mimetype) == (404, accept)
    if accept == "application/json":
        assert answer.json["code"] == "job_not_found"
    assert "X-Header" not in answer.headers
    assert all(value.isascii() for value in answer.headers.values())


def test_a_cancel_asks_the_ledger(client: FlaskClient) -> None:
    record(client, ID, "MR.001")
    with job_directory(client.application.extensions["mkiso"][0].config.storage.work_dir, ID):
        assert client.post(f"/api/jobs/{ID}/cancel").json["state"] == "queued"
    assert ledger(client).cancel_requested([ID]).keys() == {ID}
    missing = client.post("/api/jobs/123e4567-e89b-12d3-a456-426614174999/cancel")
    assert (missing.status_code, missing.json["code"]) == (404, "job_not_found")


@pytest.fixture
def listed(client: FlaskClient) -> FlaskClient:
    for job_id, accessions, state, created in (
        ("J1", ("A",), "done", "2026-01-01T00:00:00.000000Z"),
        ("J2", ("A", "B"), "failed", "2026-01-02T00:00:00.000000Z"),
        ("J3", ("B",), "done", "2026-01-03T00:00:00.000000Z"),
    ):
        record(client, job_id, *accessions, state=state, created_at=created, finished_at=created)
    return client


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["J3", "J2", "J1"]),
        ("limit=2", ["J3", "J2"]),
        ("limit=1000", ["J3", "J2", "J1"]),
        ("accession_number=A", ["J2", "J1"]),
        ("accession_number=%20A%20&state=done", ["J1"]),
        ("state=failed", ["J2"]),
        ("state=queued", []),
        ("since=2026-01-02T00:00:00Z", ["J3", "J2"]),
        ("since=2026-01-02T07:00:00%2B07:00", ["J3", "J2"]),
        ("since=2026-01-02T07:00:00+07:00", ["J3", "J2"]),
        ("since=2026-01-02T00:00:00", ["J3", "J2"]),
        ("since=2026-01-02", ["J3", "J2"]),
        ("since=0999-01-01T00:00:00Z", ["J3", "J2", "J1"]),
    ],
)
def test_the_list_of_jobs_meets_every_parameter(query: str, found: list[str], listed: FlaskClient) -> None:
    answer = listed.get(f"/api/jobs?{query}")
    assert (answer.status_code, [job["id"] for job in answer.json["jobs"]]) == (200, found)


@pytest.mark.parametrize(
    "query",
    [
        f"limit={'9' * 5000}",
        *("limit=0", "limit=1001", "limit=-1", "limit=ten", "limit=1.5", "limit=%C2%B2", "limit=1&limit=2"),
        *("state=", "state=finished", "state=DONE", "accession_number=*", "accession_number="),
        *("since=", "since=yesterday", "since=2026-13-01", "since=0001-01-01T00:00:00%2B07:00"),
    ],
)
def test_a_parameter_of_the_list_that_makes_no_sense_is_refused(query: str, listed: FlaskClient) -> None:
    answer = listed.get(f"/api/jobs?{query}")
    assert answer.status_code == 400


class TestWithTokens:
    @pytest.fixture
    def client(self, service: Callable[..., Flask]) -> FlaskClient:
        tokens = [{"name": "his", "token": "s3cr3t"}, {"name": "ris", "token": "gehëim"}]
        return service(api_tokens=tokens).test_client()

    @pytest.mark.parametrize(
        "given",
        [None, "", "s3cr3t", "Bearer", "Bearer ", "Bearer wrong", "Bearer s3cr3", "Basic s3cr3t", "Bearer \xff"],
    )
    @pytest.mark.parametrize("url", [DOWNLOADS[2], "/api/jobs", "/api/nothing"])
    def test_the_api_is_closed_without_one(
        self, url: str, given: str | None, client: FlaskClient, installation: Jobs
    ) -> None:
        answer = client.get(url, headers={} if given is None else {"Authorization": given})
        assert (answer.status_code, answer.json["code"], answer.json["error"]) == (401, "unauthorized", "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "s3cr3t" not in answer.text
        assert installation.orders == []

    @pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS"])
    def test_no_method_goes_around_it(self, method: str, client: FlaskClient) -> None:
        assert client.open(f"/api/jobs/{ID}/cancel", method=method).status_code == 401

    @pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
    def test_a_token_opens_it_and_its_name_is_remembered(
        self, scheme: str, client: FlaskClient, installation: Jobs
    ) -> None:
        answer = client.get(DOWNLOADS[2], headers={"Authorization": f"{scheme} s3cr3t"})
        assert answer.status_code == 200
        assert installation.orders[0].requester == "his@127.0.0.1"

    @pytest.mark.parametrize(
        ("bind", "address", "headers", "status"),
        [
            ("unix:/s", "", {"X-Forwarded-User": "desk"}, 200),
            ("unix:/s", "", {"X-Forwarded-User": "desk", "Authorization": "Basic eA=="}, 200),
            ("unix:/s", "", {"X-Forwarded-User": "desk", "Authorization": "Bearer wrong"}, 401),
            ("unix:/s", "", {"X-Forwarded-User": ""}, 401),
            ("unix:/s", "", {}, 401),
            ("127.0.0.1:8080", "127.0.0.1", {"X-Forwarded-User": "desk"}, 401),
            ("127.0.0.1:8080", "::1", {"X-Forwarded-User": "desk"}, 401),
            ("127.0.0.1:8080", "10.0.0.9", {"X-Forwarded-User": "desk"}, 401),
        ],
    )
    def test_a_user_whom_nginx_checked_needs_none_at_the_socket_alone(
        self, bind: str, address: str, headers: dict[str, str], status: int, service: Callable[..., Flask]
    ) -> None:
        client = service(bind=bind, api_tokens=[{"name": "his", "token": "s3cr3t"}]).test_client()
        assert client.get("/api/jobs", headers=headers, environ_base={"REMOTE_ADDR": address}).status_code == status

    @pytest.mark.parametrize("url", ["/healthz", DOWNLOADS[0], DOWNLOADS[1]])
    def test_what_nginx_guards_is_open(self, url: str, client: FlaskClient) -> None:
        assert client.get(url).status_code == 200


@pytest.mark.parametrize("given", ["Bearer s3cr3t", "bearer", "Bearer "])
def test_a_token_where_there_are_none_opens_nothing(given: str, client: FlaskClient) -> None:
    assert client.get("/api/jobs", headers={"Authorization": given}).status_code == 401
    assert client.get("/api/jobs", headers={"Authorization": "Basic eDp5"}).status_code == 200


@pytest.mark.parametrize(
    ("address", "headers", "requester"),
    [
        ("10.0.0.9", {}, "10.0.0.9"),
        ("10.0.0.9", {"X-Forwarded-For": "10.0.0.1", "X-Forwarded-User": "eve"}, "10.0.0.9"),
        ("127.0.0.1", {}, "127.0.0.1"),
        ("127.0.0.1", {"X-Forwarded-For": "10.0.0.1"}, "10.0.0.1"),
        ("127.0.0.1", {"X-Forwarded-For": "6.6.6.6, 10.0.0.1"}, "10.0.0.1"),
        ("::1", {"X-Forwarded-For": "10.0.0.1", "X-Forwarded-User": "desk"}, "desk@10.0.0.1"),
        ("::ffff:127.0.0.1", {"X-Forwarded-For": "10.0.0.1", "X-Forwarded-User": "desk"}, "desk@10.0.0.1"),
        ("::ffff:10.0.0.9", {"X-Forwarded-For": "10.0.0.1"}, "10.0.0.9"),
        ("", {"X-Forwarded-For": "10.0.0.1"}, "10.0.0.1"),
        ("", {}, "local"),
    ],
)
def test_what_a_proxy_forwards_counts_only_from_this_host(
    address: str, headers: dict[str, str], requester: str, client: FlaskClient, installation: Jobs
) -> None:
    client.get(DOWNLOADS[0], headers=headers, environ_base={"REMOTE_ADDR": address})
    assert installation.orders[0].requester == requester


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        *(
            ("X-Forwarded-User", odd)
            for odd in ("a,b", "<b>", 'a"b', "gr\xfcn", "a\x7f", "a\tb", "=A1", "a" * 129, "a;b")
        ),
        *(("X-Forwarded-For", odd) for odd in ("<b>", "10.0.0.1\t", "10.0.0.1, x\x7f", "\xff", "a@b", "1" * 513)),
    ],
)
def test_what_no_proxy_forwards_is_refused(name: str, odd: str, client: FlaskClient, installation: Jobs) -> None:
    for address in ("127.0.0.1", "", "10.0.0.9"):
        answer = client.get(DOWNLOADS[0], headers={name: odd}, environ_base={"REMOTE_ADDR": address})
        assert (answer.status_code, answer.json["code"]) == (400, "bad_request")
        assert name in answer.json["detail"]
    assert installation.orders == []


@pytest.mark.parametrize("user", ["dr.chief", "desk 2", "a_b-c+d@ward.example", "9", "_", "a" * 128])
def test_a_name_that_a_proxy_checked_signs_the_ledger(user: str, client: FlaskClient, installation: Jobs) -> None:
    client.get(DOWNLOADS[0], headers={"X-Forwarded-User": user})
    assert installation.orders[0].requester == f"{user}@127.0.0.1"


@pytest.mark.parametrize("control", ["%00", "%01", "%08", "%0E", "%1f", "%7F"])
def test_a_control_character_in_any_parameter_is_refused(control: str, client: FlaskClient, installation: Jobs) -> None:
    urls = (
        *(f"/history?{name}={control}" for name in ("accession_number", "patient", "requester", "state", "from", "to")),
        *(f"/history?{name}=A{control}" for name in ("before", "format", "unknown")),
        *(f"/api/jobs?{name}=A{control}" for name in ("accession_number", "state", "since", "limit")),
        *(f"{DOWNLOADS[0]}&{name}={control}" for name in ("job", "layout", "format", "page")),
        *(f"{url}{control}" for url in (*DOWNLOADS, *RELAYS, STUDIES)),
        f"/?accession_numbers=A{control}",
        f"/api/iso/relay?accession_numbers=A&destination=relay{control}",
        f"/healthz?{control}=1",
        *(f"{path}{control}" for path in ("/jobs/", f"/jobs/{ID}", f"/api/jobs/{ID}", "/static/", "/", "/logo")),
        f"/api/jobs/{control}/cancel",
    )
    for url in urls:
        answer = client.get(url)
        assert (answer.status_code, answer.json["code"]) in ((400, "bad_request"), (400, "invalid_accession")), url
    form = {"accession_numbers": f"A{unquote(control)}"}
    for kind in (FORM, "multipart/form-data"):
        assert client.post("/jobs", data=form, content_type=kind).status_code == 400
        assert (
            client.post("/jobs", data={"accession_numbers": "A", "x": unquote(control)}, content_type=kind).status_code
            == 400
        )
        assert (
            client.post("/jobs", data={"accession_numbers": "A", unquote(control): "x"}, content_type=kind).status_code
            == 400
        )
    assert (installation.orders, installation.asked) == ([], [])


def test_a_pasted_list_keeps_its_white_space(client: FlaskClient, installation: Jobs) -> None:
    assert client.get("/?accession_numbers=A%0D%0AB%09%0BC%0C").status_code == 200
    assert installation.asked == [("A", "B", "C")]


def test_the_process_lives(client: FlaskClient) -> None:
    assert client.get("/healthz").status_code == 200
