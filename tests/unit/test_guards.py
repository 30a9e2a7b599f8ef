"""What other sites' pages may do: open a window, have a disc in a frame, and nothing else."""

from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from mkiso.web.guards import USER, person
from tests.unit.test_web import (
    DOWNLOADS,
    ID,
    RELAYS,
    STUDIES,
    Jobs,
    application,
    client,
    installation,
    ledger,
    record,
    service,
)

__all__ = ("client", "installation", "service")  # fixtures
HERE = "http://localhost"
WINDOWS = (
    {},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate"},
    {"Sec-Fetch-Site": "none", "Sec-Fetch-Dest": "document"},
    {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "iframe"},
    {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "empty"},
    {"Sec-Fetch-Site": "none"},
)
EMBEDDED = [
    "image",
    "script",
    "style",
    "object",
    "embed",
    "audio",
    "video",
    "track",
    "font",
    "empty",
]
FRAMES = ["iframe", "frame"]
FOREIGN_POSTS = (
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document", "Origin": HERE},
    {"Origin": "https://elsewhere.example"},
    {"Origin": "http://localhost:8081"},
    {"Origin": "null"},
    {"Origin": "http://["},
)

NAMES = ["radiology", "Radiology.Hospital.example.", "10.1.2.5", "[fd00::5]", "pacs_2"]
ASKED = ("radiology:8080", "RADIOLOGY.hospital.example", "radiology.hospital.example.:80", "10.1.2.5", "pacs_2")
ASKED_OF_LOOPBACK = ("localhost:8080", "LOCALHOST.", "127.0.0.1", "127.1.2.3:1", "[::1]:8080", "[::ffff:127.0.0.1]")
FOREIGN = ("evil.example", "evil.example:8080", "10.1.2.6", "localhost.evil.example", "evil.localhost", "[fd00::6]")
FOREIGN += ("radiology.evil.example", "hospital.example", "0.0.0.0", "127.1", "2130706433", "127.0.0.1.evil.example")
NO_NAMES = ("", ":80", "a b", "localhost,evil", "evil@localhost", "localhost/", "a:b", "::1", "[::1", "gr\xfcn", "a\t")
NO_PATIENT = ("/healthz", "/static/mkiso.css", "/metrics")
PATIENTS = ("/", "/history", "/api/jobs", STUDIES, f"/jobs/{ID}", f"/api/jobs/{ID}", *DOWNLOADS, *RELAYS, "/nothing")


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """A client of one application for all that is refused at its door, and so leaves nothing there."""
    with application(tmp_path_factory.mktemp("refusing")) as app:
        yield app.test_client()


@pytest.fixture
def named(service: Callable[..., Flask]) -> FlaskClient:
    return service(hosts=NAMES).test_client()


