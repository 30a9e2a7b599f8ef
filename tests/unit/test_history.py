"""Looking back: filters, pages and CSV, over HTTP and in the ledger."""

import csv
import io
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from mkiso.errors import LedgerUnavailable
from mkiso.ledger.history import BATCH, Filters, History, folded, search_key
from mkiso.ledger.ledger import Ledger
from mkiso.ledger.schema import jobs
from mkiso.waiting import INTERRUPTION, LEFT
from mkiso.web.following import FollowedJobs
from mkiso.web.history import COLUMNS, csv_lines, harmless
from mkiso.web.live import STOPPING
from tests.unit.test_web import BROWSER, Jobs, client, installation, ledger, service

__all__ = ("client", "installation", "service")  # fixtures
JSON = {"Accept": "application/json"}
HOSTILE = '=HYPERLINK("x")'


def fill(store: Ledger, number: int, *accessions: str, **fields: Any) -> str:
    """A job of the day `number` of 2026."""
    job_id = f"{number:08x}-0000-4000-8000-000000000000"
    moment = f"2026-01-{number:02}T12:00:00.000000Z"
    common = {"requester": "desk@10.0.0.1", "state": "done", "created_at": moment, "finished_at": moment}
    store.open_job(job_id, "iso", accessions, **(common | fields))
    return job_id


@pytest.fixture
def filled(client: FlaskClient) -> FlaskClient:
    store = ledger(client)
    fill(store, 1, "A", patient_id="P1", patient_name="JOHN DOE")
    fill(store, 2, "A", "B", patient_id="P1", patient_name="JOHN DOE", requester="his@10.0.0.2")
    fill(
        store, 3, "C", patient_id="P_2", patient_name="JANE ROE", state="failed", error={"code": "busy", "detail": "x"}
    )
    fill(store, 4, "100%", patient_id="P4", patient_name="山田 太郎", state="cancelled")
    fill(store, 5, "E", patient_id=HOSTILE, patient_name=HOSTILE, requester="-1@10.0.0.3")
    return client


def days(answer: Any) -> list[int]:
    """Which jobs a history's answer holds."""
    assert answer.status_code == 200, answer.text
    return [int(job["id"][:8], 16) for job in answer.json["jobs"]]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", [5, 4, 3, 2, 1]),
        ("accession_number=A", [2, 1]),
        ("accession_number=100%25", [4]),
        ("accession_number=%20B%20", [2]),
        ("patient=doe", [2, 1]),
        ("patient=Doe+JOHN", [2, 1]),
        ("patient=p_", [3]),
        ("patient=%25", []),
        ("patient=p_2+jane", [3]),
        ("patient=/", []),
        ("patient=太郎", [4]),
        ("patient=hyperlink", [5]),
        ("requester=10.0.0.2", [2]),
        ("requester=HIS", [2]),
        ("state=failed", [3]),
        ("from=2026-01-03", [5, 4, 3]),
        ("to=2026-01-03", [3, 2, 1]),
        ("from=2026-01-03&to=2026-01-03", [3]),
        ("from=&to=&state=&patient=+&accession_number=", [5, 4, 3, 2, 1]),
        ("patient=doe&state=done&to=2026-01-01", [1]),
        ("patient=doe&state=failed", []),
    ],
)
def test_the_history_meets_every_filter(query: str, found: list[int], filled: FlaskClient) -> None:
    assert days(filled.get(f"/history?{query}", headers=JSON)) == found
    page = filled.get(f"/history?{query}", headers=BROWSER).text
    assert page.count('<td data-label="Started">') == len(found)
    assert ("No job meets this filter" in page) == (not found)


