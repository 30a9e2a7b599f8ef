"""A job's page for whoever opens it, its receipt, its sheet, and who collected it, as Flask answers them."""

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from mkiso.errors import PacsUnreachable
from mkiso.installation import Installation
from mkiso.ledger.schema import collections, jobs
from mkiso.retrieve.studies import Study
from mkiso.waiting import LEFT, stopped_by
from mkiso.web.following import shown_name
from mkiso.web.live import STOPPING
from tests.unit.test_operator_pages import location
from tests.unit.test_web import BROWSER, DOWNLOADS, ID, Jobs, client, installation, ledger, record, service

__all__ = ("client", "installation", "service")  # fixtures
ENDED = "2026-01-01T00:00:00.000000Z"
CT, SR, PDF, KEYS = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "88.11", "104.1", "11.1"))
COLLECTED = {"by": "Siti Aminah", "relation": "relative", "given_by": "Rina", "note": "her sister"}
OTHERS = "Its file went to the browser in which that was started"


def done(client: FlaskClient, *accessions: str, handed: tuple[tuple[str, str, str], ...] = (), **fields: Any) -> None:
    """A job that is done, and handed out instances of these studies, series and SOP classes."""
    known = {"patient_id": "P1", "patient_name": "BUDI SANTOSO", "studies": ["1.1"], "layout": "pdi", "format": "iso"}
    asked = {name: fields.pop(name) for name in ("study_uids", "series_uids") if name in fields}
    record(client, ID, *(accessions or ("A",)), **known, **asked)
    common = {"transfer_syntax": "1.2", "bytes": 10, "outcome": "on disc"}
    rows = [
        common | {"sop_instance_uid": f"1.9.{number}", "study_uid": study, "series_uid": series, "sop_class_uid": kind}
        for number, (study, series, kind) in enumerate(handed)
    ]
    if rows:
        ledger(client).hand_out(ID, rows)
    end = {"state": "done", "finished_at": ENDED, "received": len(handed), "bytes": 2 * 10**6, "medium": "CD"}
    ledger(client).update(ID, **(end | fields))


def shown(client: FlaskClient, path: str = "", **headers: str) -> str:
    """The text of the job's page, or of one below it."""
    page = client.get(f"/jobs/{ID}{path}", headers=BROWSER | headers)
    assert page.status_code == 200
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", page.text.partition("<main")[2])).split())


def title(client: FlaskClient, path: str = "") -> str:
    return client.get(f"/jobs/{ID}{path}", headers=BROWSER).text.partition("<title>")[2].partition(" \N{EN DASH} ")[0]


def test_the_browser_that_has_the_file_is_told_so_and_no_other(client: FlaskClient) -> None:
    colleague = client.application.test_client()
    assert client.get(f"{DOWNLOADS[1]}&job={ID}&page=frame", headers=BROWSER).status_code == 200
    done(client, handed=(("1.1", "1.2", CT),) * 2)
    page = shown(client)
    assert "Your browser has the file" in page
    assert "DOEJOHN-MR001CT002.iso" in page
    assert OTHERS not in page
    page = shown(colleague)
    assert "has the file" not in page
    assert f"x had it made. {OTHERS}" in page
    assert "Make again" in page


def test_a_program_that_gets_a_disc_gets_no_cookie(client: FlaskClient) -> None:
    assert "Set-Cookie" not in client.get(f"{DOWNLOADS[1]}&job={ID}").headers
    cookie = client.get(f"{DOWNLOADS[1]}&job={ID}&page=frame").headers["Set-Cookie"]
    assert f"Path=/jobs/{ID}" in cookie
    assert "HttpOnly" in cookie


@pytest.mark.parametrize(
    ("state", "expected", "tab"),
    [
        ("retrieving", 100, "43 % · BUDI SANTOSO"),
        ("retrieving", None, "… BUDI SANTOSO"),
        ("done", 7, "✓ BUDI SANTOSO"),
        ("failed", 7, "✗ BUDI SANTOSO"),
        ("cancelled", 7, "✗ BUDI SANTOSO"),
    ],
)
def test_a_tab_says_how_far_it_is(state: str, expected: int | None, tab: str, client: FlaskClient) -> None:
    error = {"failed": {"code": "busy", "detail": "x"}, "cancelled": {"code": "cancelled", "detail": LEFT}}.get(state)
    done(client, state=state, expected=expected, received=43, error=error)
    assert title(client) == tab