@pytest.mark.parametrize("host", [*ASKED, "[FD00:0::5]:8080", *ASKED_OF_LOOPBACK])
def test_a_name_of_ours_is_answered(host: str, named: FlaskClient) -> None:
    assert named.get("/history", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", FOREIGN)
def test_another_sites_name_that_leads_here_is_refused(host: str, named: FlaskClient, installation: Jobs) -> None:
    for url in (PATIENTS[0], DOWNLOADS[0], *RELAYS):
        answer = named.get(url, headers={"Host": host})
        assert (answer.status_code, answer.json["code"], answer.json["error"]) == (403, "forbidden", "forbidden")
    assert (installation.orders, installation.asked) == ([], [])


@pytest.mark.parametrize("url", PATIENTS)
def test_whatever_shows_patients_or_changes_something_is_refused_to_it(
    url: str, client: FlaskClient, installation: Jobs
) -> None:
    record(client, ID, "MR.001")
    for method in ("GET", "HEAD", "POST"):
        assert client.open(url, method=method, headers={"Host": "evil.example"}).status_code == 403
    assert (installation.orders, installation.asked) == ([], [])


@pytest.mark.parametrize("url", [*NO_PATIENT, "/healthz", "/readyz", "/logo"])
def test_what_shows_no_patient_is_answered_to_any_name(url: str, client: FlaskClient) -> None:
    assert client.get(url, headers={"Host": "evil.example"}).status_code != 403


def test_a_poll_of_a_page_is_refused_to_another_name_too(client: FlaskClient) -> None:
    record(client, ID, "MR.001")
    poll = {"Accept": "application/json", "Sec-Fetch-Site": "same-origin"}
    assert client.get(f"/jobs/{ID}", headers=poll).status_code == 200
    assert client.get(f"/jobs/{ID}", headers={**poll, "Host": "evil.example"}).status_code == 403
    assert client.get(f"/jobs/{ID}?x=%00", headers=poll).status_code == 400


@pytest.mark.parametrize("bind", ["127.0.0.1:8080", "unix:/run/mkiso.sock"])
@pytest.mark.parametrize("host", NO_NAMES)
def test_a_host_that_is_no_name_is_no_request(host: str, bind: str, service: Callable[..., Flask]) -> None:
    answer = service(bind=bind).test_client().get("/history", environ_overrides={"HTTP_HOST": host})
    assert (answer.status_code, answer.json["code"]) == (400, "bad_request")


def test_at_a_socket_the_proxy_in_front_knows_its_names(service: Callable[..., Flask]) -> None:
    client = service(bind="unix:/run/mkiso.sock").test_client()
    assert client.get("/history", headers={"Host": "radiology.hospital.example"}).status_code == 200


@pytest.mark.parametrize("url", ["http://evil.example/history", "HTTP://evil.example:80/history"])
def test_the_name_in_an_absolute_url_counts_as_well(url: str, client: FlaskClient) -> None:
    assert client.get("/history", environ_overrides={"RAW_URI": url}).status_code == 403
    assert client.get("/history", environ_overrides={"RAW_URI": "http://localhost/history"}).status_code == 200
    assert client.get("/history", environ_overrides={"RAW_URI": "http://x@localhost/history"}).status_code == 400


@pytest.mark.parametrize("url", [*DOWNLOADS, *RELAYS])
@pytest.mark.parametrize("headers", WINDOWS)
def test_a_window_and_a_program_are_let_through(url: str, headers: dict[str, str], client: FlaskClient) -> None:
    assert client.get(url, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        *((url, kind) for url in RELAYS for kind in (*EMBEDDED, *FRAMES)),
        *((url, kind) for url in DOWNLOADS for kind in EMBEDDED),
    ],
)
@pytest.mark.parametrize("site", ["cross-site", "same-site", None])
def test_another_sites_page_embeds_nothing_that_starts_a_job(
    kind: str, site: str | None, url: str, refusing: FlaskClient, installation: Jobs
) -> None:
    headers = {"Sec-Fetch-Dest": kind} | ({"Sec-Fetch-Site": site} if site else {})
    answer = refusing.get(url, headers=headers)
    assert (answer.status_code, answer.json["code"], installation.orders) == (403, "forbidden", [])


@pytest.mark.parametrize("url", DOWNLOADS)
@pytest.mark.parametrize("kind", FRAMES)
def test_a_hospitals_page_may_download_in_a_frame(kind: str, url: str, client: FlaskClient) -> None:
    assert client.get(url, headers={"Sec-Fetch-Dest": kind, "Sec-Fetch-Site": "same-site"}).status_code == 200


@pytest.mark.parametrize("site", ["none", "same-origin", "cross-site"])
def test_a_browsers_guess_starts_nothing(site: str, client: FlaskClient, installation: Jobs) -> None:
    guess = {"Sec-Purpose": "prefetch;prerender", "Sec-Fetch-Site": site, "Sec-Fetch-Dest": "document"}
    assert client.get("/mkiso2.php?accession_number=A", headers=guess).status_code == 403
    assert installation.orders == []


@pytest.mark.parametrize("url", [*RELAYS, f"/api/jobs/{ID}/cancel"])
@pytest.mark.parametrize("headers", FOREIGN_POSTS)
def test_another_sites_form_changes_nothing(
    headers: dict[str, str], url: str, refusing: FlaskClient, installation: Jobs
) -> None:
    answer = refusing.post(url, headers=headers)
    assert (answer.status_code, answer.json["code"], answer.json["error"]) == (403, "forbidden", "forbidden")
    assert installation.orders == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": HERE},
        {"Sec-Fetch-Site": "none"},
        {"Origin": HERE},
        {"Origin": "https://LOCALHOST"},
    ],
)
def test_a_form_of_our_own_and_a_program_cancel(headers: dict[str, str], client: FlaskClient) -> None:
    record(client, ID, "MR.001")
    assert client.post(f"/api/jobs/{ID}/cancel", headers=headers).status_code == 200
    assert ledger(client).cancel_requested([ID]).keys() == {ID}


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"HTTP_X_FORWARDED_USER": "anna", "HTTP_X_FORWARDED_FOR": "10.0.0.3"}, "anna"),
        ({"HTTP_X_FORWARDED_USER": "desk 2@ward"}, "desk 2@ward"),
        ({"HTTP_X_FORWARDED_USER": "anna", "REMOTE_ADDR": "10.0.0.3"}, None),
        ({"HTTP_X_FORWARDED_USER": "<b>"}, None),
        ({USER: "his"}, "his"),
        ({}, None),
    ],
)
def test_who_is_there_is_a_name_that_somebody_checked(
    environ: dict[str, str], name: str | None, client: FlaskClient
) -> None:
    with client.application.test_request_context(environ_overrides=environ):
        assert person() == name