@pytest.mark.parametrize(
    "query",
    [
        *(
            "state=finished",
            "accession_number=*",
            "from=yesterday",
            "to=2026-13-01",
            "from=9999-12-31T00",
            "format=xls",
        ),
        *("before=x", "before=2026-01-01,17", "state=done&state=failed", "to=9999-12-31"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(query: str, filled: FlaskClient) -> None:
    assert filled.get(f"/history?{query}", headers=BROWSER).status_code == 400


WORDS = " ".join(["a"] * 8)


@pytest.mark.parametrize(
    "query", [f"patient={WORDS} a", "patient=" + "a" * 257, "requester=" + "a" * 257, f"before={'1' * 300},{'1' * 36}"]
)
@pytest.mark.parametrize("headers", [BROWSER, JSON, {"Accept": "text/csv"}])
def test_a_search_of_many_words_or_a_long_one_is_refused(
    query: str, headers: dict[str, str], filled: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(History, "page", lambda *_asked: pytest.fail("the ledger was asked"))
    assert filled.get(f"/history?{query}", headers=headers).status_code == 400


def test_a_search_of_many_words_is_told_how_many_it_may_have(filled: FlaskClient) -> None:
    told = filled.get(f"/history?patient={WORDS} a", headers=JSON).json
    assert (told["code"], told["detail"]) == (
        "bad_request",
        "patient has 9 words, and may have 8. Give the ones that tell most.",
    )
    assert days(filled.get(f"/history?patient={WORDS}&requester={'a' * 256}", headers=JSON)) == []


def test_a_page_holds_50_and_leads_to_the_older_ones(client: FlaskClient) -> None:
    same = "2026-02-01T00:00:00.000000Z"
    ids = [fill(ledger(client), number, "A", created_at=same) for number in range(120)]
    seen: list[str] = []
    url: str | None = "/history?accession_number=A"
    sizes = []
    while url:
        page = client.get(url, headers=BROWSER).text.partition("<main")[2]
        shown = [part[:36] for part in page.split('href="/jobs/')[1:]]
        sizes.append(len(shown))
        seen += shown
        url = next((part for part in page.replace("&amp;", "&").split('"') if "&before=" in part), None)
    assert (sizes, seen) == ([50, 50, 20], sorted(ids, reverse=True))


def rows(answer: Any) -> list[dict[str, str]]:
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"] == 'attachment; filename="history.csv"'
    assert answer.data.startswith(b"\xef\xbb\xbf")
    return list(csv.DictReader(io.StringIO(answer.data.decode("utf-8-sig"), newline="")))


@pytest.mark.parametrize(
    ("query", "headers"), [("&format=csv", BROWSER), ("&format=csv", {}), ("", {"Accept": "text/csv"})]
)
def test_the_filtered_rows_are_there_as_csv(query: str, headers: dict[str, str], filled: FlaskClient) -> None:
    answer = filled.get(f"/history?patient=john{query}", headers=headers)
    assert answer.mimetype == "text/csv"
    two, one = rows(answer)
    assert list(two) == list(COLUMNS)
    assert (two["accessions"], two["requester"], two["state"], one["patient_name"]) == (
        *("A,B", "his@10.0.0.2", "done"),
        "JOHN DOE",
    )


def test_no_cell_of_the_csv_is_calculated(filled: FlaskClient) -> None:
    (hostile, *_rest) = rows(filled.get("/history?format=csv"))
    assert hostile["patient_name"] == hostile["patient_id"] == f"'{HOSTILE}"
    assert hostile["requester"] == "'-1@10.0.0.3"
    failed = rows(filled.get("/history?format=csv&state=failed"))[0]
    assert failed["error"] == "busy"


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "  =1", "＝1", "\tx", '"=1', "\u3000＋1"])  # noqa: RUF001
def test_what_a_spreadsheet_would_calculate_has_an_apostrophe(text: str) -> None:
    assert harmless(text) == f"'{text}"


@pytest.mark.parametrize("separator", ["\t", "\r", "\n", "\r\n", ";", "|", ";;", "; ", ';"'])
@pytest.mark.parametrize("before", ["", "RM"])
def test_no_part_of_a_text_is_calculated_where_lists_have_another_separator(before: str, separator: str) -> None:
    """As programs read it that split at semicolons, bars, tabs and lines, whether or not they know quotes."""
    (line,) = list(csv_lines([dict.fromkeys(COLUMNS, f"{before}{separator}=HYPERLINK(A1);X{separator}@x")]))[1:]
    split = {
        one for delimiter in ";|\t" for row in csv.reader(io.StringIO(line, None), delimiter=delimiter) for one in row
    }
    cells = split | {one for row in csv.reader(io.StringIO(line, newline="")) for one in row}
    assert not [one for one in cells | set(re.split("[;|\t\r\n]", line)) if one.lstrip(' "').startswith(("=", "@"))]


def test_every_cell_is_quoted() -> None:
    (line,) = list(csv_lines([dict.fromkeys(COLUMNS, 'A;"B"')]))[1:]
    assert line == ",".join(['"A;""B"""'] * len(COLUMNS)) + "\r\n"


@pytest.mark.parametrize("text", ["", "DOE", "1-2", "a=b", "'=1", "a;b", "a\r\nb", "O'NEIL;", "a, -b"])
def test_what_is_text_stays_as_it_is(text: str) -> None:
    assert harmless(text) == text


def test_the_csv_holds_every_row_in_the_end(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkiso.ledger.history.BATCH", 7)
    ids = [fill(ledger(client), number, "A", created_at="2026-02-01T00:00:00.000000Z") for number in range(30)]
    assert [row["id"] for row in rows(client.get("/history?format=csv"))] == sorted(ids, reverse=True)
    assert rows(client.get("/history?format=csv&state=failed")) == []
    assert BATCH > 7


def test_a_ledger_that_is_away_is_told_before_there_is_a_csv(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_asked: object) -> Iterator[None]:
        raise LedgerUnavailable("It is away.")

    monkeypatch.setattr(History, "page", away)
    answer = client.get("/history?format=csv")
    assert (answer.status_code, answer.json["code"]) == (503, "ledger_unavailable")


@pytest.mark.usefixtures("installation")
def test_a_name_is_text_in_the_page(filled: FlaskClient, installation: Jobs) -> None:
    assert installation.orders == []
    assert "=HYPERLINK(&#34;x&#34;)" in filled.get("/history", headers=BROWSER).text


def test_a_place_in_the_queue_counts_who_came_before_at_this_work_dir(tmp_path: Path) -> None:
    places = ["W"]
    store = Ledger(f"sqlite:///{tmp_path}/jobs.db", lambda: places[0], set)
    fields = {"state": "queued", "finished_at": None}
    first = fill(store, 1, "A", patient_id="P", **fields)
    asking = fill(store, 2, "A", **fields)
    places[0] = "ELSEWHERE"
    other = fill(store, 3, "A", patient_id="P", **fields)
    places[0] = "W"
    last = fill(store, 4, "A", patient_id="P", **fields)
    found = store.history.jobs([first, asking, other, last, "none"])
    assert {job_id: place for job_id, (_, place) in found.items()} == {first: 1, asking: None, other: 1, last: 2}
    assert (store.history.queue("W"), store.history.queue("ELSEWHERE")) == (2, 1)
    store.close()


ORDERS = (
    (("A", "B"), (), ()),
    (("A",), (), ()),
    (("A",), ("1.2",), ()),
    (("A",), (), ("1.2.3",)),
    ((), ("1.2",), ()),
    ((), ("1.2",), ("1.2.3", "1.2.4")),
)


@pytest.mark.parametrize("asked", ORDERS)
def test_what_runs_is_found_by_all_that_was_asked(asked: Any, tmp_path: Path) -> None:
    store = Ledger(f"sqlite:///{tmp_path}/jobs.db", lambda: "W", set)
    for number, (accessions, studies, series) in enumerate(ORDERS, start=1):
        chosen = {"study_uids": studies, "series_uids": series}
        job_id = fill(store, number, *accessions, state="retrieving", finished_at=None, **chosen)
        store.update(job_id, accessions=["A"], studies=["1.2"])
    numbers, studies, series = map(reversed, asked)
    (found,) = store.history.running(list(numbers), list(studies), list(series))
    assert int(found["id"][:8], 16) == ORDERS.index(asked) + 1
    assert set(found) == set(store.job(found["id"]))
    store.close()


def test_what_an_older_version_runs_is_found_by_its_numbers_and_names(tmp_path: Path) -> None:
    store = Ledger(f"sqlite:///{tmp_path}/jobs.db", lambda: "W", set)
    job_id = fill(store, 1, "A", patient_id="P1", patient_name="ZOË", state="retrieving", finished_at=None)
    row = jobs.update().values(asked=None, folded=None)
    store._database.do(lambda connection: connection.execute(row))
    assert [[job["id"] for job in store.history.running(*asked)] for asked in ((("A",),), (("A",), ("1.2",)))] == [
        [job_id],
        [],
    ]
    for words, found in ((("zo", "p1"), [job_id]), (("ZOË",), [job_id]), (("x",), [])):
        assert [job["id"] for job in store.history.all(Filters(patient=words))] == found
    store.close()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("MÜLLER", "muller"),
        ("Mu\u0308ller", "muller"),
        ("Straße", "strasse"),
        ("\uff21\uff4e\uff4e\uff41", "anna"),
        ("IŞIK \u0131ş\u0131k İstanbul", "isik isik istanbul"),
        ("Ørsted ĐẶNG Łódź Æsir", "orsted dang lodz aesir"),
        ("山田", "山田"),
        ("ﾔﾏﾀﾞ", "ヤマタ"),
        ("ΣΊΣΥΦΟΣ", "σισυφοσ"),
    ],
)
def test_a_text_is_folded_to_what_people_type(text: str, key: str) -> None:
    assert folded(text) == key
    assert folded(folded(text)) == key


NAME = "Müller^Jörg^^Dr.=山田^太郎=やまだ^たろう"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        *(("Müller", [1]), ("muller", [1]), ("MULLER jorg", [1]), ("Müller^Jörg", [1]), ("jorg, muller", [1])),
        *(("山田", [1]), ("太郎 muller", [1]), ("やまだ", [1]), ("p-ä", [1]), ("P-A dr.", [1])),
        *(("mueller", []), ("山本", [])),
    ],
)
def test_a_name_is_found_in_every_group_without_its_accents(words: str, found: list[int], client: FlaskClient) -> None:
    key = search_key("P-Ä", NAME)
    fill(ledger(client), 1, "A", patient_id="P-Ä", patient_name="Dr. Jörg Müller", folded=key)
    fill(ledger(client), 2, "A", patient_id="X", patient_name="JOHN DOE")
    assert days(client.get("/history", query_string={"patient": words}, headers=JSON)) == found