def test_a_tab_names_the_numbers_before_the_patient_is_known(client: FlaskClient) -> None:
    assert title(client, "?accession_numbers=A,B") == "… A, B"


def test_who_follows_the_disc_of_another_reads_that(client: FlaskClient) -> None:
    assert "Keep this page open" in shown(client, "?accession_numbers=A")
    done(client, state="retrieving", finished_at=None, requester="anna@10.0.0.7")
    page = shown(client)
    assert "Keep this page open" not in page
    assert "anna had this disc started" in page


@pytest.mark.parametrize(
    ("detail", "said"),
    [
        (stopped_by("anna@10.0.0.7"), "anna stopped it"),
        (stopped_by("10.0.0.7"), "10.0.0.7 stopped it"),
        (stopped_by(None), "The job was stopped before"),
        (LEFT, "went away before it had everything"),
        (STOPPING, "The service itself was stopped"),
    ],
)
def test_stopped_says_by_whom_or_by_what(detail: str, said: str, client: FlaskClient) -> None:
    done(client, state="cancelled", error={"code": "cancelled", "detail": detail})
    assert said in shown(client)


def test_who_cancels_is_who_asks(client: FlaskClient, tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()  # of which the job is, and has no process there
    done(client, state="retrieving", finished_at=None)
    client.post(f"/jobs/{ID}/cancel", headers=BROWSER | {"X-Forwarded-User": "anna"})
    assert "anna stopped it" in shown(client)


@pytest.mark.parametrize(
    ("handed", "fields", "said"),
    [
        ([("1.1", "1.2", CT)], {}, ("Its 1 image is on it", "1 image, 1 series", "It needs a CD.", "2.0 MB")),
        ([("1.1", "1.2", CT)] * 3, {}, ("All 3 images are on it", "3 images, 1 series")),
        (
            [("1.1", "1.2", CT), ("1.1", "1.3", SR), ("1.1", "1.4", PDF), ("1.1", "1.5", KEYS)],
            {},
            ("All 4 images and other DICOM files", "1 image, 2 reports, 1 other DICOM file, 4 series"),
        ),
        ([("1.1", "1.2", "1.2.999")], {"medium": "DVD"}, ("1 image, 1 series", "It needs a DVD", "growisofs")),
        ([("1.1", "1.2", CT)], {"series_uids": ("1.2",)}, ("a part of the studies", "the series that were chosen")),
        ([("1.1", "1.2", CT)], {"medium": None}, ("larger than any disc",)),
    ],
)
def test_a_receipt_says_what_was_made(handed: Any, fields: Any, said: tuple[str, ...], client: FlaskClient) -> None:
    done(client, handed=tuple(handed), **fields)
    page = shown(client)
    assert [text for text in said if text not in page] == []
    assert "7-Zip" not in page


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_zip_needs_no_disc(encrypted: bool, client: FlaskClient) -> None:
    done(client, handed=(("1.1", "1.2", CT),), format="zip", medium=None, encrypted=encrypted)
    page = shown(client)
    assert "It is for a USB stick or an upload" in page
    assert "It needs a" not in page
    assert "Burn" not in page
    assert ("Windows' own unpacker cannot open it; the free program 7-Zip can" in page) is encrypted
    assert ("7z x FILE.zip" in page, "unzip FILE.zip" in page) == (encrypted, not encrypted)
    assert ('name="protect" value="1"' in client.get(f"/jobs/{ID}", headers=BROWSER).text) is encrypted


@pytest.mark.parametrize(
    ("accessions", "asked", "fields"),
    [
        (("B", "A"), {}, {"accession_numbers": "B,A"}),
        (("B", "A"), {"study_uids": ("1.1",)}, {"accession_numbers": "B,A", "study_uids": "1.1"}),
        ((), {"study_uids": ("1.1",), "series_uids": ("1.2", "1.3")}, {"study_uids": "1.1", "series_uids": "1.2,1.3"}),
    ],
)
def test_exactly_the_same_is_made_again(
    accessions: tuple[str, ...], asked: Any, fields: dict[str, str], client: FlaskClient
) -> None:
    record(client, ID, *accessions, **asked, studies=["1.1"], layout="pdi", format="iso")
    ledger(client).update(ID, state="done", finished_at=ENDED, accessions=["B", "A", "C"])
    form = client.get(f"/jobs/{ID}", headers=BROWSER).text.partition('action="/jobs"')[2].partition("</form>")[0]
    given = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))
    assert given == fields | {"format": "iso", "layout": "pdi"}