HISTORY = {"language": "id", "back": "/history"}


def test_a_language_that_somebody_chooses_stays_and_leads_back(client: FlaskClient) -> None:
    answer = client.post("/language", data={"language": "id", "back": "/history?patient=DOE&from=2026-01-31"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/history?patient=DOE&from=2026-01-31")
    name, *kept = answer.headers["Set-Cookie"].split("; ")
    assert (name, {*kept} >= {"Path=/", "SameSite=Lax", "HttpOnly", "Max-Age=31536000"}) == ("mkiso_language=id", True)
    assert "Secure" not in kept
    page = client.get("/", headers={"Accept": "text/html", "Accept-Language": "en"})
    assert '<html lang="id">' in page.text
    assert "Cookie" in page.headers["Vary"]


@pytest.mark.parametrize(
    ("referrer", "page"),
    [
        ("http://localhost/history?patient=DOE", "/history?patient=DOE"),
        (f"http://localhost/jobs/{ID}", f"/jobs/{ID}"),
        ("http://localhost/mkiso2.php?accession_number=A", "/"),
        ("http://localhost//evil.example/", "/"),
        ("http://[", "/"),
        (None, "/"),
    ],
)
def test_without_a_word_it_leads_back_to_the_page_that_the_browser_comes_from(
    referrer: str | None, page: str, client: FlaskClient
) -> None:
    answer = client.post("/language", data={"language": "id"}, headers={"Referer": referrer} if referrer else {})
    assert (answer.status_code, answer.headers["Location"]) == (303, page)


@pytest.mark.parametrize("proto", ["http", "https"])
def test_the_cookie_of_an_encrypted_page_goes_nowhere_else(proto: str, client: FlaskClient) -> None:
    kept = client.post("/language", data=HISTORY, headers={"X-Forwarded-Proto": proto}).headers["Set-Cookie"]
    assert ("Secure" in kept) == (proto == "https")


@pytest.mark.parametrize(
    "back",
    [
        *("//evil.example", "/\\evil.example", "\\\\evil.example", "https://evil.example/", "javascript:alert(1)"),
        *(
            "history",
            "/\t/evil.example",
            "/history\r\nX: y",
            "/history\n",
            "/history?\r\nSet-Cookie: a=b",
            "/.//evil.example",
        ),
        *(
            "/mkiso2.php?accession_number=A",
            "/api/iso/relay?accession_numbers=A",
            "/jobs/../mkiso2.php",
            "/@evil.example",
        ),
        *(f"/jobs/{ID}/../../x", "/history/../x", "/history?\u00e9"),
    ],
)
def test_it_leads_to_no_other_site_and_to_nothing_that_starts_something(back: str, client: FlaskClient) -> None:
    answer = client.post("/language", data={"language": "id", "back": back})
    assert (answer.status_code, answer.json["code"]) == (400, "bad_request")
    assert "Location" not in answer.headers
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("chosen", ["de", "", "en; Path=/x", None])
def test_a_language_that_is_not_there_is_refused(chosen: str | None, client: FlaskClient) -> None:
    answer = client.post("/language", data={"language": chosen} if chosen is not None else {})
    assert (answer.status_code, answer.json["code"]) == (400, "bad_request")


@pytest.mark.parametrize("headers", FOREIGN_POSTS)
def test_another_sites_form_chooses_no_language(headers: dict[str, str], client: FlaskClient) -> None:
    assert client.post("/language", data=HISTORY, headers=headers).status_code == 403
    assert client.get("/language").status_code == 405