def test_the_history_shows_who_collected_what_and_what_is_of_a_part(client: FlaskClient) -> None:
    store = ledger(client)
    job_id = fill(store, 1, "A", series_uids=("1.2", "1.3"), encrypted=True)
    fill(store, 2, "A", state="cancelled", error={"code": "cancelled", "detail": "Cancelled by ben <b>@10.0.0.4."})
    said = {"relation": "doctor", "given_by": "Anna", "note": "=1", "requester": "anna@10.0.0.3"}
    for name in ("<i>Mueler", "<i>Müller"):
        store.collect(job_id, by=name, **said)
    page = client.get("/history", headers=BROWSER).text
    assert "Collected by &lt;i&gt;Müller, 20" in page
    for words in ("(corrected)", "A part: 2 series", "Protected by a password", "by ben &lt;b&gt;<"):
        assert words in page
    other, job = client.get("/history", headers=JSON).json["jobs"]
    assert ([one["by"] for one in job["collected"]], other["collected"]) == (["<i>Mueler", "<i>Müller"], [])
    assert (job["series"], job["encrypted"], other["series"], other["encrypted"]) == (["1.2", "1.3"], True, None, False)
    none, row = rows(client.get("/history?format=csv"))
    cells = ("series", "encrypted", "collected_at", "collected_by", "relation", "given_by", "collected_note")
    assert [row[name] for name in cells] == [
        *("2", "true", job["collected"][1]["at"], "<i>Müller", "doctor", "Anna", "'=1"),
    ]
    assert [none[name] for name in cells] == ["", "false", "", "", "", "", ""]


