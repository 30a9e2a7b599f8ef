"""A protected ZIP's password: which may be one, by what way it comes, and that it goes no further."""

import logging
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from mkiso.errors import BadRequest
from mkiso.job import Order
from mkiso.password import require_password, suggested
from tests.unit.test_web import BROWSER, DOWNLOADS, FORM, ID, RELAYS, STUDIES, Jobs, client, installation, service

__all__ = ("client", "installation", "service")  # fixtures
PASSWORD = "Drowsy pony+relish%20=cable&"
WRONG = {
    "empty": "",
    "of seven characters": "abcdefg",
    "of 129 characters": "a" * 129,
    "of spaces": " " * 12,
    "with a space before it": " drowsy-pony",
    "with a space behind it": "drowsy-pony ",
    "with an umlaut": "Müllers Hündchen",
    "in another script": "山田太郎山田太郎",
    "of two lines": "drowsy-pony\nrelish",
    "with a tab": "drowsy-pony\trelish",
    "with a no-break space": "drowsy-pony\xa0relish",
}


@pytest.mark.parametrize("text", ["abcdefgh", "a" * 128, PASSWORD, "".join(map(chr, range(33, 127)))])
def test_a_password_is_taken_as_it_is(text: str) -> None:
    assert require_password(text) == text


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_password_is_refused_without_being_repeated(what: str) -> None:
    with pytest.raises(BadRequest) as raised:
        require_password(WRONG[what])
    assert not WRONG[what].strip() or WRONG[what] not in str(raised.value)


def test_four_words_are_suggested_and_seldom_twice() -> None:
    found = {suggested() for _ in range(100)}
    assert len(found) == 100
    for one in found:
        require_password(one)
        assert [word.isalpha() and word.islower() for word in one.split("-")] == [True] * 4
    assert len({word for one in found for word in one.split("-")}) > 350


def test_no_disc_but_a_zip_has_a_password() -> None:
    with pytest.raises(BadRequest, match="format=zip"):
        Order(("A",), "x", password=PASSWORD)


def test_an_order_does_not_show_its_password() -> None:
    assert PASSWORD not in repr(Order(("A",), "x", format="zip", password=PASSWORD))


@pytest.mark.parametrize("url", DOWNLOADS)
@pytest.mark.parametrize("in_url", [True, False])
def test_a_form_with_a_password_makes_a_protected_zip(
    url: str, in_url: bool, client: FlaskClient, installation: Jobs
) -> None:
    path, _, query = url.partition("?")
    if in_url:
        answer = client.post(f"{url}&format=zip", data={"password": PASSWORD})
    else:
        name, _, value = query.partition("=")
        answer = client.post(path, data={name: value, "format": "zip", "password": PASSWORD})
    assert (answer.status_code, answer.mimetype) == (200, "application/zip")
    (order,) = installation.orders
    assert (order.password, order.format, ",".join(order.accessions)) == (PASSWORD, "zip", query.partition("=")[2])


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_password_starts_nothing(what: str, client: FlaskClient, installation: Jobs) -> None:
    answer = client.post(f"{DOWNLOADS[0]}&format=zip", data={"password": WRONG[what]})
    assert (answer.status_code, answer.json["code"], installation.orders) == (400, "bad_request", [])


@pytest.mark.parametrize("more", ["", "&format=iso"])
def test_an_iso_with_a_password_is_refused(more: str, client: FlaskClient, installation: Jobs) -> None:
    answer = client.post(f"{DOWNLOADS[0]}{more}", data={"password": PASSWORD})
    assert (answer.status_code, installation.orders) == (400, [])
    assert "format=zip" in answer.json["detail"]


def test_two_passwords_are_none(client: FlaskClient, installation: Jobs) -> None:
    answer = client.post(f"{DOWNLOADS[0]}&format=zip", data={"password": [PASSWORD, PASSWORD]})
    assert (answer.status_code, installation.orders) == (400, [])


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"data": {"Password": PASSWORD}},
        {"data": {"layout": "pdi", "passwort": PASSWORD}},
        {"json": {"password": PASSWORD}},
        {"data": quote(PASSWORD), "content_type": "text/plain"},
        {"data": b'--X\r\nContent-Disposition: form-data; name="password"; filename="p"\r\n\r\nabcdefgh\r\n--X--\r\n',
         "content_type": "multipart/form-data; boundary=X"},
    ],
)  # fmt: skip
def test_a_post_of_which_no_password_can_be_read_makes_no_plain_disc(
    sent: dict[str, Any], client: FlaskClient, installation: Jobs
) -> None:
    answer = client.post(f"{DOWNLOADS[0]}&format=zip", **sent)
    assert (answer.status_code, answer.headers["Allow"], installation.orders) == (405, "GET, HEAD, OPTIONS", [])
    assert "password" in answer.json["detail"]