def test_a_job_of_an_older_version_is_made_again_by_its_numbers(client: FlaskClient) -> None:
    done(client, "A", "B")
    ledger(client)._database.do(lambda connection: connection.execute(jobs.update().values(asked=None)))
    assert 'name="accession_numbers" value="A,B"' in client.get(f"/jobs/{ID}", headers=BROWSER).text


def test_the_next_patient_begins_at_an_empty_page(client: FlaskClient) -> None:
    done(client)
    assert '<a class="button" href="/">Next patient</a>' in client.get(f"/jobs/{ID}", headers=BROWSER).text
    ledger(client).update(ID, state="failed", error={"code": "busy", "detail": "x"})
    assert 'href="/">Back to the start</a>' in client.get(f"/jobs/{ID}", headers=BROWSER).text


def test_an_error_is_tried_again_where_that_may_help(client: FlaskClient, installation: Jobs) -> None:
    installation.fails = PacsUnreachable("No TCP connection.")
    again = 'href="/mkiso.php?accession_number=MR.001&amp;format=zip">Try again'
    assert again in client.get(f"{DOWNLOADS[0]}&job={ID}&format=zip", headers=BROWSER).text
    for path in (f"/jobs/{ID}", "/nothing", "/mkiso.php?accession_number=*"):
        assert 'id="retry"' not in client.get(path, headers=BROWSER).text
    assert 'id="retry"' not in client.post("/mkiso2.php?accession_number=MR.001", headers=BROWSER).text


def test_who_collected_it_is_written_down_and_corrected_beside_that(client: FlaskClient) -> None:
    done(client)
    page = shown(client)
    assert "Nobody has written down yet" in page
    sent = client.post(f"/jobs/{ID}/collected", data=COLLECTED, headers=BROWSER | {"X-Forwarded-User": "rina"})
    assert location(sent)[0] == f"/jobs/{ID}"
    page = shown(client)
    assert all(text in page for text in ("Siti Aminah", "a relative", "Rina", "her sister", "valid", "Correct"))
    assert client.post(f"/jobs/{ID}/collected", data=COLLECTED | {"by": " Siti  Aisyah"}).status_code == 303
    page = shown(client)
    assert re.search("Siti Aminah .* corrected later .* Siti Aisyah .* valid", page)
    assert [one["by"] for one in ledger(client).job(ID)["collected"]] == ["Siti Aminah", "Siti Aisyah"]
    kept = sa.select(collections.c.name, collections.c.requester).order_by(collections.c.id)
    assert ledger(client)._database.do(lambda connection: connection.execute(kept).all()) == [
        ("Siti Aminah", "rina@127.0.0.1"),
        ("Siti Aisyah", "127.0.0.1"),
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"by": "  "}, "Enter the name of the person"),
        ({"by": "x" * 201}, "too long"),
        ({"relation": "dog"}, "Choose who that is"),
        ({"relation": ""}, "Choose who that is"),
        ({"given_by": ""}, "Enter your name"),
        ({"note": "x" * 1001}, "too long"),
    ],
)
def test_what_is_missing_is_said_beside_the_field(given: dict[str, str], said: str, client: FlaskClient) -> None:
    done(client)
    page = client.post(f"/jobs/{ID}/collected", data=COLLECTED | given, headers=BROWSER)
    assert (page.status_code, said in page.text, 'role="alert"' in page.text) == (400, True, True)
    assert all(f'value="{value}"' in page.text for name, value in COLLECTED.items() if name not in given)
    program = client.post(f"/jobs/{ID}/collected", data=COLLECTED | given, headers={"Accept": "application/json"})
    assert (program.status_code, program.json["code"], next(iter(given)) in program.json["detail"]) == (
        400,
        "bad_request",
        True,
    )
    assert ledger(client).job(ID)["collected"] == []


def test_only_what_is_done_is_collected_and_by_nobody_elses_form(client: FlaskClient) -> None:
    assert client.post(f"/jobs/{ID}/collected", data=COLLECTED).status_code == 404
    done(client, state="failed", error={"code": "busy", "detail": "x"})
    assert client.post(f"/jobs/{ID}/collected", data=COLLECTED).status_code == 400
    assert "Collected by" not in shown(client)
    ledger(client).update(ID, state="done", error=None)
    elsewhere = {"Origin": "http://elsewhere.example"}
    assert client.post(f"/jobs/{ID}/collected", data=COLLECTED, headers=BROWSER | elsewhere).status_code == 403
    assert ledger(client).job(ID)["collected"] == []


