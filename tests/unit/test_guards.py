"""What other sites' pages may do: open a window, have a disc in a frame, and nothing else."""

import pytest
from flask.testing import FlaskClient

from tests.unit.test_web import DOWNLOADS, ID, RELAYS, Jobs, client, installation, ledger, record, service

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
    kind: str, site: str | None, url: str, client: FlaskClient, installation: Jobs
) -> None:
    headers = {"Sec-Fetch-Dest": kind} | ({"Sec-Fetch-Site": site} if site else {})
    answer = client.get(url, headers=headers)
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
    headers: dict[str, str], url: str, client: FlaskClient, installation: Jobs
) -> None:
    answer = client.post(url, headers=headers)
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
    assert ledger(client).cancel_requested([ID]) == {ID}