@pytest.mark.parametrize(
    ("detail", "shown"),
    [
        (LEFT, "The browser or program that was to have it went away."),
        (STOPPING, "The service was stopped."),
        (INTERRUPTION, "The command that made it was interrupted."),
    ],
)
def test_the_history_says_what_stopped_a_job(detail: str, shown: str, client: FlaskClient) -> None:
    fill(ledger(client), 1, "A", state="cancelled", error={"code": "cancelled", "detail": detail})
    assert shown in client.get("/history", headers=BROWSER).text


def test_what_runs_is_found_by_its_set_of_numbers(tmp_path: Path) -> None:
    store = Ledger(f"sqlite:///{tmp_path}/jobs.db", lambda: "W", set)
    fill(store, 1, "A", "B")
    running = fill(store, 2, "A", "B", state="retrieving", finished_at=None)
    fill(store, 3, "A", state="retrieving", finished_at=None)
    assert [job["id"] for job in store.history.running(("B", "A"))] == [running]
    store.close()


class Known:
    """A history that knows every job."""

    def jobs(self, ids: list[str]) -> dict[str, Any]:
        return {job_id: ({"id": job_id}, None) for job_id in ids}


def test_no_ask_is_lost_while_another_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkiso.web.following.AGE", 0)
    followed, interval = FollowedJobs(Known()), sys.getswitchinterval()  # type: ignore[arg-type]
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(16) as pool:
            ids = [f"job {number}" for number in range(1500)]
            assert [one.job["id"] for one in pool.map(followed.job, ids)] == ids
    finally:
        sys.setswitchinterval(interval)


def test_many_who_follow_are_one_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Ledger(f"sqlite:///{tmp_path}/jobs.db", lambda: "W", set)
    ids = [fill(store, number, "A") for number in range(1, 20)]
    reads: list[int] = []
    jobs = History.jobs
    monkeypatch.setattr(History, "jobs", lambda self, ids: reads.append(len(ids)) or jobs(self, ids))
    followed = FollowedJobs(store.history)
    for job_id in ids:
        assert followed.job(job_id).job["id"] == job_id
    reads.clear()
    time.sleep(0.55)
    for _ in range(3):
        for job_id in ids:
            followed.job(job_id)
    assert reads == [len(ids)]
    store.close()
