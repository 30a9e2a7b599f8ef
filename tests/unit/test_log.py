import json
import logging
import os
import subprocess
import sys
import warnings

import pytest
from pydicom import DataElement
from pydicom.valuerep import PersonName

from mkiso import log
from mkiso.log import EventFormatter


def record(fields: dict[str, object], *, failed: bool = False) -> logging.LogRecord:
    made = logging.LogRecord("mkiso.job", logging.INFO, __file__, 1, "job ended", None, None)
    made.created, made.fields = 0.25, fields
    if failed:
        try:
            raise ValueError("boom")
        except ValueError:
            made.exc_info = sys.exc_info()
    return made


def test_a_line_is_an_event_with_its_fields() -> None:
    line = EventFormatter(as_json=False).format(record({"job": "J", "seconds": 1.5, "code": None}))
    assert line == "1970-01-01T00:00:00.250+00:00 INFO    job ended job=J seconds=1.5"


def test_a_line_is_json_on_request() -> None:
    line = EventFormatter(as_json=True).format(record({"job": "J", "count": 3, "code": None}))
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.250+00:00",
        "level": "INFO",
        "event": "job ended",
        "job": "J",
        "count": 3,
    }
    assert "\n" not in line


@pytest.mark.parametrize("as_json", [True, False])
def test_a_failure_shows_its_trace(as_json: bool) -> None:
    line = EventFormatter(as_json).format(record({}, failed=True))
    assert "ValueError: boom" in (json.loads(line)["trace"] if as_json else line)


@pytest.fixture
def own_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is set up for logging ends with the test."""
    root, pydicoms = logging.getLogger(), logging.getLogger("pydicom")
    for owner, name, value in (
        (root, "handlers", []),
        (root, "level", root.level),
        (pydicoms, "level", pydicoms.level),
        (warnings, "filters", list(warnings.filters)),
    ):
        monkeypatch.setattr(owner, name, value)


@pytest.mark.usefixtures("own_logging")
@pytest.mark.parametrize(("wanted", "begins"), [("json", "{"), ("", "2")])
def test_the_environment_says_which(
    wanted: str, begins: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MKISO_LOG", wanted)
    log.set_up()
    logging.getLogger("mkiso.test").info("ready")
    logging.getLogger("mkiso.test").debug("too much")
    assert capsys.readouterr().err.startswith(begins)


@pytest.mark.usefixtures("own_logging")
def test_pydicoms_remarks_on_values_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up()
    PersonName("DOE^JOHN=B=C=INVENTED")
    DataElement("StudyInstanceUID", "UI", "1.2.INVENTED")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("as_json", [True, False])
def test_no_value_begins_a_line_or_reaches_the_terminal(as_json: bool) -> None:
    hostile = "A\n2026 INFO job ended\r\x1b[2J\x00\x7f\x9b\u2028\u202e\udc80"
    made = record({"path": hostile, "numbers": [hostile], "seconds": {hostile: 1}})
    made.msg = hostile
    line = EventFormatter(as_json).format(made)
    assert line.isprintable()
    assert r"A\n2026 INFO job ended\r" in line
    assert not as_json or json.loads(line)["path"] == hostile


def test_a_value_with_a_space_stands_in_quotes_so_that_it_adds_no_field() -> None:
    line = EventFormatter(as_json=False).format(record({"requester": 'dr "x" job=K@h', "job": "J"}))
    assert line.endswith(r' job ended requester="dr \"x\" job=K@h" job=J')


def test_several_values_are_told_in_one_word() -> None:
    fields = {"accession": ("CT.001", "MR.001"), "phases": {"queued": 0.1, "querying": 1.25}}
    assert (
        EventFormatter(as_json=False)
        .format(record(fields))
        .endswith("accession=CT.001,MR.001 phases=queued:0.1,querying:1.25")
    )
    told = json.loads(EventFormatter(as_json=True).format(record(fields)))
    assert (told["accession"], told["phases"]) == (["CT.001", "MR.001"], {"queued": 0.1, "querying": 1.25})


@pytest.mark.parametrize("as_json", [True, False])
def test_no_line_is_too_long_for_the_journal(as_json: bool) -> None:
    line = EventFormatter(as_json).format(record({"path": "\x80" * 8190}))
    assert len(line.encode()) < 48 * 1024


def test_a_trace_is_indented_so_that_nothing_in_it_looks_like_an_event() -> None:
    made = record({})
    made.exc_info = (ValueError, ValueError("\n2026 INFO job ended\x1b[2J"), None)
    _, *trace = EventFormatter(as_json=False).format(made).split("\n")
    assert trace == ["  ValueError: ", r"  2026 INFO job ended\x1b[2J"]


UNCAUGHT = """
import threading, warnings
from mkiso.log import log_the_uncaught, set_up
set_up()
log_the_uncaught()
class Left:
    def __del__(self): raise OSError("in the end")
warnings.warn("of DOE^JOHN")
Left()
thread = threading.Thread(target=lambda: 1 / 0, name="count")
thread.start()
thread.join()
raise ValueError("at last")
"""


def test_what_nobody_caught_is_an_event_too() -> None:
    environment = {**os.environ, "MKISO_LOG": "json", "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = (sys.executable, "-c", UNCAUGHT)
    said = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    warning, left, thread, last = map(json.loads, said.stderr.splitlines())
    assert (warning["event"], warning["category"], "DOE" in said.stderr) == ("a library warns", "UserWarning", False)
    assert (thread["event"], thread["thread"]) == ("a thread failed", "count")
    assert "ZeroDivisionError" in thread["trace"]
    for told, error in ((left, "OSError: in the end"), (last, "ValueError: at last")):
        assert told["event"] == "an error was not caught"
        assert error in told["trace"]
    assert (said.returncode, said.stdout) == (1, "")