def test_the_form_names_who_is_logged_in(client: FlaskClient) -> None:
    done(client)
    page = client.get(f"/jobs/{ID}", headers=BROWSER | {"X-Forwarded-User": "rina"}).text
    assert 'name="given_by" value="rina"' in page


def of_archive(**fields: Any) -> Study:
    known = {"accession_number": "A", "study_uid": "1.1", "patient_id": "P1", "issuer": "", "patient_name": "X"}
    about = {"study_date": "20240301", "description": "Head <CT>", "modalities": ("CT", "SR"), "instances": {}}
    return Study(**(known | about | {"birth_date": "19620817"} | fields))


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> list[Study | Exception]:
    """What the archive knows, or how it fails."""
    known: list[Study | Exception] = [of_archive()]

    def look_up(*_asked: object) -> list[Study]:
        for one in known:
            if isinstance(one, Exception):
                raise one
        return [one for one in known if isinstance(one, Study)]

    monkeypatch.setattr(Installation, "look_up_studies", look_up)
    return known


@pytest.mark.usefixtures("archive")
def test_the_sheet_says_what_is_handed_over(service: Callable[..., Flask]) -> None:
    client = service(title="RS Harapan", helpdesk="IT, 1234").test_client()
    done(client, handed=(("1.1", "1.2", CT), ("1.1", "1.3", SR)), requester="anna@10.0.0.7")
    page = client.get(f"/jobs/{ID}/sheet", headers=BROWSER)
    for text in ("Head &lt;CT&gt;", "CT, SR", "2024-03-01", "1962-08-17", 'class="case"', 'class="label"'):
        assert text in page.text
    said = shown(client, "/sheet")
    for text in (
        "RS Harapan",
        "BUDI SANTOSO",
        "P1",
        "1 image, 1 report, 2 series",
        "2.0 MB",
        "by anna",
        "B. S.",
        "DICOM PLUS WEB",
    ):
        assert text in said
    assert "Password" not in said
    assert "part" not in said


def test_an_archive_that_is_away_leaves_the_sheet_with_fewer_facts(
    client: FlaskClient, archive: list[Study | Exception]
) -> None:
    done(client, handed=(("1.1", "1.2", CT),))
    archive[:] = [PacsUnreachable("No TCP connection.")]
    page = shown(client, "/sheet")
    assert "The PACS did not tell" in page
    assert "BUDI SANTOSO" in page
    assert "1 image, 1 series" in page


def test_what_the_archive_has_of_another_patient_by_now_is_not_printed(
    client: FlaskClient, archive: list[Study | Exception]
) -> None:
    done(client, handed=(("1.1", "1.2", CT),))
    archive[:] = [of_archive(patient_id="P2", birth_date="19991231", description="Knee")]
    page = shown(client, "/sheet")
    assert "1999-12-31" not in page
    assert "Knee" not in page


@pytest.mark.usefixtures("archive")
def test_the_sheet_of_a_protected_zip_has_a_line_for_the_password_and_no_label(client: FlaskClient) -> None:
    done(client, handed=(("1.1", "1.2", CT),), format="zip", medium=None, encrypted=True)
    page = client.get(f"/jobs/{ID}/sheet", headers=BROWSER).text
    assert 'class="line password"' in page
    assert 'class="case"' in page
    assert 'class="label"' not in page


@pytest.mark.usefixtures("archive")
def test_the_sheet_of_a_part_says_so(client: FlaskClient) -> None:
    done(client, handed=(("1.1", "1.2", CT),), series_uids=("1.2",))
    assert shown(client, "/sheet").count("This is a part of the studies") == 2


def test_nothing_is_printed_of_what_is_not_done(client: FlaskClient) -> None:
    assert client.get(f"/jobs/{ID}/sheet", headers=BROWSER).status_code == 404
    done(client, state="retrieving", finished_at=None)
    assert location(client.get(f"/jobs/{ID}/sheet", headers=BROWSER))[0] == f"/jobs/{ID}"


@pytest.mark.parametrize(
    ("requester", "name"),
    [("anna@10.0.0.7", "anna"), ("a@b.example@10.0.0.7", "a@b.example"), ("10.0.0.7", "10.0.0.7"), ("local", "local")],
)
def test_a_requester_is_called_by_name(requester: str, name: str) -> None:
    assert shown_name(requester) == name
