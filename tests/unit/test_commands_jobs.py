import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mkiso.checks import Check
from mkiso.commands import jobs as module
from mkiso.commands.jobs import COLUMNS, details, requester, table, verify

JOB: dict[str, Any] = {
    "id": "123e4567-e89b-12d3-a456-426614174000",
    "kind": "relay",
    "state": "failed",
    "accessions": ["A", "B"],
    "patient_id": "P1",
    "patient_name": "JOHN DOE",
    "destination": "h:104",
    "expected": 40,
    "received": 40,
    "bytes": 12_345_678,
    "files_sent": 3,
    "error": {"code": "relay_failed", "detail": "It is off."},
    "requester": "anna@mkiso-relay",
    "created_at": "2026-01-31T08:00:00.123456Z",
    "seconds": {"querying": 0.1, "sending": 2.5},
}


def cells(job: dict[str, Any]) -> dict[str, str]:
    header, line = table([job]).splitlines()
    starts = [header.index(column) for column in COLUMNS]
    return {
        column: line[start:end].strip() for column, start, end in zip(COLUMNS, starts, [*starts[1:], None], strict=True)
    }


def test_a_relay_shows_how_many_were_sent_of_all() -> None:
    shown = cells(JOB)
    assert (shown["SENT"], shown["RECEIVED"], shown["DESTINATION"]) == ("3/40", "40/40", "h:104")
    assert (shown["ID"], shown["PATIENT"], shown["ERROR"]) == (JOB["id"], "JOHN DOE", "relay_failed")
    assert (shown["CREATED"], shown["BYTES"]) == ("2026-01-31T08:00:00Z", "12.3MB")


def test_a_disc_was_sent_nowhere_and_what_is_not_known_is_not_made_up() -> None:
    young = {"kind": "iso", "expected": None, "received": 0, "patient_name": None, "error": None, "destination": None}
    shown = cells(JOB | young)
    assert (shown["SENT"], shown["RECEIVED"], shown["PATIENT"]) == ("-", "0/?", "P1")
    assert (shown["DESTINATION"], shown["ERROR"]) == ("-", "-")


def test_a_name_commands_no_terminal() -> None:
    job = JOB | {"patient_name": "\x1b[2JDOE\nX"}
    assert "\x1b" not in table([job]) + details(job)
    assert len(table([job]).splitlines()) == 2


def test_wide_characters_keep_the_columns_in_line() -> None:
    wide, plain = table([JOB | {"patient_name": "王小东"}, JOB | {"patient_name": "ABCDEF"}]).splitlines()[1:]
    assert wide.replace("王小东", "ABCDEF") == plain


def test_a_jobs_details_are_a_line_each() -> None:
    lines = details(JOB).splitlines()
    assert "accessions    A, B" in lines
    assert "error         code: relay_failed, detail: It is off." in lines
    assert "seconds       querying: 0.1, sending: 2.5" in lines
    entries = [{"by": "Siti", "given_by": "Rina"}, {"by": "Dewi", "given_by": "Rina"}]
    assert "collected     by: Siti, given_by: Rina; by: Dewi, given_by: Rina" in details(JOB | {"collected": entries})
    assert "patient_name  -" in details(JOB | {"patient_name": None}).splitlines()


@pytest.mark.parametrize(
    ("surroundings", "person"),
    [
        ({"SUDO_USER": "anna", "LOGNAME": "mkiso"}, "anna"),
        ({"LOGNAME": "mkiso"}, "mkiso"),
        ({"SUDO_USER": "", "LOGNAME": "mkiso"}, "mkiso"),
        ({"SUDO_USER": "an\x1bna\n", "LOGNAME": "mkiso"}, "anna"),
    ],
)
def test_the_requester_is_the_person(
    surroundings: dict[str, str], person: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    assert requester("iso") == f"{person}@mkiso-iso"


def test_checks_are_lines_or_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "set_up", lambda _level: None)
    monkeypatch.setattr(module, "checks_of", lambda *_given: [Check("a", True, "x"), Check("b", False, "y\33[1m")])
    lines = CliRunner().invoke(verify, [str(tmp_path)])
    assert (lines.exit_code, lines.output) == (1, "ok    a: x\nFAIL  b: y\\x1b[1m\n")
    data = CliRunner().invoke(verify, [str(tmp_path), "--json"])
    assert (data.exit_code, '"ok": false,\n "checks"' in data.output) == (1, True)
    assert [one["name"] for one in json.loads(data.output)["checks"]] == ["a", "b"]