@pytest.mark.parametrize("url", DOWNLOADS)
@pytest.mark.parametrize("more", [{}, {"format": "zip", "layout": "legacy", "job": ID}])
def test_a_post_takes_in_its_form_what_a_url_says_of_a_disc(
    url: str, more: dict[str, str], client: FlaskClient, installation: Jobs
) -> None:
    path, _, query = url.partition("?")
    name, _, value = query.partition("=")
    answer = client.post(path, data={name: value, **more})
    assert (answer.status_code, answer.mimetype.rpartition("/")[2]) == (200, "zip" if more else "octet-stream")
    (order,) = installation.orders
    assert (order.password, order.format, ",".join(order.accessions)) == (None, more.get("format", "iso"), value)
    assert answer.headers["X-Job-Id"] == order.job_id == more.get("job", order.job_id)


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
@pytest.mark.parametrize(
    "url", [*DOWNLOADS, *RELAYS, STUDIES, "/?accession_numbers=A", f"/jobs/{ID}?format=zip", "/history?patient=A"]
)
def test_a_password_in_a_url_is_refused(url: str, method: str, client: FlaskClient, installation: Jobs) -> None:
    for name in ("password", "Password", "%70assword"):
        answer = client.open(f"{url}&format=zip&{name}={quote(PASSWORD)}", method=method)
        assert answer.status_code == 400
        assert "password" not in answer.headers.get("Location", "")
    assert client.post(f"{url}&password=", data={"password": PASSWORD}).status_code == 400
    assert (installation.orders, installation.asked) == ([], [])


@pytest.mark.parametrize("url", RELAYS)
def test_a_relay_takes_no_password(url: str, client: FlaskClient, installation: Jobs) -> None:
    assert client.post(url, data={"password": PASSWORD}).status_code == 400
    assert installation.orders == []


def test_protection_that_is_asked_for_without_a_password_makes_no_plain_disc(
    client: FlaskClient, installation: Jobs
) -> None:
    for url in DOWNLOADS:
        assert client.get(f"{url}&format=zip&protect=1").status_code == 400
        assert client.get(f"{url}&format=zip&protect=yes").status_code == 400
    assert installation.orders == []


def test_another_sites_page_cannot_have_a_protected_zip_made(client: FlaskClient, installation: Jobs) -> None:
    for headers in ({"Origin": "http://elsewhere.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = client.post(f"{DOWNLOADS[0]}&format=zip", data={"password": PASSWORD}, headers=headers)
        assert answer.status_code == 403
    assert installation.orders == []


@pytest.mark.parametrize("fails", [None, ValueError("(w)"), KeyError("x")])
def test_no_answer_and_no_log_has_the_password(
    fails: Exception | None, client: FlaskClient, installation: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong, and however the password was to come."""
    installation.fails, marker = fails, "mark3r-of-a-Secret"
    with caplog.at_level(logging.DEBUG):
        answers = [
            client.post(f"{DOWNLOADS[0]}&format=zip", data={"password": marker}, headers=headers)
            for headers in ({}, BROWSER)
        ]
        answers += [
            client.post(DOWNLOADS[0], data={"password": marker}, headers=BROWSER),
            client.post(f"{DOWNLOADS[0]}&format=zip", data={"password": f"{marker}ü"}, headers=BROWSER),
            client.get(f"{DOWNLOADS[0]}&password={marker}", headers=BROWSER),
            client.post(f"{DOWNLOADS[0]}&format=zip", data=f"password={marker}%FF", content_type=FORM),
            client.post(f"{DOWNLOADS[0]}&format=zip", json={"password": marker}),
        ]
    for answer in answers:
        assert marker not in answer.text + str(answer.headers)
    logged = "".join(f"{one.getMessage()}{vars(one)}" for one in caplog.records)
    assert marker not in logged
    assert [order.password for order in installation.orders] == [marker] * 2
