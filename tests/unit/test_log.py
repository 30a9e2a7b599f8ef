import json
import logging
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


@pytest.mark.parametrize(("wanted", "begins"), [("json", "{"), ("", "2")])
def test_the_environment_says_which(
    wanted: str, begins: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setenv("MKISO_LOG", wanted)
    log.set_up()
    logging.getLogger("mkiso.test").info("ready")
    logging.getLogger("mkiso.test").debug("too much")
    assert capsys.readouterr().err.startswith(begins)


def test_pydicoms_remarks_on_values_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    level, filters = logging.getLogger("pydicom").level, list(warnings.filters)
    try:
        log.set_up()
        PersonName("DOE^JOHN=B=C=INVENTED")
        DataElement("StudyInstanceUID", "UI", "1.2.INVENTED")
    finally:
        logging.getLogger("pydicom").setLevel(level)
        warnings.filters[:] = filters
    assert capsys.readouterr().err == ""
